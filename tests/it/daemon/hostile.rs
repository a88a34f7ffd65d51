//! A venue that sends what no venue should. Whatever it is: a reject that names field, found and expected, or the end of
//! that connection; no panic, no growth without bound, a journal that is whole, and the rest flows on.

use std::{
    fs,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tapeway::loopback::Venue;
use tokio_tungstenite::tungstenite::{self, Bytes, Message};

use super::world::{Setup, World};
use crate::{
    process::{PATIENCE, all_of, tapeway, wait},
    proof::rows,
};

#[test]
fn whatever_a_venue_sends_is_named_and_the_rest_flows_on() {
    let Some(world) = World::new(Setup { venues: vec![Venue::Coinbase], symbols: 1, ..Setup::default() }) else {
        return;
    };
    let numbers: Vec<Message> = [
        ("price", "1e400"),
        ("price", "NaN"),
        ("price", "-1.5"),
        ("price", "Infinity"),
        ("size", "-0.5"),
        ("size", "123456789012345678901234567890123456789012345"),
        ("size", "0.00000000000000000000000000000000000000001"),
        ("side", "neither"),
        ("time", "a quarter past"),
        ("time", "99999-01-01T00:00:00Z"),
    ]
    .iter()
    .map(|(field, value)| Message::text(with(&trade(2), field, value)))
    .collect();
    let times = ["1970-01-01T00:00:00.000000Z", "2200-06-01T00:00:00Z", "1969-12-31T23:59:59Z"];
    let times = times.iter().map(|time| Message::text(with(&trade(2), "time", time)));
    let strangers = (0..STRANGERS).map(|nr| Message::text(trade(1).replace("BTC-USD", &format!("NEVER{nr}-ASKED"))));
    let answer = r#"{"type":"subscriptions","channels":[{"name":"matches","product_ids":["NOT-ASKED"]}]}"#;
    let mut all: Vec<Message> = vec![Message::text(trade(1)), Message::text(answer)];
    all.extend(numbers);
    all.extend(times);
    all.extend(strangers);
    all.extend([
        Message::binary(b"{\"type\":\"match\",\"product_id\":\"\xFF\xFE\xC0\x80\"}".to_vec()),
        Message::binary(vec![0; 1_000]),
        Message::text("[".repeat(2 << 20)),
        Message::text("{\"type\":".repeat(100_000)),
        Message::text(with(&trade(2), "product_id", &"X".repeat(1 << 20))),
        Message::text(format!("{{\"type\":\"{}\"}}", "long".repeat((16 << 20) - 8))),
        Message::text(""),
        Message::text("null"),
        Message::text(trade(3)),
    ]);
    // The next connection begins with what is longer than a message may be: it does not come to the end.
    let too_long = vec![Message::text(trade(4)), Message::binary(vec![b' '; (64 << 20) + 1]), Message::text(trade(5))];
    let after = vec![Message::text(trade(6))];
    let venue = Hostile::start(vec![all, too_long, after]);
    let text = format!(
        "enabled: true\nsymbols: [BTC-USD]\nchannels: [trades, book]\nws_url: ws://127.0.0.1:{}\nhttp_url: {}\n\
         limits:\n  connects: 1_000\n  silence: 1d\n",
        venue.port,
        world.venues.http_url(Venue::Coinbase),
    );
    fs::write(world.venue_file(Venue::Coinbase), text).unwrap();
    let mut daemon = world.start();
    let has = |id: i64| {
        world.count(&format!(
            "SELECT count(*) FROM market_data.trades JOIN market_data.instruments USING (instrument_id)
             WHERE symbol = 'BTC-USD' AND trade_id = {id}"
        ))
    };
    wait(PATIENCE, "the trade behind it all is there", || has(3) == 1);
    // The first connection is over when the venue says so, the second by the long message.
    venue.next();
    daemon.until_logged(&["disconnected", "Message too long"]);
    wait(PATIENCE, "the trade of the third connection is there", || has(6) == 1);
    assert_eq!((has(1), has(2), has(4), has(5)), (1, 0, 1, 0));

    let rejected = |reason: &str, words: &str| {
        world.count(&format!(
            "SELECT count(*) FROM audit.rejects WHERE reason = '{reason}' AND detail LIKE '%{}%'",
            words.replace('\'', "''")
        ))
    };
    for (reason, words) in [
        ("field", r#"field `price` should be a price of zero or more in at most 28 digits, found "1e400""#),
        ("field", r#"found "NaN""#),
        ("field", r#"found "-1.5""#),
        ("field", r#"found "Infinity""#),
        ("field", r#"field `size` should be a quantity of zero or more in at most 28 digits, found "-0.5""#),
        ("field", "12345678901234567890"),
        ("field", "0.000000000000000000000000000000000"),
        ("field", r#"field `side` should be `buy` or `sell`, found "neither""#),
        ("field", "a quarter past"),
        ("field", "field `symbol` should be 1 to 64 bytes long"),
        ("syntax", "frame begins \"[[[["),
        ("time_out_of_range", "before 2000 or after 2200"),
        ("unknown_message", "longlong"),
    ] {
        wait(PATIENCE, &format!("a reject {reason} {words}"), || rejected(reason, words) >= 1);
    }
    assert!(rejected("syntax", "") >= 4, "{}", world.psql("SELECT reason, left(detail, 90) FROM audit.rejects"));
    assert_eq!(rejected("adapter_panic", ""), 0);
    let longest: usize = world.psql("SELECT max(length(detail)) FROM audit.rejects").parse().unwrap();
    assert!(longest <= 4_096, "{longest}");
    let strangers = "SELECT count(*) FROM market_data.instruments WHERE symbol LIKE 'NEVER%'";
    assert_eq!(world.count(strangers), STRANGERS, "what is said of unknown instruments is kept");

    let (most, now) = (super::memory(daemon.pid(), "VmHWM:"), super::resident(daemon.pid()));
    println!("resident {} MiB, at most {} MiB", now >> 20, most >> 20);
    assert!(most < 1_200 << 20, "{most} bytes at most");
    assert!(now < 600 << 20, "{now} bytes kept");
    assert!(daemon.is_running());
    daemon.until_drained();
    let verified = tapeway(&["journal", "verify", "--dir", world.journal().to_str().unwrap()]);
    assert!(verified.status.success(), "{}", all_of(&verified));
    let out_of_range = rejected("time_out_of_range", "");
    daemon.stop();
    let found = rows::difference(&world.journal(), (&world.cluster, &world.database));
    assert_eq!((found.missing, found.surplus), (out_of_range, 0), "{found:?}");
}

fn trade(id: i64) -> String {
    format!(
        "{{\"type\":\"match\",\"trade_id\":{id},\"maker_order_id\":\"a\",\"taker_order_id\":\"b\",\"side\":\"buy\",\
         \"size\":\"1.5\",\"price\":\"100.0\",\"product_id\":\"BTC-USD\",\"sequence\":{id},\
         \"time\":\"2026-01-01T00:00:00.1Z\"}}"
    )
}

/// The message with another text behind a key.
fn with(message: &str, key: &str, value: &str) -> String {
    let mut message: serde_json::Value = serde_json::from_str(message).unwrap();
    message[key] = value.into();
    message.to_string()
}

/// A venue that sends what it was told, one list a connection, whatever it is asked.
struct Hostile {
    port: u16,
    /// Connections that may go on.
    turn: Arc<AtomicUsize>,
}

impl Hostile {
    fn start(lists: Vec<Vec<Message>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let turn = Arc::new(AtomicUsize::new(0));
        let allowed = turn.clone();
        thread::spawn(move || {
            let mut lists = lists.into_iter();
            for (nr, stream) in listener.incoming().enumerate() {
                let Ok(stream) = stream else { return };
                let Ok(mut socket) = tungstenite::accept(stream) else { continue };
                for message in lists.next().unwrap_or_default() {
                    if socket.send(message).is_err() {
                        break;
                    }
                }
                // Until it is told to hang up, or the other end has.
                while allowed.load(Ordering::SeqCst) <= nr {
                    if socket.send(Message::Ping(Bytes::new())).is_err() {
                        break;
                    }
                    thread::sleep(std::time::Duration::from_millis(20));
                }
                drop(socket.close(None));
            }
        });
        Self { port, turn }
    }

    /// Ends the connection that is open.
    fn next(&self) {
        self.turn.fetch_add(1, Ordering::SeqCst);
    }
}

const STRANGERS: u64 = 10_000;
