//! The network side: accepts connections, speaks HTTP, upgrades to WebSocket, and carries bytes between sockets and
//! the engine.
//!
//! A connection's outgoing bytes come whole from the engine, frames already made. tokio-tungstenite reads the
//! client's frames and answers them (pong, close); what it wants to write goes through a small queue to the same
//! task that writes the engine's bytes, between two chunks of whole frames.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use crossbeam::channel::{Sender, TrySendError};
use futures_util::{SinkExt, StreamExt};
use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header, service::service_fn, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    time::{Instant, interval, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::server::create_response_with_body, protocol::Role},
};

use super::{
    Options, binance,
    engine::commands::Command,
    faults::Fault,
    http::Answer,
    hub::{CHUNKS_MAX, Wire},
    tls,
    venue::Venue,
};

/// What all ports share.
pub(super) struct Shared {
    pub(super) options: Arc<Options>,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) connections: AtomicU64,
    pub(super) engines: Vec<(Venue, Sender<Command>)>,
    /// The answer to `GET /loopback`.
    pub(super) directory: String,
}

type Reply = Response<Full<Bytes>>;

/// Accepts connections of one venue for ever.
pub(super) async fn accept(listener: TcpListener, venue: Venue, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(greet(stream, venue, Arc::clone(&shared)))),
            // Out of file descriptors, most likely: give others time to close.
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn greet(stream: TcpStream, venue: Venue, shared: Arc<Shared>) {
    // Without it small frames wait for the answer to earlier ones; a socket that refuses is gone anyway.
    drop(stream.set_nodelay(true));
    let Ok(is_tls) = timeout(HANDSHAKE_MAX, tls::is_tls(&stream)).await else { return };
    match &shared.tls {
        Some(acceptor) if is_tls => {
            if let Ok(Ok(stream)) = timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await {
                serve(stream, venue, shared).await;
            }
        }
        Some(_) | None => serve(stream, venue, shared).await,
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, venue: Venue, shared: Arc<Shared>) {
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(request, venue, &shared).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // An error here is the client's going away in the middle of a request.
    drop(connection.with_upgrades().await);
}

async fn answer(request: Request<Incoming>, venue: Venue, shared: &Arc<Shared>) -> Reply {
    let Some((_, engine)) = shared.engines.iter().find(|(known, _)| *known == venue) else {
        return text(StatusCode::NOT_FOUND, "no such venue");
    };
    let path = request.uri().path().to_owned();
    if path == "/loopback" || path.starts_with("/loopback/") {
        return control(&request, &path, shared).await;
    }
    if request.headers().get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket")) {
        return upgrade(request, venue, engine, shared).await;
    }
    if request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET");
    }
    let query = request.uri().query().unwrap_or("").to_owned();
    let (reply, answer) = oneshot::channel();
    send(engine, Command::Http { path, query, reply }).await;
    match timeout(ANSWER_MAX, answer).await {
        Ok(Ok(answer)) => {
            sleep(answer.delay).await;
            respond(answer)
        }
        Ok(Err(_)) | Err(_) => text(StatusCode::SERVICE_UNAVAILABLE, "the loopback venue is stopping"),
    }
}

fn respond(answer: Answer) -> Reply {
    let mut response = Response::builder().status(answer.status).header(header::CONTENT_TYPE, "application/json");
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    let body = Full::new(Bytes::from(answer.body));
    response.body(body).unwrap_or_else(|_| text(StatusCode::INTERNAL_SERVER_ERROR, "not a status"))
}

fn text(status: StatusCode, body: &'static str) -> Reply {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    response
}

/// `GET /loopback` lists the venues, `GET /loopback/stats` the counts, `POST /loopback/fault?...` injects.
async fn control(request: &Request<Incoming>, path: &str, shared: &Shared) -> Reply {
    match (request.method(), path) {
        (&Method::GET, "/loopback") => respond(Answer::json(shared.directory.clone().into_bytes())),
        (&Method::GET, "/loopback/stats") => {
            let mut all = Vec::new();
            for (_, engine) in &shared.engines {
                let (reply, answer) = oneshot::channel();
                send(engine, Command::Stats(reply)).await;
                if let Ok(Ok(stats)) = timeout(ANSWER_MAX, answer).await {
                    all.push(stats.json());
                }
            }
            respond(Answer::json(serde_json::Value::from(all).to_string().into_bytes()))
        }
        (&Method::POST, "/loopback/fault") => match request.uri().query().unwrap_or("").parse::<Fault>() {
            Ok(fault) => {
                for (venue, engine) in &shared.engines {
                    if fault.venue.is_none_or(|wanted| wanted == *venue) {
                        send(engine, Command::Fault(fault.clone())).await;
                    }
                }
                respond(Answer::json(b"{\"ok\":true}".to_vec()))
            }
            Err(error) => respond(Answer::error(400, serde_json::json!({"error": error.to_string()}).to_string())),
        },
        _ => text(StatusCode::NOT_FOUND, "GET /loopback, GET /loopback/stats or POST /loopback/fault?kind=..."),
    }
}

async fn upgrade(
    mut request: Request<Incoming>,
    venue: Venue,
    engine: &Sender<Command>,
    shared: &Arc<Shared>,
) -> Reply {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str()).to_owned();
    let is_known = match venue {
        Venue::BinanceSpot | Venue::BinanceUsdm => binance::ws_path(&target).is_some(),
        Venue::Coinbase => request.uri().path() == "/",
        Venue::Kraken => request.uri().path() == "/v2",
    };
    if !is_known {
        return text(StatusCode::NOT_FOUND, "not a stream of this venue");
    }
    let Ok(response) = create_response_with_body(&request, Full::default) else {
        return text(StatusCode::BAD_REQUEST, "not a WebSocket handshake");
    };
    let number = shared.connections.fetch_add(1, Ordering::Relaxed) + 1;
    let (out, chunks) = mpsc::channel(CHUNKS_MAX);
    let (kill, killed) = oneshot::channel();
    let written = Arc::new(AtomicU64::new(0));
    let wire = Wire { number, path: target, out, kill, written: Arc::clone(&written) };
    let (reply, admitted) = oneshot::channel();
    send(engine, Command::Open { wire, reply }).await;
    match timeout(ANSWER_MAX, admitted).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(status))) => return respond(Answer::error(status, "refused".into())),
        Ok(Err(_)) | Err(_) => return text(StatusCode::SERVICE_UNAVAILABLE, "the loopback venue is stopping"),
    }
    let (engine, shared) = (engine.clone(), Arc::clone(shared));
    tokio::spawn(async move {
        let reason = match hyper::upgrade::on(&mut request).await {
            Ok(upgraded) => {
                let carried = Carried { number, venue, chunks, killed, written };
                carry(upgraded, carried, &engine, &shared).await
            }
            Err(_) => "lost",
        };
        send(&engine, Command::Gone { conn: number, reason: reason.into() }).await;
    });
    response
}

/// The network side's ends of a connection's channels.
struct Carried {
    number: u64,
    venue: Venue,
    chunks: mpsc::Receiver<Bytes>,
    killed: oneshot::Receiver<()>,
    written: Arc<AtomicU64>,
}

/// Carries one WebSocket connection until either side ends it; returns why it ended.
async fn carry(upgraded: Upgraded, carried: Carried, engine: &Sender<Command>, shared: &Shared) -> &'static str {
    let Carried { number, venue, mut chunks, mut killed, written } = carried;
    let (read, mut write) = tokio::io::split(TokioIo::new(upgraded));
    let (replies, mut replying) = mpsc::channel(REPLIES_MAX);
    let socket = WebSocketStream::from_raw_socket(ReadSide { read, replies }, Role::Server, None).await;
    let reading = listen(socket, number, venue, engine, &shared.options);
    let writing = talk(&mut write, &mut chunks, &mut replying, &written);
    tokio::pin!(reading, writing);
    tokio::select! {
        reason = &mut reading => reason,
        result = &mut writing => match result {
            // All is written and the close frame with it; the client has a moment to answer.
            Ok(()) => timeout(CLOSE_MAX, reading).await.unwrap_or("closed by the server"),
            Err(_) => "lost",
        },
        _ = &mut killed => "cut",
    }
}

/// Reads the client's messages; pings it where the venue does. Returns why the connection ended.
async fn listen(
    mut socket: WebSocketStream<ReadSide>,
    number: u64,
    venue: Venue,
    engine: &Sender<Command>,
    options: &Options,
) -> &'static str {
    let does_ping = matches!(venue, Venue::BinanceSpot | Venue::BinanceUsdm);
    let mut pings = interval(options.ping_every.max(Duration::from_millis(1)));
    pings.tick().await;
    let (mut sent, mut answered) = (0_u64, Instant::now());
    loop {
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => {
                    send(engine, Command::Message { conn: number, text: text.as_str().to_owned() }).await;
                }
                Some(Ok(Message::Pong(payload))) => {
                    // A pong nobody asked for does not count.
                    if sent > 0 && payload == sent.to_string().as_bytes() {
                        answered = Instant::now();
                    }
                }
                Some(Ok(Message::Close(_))) => {
                    // Hands the answering close frame to the writing side.
                    drop(socket.flush().await);
                    return "closed by the client";
                }
                Some(Ok(Message::Binary(_) | Message::Ping(_) | Message::Frame(_))) => {}
                Some(Err(_)) | None => return "lost",
            },
            _ = pings.tick(), if does_ping => {
                if sent == 0 {
                    answered = Instant::now();
                } else if answered.elapsed() > options.pong_within {
                    return "no pong";
                }
                sent += 1;
                if socket.send(Message::Ping(sent.to_string().into())).await.is_err() {
                    return "lost";
                }
            }
        }
    }
}

/// Writes the engine's chunks and, between them, what the reading side answers. Ends when the engine has closed.
///
/// A write waits as long as the client does not read: the engine cuts such a connection, unless lossless.
async fn talk(
    write: &mut WriteHalf<TokioIo<Upgraded>>,
    chunks: &mut mpsc::Receiver<Bytes>,
    replies: &mut mpsc::Receiver<Bytes>,
    written: &AtomicU64,
) -> io::Result<()> {
    loop {
        tokio::select! {
            biased;
            Some(reply) = replies.recv() => write.write_all(&reply).await?,
            chunk = chunks.recv() => match chunk {
                Some(chunk) => {
                    write.write_all(&chunk).await?;
                    written.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                }
                None => break,
            },
        }
        if chunks.is_empty() {
            write.flush().await?;
        }
    }
    write.shutdown().await
}

/// Gives an engine a command, waiting while it has too many. A stopped engine takes none.
pub(super) async fn send(engine: &Sender<Command>, mut command: Command) {
    loop {
        match engine.try_send(command) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => return,
            Err(TrySendError::Full(back)) => command = back,
        }
        sleep(Duration::from_millis(1)).await;
    }
}

/// The reading half of a connection, as a stream tokio-tungstenite can own: what it writes goes to the writing task.
struct ReadSide {
    read: ReadHalf<TokioIo<Upgraded>>,
    replies: mpsc::Sender<Bytes>,
}

impl AsyncRead for ReadSide {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(cx, buf)
    }
}

impl AsyncWrite for ReadSide {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let sent = self.replies.try_send(Bytes::copy_from_slice(bytes));
        Poll::Ready(sent.map(|()| bytes.len()).map_err(|_| io::Error::other("too many answers are waiting")))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Longest TLS handshake, and longest wait for a connection's first byte.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Longest wait for the engine.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Longest wait for a client's answer to a close frame.
const CLOSE_MAX: Duration = Duration::from_secs(1);
/// Pongs and the like waiting to be written; a client that causes more is disconnected.
const REPLIES_MAX: usize = 64;
