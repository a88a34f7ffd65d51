//! The open connections of one venue, what each has subscribed, and the way a frame takes to them.
//!
//! A frame is formatted once; each subscriber's copy is a WebSocket header, its prefix (the stream name, where
//! it wants one) and the shared bytes, appended to what waits for that connection. Connections take what waits
//! in order through a bounded channel, so nothing can overtake.
//!
//! Limits: [`CHUNKS_MAX`] chunks in the channel and `buffer_bytes_max` behind it. What happens then is the
//! engine's choice: it waits (lossless) or gives the connection up, as venues do.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicU64},
    time::Instant,
};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

use super::faults::{Channel, Fate};

/// Connections and subscriptions of one venue.
#[derive(Debug)]
pub(super) struct Hub {
    conns: Vec<Option<Conn>>,
    slots: HashMap<u64, usize>,
    /// By symbol, then channel.
    subs: Vec<[Vec<Sub>; CHANNELS]>,
    subscriptions: usize,
    held: HashMap<(usize, Channel, u16), Vec<Held>>,
    /// Numbers of the connections the last delivery went to.
    pub(super) sent: Vec<u64>,
    /// Frames and bytes queued since the start.
    pub(super) frames: u64,
    pub(super) bytes: u64,
}

/// One connection, as the engine sees it.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) number: u64,
    pub(super) opened: Instant,
    /// Frames carry the stream's name (Binance combined streams).
    pub(super) is_combined: bool,
    /// Times in microseconds (Binance `timeUnit`).
    pub(super) is_micros: bool,
    pub(super) subscriptions: usize,
    /// Client messages in the current second.
    pub(super) messages: u32,
    pub(super) frames: u64,
    /// Bytes handed to the operating system so far.
    pub(super) written: Arc<AtomicU64>,
    out: Option<mpsc::Sender<Bytes>>,
    kill: Option<oneshot::Sender<()>>,
    waiting: BytesMut,
    is_closing: bool,
    bytes: u64,
}

/// What the network side hands over for a new connection.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) number: u64,
    pub(super) path: String,
    pub(super) out: mpsc::Sender<Bytes>,
    pub(super) kill: oneshot::Sender<()>,
    pub(super) written: Arc<AtomicU64>,
}

/// One subscription.
#[derive(Debug)]
struct Sub {
    slot: usize,
    /// Which formatting of the data it wants: Kraken book depth, Binance time unit.
    variant: u16,
    /// Goes before the data; a closing brace then follows it.
    prefix: Option<Box<[u8]>>,
}

#[derive(Debug)]
struct Held {
    number: u64,
    frame: Vec<u8>,
}

impl Hub {
    /// A hub of a market with so many symbols.
    pub(super) fn new(symbols: usize) -> Self {
        Self {
            conns: Vec::new(),
            slots: HashMap::new(),
            subs: (0..symbols).map(|_| std::array::from_fn(|_| Vec::new())).collect(),
            subscriptions: 0,
            held: HashMap::new(),
            sent: Vec::new(),
            frames: 0,
            bytes: 0,
        }
    }

    /// Takes a connection in; returns its slot.
    pub(super) fn open(&mut self, wire: Wire) -> usize {
        let conn = Conn {
            number: wire.number,
            opened: Instant::now(),
            is_combined: false,
            is_micros: false,
            subscriptions: 0,
            messages: 0,
            frames: 0,
            written: wire.written,
            out: Some(wire.out),
            kill: Some(wire.kill),
            waiting: BytesMut::new(),
            is_closing: false,
            bytes: 0,
        };
        let slot = self.conns.iter().position(Option::is_none).unwrap_or(self.conns.len());
        if slot == self.conns.len() {
            self.conns.push(None);
        }
        self.slots.insert(conn.number, slot);
        self.conns[slot] = Some(conn);
        slot
    }

    /// Forgets a connection and its subscriptions.
    pub(super) fn forget(&mut self, slot: usize) -> Option<Conn> {
        self.unsubscribe_all(slot);
        let conn = self.conns.get_mut(slot)?.take()?;
        self.slots.remove(&conn.number);
        Some(conn)
    }

    /// Cuts a connection off at once, with whatever waits for it.
    pub(super) fn cut(&mut self, slot: usize) -> Option<Conn> {
        let mut conn = self.forget(slot)?;
        if let Some(kill) = conn.kill.take() {
            // Fails only when the connection's task has ended already.
            kill.send(()).ok();
        }
        Some(conn)
    }

    /// Ends a connection in good order: what waits for it, then a close frame with this code and reason.
    pub(super) fn close(&mut self, slot: usize, code: u16, reason: &str) {
        self.unsubscribe_all(slot);
        let Some(conn) = self.conns[slot].as_mut().filter(|conn| !conn.is_closing) else { return };
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend_from_slice(&reason.as_bytes()[..reason.len().min(CLOSE_REASON_BYTES_MAX)]);
        let before = conn.waiting.len();
        put_frame(&mut conn.waiting, OpCode::Control(Control::Close), [&payload, b"", b""]);
        conn.bytes += (conn.waiting.len() - before) as u64;
        conn.is_closing = true;
    }

    /// Adds a subscription; false when the connection has it already.
    pub(super) fn subscribe(
        &mut self,
        slot: usize,
        symbol: usize,
        channel: Channel,
        variant: u16,
        prefix: Option<Box<[u8]>>,
    ) -> bool {
        let subs = &mut self.subs[symbol][channel as usize];
        if subs.iter().any(|sub| sub.slot == slot && sub.variant == variant && sub.prefix == prefix) {
            return false;
        }
        subs.push(Sub { slot, variant, prefix });
        self.subscriptions += 1;
        if let Some(conn) = &mut self.conns[slot] {
            conn.subscriptions += 1;
        }
        true
    }

    /// Ends subscriptions of a connection: those with this prefix, or all of the symbol's channel.
    pub(super) fn unsubscribe(&mut self, slot: usize, symbol: usize, channel: Channel, prefix: Option<&[u8]>) -> bool {
        let subs = &mut self.subs[symbol][channel as usize];
        let before = subs.len();
        subs.retain(|sub| sub.slot != slot || prefix.is_some() && sub.prefix.as_deref() != prefix);
        let ended = before - subs.len();
        self.subscriptions -= ended;
        if let Some(conn) = &mut self.conns[slot] {
            conn.subscriptions -= ended;
        }
        ended > 0
    }

    /// Sends a message to one connection.
    pub(super) fn send(&mut self, slot: usize, text: &[u8]) {
        if let Some(conn) = self.conns.get_mut(slot).and_then(Option::as_mut).filter(|conn| !conn.is_closing) {
            let before = conn.waiting.len();
            put_frame(&mut conn.waiting, OpCode::Data(Data::Text), [text, b"", b""]);
            conn.count(before);
        }
    }

    /// Sends one frame to everyone who subscribed it in this variant (any variant when `None`), as its fate
    /// has it. Appends the numbers of the connections to `sent`.
    pub(super) fn deliver(&mut self, symbol: usize, channel: Channel, variant: Option<u16>, data: &[u8], fate: Fate) {
        let Self { conns, subs, held, sent, .. } = self;
        let subs = &subs[symbol][channel as usize];
        let is_after_held = !held.is_empty();
        let key = (symbol, channel, variant.unwrap_or(0));
        let mut holding = Vec::new();
        let mut frames = 0;
        let mut bytes = 0;
        for sub in subs.iter().filter(|sub| variant.is_none_or(|variant| variant == sub.variant)) {
            let Some(conn) = conns[sub.slot].as_mut().filter(|conn| !conn.is_closing) else { continue };
            let prefix = sub.prefix.as_deref().unwrap_or_default();
            let suffix: &[u8] = if sub.prefix.is_some() { b"}" } else { b"" };
            let parts = [prefix, data, suffix];
            let before = conn.waiting.len();
            match fate {
                Fate::Sent | Fate::WrongChecksum => put_frame(&mut conn.waiting, TEXT, parts),
                Fate::Duplicated => {
                    put_frame(&mut conn.waiting, TEXT, parts);
                    put_frame(&mut conn.waiting, TEXT, parts);
                    frames += 1;
                }
                Fate::Corrupted => put_frame(&mut conn.waiting, TEXT, [prefix, &data[..data.len() / 2], b""]),
                Fate::Swapped => {
                    let mut frame = BytesMut::new();
                    put_frame(&mut frame, TEXT, parts);
                    holding.push(Held { number: conn.number, frame: frame.to_vec() });
                }
                Fate::Dropped | Fate::Stalled => continue,
            }
            bytes += conn.count(before);
            frames += 1;
            sent.push(conn.number);
        }
        self.frames += frames;
        self.bytes += bytes;
        if is_after_held {
            self.release(key);
        }
        if !holding.is_empty() {
            self.held.insert(key, holding);
        }
    }

    /// Sends every frame that was held back to be swapped.
    pub(super) fn release_all(&mut self) {
        let keys: Vec<_> = self.held.keys().copied().collect();
        keys.into_iter().for_each(|key| self.release(key));
    }

    /// Hands what waits to the connections as far as they take it. Returns slots that have more than
    /// `bytes_max` waiting, and forgets nothing.
    pub(super) fn flush(&mut self, bytes_max: usize, full: &mut Vec<usize>) {
        full.clear();
        for (slot, conn) in self.conns.iter_mut().enumerate() {
            let Some(conn) = conn else { continue };
            if !conn.waiting.is_empty() && !conn.flush() && conn.waiting.len() > bytes_max {
                full.push(slot);
            }
        }
    }

    /// Whether all that was sent has been handed to the connections.
    pub(super) fn is_flushed(&self) -> bool {
        self.conns.iter().flatten().all(|conn| conn.waiting.is_empty() || conn.out.is_none())
    }

    /// Slots of all connections.
    pub(super) fn slots(&self) -> Vec<usize> {
        self.conns.iter().enumerate().filter(|(_, conn)| conn.is_some()).map(|(slot, _)| slot).collect()
    }

    /// The slot of a connection.
    pub(super) fn slot(&self, number: u64) -> Option<usize> {
        self.slots.get(&number).copied()
    }

    /// The connection in a slot.
    pub(super) fn conn(&mut self, slot: usize) -> Option<&mut Conn> {
        self.conns.get_mut(slot)?.as_mut()
    }

    /// Variants subscribed of one symbol's channel, each once, beginning with `base` whether subscribed or not.
    pub(super) fn variants(&self, symbol: usize, channel: Channel, base: u16, into: &mut Vec<u16>) {
        into.clear();
        into.push(base);
        for sub in &self.subs[symbol][channel as usize] {
            if !into.contains(&sub.variant) {
                into.push(sub.variant);
            }
        }
    }

    /// Whether anyone subscribed this.
    pub(super) fn has_subscribers(&self, symbol: usize, channel: Channel) -> bool {
        !self.subs[symbol][channel as usize].is_empty()
    }

    /// Symbols of a channel that a connection subscribed.
    pub(super) fn subscribed(&self, slot: usize, channel: Channel) -> impl Iterator<Item = usize> {
        let has = move |subs: &[Vec<Sub>; CHANNELS]| subs[channel as usize].iter().any(|sub| sub.slot == slot);
        self.subs.iter().enumerate().filter(move |(_, subs)| has(subs)).map(|(symbol, _)| symbol)
    }

    /// The connection open longest of those with the most subscriptions, if another of them has been open for `spare`.
    pub(super) fn longest_open(&self, spare: std::time::Duration) -> Option<usize> {
        let open = || (0..).zip(&self.conns).filter_map(|(slot, conn)| Some((slot, conn.as_ref()?)));
        let most = open().map(|(_, conn)| conn.subscriptions).max().filter(|most| *most > 0)?;
        let mut full: Vec<_> = open().filter(|(_, conn)| conn.subscriptions == most && !conn.is_closing).collect();
        full.sort_by_key(|(_, conn)| conn.opened);
        let (_, next) = full.get(1)?;
        (next.opened.elapsed() >= spare).then(|| full[0].0)
    }

    /// All subscriptions of all connections.
    pub(super) fn subscriptions(&self) -> usize {
        self.subscriptions
    }

    /// Number of open connections.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    fn release(&mut self, key: (usize, Channel, u16)) {
        for Held { number, frame } in self.held.remove(&key).unwrap_or_default() {
            let slot = self.slots.get(&number).copied();
            if let Some(conn) = slot.and_then(|slot| self.conns[slot].as_mut()).filter(|conn| !conn.is_closing) {
                let before = conn.waiting.len();
                conn.waiting.extend_from_slice(&frame);
                self.bytes += conn.count(before);
            }
        }
    }

    fn unsubscribe_all(&mut self, slot: usize) {
        if self.conns.get(slot).and_then(Option::as_ref).is_none_or(|conn| conn.subscriptions == 0) {
            return;
        }
        for subs in self.subs.iter_mut().flatten() {
            let before = subs.len();
            subs.retain(|sub| sub.slot != slot);
            self.subscriptions -= before - subs.len();
        }
        if let Some(conn) = &mut self.conns[slot] {
            conn.subscriptions = 0;
        }
    }
}

impl Conn {
    /// Bytes queued so far, whether written or not.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn count(&mut self, before: usize) -> u64 {
        let added = (self.waiting.len() - before) as u64;
        self.bytes += added;
        self.frames += u64::from(added > 0);
        added
    }

    /// Hands over what waits; false when the channel is full. A connection that has gone takes everything.
    fn flush(&mut self) -> bool {
        let Some(out) = self.out.take() else { return true };
        let is_full = match out.try_reserve() {
            Ok(permit) => {
                permit.send(self.waiting.split().freeze());
                false
            }
            Err(mpsc::error::TrySendError::Full(())) => true,
            Err(mpsc::error::TrySendError::Closed(())) => {
                self.waiting.clear();
                return true;
            }
        };
        if is_full || !self.is_closing {
            self.out = Some(out);
        }
        !is_full
    }
}

fn put_frame(out: &mut BytesMut, opcode: OpCode, parts: [&[u8]; 3]) {
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    out.reserve(length + HEADER_BYTES_MAX);
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    header.format(length as u64, &mut out.writer()).expect("memory takes every header");
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// Chunks (one for each tick, or fewer) between the engine and a connection's socket.
pub(super) const CHUNKS_MAX: usize = 16;
const CHANNELS: usize = 5;
const TEXT: OpCode = OpCode::Data(Data::Text);
/// Longest header of an unmasked frame.
const HEADER_BYTES_MAX: usize = 10;
/// A control frame holds 125 bytes, two of them the code.
const CLOSE_REASON_BYTES_MAX: usize = 123;
