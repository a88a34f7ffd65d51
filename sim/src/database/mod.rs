//! The simulated database: applies transactions atomically, and dies, hangs, forgets and refuses as its seed has it.
//!
//! - `mod.rs`: the server: what is stored, who is connected, which lanes are locked
//! - `link.rs`: a connection; `faults.rs`: what goes wrong with it; `transaction.rs`: what it does, until COMMIT
//! - `state.rs`: what is stored; `rows.rs`: COPY files read back

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use tapeway::store;
use tokio_postgres::error::SqlState;

use self::{
    faults::Faults,
    state::State,
    transaction::{Applied, Transaction},
};
use crate::{mutation::Mutation, rng::Rng};

pub mod faults;
pub mod link;
pub mod rows;
pub mod state;
pub mod transaction;

/// The database; a clone is the same one.
#[derive(Clone)]
pub struct SimDatabase(Rc<RefCell<World>>);

struct World {
    rng: Rng,
    faults: Faults,
    mutation: Option<Mutation>,
    /// Every so many rows is one it will not have, by its numbers; zero: takes all.
    poison_every: u64,
    is_up: bool,
    state: State,
    /// Raised whenever all connections end.
    epoch: u64,
    connection_next: u64,
    alive: BTreeSet<u64>,
    /// Connections whose client is gone though the server does not know: what they were committing.
    stale: BTreeMap<u64, (u32, Option<Transaction>)>,
    locks: BTreeMap<(String, String), u64>,
    /// Transactions since the oracle last looked.
    applied: Vec<Applied>,
    /// What was wrong with what the writer did.
    protocol: Vec<String>,
    /// Transactions, by how they ended.
    pub counts: Counts,
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Transactions committed.
    pub commits: u64,
    /// Commits whose answer was lost.
    pub answers_lost: u64,
    /// Commits that took effect after their client was gone.
    pub late: u64,
    /// Watermarks that were not where the writer believed.
    pub fenced: u64,
    /// Rows refused.
    pub poisoned: u64,
}

impl SimDatabase {
    /// An empty database, migrated and up.
    #[must_use]
    pub fn new(rng: Rng, faults: Faults, poison_every: u64, mutation: Option<Mutation>) -> Self {
        Self(Rc::new(RefCell::new(World {
            rng,
            faults,
            mutation,
            poison_every,
            is_up: true,
            state: State::default(),
            epoch: 0,
            connection_next: 0,
            alive: BTreeSet::new(),
            stale: BTreeMap::new(),
            locks: BTreeMap::new(),
            applied: Vec::new(),
            protocol: Vec::new(),
            counts: Counts::default(),
        })))
    }

    /// From now on these faults.
    pub fn set_faults(&self, faults: Faults) {
        self.0.borrow_mut().faults = faults;
    }

    /// Stops, ending every connection, or starts.
    pub fn set_up(&self, is_up: bool) {
        let mut world = self.0.borrow_mut();
        world.is_up = is_up;
        if !is_up {
            world.end_all();
        }
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.0.borrow().is_up
    }

    /// A backup of its state.
    #[must_use]
    pub fn backup(&self) -> State {
        self.0.borrow().state.clone()
    }

    /// Goes back to a backup.
    pub fn restore(&self, state: State) {
        let mut world = self.0.borrow_mut();
        world.end_all();
        world.applied.clear();
        world.state = state;
    }

    /// What is stored.
    pub fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.0.borrow().state)
    }

    /// What happened so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.0.borrow().counts
    }

    /// Transactions since the last call.
    #[must_use]
    pub fn take_applied(&self) -> Vec<Applied> {
        std::mem::take(&mut self.0.borrow_mut().applied)
    }

    /// The first thing that the writer did wrong.
    #[must_use]
    pub fn broken_rule(&self) -> Option<String> {
        self.0.borrow().protocol.first().cloned()
    }

    /// Whether the database will not have this row.
    #[must_use]
    pub fn refuses(&self, row: &rows::Row) -> bool {
        self.0.borrow().refuses(row)
    }

    /// Whether it will not have a row with this quantity, in smallest steps.
    #[must_use]
    pub fn refuses_qty(&self, qty: u64) -> bool {
        self.0.borrow().refuses_digits(qty.into())
    }

    /// Backends whose client is gone finish what they were committing, or do not.
    pub fn settle_stale(&self) {
        let mut world = self.0.borrow_mut();
        let stale = std::mem::take(&mut world.stale);
        for (number, (_, committing)) in stale {
            if let Some(transaction) = committing
                && world.rng.chance(500)
                && world.apply(transaction).is_ok()
            {
                world.counts.late += 1;
            }
            world.end(number);
        }
    }
}

impl World {
    fn end_all(&mut self) {
        self.epoch += 1;
        self.alive.clear();
        self.locks.clear();
        self.stale.clear();
    }

    /// Ends a connection as its server sees it.
    fn end(&mut self, connection: u64) {
        self.alive.remove(&connection);
        self.locks.retain(|_, holder| *holder != connection);
    }

    fn refuses(&self, row: &rows::Row) -> bool {
        row.numbers[1].is_some_and(|(digits, _)| self.refuses_digits(digits.unsigned_abs()))
    }

    fn refuses_digits(&self, digits: u128) -> bool {
        self.poison_every > 0 && digits > 0 && digits.is_multiple_of(u128::from(self.poison_every))
    }
}

fn refused(doing: &'static str, code: SqlState, what: &str) -> store::Error {
    store::Error::Refused { doing, code, what: what.into() }
}
