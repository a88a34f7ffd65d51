//! The audit tables held against their own seals.

use super::{
    Error,
    findings::Findings,
    moment,
    report::{Finding, Severity},
    scope::Scope,
};
use crate::store::Connection;

/// Compares gaps, sessions and rejects from the range's begin on: a gap in it may have been found later.
pub(super) async fn compare(connection: &Connection, scope: &Scope, findings: &mut Findings) -> Result<(), Error> {
    for (relation, moment_column) in AUDITED {
        let sql = format!(
            "SELECT lane_id, extract(epoch FROM hour)::bigint, coalesce(f.rows, 0)::bigint, coalesce(s.rows, 0)
             FROM (SELECT date_trunc('hour', {moment_column}) AS hour, lane_id, count(*) AS rows,
                          sum((audit.row_hash(to_jsonb(r)) >> 32) & 4294967295) AS hash_high,
                          sum(audit.row_hash(to_jsonb(r)) & 4294967295) AS hash_low
                   FROM audit.{relation} r WHERE {moment_column} >= to_timestamp($1::bigint) GROUP BY 1, 2) f
             FULL JOIN (SELECT hour, lane_id, rows, hash_high, hash_low FROM audit.seals
                        WHERE relation = '{relation}' AND hour >= to_timestamp($1::bigint)) s USING (hour, lane_id)
             WHERE (f.rows, f.hash_high, f.hash_low) IS DISTINCT FROM (s.rows, s.hash_high, s.hash_low)
             ORDER BY 2, 1"
        );
        for row in connection.query("compare audit rows", &sql, &[&scope.seconds().0]).await? {
            let (lane, stored, sealed): (i32, i64, i64) = (row.get(0), row.get(2), row.get(3));
            let venue = scope.lanes.get(&lane).map(|lane| lane.venue.clone()).unwrap_or_default();
            let what = match stored.cmp(&sealed) {
                std::cmp::Ordering::Less => format!("{} were deleted or moved away", sealed - stored),
                std::cmp::Ordering::Greater => format!("{} were added or moved here", stored - sealed),
                std::cmp::Ordering::Equal => "they are not as they were written".into(),
            };
            findings.add(Finding {
                severity: Severity::Damage,
                kind: "audit_altered",
                venue,
                symbol: String::new(),
                table: relation,
                lane_id: Some(lane),
                at: moment::iso(row.get::<_, i64>(1) * 1_000_000),
                detail: format!(
                    "audit.{relation} has {stored} rows of this hour and {sealed} were written: {what} (or the seal was)"
                ),
            });
        }
    }
    Ok(())
}

/// Sealed audit tables, and the moment by whose hour.
const AUDITED: [(&str, &str); 3] = [("gaps", "detected_at"), ("sessions", "at"), ("rejects", "received")];
