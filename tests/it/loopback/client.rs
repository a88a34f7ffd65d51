//! A plain client: WebSocket messages as text, HTTP answers as status, head and body. Every wait ends.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use rust_decimal::Decimal;
use serde_json::Value;
use tapeway::loopback::{Options, Rate, Server, Summary, Venue};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

/// Long enough that only a server that hangs gets there.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Client {
    pub(super) ws: WebSocketStream<TcpStream>,
}

impl Client {
    pub(super) async fn open(server: &Server, venue: Venue, path: &str) -> Self {
        Self::try_open(server, venue, path).await.unwrap()
    }

    pub(super) async fn try_open(server: &Server, venue: Venue, path: &str) -> Result<Self, String> {
        let stream = TcpStream::connect(("127.0.0.1", server.port(venue))).await.map_err(|error| error.to_string())?;
        let url = format!("ws://127.0.0.1:{}{path}", server.port(venue));
        let (ws, _) = client_async(url, stream).await.map_err(|error| error.to_string())?;
        Ok(Self { ws })
    }

    pub(super) async fn send(&mut self, text: impl Into<String>) {
        self.ws.send(Message::text(text.into())).await.unwrap();
    }

    /// The next text message; `None` when the connection has ended.
    pub(super) async fn text(&mut self) -> Option<String> {
        let next = async {
            loop {
                match self.ws.next().await {
                    Some(Ok(Message::Text(text))) => return Some(text.as_str().to_owned()),
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                    Some(Ok(_)) => {}
                }
            }
        };
        timeout(PATIENCE, next).await.expect("the server fell silent")
    }

    pub(super) async fn json(&mut self) -> Value {
        let text = self.text().await.expect("the connection ended");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The next message for which `wanted` holds.
    pub(super) async fn until(&mut self, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let message = self.json().await;
            if wanted(&message) {
                return message;
            }
            assert!(begun.elapsed() < PATIENCE, "what was waited for never came");
        }
    }

    /// All messages until the connection ends.
    pub(super) async fn rest(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(text) = self.text().await {
            all.push(text);
        }
        all
    }
}

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

pub(super) async fn get(server: &Server, venue: Venue, path: &str) -> Answer {
    request(server, venue, "GET", path).await
}

pub(super) async fn request(server: &Server, venue: Venue, method: &str, path: &str) -> Answer {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port(venue))).await.unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: loopback\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut text)).await.unwrap().unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

/// One venue, a small market.
pub(super) fn one(venue: Venue, rate: Rate) -> Options {
    Options { venues: vec![venue], symbols: 3, seed: 11, rate, has_limits: false, ..Options::default() }
}

/// A market that runs as fast as its clients read.
pub(super) fn flat_out(venue: Venue) -> Options {
    Options { is_lossless: true, ..one(venue, Rate::Max) }
}

/// Stops the server while `client` goes on reading; returns what it still read and the summary.
pub(super) async fn stop_and_read(server: Server, client: &mut Client) -> (Vec<String>, Summary) {
    let stopping = tokio::task::spawn_blocking(move || server.stop().unwrap());
    let rest = client.rest().await;
    (rest, stopping.await.unwrap())
}

pub(super) async fn stop(server: Server) -> Summary {
    tokio::task::spawn_blocking(move || server.stop().unwrap()).await.unwrap()
}

/// The events of a truth file that begin with `n`, and its notes.
pub(super) fn truth(path: &Path) -> (Vec<Value>, Vec<Value>) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "the truth file ends in the middle of a line");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e}: {line}")));
    lines.partition(|line| line.get("n").is_some())
}

/// A book made of text, as a client keeps it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Book {
    pub(super) bids: BTreeMap<Decimal, String>,
    pub(super) asks: BTreeMap<Decimal, String>,
}

impl Book {
    pub(super) fn apply(&mut self, bids: &Value, asks: &Value) {
        for (side, levels) in [(&mut self.bids, bids), (&mut self.asks, asks)] {
            for level in levels.as_array().unwrap() {
                set(side, level[0].as_str().unwrap(), level[1].as_str().unwrap());
            }
        }
    }

    /// Best bid and ask: price, quantity.
    pub(super) fn top(&self) -> [(Decimal, String); 2] {
        let (bid, ask) = (self.bids.last_key_value().unwrap(), self.asks.first_key_value().unwrap());
        assert!(bid.0 < ask.0, "the book is crossed");
        [(*bid.0, bid.1.clone()), (*ask.0, ask.1.clone())]
    }
}

pub(super) fn set(side: &mut BTreeMap<Decimal, String>, price: &str, qty: &str) {
    let price: Decimal = price.parse().unwrap();
    if qty.parse::<Decimal>().unwrap().is_zero() {
        side.remove(&price);
    } else {
        side.insert(price, qty.to_owned());
    }
}
