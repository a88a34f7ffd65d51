//! Venues over TLS: trusted by the configured authority, and by nothing else.

use std::fs;

use tapeway::loopback::Venue;

use super::world::{Setup, World};
use crate::process::lane;

#[test]
fn with_the_authority_trusted_websocket_and_rest_go_over_tls() {
    let Some(world) = World::new(Setup { has_tls: true, ..Setup::default() }) else { return };
    let authority = world.folder.path().join("venues-ca.pem");
    fs::write(&authority, world.venues.ca_pem().unwrap()).unwrap();
    world.write_main(&format!("ca_file: {}", authority.display()));
    assert!(Venue::ALL.iter().all(|venue| world.venues.ws_url(*venue).starts_with("wss://")));
    assert!(Venue::ALL.iter().all(|venue| world.venues.http_url(*venue).starts_with("https://")));
    let daemon = world.start_recording();
    // Binance's snapshots come by REST.
    let snapshots = "SELECT count(*) FROM market_data.book_deltas JOIN market_data.instruments USING (instrument_id)
                     WHERE flags & 2 <> 0 AND venue = 'binance-spot'";
    world.until_count(0, snapshots);
    world.finish(daemon);
}

#[test]
fn without_the_authority_the_daemon_says_why_it_does_not_connect() {
    let setup = Setup { has_tls: true, venues: vec![Venue::BinanceSpot], ..Setup::default() };
    let Some(world) = World::new(setup) else { return };
    let mut daemon = world.start();
    let line = daemon.until_logged(&["cannot connect", "binance-spot.0"]);
    assert!(line.contains("TLS with 127.0.0.1") && line.contains("certificate"), "{line}");
    let status = daemon.until("the reason is in the status", |status| {
        lane(status, "binance-spot.0")["last_error"][1].as_str().is_some_and(|error| error.contains("UnknownIssuer"))
    });
    assert_eq!(lane(&status, "binance-spot.0")["connection"], "connecting");
    let (code, text) = daemon.readyz();
    assert!(code == 503 && text.contains("lane binance-spot.0: not connected: cannot connect: TLS with"), "{text}");
    // The instrument list goes the same way.
    daemon.until_logged(&["no instrument list", "TLS with 127.0.0.1"]);
    assert_eq!(world.stats(Venue::BinanceSpot).connections, 0);
    daemon.stop();
}
