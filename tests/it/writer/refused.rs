//! Rows that the server will not have are named and counted, and the others flow on.

use tapeway::writer;
use tapeway_exchanges::ids::Micros;

use super::{chunks, decimal, prepared, stop, watermarks};
use crate::{
    cluster::on_each,
    feeding::{self, assert_same, expected, feed, lane, settings, stored, until_committed},
};

#[test]
fn refused_rows_are_named_and_the_others_flow_on() {
    on_each(|cluster, flavor| {
        let database = prepared(cluster, "poison");
        cluster.psql("poison", "ALTER TABLE market_data.book_deltas ADD CHECK (price <> 666)");
        let lane = lane("acme.0", 1, 64);
        let handle = writer::start(&settings(1, 2_000), &database, vec![lane.clone()]).unwrap();
        let mut input = chunks(0, 12, 50);
        let mut poison = Vec::new();
        input[2].trades[3].trade_ref = Some("nul \0 in it".into());
        poison.push((input[2].pos(input[2].trades[3].frame), "row_refused"));
        input[5].quotes[0].time = Micros(i64::MAX);
        poison.push((input[5].pos(input[5].quotes[0].frame), "time_out_of_range"));
        for row in [0, 7] {
            input[8].levels[row].price = decimal("666");
            poison.push((input[8].pos(input[8].levels[row].frame), "row_refused"));
        }
        input.iter().for_each(|chunk| feed(&lane, chunk.clone()));
        until_committed(&lane);
        assert_eq!(stop(handle, feeding::PATIENCE), []);
        input[2].trades.remove(3);
        input[5].quotes.remove(0);
        input[8].levels.remove(7);
        input[8].levels.remove(0);
        assert_same(&stored(cluster, "poison"), &expected("acme.0", &input));
        let (received, committed, rejected) = lane.rows.counts();
        assert_eq!((received, rejected), (committed + rejected, 4), "{flavor:?}");
        let rejects = cluster.psql("poison", "SELECT frame_pos, reason FROM audit.rejects ORDER BY 1");
        let named: String = poison.iter().map(|(pos, reason)| format!("{pos}|{reason}\n")).collect();
        assert_eq!(rejects, named);
        let detail = cluster.psql("poison", "SELECT detail FROM audit.rejects ORDER BY frame_pos LIMIT 1");
        assert!(detail.contains("22021") && detail.contains("SYM"), "{detail}");
        assert_eq!(watermarks(cluster, "poison"), format!("acme.0|600|{committed}|4\n"));
    });
}

/// A constraint that nothing passes: were every row looked for by itself, a lane would stand for minutes, batch after batch.
#[test]
fn rows_refused_by_the_ten_thousand_are_named_together_and_cost_seconds() {
    on_each(|cluster, flavor| {
        let database = prepared(cluster, "flood");
        cluster.psql("flood", "ALTER TABLE market_data.book_deltas ADD CHECK (price <> 666)");
        let lane = lane("acme.0", 1, 4_096);
        let mut input = chunks(0, 60, 500);
        let mut bad = 0;
        for chunk in &mut input {
            chunk.levels.iter_mut().for_each(|level| level.price = decimal("666"));
            bad += chunk.levels.len() as u64;
        }
        assert!(bad > 10_000, "only {bad} rows are bad");
        let begun = std::time::Instant::now();
        let handle = writer::start(&settings(1, 100_000), &database, vec![lane.clone()]).unwrap();
        input.iter().for_each(|chunk| feed(&lane, chunk.clone()));
        until_committed(&lane);
        println!("{flavor:?}: {bad} bad rows took {:?}", begun.elapsed());
        assert_eq!(stop(handle, feeding::PATIENCE), []);
        input.iter_mut().for_each(|chunk| chunk.levels.clear());
        assert_same(&stored(cluster, "flood"), &expected("acme.0", &input));
        let (received, committed, rejected) = lane.rows.counts();
        assert_eq!((received, rejected), (committed + rejected, bad), "{flavor:?}");
        assert_eq!(watermarks(cluster, "flood"), format!("acme.0|30000|{committed}|{bad}\n"));
        let count = |sql: &str| cluster.psql("flood", sql).trim().parse::<u64>().unwrap();
        let together = "SELECT count(*) FROM audit.rejects WHERE detail LIKE '% rows of frames %'";
        assert!(count(together) > 0);
        assert!(count("SELECT count(*) FROM audit.rejects") < bad / 2);
        let named =
            "SELECT sum(coalesce(substring(detail FROM '^([0-9]+) rows of frames')::bigint, 1)) FROM audit.rejects";
        assert_eq!(count(named), bad, "each is counted once");
    });
}
