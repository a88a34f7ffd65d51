//! Two daemons with journals of their own, the same lanes and one database: one writes, the other waits and takes over.
//! What both heard is in the database once, what neither heard is named.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use tapeway::{demo::truth, loopback::Venue};

use super::world::{Setup, World};
use crate::{
    cluster::block_on,
    process::{Daemon, PATIENCE, lane, lanes, sum, wait},
    proof::gaps,
    proxy::Proxy,
};

const SPOT: Venue = Venue::BinanceSpot;

#[test]
fn the_second_daemon_stands_by_without_doubling_rows_and_takes_over_when_the_first_ends() {
    let setup = Setup { venues: vec![SPOT], ..Setup::default() };
    let Some(world) = World::new(setup) else { return };
    let mut first = world.start_recording();
    let elsewhere = tempfile::tempdir().unwrap();
    let mut second = start_beside(&world, elsewhere.path());
    let status = second.until("it stands by, recording", |status| {
        status["writers"][0]["standby"][0] == "binance-spot.0" && sum(status, "rows_received") > 300
    });
    assert_eq!(sum(&status, "rows_committed"), 0);
    let (code, text) = second.readyz();
    assert!(code == 503 && text.contains("lane binance-spot.0: held by another daemon"), "{text}");
    assert_eq!(second.metrics().sum("tapeway_lanes_standby", &[]), 1.0);
    world.until_more(SPOT, "trades");
    let lanes = "SELECT count(DISTINCT lane_id) FROM market_data.trades";
    assert_eq!(world.psql(lanes), "1");

    first.kill();
    second.until("it took over", |status| {
        lane(status, "binance-spot.0")["rows_committed"].as_u64() > Some(300)
            && status["writers"][0]["standby"][0].is_null()
    });
    second.until_ready();
    assert_eq!(world.psql(lanes), "2");
    // What the first one had committed was left out, and that is written down.
    world
        .until_count(0, "SELECT count(*) FROM audit.rejects WHERE detail LIKE '%while another daemon wrote this lane'");
    world.venues.pause();
    second.until_drained();
    second.stop();
    let World { folder, cluster, database, venues, .. } = world;
    venues.stop().unwrap();
    assert_not_doubled(|sql| cluster.psql(&database, sql).trim().to_owned(), "one takeover");
    let named = gaps::check(&folder.path().join("truth.ndjson"), (&cluster, &database), "one takeover");
    // Both were connected all the time: nothing is missing at the seam.
    assert_eq!((named.trades, named.books), (0, 0), "{named:?}");
}

#[test]
fn a_lane_goes_to_and_fro_between_two_daemons_and_every_row_is_there_once() {
    let setup = Setup { rate: 6_000.0, ..Setup::default() };
    let Some(world) = World::new(setup) else { return };
    let elsewhere = tempfile::tempdir().unwrap();
    let mut owner = world.start_recording();
    let mut waiting = start_beside(&world, elsewhere.path());
    let mut took = Vec::new();
    for _ in 0..TAKEOVERS {
        waiting.until("it stands by for every lane, recording", |status| {
            let standby = status["writers"][0]["standby"].as_array().map_or(0, Vec::len);
            standby == Venue::ALL.len() && lanes(status).iter().all(|lane| lane["connection"] == "open")
        });
        for venue in Venue::ALL {
            world.until_more(venue, "book_deltas");
        }
        std::thread::sleep(Duration::from_secs(1));
        owner.kill();
        let killed = Instant::now();
        let last = "SELECT coalesce(max(updated_at), '-infinity') FROM audit.watermarks";
        let before = world.psql(last);
        wait(PATIENCE, "the other one commits", || world.psql(&format!("SELECT ({last}) > '{before}'")) == "t");
        took.push(killed.elapsed());
        waiting.until("it holds every lane", |status| {
            status["writers"][0]["standby"].as_array().is_some_and(Vec::is_empty) && sum(status, "rows_pending") < 5_000
        });
        owner.restart();
        std::mem::swap(&mut owner, &mut waiting);
    }
    println!("kill -9 of the owner to the first commit of the standby: {took:.2?}");
    // Gaps of one owner are held against what the other wrote once the seam is some seconds ago.
    std::thread::sleep(Duration::from_secs(6));
    world.venues.pause();
    owner.until_drained();
    gaps::until_settled(&world.cluster, &world.database);
    let status = owner.until("its rows are accounted for", |status| sum(status, "rows_pending") == 0);
    assert_eq!(
        sum(&status, "rows_received"),
        sum(&status, "rows_committed") + sum(&status, "rows_rejected"),
        "{status:#}"
    );
    waiting.stop();
    owner.stop();
    let World { folder, cluster, database, venues, .. } = world;
    venues.stop().unwrap();
    assert_not_doubled(|sql| cluster.psql(&database, sql).trim().to_owned(), "to and fro");
    let named = gaps::check(&folder.path().join("truth.ndjson"), (&cluster, &database), "to and fro");
    println!("named: {named:?}");
    let rows = cluster.psql(
        &database,
        "SELECT count(*) FROM audit.watermarks w WHERE rows_total <>
             (SELECT count(*) FROM market_data.trades t WHERE t.lane_id = w.lane_id)
           + (SELECT count(*) FROM market_data.book_deltas t WHERE t.lane_id = w.lane_id)
           + (SELECT count(*) FROM market_data.quotes t WHERE t.lane_id = w.lane_id)
           + (SELECT count(*) FROM market_data.order_books t WHERE t.lane_id = w.lane_id)",
    );
    assert_eq!(rows.trim(), "0", "a watermark's row count is not the number of its rows");
}

#[test]
fn what_nobody_heard_before_a_new_journal_begins_is_named() {
    let Some(world) = World::new(Setup::default()) else { return };
    let mut first = world.start_recording();
    first.kill();
    drop(first);
    std::thread::sleep(Duration::from_secs(2));
    let elsewhere = tempfile::tempdir().unwrap();
    let mut second = start_beside(&world, elsewhere.path());
    second.until_ready();
    for venue in Venue::ALL {
        world.until_more(venue, "trades");
        world.until_more(venue, "book_deltas");
    }
    let seam = |channel: &str, state: &str| {
        world.count(&format!(
            "SELECT count(DISTINCT instrument_id) FROM audit.gaps
             WHERE ordinal >= 1000000 AND channel = '{channel}' AND state = '{state}'"
        ))
    };
    let instruments = (Venue::ALL.len() * 2) as u64;
    wait(PATIENCE, "every instrument's hole in trades is named", || seam("trades", "unhealable") == instruments);
    wait(PATIENCE, "every book's hole is named, and over", || seam("book", "resynced") == instruments);
    world.venues.pause();
    second.until_drained();
    second.stop();
    let World { folder, cluster, database, venues, .. } = world;
    venues.stop().unwrap();
    assert_not_doubled(|sql| cluster.psql(&database, sql).trim().to_owned(), "a new journal");
    let named = gaps::check(&folder.path().join("truth.ndjson"), (&cluster, &database), "a new journal");
    assert!(named.trades > 100 && named.books > 100, "two seconds are missing: {named:?}");
}

#[test]
fn a_journal_that_lost_its_end_goes_on_from_the_watermark() {
    let setup = Setup { journal: "  free_bytes_min: 0B\n  segment_bytes_max: 1MiB\n", ..Setup::default() };
    let Some(world) = World::new(setup) else { return };
    let mut daemon = world.start_recording();
    daemon.kill();
    let copy = world.folder.path().join("copy");
    copy_folder(&world.journal(), &copy);
    daemon.restart();
    daemon.until_ready();
    for venue in Venue::ALL {
        for _ in 0..3 {
            world.until_more(venue, "trades");
        }
    }
    daemon.kill();
    fs::remove_dir_all(world.journal()).unwrap();
    fs::rename(&copy, world.journal()).unwrap();
    daemon.restart();
    daemon.until_ready();
    let lanes = Venue::ALL.len() as u64;
    let said = "SELECT count(*) FROM audit.gaps WHERE instrument_id IS NULL AND detail LIKE 'the journal ended at%'";
    wait(PATIENCE, "each lane says that its journal was behind", || world.count(said) == lanes);
    for venue in Venue::ALL {
        world.until_more(venue, "trades");
        world.until_more(venue, "book_deltas");
    }
    world.venues.pause();
    daemon.until_drained();
    gaps::until_settled(&world.cluster, &world.database);
    daemon.until_drained();
    let status = daemon.until("its rows are accounted for", |status| sum(status, "rows_pending") == 0);
    assert_eq!(sum(&status, "rows_received"), sum(&status, "rows_committed") + sum(&status, "rows_rejected"));
    daemon.stop();
    let World { folder, cluster, database, venues, .. } = world;
    venues.stop().unwrap();
    let doubled = "SELECT count(*) - count(DISTINCT (instrument_id, trade_id)) FROM market_data.trades";
    assert_eq!(cluster.psql(&database, doubled).trim(), "0", "trades are there twice");
    let missed = "SELECT count(*) FROM (
             SELECT trade_id, lead(trade_id) OVER (PARTITION BY instrument_id ORDER BY trade_id) AS next, instrument_id
             FROM market_data.trades) AS pairs
         WHERE next > trade_id + 1 AND NOT EXISTS (SELECT FROM audit.gaps g WHERE g.instrument_id = pairs.instrument_id
             AND g.channel = 'trades' AND g.first_missing <= pairs.trade_id + 1 AND g.last_missing >= next - 1)";
    assert_eq!(cluster.psql(&database, missed).trim(), "0", "trades are missing and not named");
    drop(folder);
}

#[test]
fn a_standby_keeps_its_journal_small_and_takes_over_without_calling_anything_lost() {
    let setup = Setup { venues: vec![SPOT, Venue::Kraken], rate: 8_000.0, journal: SMALL, ..Setup::default() };
    let Some(world) = World::new(setup) else { return };
    let mut owner = world.start_recording();
    hurry(&world);
    let elsewhere = tempfile::tempdir().unwrap();
    let mut waiting = start_beside(&world, elsewhere.path());
    let folders = [SPOT, Venue::Kraken].map(|venue| elsewhere.path().join(format!("journal/{}.0", venue.name())));
    wait(PATIENCE, "it lets go of segments of both lanes", || folders.iter().all(|lane| first_kept(lane) > 0));
    // Its journal does not grow while it is written again and again.
    let written = |daemon: &mut Daemon| daemon.metrics().sum("tapeway_journal_bytes_written_total", &[]);
    let (before, mut most) = (written(&mut waiting), 0.0_f64);
    wait(PATIENCE, "as much is written as two journals", || {
        most = most.max(waiting.metrics().sum("tapeway_journal_bytes", &[]));
        written(&mut waiting) - before > 2.0 * most
    });
    let status = waiting.until("what waits is no more than the owner may lack", |status| {
        sum(status, "rows_pending") < sum(status, "rows_received") / 2
    });
    assert_eq!(
        sum(&status, "rows_received"),
        sum(&status, "rows_rejected") + sum(&status, "rows_pending"),
        "{status:#}"
    );
    assert!(lanes(&status).iter().all(|lane| lane["is_standby"] == true && lane["is_behind"] == false));
    assert_eq!(waiting.metrics().sum("tapeway_lanes_behind", &[]), 0.0);
    assert!(waiting.table().contains("open, standby"), "{}", waiting.table());
    println!("written {}, at most {most} on disk", written(&mut waiting));

    // From here on the database says again how far the owner really is, and it has to be past what the standby still has.
    world.psql(
        "DROP TRIGGER hurry ON audit.watermarks;
         UPDATE audit.watermarks SET last_received = now() - interval '1 s', updated_at = now()",
    );
    std::thread::sleep(CLOCKS_APART + Duration::from_secs(5));
    owner.kill();
    waiting
        .until("it holds every lane", |status| status["writers"][0]["standby"].as_array().is_some_and(Vec::is_empty));
    // Gaps of one owner are held against what the other wrote once the seam is some seconds ago.
    std::thread::sleep(Duration::from_secs(6));
    world.venues.pause();
    waiting.until_drained();
    gaps::until_settled(&world.cluster, &world.database);
    let status = waiting.until("its rows are accounted for", |status| sum(status, "rows_pending") == 0);
    assert_eq!(sum(&status, "rows_received"), sum(&status, "rows_committed") + sum(&status, "rows_rejected"));
    waiting.stop();
    let World { folder, cluster, database, venues, .. } = world;
    venues.stop().unwrap();
    let psql = |sql: &str| cluster.psql(&database, sql).trim().to_owned();
    assert_eq!(psql("SELECT count(*) FROM audit.gaps WHERE cause = 'journal_lost'"), "0");
    assert_eq!(psql("SELECT count(*) FROM audit.rejects WHERE reason = 'journal_lost'"), "0");
    assert_eq!(psql("SELECT count(DISTINCT lane_id) FROM audit.rejects WHERE detail LIKE '%let them go'"), "2");
    assert_not_doubled(psql, "a standby that let go");
    let truth = folder.path().join("truth.ndjson");
    let named = gaps::check(&truth, (&cluster, &database), "a standby that let go");
    assert_eq!((named.trades, named.books), (0, 0), "both were connected all the time: {named:?}");
    let url = cluster.database_at(&database, cluster.port).url;
    let comparison = block_on(truth::compare(&truth, url.expose())).unwrap();
    // Kraken tells a new connection the best prices of each symbol, with a time that only this connection hears of.
    let greetings = Setup::default().symbols as u64;
    assert!(comparison.examples.iter().all(|example| example.starts_with("missing: q|kraken|")), "{comparison:?}");
    assert!(comparison.missing <= greetings, "{comparison:?}");
    assert_eq!((comparison.doubled, comparison.invented), (0, 0), "{comparison:?}");
    assert!(comparison.equal > 10_000, "{comparison:?}");
}

#[test]
fn a_standby_lets_go_of_nothing_while_its_database_is_away_or_the_owner_commits_nothing() {
    let setup = Setup {
        venues: vec![SPOT],
        rate: 8_000.0,
        journal: SMALL,
        // Of an owner that gets no answers the claim stays.
        database: "  statement_timeout: 10m\n",
        ..Setup::default()
    };
    let Some(world) = World::new(setup) else { return };
    let _owner = world.start_recording();
    hurry(&world);
    let elsewhere = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(world.cluster.port);
    let mut waiting = start_through(&world, elsewhere.path(), &proxy);
    let folder = elsewhere.path().join("journal/binance-spot.0");
    wait(PATIENCE, "it lets go of segments", || first_kept(&folder) > 0);

    let keeps_all = |what: &str| {
        std::thread::sleep(ASKED); // It may have been asked the moment before.
        let (first, count) = (first_kept(&folder), segments(&folder).len());
        std::thread::sleep(ASKED);
        wait(PATIENCE, "several segments are filled", || segments(&folder).len() >= count + 5);
        assert_eq!(first_kept(&folder), first, "{what}");
        first
    };
    proxy.down();
    let first = keeps_all("its database is away");
    proxy.up();
    wait(PATIENCE, "it lets go again", || first_kept(&folder) > first);

    world.proxy.mute();
    keeps_all("the owner commits nothing");
    let status = waiting.until("it stands by", |status| status["writers"][0]["standby"][0] == "binance-spot.0");
    assert_eq!(lane(&status, "binance-spot.0")["connection"], "open");
    let before = sum(&status, "rows_pending");
    waiting.until("what waits becomes more", |status| sum(status, "rows_pending") > before);
}

/// The owner's commits are dated ahead, so that a standby need not wait for the five minutes by which it wants the owner to be
/// past a frame: ten seconds are left of them.
fn hurry(world: &World) {
    world.psql(
        "CREATE FUNCTION hurry() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             NEW.last_received := now() + interval '290 s'; NEW.updated_at := now() + interval '290 s'; RETURN NEW;
         END $$;
         CREATE TRIGGER hurry BEFORE UPDATE ON audit.watermarks FOR EACH ROW EXECUTE FUNCTION hurry()",
    );
}

/// First positions of the segments in a lane's folder, in order.
fn segments(lane: &Path) -> Vec<u64> {
    let Ok(files) = fs::read_dir(lane) else { return Vec::new() };
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut firsts: Vec<u64> = names.filter_map(|name| name.split_once(".seg")?.0.parse().ok()).collect();
    firsts.sort_unstable();
    firsts
}

fn first_kept(lane: &Path) -> u64 {
    segments(lane).first().copied().unwrap_or(0)
}

/// As [`start_beside`], reaching the database by a way of its own.
fn start_through(world: &World, folder: &Path, proxy: &Proxy) -> Daemon {
    let main = world.config().join("tapeway.yaml");
    let text = fs::read_to_string(&main).unwrap();
    fs::write(&main, text.replace(&format!(":{}/", world.proxy.port), &format!(":{}/", proxy.port))).unwrap();
    let daemon = start_beside(world, folder);
    fs::write(&main, text).unwrap();
    daemon
}

/// A second daemon on the same venues and database, with a journal of its own.
fn start_beside(world: &World, folder: &Path) -> Daemon {
    let config = folder.join("config");
    fs::create_dir_all(config.join("exchanges")).unwrap();
    let main = fs::read_to_string(world.config().join("tapeway.yaml")).unwrap();
    let journal = folder.join("journal").display().to_string();
    fs::write(config.join("tapeway.yaml"), main.replace(&world.journal().display().to_string(), &journal)).unwrap();
    for file in fs::read_dir(world.config().join("exchanges")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), config.join("exchanges").join(file.file_name())).unwrap();
    }
    Daemon::start(folder, &config)
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Panics when a trade, a book message or a quote is there from two journals.
fn assert_not_doubled(psql: impl Fn(&str) -> String, told: &str) {
    let trades = "SELECT count(*) - count(DISTINCT (instrument_id, trade_id)) FROM market_data.trades";
    assert_eq!(psql(trades), "0", "{told}: trades are there twice");
    let messages = [
        ("book_deltas", "instrument_id, seq", "seq IS NOT NULL AND flags & 2 = 0"),
        ("book_deltas", "instrument_id, time, side, price, qty", "seq IS NULL AND flags & 2 = 0"),
        ("order_books", "instrument_id, time", "true"),
        ("quotes", "instrument_id, seq", "seq IS NOT NULL"),
        ("quotes", "instrument_id, time, bid_price, bid_qty, ask_price, ask_qty", "seq IS NULL"),
    ];
    for (table, key, filter) in messages {
        let doubled = psql(&format!(
            "SELECT count(*) FROM (SELECT {key} FROM market_data.{table} WHERE {filter} GROUP BY {key}
                 HAVING count(DISTINCT lane_id) > 1) AS doubled"
        ));
        assert_eq!(doubled, "0", "{told}: {table} where {filter}: there from two journals");
    }
}

/// Hand-overs in one run.
const TAKEOVERS: usize = 4;
/// A journal that rolls every second or so, and keeps little.
const SMALL: &str = "  free_bytes_min: 0B\n  segment_bytes_max: 1MiB\n  keep_for: 2s\n";
/// How far the clocks of two hosts may be apart.
const CLOCKS_APART: Duration = Duration::from_secs(60);
/// Longer than it takes until a standby asks again how far the owner is.
const ASKED: Duration = Duration::from_secs(12);
