//! Venues' instrument lists become symbols with base, quote, kind and steps.

use std::{fs, io::Read, path::Path};

use tapeway_exchanges::metadata::{Instrument, Source, drop_unnamed};

use crate::{corpus::corpus, harness::spec};

fn parse(venue: &str, body: &mut [u8]) -> Vec<Instrument> {
    match spec(venue).metadata {
        Source::Http { parse, .. } => parse(body).unwrap(),
        Source::WebSocket { parse, .. } => parse(body).unwrap().unwrap(),
    }
}

fn line(instrument: &Instrument) -> String {
    let number = |value: Option<rust_decimal::Decimal>| value.map_or_else(|| "-".into(), |value| value.to_string());
    format!(
        "{} {}/{} {} tick {} step {} size {} expiry {} {}",
        instrument.symbol,
        instrument.base,
        instrument.quote,
        instrument.kind.name(),
        number(instrument.price_tick),
        number(instrument.qty_step),
        number(instrument.contract_size),
        instrument.expiry.map_or_else(|| "-".into(), |at| at.0.to_string()),
        if instrument.is_trading { "trading" } else { "halted" },
    )
}

#[test]
fn binance_spot_and_futures_are_told_apart_by_contract_type() {
    let mut body = br#"{"symbols":[
        {"symbol":"BTCUSDT","status":"TRADING","baseAsset":"BTC","quoteAsset":"USDT","filters":[
            {"filterType":"PRICE_FILTER","minPrice":"0.01","tickSize":"0.01000000"},{"filterType":"LOT_SIZE","stepSize":"0.00001000"}]},
        {"symbol":"OLDBTC","status":"BREAK","baseAsset":"OLD","quoteAsset":"BTC","filters":[]}]}"#
        .to_vec();
    let lines: Vec<_> = parse("binance-spot", &mut body).iter().map(line).collect();
    assert_eq!(
        lines,
        [
            "BTCUSDT BTC/USDT spot tick 0.01000000 step 0.00001000 size 1 expiry - trading",
            "OLDBTC OLD/BTC spot tick - step - size 1 expiry - halted"
        ]
    );
    let mut body = br#"{"symbols":[
        {"symbol":"BTCUSD_PERP","contractType":"PERPETUAL","deliveryDate":4133404800000,"onboardDate":1597042800000,
         "contractStatus":"TRADING","contractSize":100,"baseAsset":"BTC","quoteAsset":"USD","filters":[]},
        {"symbol":"BTCUSD_210924","contractType":"CURRENT_QUARTER","deliveryDate":1632470400000,
         "contractStatus":"TRADING","contractSize":100,"baseAsset":"BTC","quoteAsset":"USD","filters":[]}]}"#
        .to_vec();
    let lines: Vec<_> = parse("binance-coinm", &mut body).iter().map(line).collect();
    assert_eq!(
        lines,
        [
            "BTCUSD_PERP BTC/USD perp tick - step - size 100 expiry - trading",
            "BTCUSD_210924 BTC/USD future tick - step - size 100 expiry 1632470400000000 trading"
        ]
    );
}

#[test]
fn coinbase_products_give_their_increments() {
    let mut body = br#"[{"id":"BTC-USD","base_currency":"BTC","quote_currency":"USD","quote_increment":"0.01","base_increment":"0.00000001","status":"online"},
        {"id":"OLD-USD","base_currency":"OLD","quote_currency":"USD","quote_increment":"0.01","base_increment":"1","status":"delisted","trading_disabled":true}]"#
        .to_vec();
    let lines: Vec<_> = parse("coinbase", &mut body).iter().map(line).collect();
    assert_eq!(
        lines,
        [
            "BTC-USD BTC/USD spot tick 0.01 step 0.00000001 size 1 expiry - trading",
            "OLD-USD OLD/USD spot tick 0.01 step 1 size 1 expiry - halted"
        ]
    );
}

#[test]
fn okx_derivatives_take_their_currencies_from_the_underlying() {
    let mut body = br#"{"code":"0","data":[
        {"instId":"BTC-USDT","instType":"SPOT","baseCcy":"BTC","quoteCcy":"USDT","tickSz":"0.1","lotSz":"0.00000001","state":"live","listTime":"1548133413000","expTime":"","uly":"","ctVal":""},
        {"instId":"BTC-USD-220527","instType":"FUTURES","baseCcy":"","quoteCcy":"","uly":"BTC-USD","tickSz":"0.1","lotSz":"1","ctVal":"100","state":"live","expTime":"1653638400000","listTime":""}],"msg":""}"#
        .to_vec();
    let lines: Vec<_> = parse("okx", &mut body).iter().map(line).collect();
    assert_eq!(
        lines,
        [
            "BTC-USDT BTC/USDT spot tick 0.1 step 0.00000001 size 1 expiry - trading",
            "BTC-USD-220527 BTC/USD future tick 0.1 step 1 size 100 expiry 1653638400000000 trading"
        ]
    );
}

#[test]
fn a_body_that_is_no_list_is_an_error() {
    for venue in ["binance-spot", "coinbase", "okx", "kraken"] {
        let mut body = br#"{"code":-1003,"msg":"banned""#.to_vec();
        let is_error = match spec(venue).metadata {
            Source::Http { parse, .. } => parse(&mut body).is_err(),
            Source::WebSocket { parse, .. } => parse(&mut body).is_err(),
        };
        assert!(is_error, "{venue}");
    }
}

/// Lists that recorders fetched at start-up hold every symbol they recorded.
#[test]
fn recorded_lists_are_read_whole() {
    let Some(corpus) = corpus() else { return };
    for (venue, file, symbols) in [
        ("binance-spot", "cf_20211012_meta0_api_v3_exchangeInfo", &["NKNUSDT", "BLZETH"][..]),
        ("binance-usdm", "cf_20210722_meta0_fapi_v1_exchangeInfo", &["SUSHIUSDT", "AKROUSDT"]),
        ("binance-coinm", "cf_20210722_meta0_dapi_v1_exchangeInfo", &["LINKUSD_PERP", "ETHUSD_210924"]),
        ("coinbase", "cf_20210417_meta0_products", &["NMR-EUR", "YFI-BTC"]),
        ("okcoin", "cf_20230527_meta0_api_v5_public_instruments", &["BTC-USD"]),
    ] {
        let list = parse(venue, &mut body(&corpus, venue, file));
        for symbol in symbols {
            let found = list.iter().find(|instrument| instrument.symbol == *symbol);
            let instrument = found.unwrap_or_else(|| panic!("{venue}: no {symbol} among {}", list.len()));
            assert!(instrument.price_tick.is_some() && instrument.qty_step.is_some(), "{}", line(instrument));
        }
    }
}

fn body(corpus: &Path, venue: &str, file: &str) -> Vec<u8> {
    let compressed = fs::File::open(corpus.join(format!("rest/{venue}/{file}.json.zst"))).unwrap();
    let mut body = Vec::new();
    zstd::Decoder::new(compressed).unwrap().read_to_end(&mut body).unwrap();
    body
}

/// Found by fuzzing: `instId` misspelt. A pattern would have subscribed to the instrument without a name.
#[test]
fn an_instrument_without_a_symbol_is_no_instrument() {
    let body = r#"{"code":"0","data":[
        {"instType":"SPOT","iIndts":"BTC-USDT","baseCcy":"BTC","quoteCcy":"USDT","state":"live","tickSz":"0.1"},
        {"instType":"SPOT","instId":"ETH-USDT","baseCcy":"ETH","quoteCcy":"USDT","state":"live","tickSz":"0.1"}]}"#;
    let Source::Http { parse, .. } = spec("okx").metadata else { panic!("OKX has its list over HTTP") };
    let mut list = parse(&mut body.as_bytes().to_vec()).unwrap();
    assert_eq!(drop_unnamed(&mut list), 1);
    assert_eq!(list.iter().map(|one| &*one.symbol).collect::<Vec<_>>(), ["ETH-USDT"]);
    list[0].symbol = "X".repeat(65);
    assert_eq!((drop_unnamed(&mut list), list.len()), (1, 0));
}
