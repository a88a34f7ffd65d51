//! The dashboard's SQL on real servers, as the role that compose.yaml gives to Grafana.

use tapeway::store;

use super::dashboard;
use crate::cluster::{block_on, on_each};

#[test]
fn every_sql_query_gives_rows_to_a_role_that_may_only_read() {
    let queries = dashboard::sql_queries();
    assert!(queries.len() >= 3, "{queries:?}");
    on_each(|cluster, _| {
        let database = cluster.database("dashboard");
        block_on(store::prepare(&database)).unwrap();
        cluster.psql("dashboard", SOME_OF_EACH);
        cluster.psql("dashboard", "CREATE ROLE reader; GRANT pg_read_all_data TO reader");
        for query in &queries {
            let rows = cluster.psql("dashboard", &format!("SET ROLE reader; {}", query.sql));
            assert!(!rows.trim().is_empty(), "{} shows nothing: {}", query.panel, query.sql);
        }
    });
}

const SOME_OF_EACH: &str = "
    INSERT INTO market_data.venues (venue) VALUES ('acme');
    INSERT INTO market_data.instruments (venue, symbol) VALUES ('acme', 'BTC-USD');
    INSERT INTO market_data.trades (time, recv_time, instrument_id, price, qty, side, trade_id, flags, lane_id, frame_pos)
        SELECT now(), now(), instrument_id, 100.10, 0.5, 1, 7, 0, 1, 1 FROM market_data.instruments;
    INSERT INTO audit.gaps (lane_id, frame_pos, ordinal, venue, instrument_id, channel, cause, detected_at)
        SELECT 1, 1, 0, venue, instrument_id, 'book', 'sequence', now() FROM market_data.instruments;";
