//! Writes the seed corpora from the repository's captures and shipped configuration: `cargo run --bin seeds -- FOLDER`
//! makes a folder a target in it. Small on purpose: a capture as a whole, and each input of it by itself behind an open.

use std::{fs, path::Path};

use tapeway_exchanges::{
    adapter::At,
    conn::Conn,
    decoder::Decoder,
    event::Events,
    ids::{FramePos, Nanos},
    input::Kind,
    metadata::Source,
    venue::VENUES,
};
use tapeway_fuzz::{captures, script};

fn main() -> std::io::Result<()> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "corpus".into());
    let folder = Path::new(&folder);
    let number = |venue: &str| VENUES.iter().position(|spec| spec.name == venue).and_then(|at| u8::try_from(at).ok());
    for (index, capture) in captures::all().into_iter().enumerate() {
        let target = match (&*capture.venue, &*capture.name) {
            ("okcoin", _) => "okx",
            ("kraken", "legacy") => "kraken-v1",
            (venue, _) => venue,
        };
        let venue = number(&capture.venue).unwrap_or_default();
        let mut whole = vec![2];
        let Some(spec) = VENUES.get(usize::from(venue)) else { continue };
        let mut decoder = Decoder::new(spec, FramePos::FIRST);
        for (at, (received, kind, bytes)) in capture.inputs.iter().enumerate() {
            script::put(&mut whole, *kind, bytes);
            if matches!(kind, Kind::Text | Kind::Http) {
                let mut alone = vec![0, b'O', 0, 0xFF];
                script::put(&mut alone, *kind, bytes);
                write(folder, target, &format!("{index}-{at}"), &alone)?;
            }
            if *kind == Kind::Http {
                write(folder, "http", &format!("{index}-{at}"), &[&[venue * 2 + 1], bytes.as_slice()].concat())?;
            }
            if *kind == Kind::Open {
                let plan = [&[venue, 2, 4][..], b"BTCUSDT ETH-USD XRP/USD", &[0xFF], bytes].concat();
                write(folder, "plan", &format!("{index}-{at}"), &plan)?;
            }
            let at = At { pos: decoder.next(), received: Nanos(*received), conn: Conn::FIRST };
            decoder.apply(at, *kind, &mut bytes.clone());
            decoder.swap_events(Events::default());
        }
        write(folder, target, &format!("{index}-whole"), &whole)?;
        write(folder, "state", &format!("{index}"), &[&[venue], decoder.state().as_slice()].concat())?;
    }
    for (index, spec) in VENUES.iter().enumerate() {
        let index = u8::try_from(index).unwrap_or_default();
        let (Source::Http { path, .. } | Source::WebSocket { path, .. }) = spec.metadata;
        for (at, body) in LISTS.iter().enumerate() {
            write(folder, "metadata", &format!("{index}-{at}"), &[&[index], body.as_bytes()].concat())?;
        }
        let url = format!("{}{path}", spec.http_url);
        write(folder, "metadata", &format!("{index}-url"), &[&[index], url.as_bytes()].concat())?;
    }
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
    let main = fs::read(shipped.join("tapeway.yaml"))?;
    for entry in fs::read_dir(shipped.join("exchanges"))? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or("venue").to_owned();
        write(folder, "config", &name, &[&main, &[0xFF][..], &fs::read(&path)?].concat())?;
    }
    for (how, text) in [
        (0u8, &b"one two three four five six seven eight\xFF"[..]),
        (4, b"a b c\xFF\0\0\x10\0"),
        (2, b"x"),
        (3, b"TAPEWAYJ"),
    ] {
        write(folder, "journal", &how.to_string(), &[&[how], text].concat())?;
    }
    Ok(())
}

fn write(folder: &Path, target: &str, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let folder = folder.join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), bytes)
}

/// Instrument lists in the venues' documented shapes, one instrument each.
const LISTS: [&str; 5] = [
    r#"{"symbols":[{"symbol":"BTCUSDT","pair":"BTCUSD","contractType":"PERPETUAL","deliveryDate":4133404800000,"onboardDate":1567965300000,"status":"TRADING","contractStatus":"TRADING","contractSize":100,"baseAsset":"BTC","quoteAsset":"USDT","filters":[{"filterType":"PRICE_FILTER","tickSize":"0.01000000"},{"filterType":"LOT_SIZE","stepSize":"0.00001000"}]}]}"#,
    r#"[{"id":"BTC-USD","base_currency":"BTC","quote_currency":"USD","quote_increment":"0.01","base_increment":"0.00000001","status":"online","trading_disabled":false}]"#,
    r#"{"channel":"instrument","type":"snapshot","data":{"assets":[],"pairs":[{"symbol":"BTC/USD","base":"BTC","quote":"USD","status":"online","qty_increment":1e-8,"price_increment":0.1}]}}"#,
    r#"{"code":"0","data":[{"instType":"SPOT","instId":"BTC-USDT","baseCcy":"BTC","quoteCcy":"USDT","settleCcy":"","ctVal":"","ctMult":"","ctType":"","expTime":"","lever":"10","listTime":"1548133413000","lotSz":"0.00000001","state":"live","tickSz":"0.1"}]}"#,
    r#"{"code":"00000","data":[{"symbol":"BTCUSDT","baseCoin":"BTC","quoteCoin":"USDT","pricePrecision":"2","quantityPrecision":"6","status":"online"}]}"#,
];
