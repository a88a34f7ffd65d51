//! What adapters keep in their state: which connections of a lane are open, what they ask for, and what is known of each
//! instrument.

use serde::{Deserialize, Serialize};

use crate::{
    adapter::{LanePlan, Outbox},
    by_symbol::BySymbol,
    conn::{Conn, Conns, Via},
    event::Channel,
    ids::SymbolIx,
    plan::has,
    trades::TradeIds,
};

/// Everything later events of a lane depend on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Lane<M> {
    #[serde(flatten)]
    pub(crate) conns: LaneConns,
    pub(crate) markets: BySymbol<M>,
}

/// What an adapter knows of one instrument.
pub(crate) trait Instrument: Default {
    /// Which of its trades have been seen.
    fn trades(&mut self) -> &mut TradeIds;

    /// A channel of it is no longer recorded: nothing of it is missed from here on.
    fn end(&mut self, channel: Channel, symbol: SymbolIx, out: &mut Outbox);
}

/// The open connections and the plan they share.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Saved")]
pub(crate) struct LaneConns {
    /// The plan of the connections that are open, as far as we know.
    pub(crate) plan: Option<LanePlan>,
    open: Conns,
}

/// As saved: a state from before lanes could have two connections has a plan while its one is open.
#[derive(Deserialize)]
struct Saved {
    plan: Option<LanePlan>,
    #[serde(default)]
    open: Option<Conns>,
}

impl From<Saved> for LaneConns {
    fn from(Saved { plan, open }: Saved) -> Self {
        let mut old = Conns::NONE;
        if plan.is_some() {
            old.insert(Conn::FIRST);
        }
        Self { plan, open: open.unwrap_or(old) }
    }
}

impl LaneConns {
    /// A connection is open.
    pub(crate) fn on_open(&mut self, conn: Conn) {
        self.open.insert(conn);
    }

    /// A connection is gone; `true` when it was the last.
    pub(crate) fn on_close(&mut self, conn: Conn) -> bool {
        self.open.remove(conn);
        let is_last = self.open.is_empty();
        if is_last {
            self.plan = None;
        }
        is_last
    }

    /// Whether the plan of the open connections asks for a symbol's channel. Without a plan (a recording) all are meant.
    pub(crate) fn records(&self, channel: Channel, name: &str) -> bool {
        has(self.plan.as_ref(), channel, name)
    }

    /// Those open.
    pub(crate) fn open(&self) -> Conns {
        self.open
    }

    /// An input's connection among those open.
    pub(crate) fn via(&self, conn: Conn) -> Via {
        Via { conn, open: self.open }
    }
}
