//! The way to the simulated database: connections that do what the writer asks of PostgreSQL, step by step, as far as the
//! database's faults let them.

use std::{
    cell::{Cell, RefCell},
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use tapeway::{
    store::{
        self, Capabilities, Layout,
        instruments::InstrumentId,
        table::Table,
        watermark::{LaneId, Watermark},
    },
    writer::{
        batch::{Mark, Sealed},
        link::{Connect, Link, Server},
        notes::Notes,
    },
};
use tapeway_exchanges::{ids::FramePos, symbols::Symbol};
use tokio_postgres::error::SqlState;

use super::{
    SimDatabase, World,
    faults::{Fate, Faults},
    refused, rows,
    state::{Gap, Reject, Session},
    transaction::{End, Moved, Transaction},
};
use crate::mutation::Mutation;

/// Opens connections of one process.
#[derive(Clone)]
pub struct SimConnector {
    /// The database.
    pub database: SimDatabase,
    /// Tells one process from another, as `application_name` does.
    pub instance: u32,
}

impl Connect for SimConnector {
    type Link = SimLink;

    async fn connect(&self) -> Result<(SimLink, Server), store::Error> {
        let wait = {
            let mut world = self.database.0.borrow_mut();
            let is_hanging = {
                let hang = world.faults.hang;
                world.rng.chance(hang)
            };
            if is_hanging { TIMEOUT } else { Duration::from_millis(world.rng.below(4)) }
        };
        tokio::time::sleep(wait).await;
        if wait == TIMEOUT {
            return Err(store::Error::Timeout { doing: "connect", after: TIMEOUT });
        }
        let mut world = self.database.0.borrow_mut();
        if !world.is_up {
            return Err(store::Error::Lost { doing: "connect", what: "nobody listens" });
        }
        world.connection_next += 1;
        let number = world.connection_next;
        world.alive.insert(number);
        let epoch = world.epoch;
        drop(world);
        let link = SimLink {
            database: self.database.clone(),
            number,
            epoch,
            instance: self.instance,
            transaction: RefCell::default(),
            is_committing: Cell::new(false),
        };
        let capabilities = Capabilities {
            server_version: 150_000,
            server_version_text: "15 (simulated)".into(),
            timescaledb: None,
            is_timescaledb_offered: false,
            is_community: false,
            has_direct_compress: false,
            is_read_only: false,
            layout: Some(Layout::Hypertable),
            can_create: true,
            can_insert: Some(true),
        };
        Ok((link, Server { capabilities, is_direct_compress_on: false }))
    }
}

/// One connection.
pub struct SimLink {
    database: SimDatabase,
    number: u64,
    epoch: u64,
    instance: u32,
    transaction: RefCell<Option<Transaction>>,
    /// COMMIT was sent and not answered.
    is_committing: Cell<bool>,
}

impl Drop for SimLink {
    /// The client is gone. The server knows at once, or only when somebody asks for the lane.
    fn drop(&mut self) {
        let mut world = self.database.0.borrow_mut();
        if world.epoch != self.epoch || !world.alive.contains(&self.number) {
            return;
        }
        let committing = self.transaction.get_mut().take().filter(|_| self.is_committing.get());
        if committing.is_some() || world.rng.chance(300) {
            world.alive.remove(&self.number);
            world.stale.insert(self.number, (self.instance, committing));
        } else {
            world.end(self.number);
        }
    }
}

impl SimLink {
    /// The way to the server: time passes, and what goes wrong goes wrong.
    async fn step(&self, doing: &'static str) -> Result<(), store::Error> {
        let (wait, fate) = {
            let mut world = self.database.0.borrow_mut();
            let faults = world.faults;
            faults.fate(&mut world.rng)
        };
        let wait = if matches!(fate, Fate::Hangs) { TIMEOUT } else { wait };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        let mut world = self.database.0.borrow_mut();
        if world.epoch != self.epoch || !world.alive.contains(&self.number) {
            return Err(store::Error::Lost { doing, what: "the server closed the connection" });
        }
        match fate {
            Fate::Goes => Ok(()),
            Fate::Cut => {
                world.end(self.number);
                Err(store::Error::Lost { doing, what: "connection reset" })
            }
            Fate::Hangs => Err(store::Error::Timeout { doing, after: TIMEOUT }),
            Fate::Refused => {
                if let Some(transaction) = self.transaction.borrow_mut().as_mut() {
                    transaction.is_failed = true;
                }
                let codes = [
                    SqlState::DISK_FULL,
                    SqlState::T_R_SERIALIZATION_FAILURE,
                    SqlState::QUERY_CANCELED,
                    SqlState::READ_ONLY_SQL_TRANSACTION,
                ];
                let code = world.rng.pick(&codes).clone();
                Err(refused(doing, code, "a trouble of the server"))
            }
        }
    }

    /// A step inside a transaction.
    fn with<T>(
        &self,
        doing: &'static str,
        act: impl FnOnce(&mut World, &mut Transaction) -> Result<T, store::Error>,
    ) -> Result<T, store::Error> {
        let mut transaction = self.transaction.borrow_mut();
        let Some(transaction) = transaction.as_mut() else {
            self.database.0.borrow_mut().protocol.push(format!("{doing} outside a transaction"));
            return Err(refused(doing, SqlState::NO_ACTIVE_SQL_TRANSACTION, "no transaction"));
        };
        if transaction.is_failed {
            return Err(refused(doing, SqlState::IN_FAILED_SQL_TRANSACTION, "the transaction is aborted"));
        }
        let result = act(&mut self.database.0.borrow_mut(), transaction);
        transaction.is_failed |= result.is_err();
        result
    }
}

impl Link for SimLink {
    fn widths(&self) -> Option<[i64; Table::COUNT]> {
        None
    }

    fn compress_warnings(&self) -> u64 {
        0
    }

    async fn heartbeat(&self) -> Result<(), store::Error> {
        self.step("heartbeat").await
    }

    async fn claim(&self, venue: &str, lane: &str) -> Result<bool, store::Error> {
        self.step("claim a lane").await?;
        let mut world = self.database.0.borrow_mut();
        let key = (venue.to_owned(), lane.to_owned());
        let holder = world.locks.get(&key).copied().filter(|holder| *holder != self.number);
        if let Some(holder) = holder {
            let Some((instance, _)) = world.stale.get(&holder) else { return Ok(false) };
            // Another process's session ends when its server notices; our own is ended.
            if *instance != self.instance && !world.rng.chance(400) {
                return Ok(false);
            }
            let (_, committing) = world.stale.remove(&holder).unwrap_or_default();
            if let Some(transaction) = committing
                && world.rng.chance(500)
                && world.apply(transaction).is_ok()
            {
                world.counts.late += 1;
            }
            world.locks.retain(|_, other| *other != holder);
        }
        world.locks.insert(key, self.number);
        Ok(true)
    }

    async fn release(&self, venue: &str, lane: &str) -> Result<(), store::Error> {
        self.step("release a lane").await?;
        let mut world = self.database.0.borrow_mut();
        world.locks.retain(|key, holder| *holder != self.number || (key.0.as_str(), key.1.as_str()) != (venue, lane));
        Ok(())
    }

    async fn lane_id(&self, venue: &str, lane: &str, journal_id: u128) -> Result<LaneId, store::Error> {
        self.step("look a lane up").await?;
        let mut world = self.database.0.borrow_mut();
        let next = i32::try_from(world.state.lanes.len()).unwrap_or(i32::MAX) + 1;
        let id = *world.state.lanes.entry((venue.into(), lane.into(), journal_id)).or_insert(next);
        world.state.watermarks.entry(id).or_default();
        Ok(LaneId(id))
    }

    async fn watermark(&self, lane: LaneId) -> Result<Watermark, store::Error> {
        self.step("read a watermark").await?;
        let world = self.database.0.borrow();
        let mark = world.state.watermarks.get(&lane.0).copied().unwrap_or_default();
        let name = |id: &i32| {
            world.state.lanes.iter().find(|(_, lane)| *lane == id).map(|((venue, name, _), _)| (venue, name))
        };
        let others = world.state.watermarks.iter().filter(|(id, _)| **id != lane.0 && name(id) == name(&lane.0));
        let elsewhere = others.filter_map(|(_, other)| other.received).max();
        Ok(Watermark {
            next: FramePos::new(mark.next),
            rows_total: mark.rows,
            rejected: mark.rejected,
            last_received: mark.received,
            elsewhere,
        })
    }

    async fn standing(&self, venue: &str, lane: &str, journal_id: u128) -> Result<Watermark, store::Error> {
        self.step("ask how far a lane's owner is").await?;
        let world = self.database.0.borrow();
        let is_of_lane = |key: &(String, String, u128)| key.0 == venue && key.1 == lane;
        let marks = world
            .state
            .lanes
            .iter()
            .filter(|(key, _)| is_of_lane(key))
            .map(|(key, id)| (key.2 == journal_id, world.state.watermarks.get(id).copied().unwrap_or_default()));
        let (own, others): (Vec<_>, Vec<_>) = marks.partition(|(is_own, _)| *is_own);
        let own = own.first().map(|(_, mark)| *mark).unwrap_or_default();
        Ok(Watermark {
            next: FramePos::new(own.next),
            rows_total: own.rows,
            rejected: own.rejected,
            last_received: own.received,
            elsewhere: others.iter().filter_map(|(_, mark)| mark.received).max(),
        })
    }

    async fn instruments(&self, venue: &str, symbols: &[Symbol]) -> Result<Vec<InstrumentId>, store::Error> {
        self.step("register instruments").await?;
        let mut world = self.database.0.borrow_mut();
        let numbers = symbols.iter().map(|symbol| {
            let next = i32::try_from(world.state.instruments.len()).unwrap_or(i32::MAX) + 1;
            InstrumentId(*world.state.instruments.entry((venue.into(), symbol.to_string())).or_insert(next))
        });
        Ok(numbers.collect())
    }

    async fn ensure_partitions(&self, _sealed: &Sealed) -> Result<(), store::Error> {
        Ok(())
    }

    fn forget_partitions(&self) {}

    async fn begin(&self) -> Result<(), store::Error> {
        self.step("begin").await?;
        if self.transaction.replace(Some(Transaction::default())).is_some() {
            self.database.0.borrow_mut().protocol.push("BEGIN inside a transaction".into());
        }
        Ok(())
    }

    async fn copy(&self, table: Table, blocks: &[Bytes]) -> Result<(), store::Error> {
        self.step("copy").await?;
        let bytes = blocks.concat();
        self.with("copy", |world, transaction| {
            let mut rows = match rows::read(table, &bytes) {
                Ok(rows) => rows,
                Err(what) => {
                    world.protocol.push(format!("COPY {}: {what}", table.name()));
                    return Err(refused("copy", SqlState::BAD_COPY_FILE_FORMAT, "not a COPY file"));
                }
            };
            if let Some(bad) = rows.iter().find(|placed| world.refuses(&placed.row)) {
                let what = format!("a row of frame {} violates a check", bad.pos);
                world.counts.poisoned += 1;
                return Err(store::Error::Refused { doing: "copy", code: SqlState::CHECK_VIOLATION, what });
            }
            let is_third = world.counts.commits == 3;
            match world.mutation {
                Some(Mutation::RowLost) if is_third => drop(rows.pop()),
                Some(Mutation::NoRows) if is_third => rows.clear(),
                Some(Mutation::OtherPrice) if is_third => {
                    if let Some(Some(number)) = rows.first_mut().map(|placed| &mut placed.row.numbers[0]) {
                        number.0 += 1;
                    }
                }
                Some(_) | None => {}
            }
            transaction.rows.extend(rows);
            Ok(())
        })
    }

    async fn check_constraints(&self) -> Result<(), store::Error> {
        self.step("check constraints").await?;
        self.with("check constraints", |_, _| Ok(()))
    }

    async fn channels(&self, _: &Sealed) -> Result<(), store::Error> {
        Ok(())
    }

    async fn seals(&self, _: &Sealed) -> Result<(), store::Error> {
        Ok(())
    }

    fn committed(&self, _: &Sealed) {}

    async fn notes(&self, notes: &Notes) -> Result<(), store::Error> {
        self.step("write notes").await?;
        let Notes { sessions, rejects, gaps, ends, lost } = notes;
        self.with("write notes", |world, transaction| {
            for at in 0..sessions.lane.len() {
                let session =
                    Session { at: sessions.at[at], is_open: sessions.is_open[at], detail: sessions.detail[at].clone() };
                transaction.sessions.push(((sessions.lane[at], sessions.pos[at]), session));
            }
            for at in 0..rejects.lane.len() {
                transaction.rejects.push(Reject {
                    lane: rejects.lane[at],
                    pos: rejects.pos[at],
                    reason: rejects.reason[at].into(),
                    detail: rejects.detail[at].clone(),
                });
            }
            for at in 0..gaps.lane.len() {
                let gap = Gap {
                    instrument: gaps.instrument[at],
                    channel: gaps.channel[at].map(Into::into),
                    cause: gaps.cause[at].into(),
                    first: gaps.first_missing[at],
                    last: gaps.last_missing[at],
                    since: gaps.since[at],
                    until: gaps.until[at],
                    state: gaps.state[at].into(),
                    healed: 0,
                    detail: gaps.detail[at].clone(),
                };
                transaction.gaps.push(((gaps.lane[at], gaps.pos[at], gaps.ordinal[at]), gap));
            }
            transaction.lost.extend(lost.lane.iter().copied().zip(lost.end.iter().copied()));
            for at in 0..ends.lane.len() {
                let end = End {
                    state: ends.state[at].into(),
                    rows: ends.rows[at],
                    last: ends.last_missing[at],
                    until: ends.until[at],
                    detail: ends.detail[at].clone(),
                };
                transaction.ends.push(((ends.lane[at], ends.pos[at], ends.ordinal[at]), end));
            }
            match world.mutation {
                Some(Mutation::GapLost) => transaction.gaps.clear(),
                Some(Mutation::EndLost) => transaction.ends.clear(),
                Some(Mutation::RejectLost) => transaction.rejects.clear(),
                Some(_) | None => {}
            }
            Ok(())
        })
    }

    async fn watermarks(&self, marks: &[Mark]) -> Result<u64, store::Error> {
        self.step("move watermarks").await?;
        self.with("move watermarks", |world, transaction| {
            let mut moved = 0;
            for mark in marks {
                let found = world.state.watermarks.get(&mark.lane_id.0).map(|found| found.next);
                if found == Some(mark.old.get()) {
                    moved += 1;
                    transaction.marks.push(Moved {
                        lane: mark.lane_id.0,
                        old: mark.old.get(),
                        new: mark.new.get(),
                        rows: mark.rows,
                        rejected: mark.rejected,
                        received: UNIX_EPOCH + Duration::from_micros(mark.received.micros().0.max(0).unsigned_abs()),
                    });
                } else {
                    world.counts.fenced += 1;
                }
            }
            if world.mutation == Some(Mutation::WatermarkAhead) && world.counts.commits == 3 {
                for moved in &mut transaction.marks {
                    moved.new += 1;
                }
            }
            Ok(moved)
        })
    }

    async fn commit(&self) -> Result<(), store::Error> {
        self.is_committing.set(true);
        self.step("commit").await?;
        self.is_committing.set(false);
        let Some(transaction) = self.transaction.borrow_mut().take() else {
            self.database.0.borrow_mut().protocol.push("COMMIT outside a transaction".into());
            return Ok(());
        };
        let mut world = self.database.0.borrow_mut();
        if transaction.is_failed {
            return Ok(()); // As PostgreSQL has it: the answer is ROLLBACK, which is no error.
        }
        let Faults { cut_in_commit, lose_lock, .. } = world.faults;
        let number = self.number;
        if world.rng.chance(cut_in_commit) {
            match world.rng.below(3) {
                // Nothing of it.
                0 => world.end(number),
                // It took effect, the answer is lost.
                1 => {
                    world.apply(transaction)?;
                    world.counts.answers_lost += 1;
                    world.end(number);
                }
                // The backend goes on with it; when it ends, it may have.
                _ => {
                    world.alive.remove(&number);
                    world.stale.insert(number, (self.instance, Some(transaction)));
                    if world.rng.chance(lose_lock) {
                        world.locks.retain(|_, holder| *holder != number);
                    }
                }
            }
            return Err(store::Error::Lost { doing: "commit", what: "connection reset" });
        }
        world.apply(transaction)
    }

    async fn rollback(&self) -> Result<(), store::Error> {
        self.step("roll back").await?;
        self.transaction.replace(None);
        Ok(())
    }
}

/// How long the server's silence is borne.
const TIMEOUT: Duration = Duration::from_secs(5);
