//! Instruments: a number for every (venue, symbol) on first sight, and what the venue's list says of it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rust_decimal::Decimal;
use tapeway_exchanges::{ids::Micros, metadata::Instrument, symbols::Symbol};
use tokio_postgres::Row;

use super::{Connection, Error};

/// An instrument's number in the database.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct InstrumentId(pub i32);

/// The numbers of these symbols, in the same order; new symbols get theirs now. Two daemons doing this at once
/// get the same numbers.
///
/// # Errors
///
/// [`Error::Server`], [`Error::Timeout`].
pub async fn register(connection: &Connection, venue: &str, symbols: &[Symbol]) -> Result<Vec<InstrumentId>, Error> {
    let names: Vec<&str> = symbols.iter().map(|symbol| &**symbol).collect();
    connection.execute("register instruments", INSERT_MISSING, &[&venue, &names]).await?;
    let rows = connection
        .query(
            "read instruments",
            "SELECT instrument_id FROM unnest($2::text[]) WITH ORDINALITY AS wanted (symbol, nr)
         JOIN market_data.instruments i ON i.venue = $1 AND i.symbol = wanted.symbol ORDER BY nr",
            &[&venue, &names],
        )
        .await?;
    Ok(rows.iter().map(|row| InstrumentId(row.get(0))).collect())
}

/// What [`enrich`] changed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Enriched {
    /// Instruments whose description changed, or was read for the first time.
    pub changed: usize,
    /// Instruments that the list no longer has.
    pub delisted: usize,
}

/// Describes a venue's known instruments as its list does. What was true before is kept in
/// `instruments_history`. Instruments that were never recorded are left out.
///
/// # Errors
///
/// [`Error::Server`], [`Error::Timeout`]; then nothing was changed.
pub async fn enrich(connection: &Connection, venue: &str, list: &[Instrument]) -> Result<Enriched, Error> {
    connection.run("begin", "BEGIN").await?;
    let result = enrich_in_transaction(connection, venue, list).await;
    connection.run("end", if result.is_ok() { "COMMIT" } else { "ROLLBACK" }).await?;
    result
}

async fn enrich_in_transaction(connection: &Connection, venue: &str, list: &[Instrument]) -> Result<Enriched, Error> {
    let known = connection.query("read instruments", KNOWN, &[&venue]).await?;
    let by_symbol: std::collections::HashMap<&str, &Instrument> =
        list.iter().map(|instrument| (instrument.symbol.as_str(), instrument)).collect();
    let mut enriched = Enriched::default();
    for row in &known {
        let id: i32 = row.get("instrument_id");
        match by_symbol.get(row.get::<_, &str>("symbol")) {
            Some(instrument) => {
                let wanted = Description::of(instrument);
                if wanted != Description::stored(row) {
                    enriched.changed += 1;
                    wanted.write(connection, id).await?;
                }
            }
            None if row.get::<_, Option<bool>>("is_trading") == Some(true) => {
                enriched.delisted += 1;
                Description { is_trading: Some(false), ..Description::stored(row) }.write(connection, id).await?;
            }
            None => {}
        }
    }
    Ok(enriched)
}

/// What the list says of an instrument, in the database's types.
#[derive(Debug, PartialEq)]
struct Description<'a> {
    base: Option<&'a str>,
    quote: Option<&'a str>,
    kind: Option<&'a str>,
    expiry: Option<SystemTime>,
    price_tick: Option<Decimal>,
    qty_step: Option<Decimal>,
    contract_size: Option<Decimal>,
    is_trading: Option<bool>,
    listed: Option<SystemTime>,
}

impl<'a> Description<'a> {
    fn of(instrument: &'a Instrument) -> Self {
        Self {
            base: Some(&instrument.base),
            quote: Some(&instrument.quote),
            kind: Some(instrument.kind.name()),
            expiry: instrument.expiry.and_then(system_time),
            price_tick: instrument.price_tick,
            qty_step: instrument.qty_step,
            contract_size: instrument.contract_size,
            is_trading: Some(instrument.is_trading),
            listed: instrument.listed.and_then(system_time),
        }
    }

    fn stored(row: &'a Row) -> Self {
        let decimal = |column| row.get::<_, Option<&str>>(column).and_then(|text| text.parse().ok());
        Self {
            base: row.get("base"),
            quote: row.get("quote"),
            kind: row.get("kind"),
            expiry: row.get("expiry"),
            price_tick: decimal("price_tick"),
            qty_step: decimal("qty_step"),
            contract_size: decimal("contract_size"),
            is_trading: row.get("is_trading"),
            listed: row.get("listed"),
        }
    }

    async fn write(&self, connection: &Connection, id: i32) -> Result<(), Error> {
        let text = |value: Option<Decimal>| value.map(|value| value.to_string());
        let (tick, step, size) = (text(self.price_tick), text(self.qty_step), text(self.contract_size));
        connection
            .execute(
                "describe an instrument",
                UPDATE,
                &[
                    &id,
                    &self.base,
                    &self.quote,
                    &self.kind,
                    &self.expiry,
                    &tick,
                    &step,
                    &size,
                    &self.is_trading,
                    &self.listed,
                ],
            )
            .await
            .map(drop)
    }
}

/// A venue's moment in the database's range; `None` for one that no calendar has.
pub(crate) fn system_time(time: Micros) -> Option<SystemTime> {
    (0..MICROS_MAX).contains(&time.0).then(|| UNIX_EPOCH + Duration::from_micros(time.0.unsigned_abs()))
}

/// Year 9999: venues write it for "never".
const MICROS_MAX: i64 = 253_402_300_800_000_000;

const INSERT_MISSING: &str = "
WITH venue AS (INSERT INTO market_data.venues (venue) VALUES ($1) ON CONFLICT DO NOTHING RETURNING venue)
INSERT INTO market_data.instruments (venue, symbol)
SELECT DISTINCT $1, wanted.symbol FROM unnest($2::text[]) AS wanted (symbol)
WHERE NOT EXISTS (SELECT FROM market_data.instruments i WHERE i.venue = $1 AND i.symbol = wanted.symbol)
ON CONFLICT DO NOTHING";

const KNOWN: &str = "
SELECT instrument_id, symbol, base, quote, kind, expiry, price_tick::text, qty_step::text, contract_size::text,
       is_trading, listed
FROM market_data.instruments WHERE venue = $1 ORDER BY instrument_id FOR UPDATE";

const UPDATE: &str = "
WITH described AS (
    UPDATE market_data.instruments SET
        base = $2, quote = $3, kind = $4, expiry = $5, price_tick = $6::text::numeric, qty_step = $7::text::numeric,
        contract_size = $8::text::numeric, is_trading = $9, listed = $10, updated_at = now(),
        delisted = CASE WHEN $9 THEN NULL ELSE coalesce(delisted, now()) END
    WHERE instrument_id = $1
    RETURNING instrument_id, base, quote, kind, expiry, price_tick, qty_step, contract_size, is_trading, listed
), closed AS (
    UPDATE market_data.instruments_history SET valid_to = now() WHERE instrument_id = $1 AND valid_to IS NULL
)
INSERT INTO market_data.instruments_history
    (instrument_id, valid_from, base, quote, kind, expiry, price_tick, qty_step, contract_size, is_trading, listed)
SELECT instrument_id, now(), base, quote, kind, expiry, price_tick, qty_step, contract_size, is_trading, listed
FROM described";
