//! A TCP proxy in front of the database that cuts connections when a message goes by.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
    },
    thread,
};

/// What to do when the client sends `COMMIT`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum Cut {
    /// Let it pass.
    Never = 0,
    /// Cut before the server has it.
    BeforeServer = 1,
    /// Let the server have it, then cut: its answer is lost.
    AfterServer = 2,
    /// Let the server have it, then go [`mute`](Proxy::mute).
    Mute = 3,
}

/// A proxy to a port of this machine.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) port: u16,
    cut: Arc<AtomicU8>,
    cuts: Arc<AtomicUsize>,
    is_down: Arc<AtomicBool>,
    is_mute: Arc<AtomicBool>,
    clients: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    pub(crate) fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cut, cuts) = (Arc::new(AtomicU8::new(0)), Arc::new(AtomicUsize::new(0)));
        let (rule, count) = (cut.clone(), cuts.clone());
        let (is_down, clients) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (is_refusing, open) = (is_down.clone(), clients.clone());
        let is_mute = Arc::new(AtomicBool::new(false));
        let mute = is_mute.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                open.lock().unwrap().push(client.try_clone().unwrap());
                if is_refusing.load(Ordering::SeqCst) {
                    drop(client.shutdown(Shutdown::Both));
                    continue;
                }
                // Without a server behind it, the client sees its connection closed.
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                let (from_server, to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let silent = mute.clone();
                let answers = thread::spawn(move || pass(from_server, to_client, &silent));
                let (rule, count, mute) = (rule.clone(), count.clone(), mute.clone());
                thread::spawn(move || {
                    watch(&client, &server, (&rule, &count, &mute));
                    drop(client.shutdown(Shutdown::Both));
                    drop(server.shutdown(Shutdown::Write));
                    answers.join().unwrap();
                });
            }
        });
        Self { port, cut, cuts, is_down, is_mute, clients }
    }

    /// Cuts every connection and lets none through, until [`up`](Self::up): to its clients the server is gone.
    pub(crate) fn down(&self) {
        self.is_down.store(true, Ordering::SeqCst);
        for client in self.clients.lock().unwrap().drain(..) {
            drop(client.shutdown(Shutdown::Both));
        }
    }

    /// Answers nothing more: connections are taken, what clients send reaches the server, and no answer comes back, on
    /// these connections never again, on new ones until [`speak`](Self::speak).
    pub(crate) fn mute(&self) {
        self.is_mute.store(true, Ordering::SeqCst);
    }

    /// Answers new connections again.
    pub(crate) fn speak(&self) {
        self.is_mute.store(false, Ordering::SeqCst);
    }

    /// The server is there again.
    pub(crate) fn up(&self) {
        self.is_down.store(false, Ordering::SeqCst);
    }

    /// Cuts the connection at its next `COMMIT`, once.
    pub(crate) fn cut_next(&self, cut: Cut) {
        self.cut.store(cut as u8, Ordering::SeqCst);
    }

    /// Connections cut so far.
    pub(crate) fn cuts(&self) -> usize {
        self.cuts.load(Ordering::SeqCst)
    }
}

/// Passes on what the client sends, until it is to be cut.
fn watch(mut client: &TcpStream, mut server: &TcpStream, (rule, count, mute): (&AtomicU8, &AtomicUsize, &AtomicBool)) {
    // `COMMIT` is sent as a simple query of its own, so it comes whole at the end of what is read.
    const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";
    let mut buf = [0; 65_536];
    loop {
        let Ok(len @ 1..) = client.read(&mut buf) else { return };
        let is_commit = buf[..len].ends_with(COMMIT);
        let cut = if is_commit { rule.swap(Cut::Never as u8, Ordering::SeqCst) } else { 0 };
        if cut == Cut::BeforeServer as u8 {
            count.fetch_add(1, Ordering::SeqCst);
            return;
        }
        if cut == Cut::AfterServer as u8 {
            // Nothing more reaches the client; the server works on.
            count.fetch_add(1, Ordering::SeqCst);
            drop(client.shutdown(Shutdown::Both));
            drop(server.write_all(&buf[..len]));
            return;
        }
        if cut == Cut::Mute as u8 {
            count.fetch_add(1, Ordering::SeqCst);
            mute.store(true, Ordering::SeqCst);
        }
        if server.write_all(&buf[..len]).is_err() {
            return;
        }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, mute: &AtomicBool) {
    let mut buf = [0; 65_536];
    let mut has_lost = false;
    while let Ok(len @ 1..) = from.read(&mut buf) {
        // What follows a lost answer would be taken for that answer.
        has_lost |= mute.load(Ordering::SeqCst);
        if has_lost {
            continue;
        }
        if to.write_all(&buf[..len]).is_err() {
            return;
        }
    }
    drop(to.shutdown(Shutdown::Both));
}
