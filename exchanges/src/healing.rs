//! Healing a lane's trades from its venue's history: the gaps that the adapter finds become requests, and the answers
//! become trades and ends of gaps. When to ask is decided by [`Backfills`].

use crate::{
    adapter::{HttpRequest, LanePlan, Outbox},
    backfill::{Backfills, Refused, STATUS_OK, tag_parts},
    conn::Via,
    error::FrameError,
    event::{Cause, Channel},
    holes::Page,
    ids::SymbolIx,
    lane::{Instrument, Lane, LaneConns},
    plan::left_out,
    trades::{NOT_RECORDED, TradeIds},
};

/// A venue's history of trades, by REST.
pub(crate) trait History {
    /// What the adapter knows of an instrument.
    type Market: Instrument;

    /// The request for what is missing of an instrument; `None` when there is nothing to ask for.
    fn request(&self, name: &str, market: &mut Self::Market) -> Option<HttpRequest>;
}

/// The trades that a lane asks a venue for. Not part of the saved state, as [`Backfills`] is not.
#[derive(Debug, Default)]
pub(crate) struct Healing<H> {
    history: H,
    backfills: Backfills,
}

impl<H: History> Healing<H> {
    /// From this history, with nothing asked for.
    pub(crate) fn new(history: H) -> Self {
        Self { history, backfills: Backfills::default() }
    }

    /// The first connection of a lane opens with a plan: what that leaves out is missed no more, and everything else
    /// that is missing is asked for.
    pub(crate) fn begin(&mut self, lane: &mut Lane<H::Market>, plan: &LanePlan, out: &mut Outbox) {
        self.backfills.reset();
        for (symbol, market) in lane.markets.iter_mut() {
            for channel in left_out(plan, out.name(symbol)) {
                market.end(channel, symbol, out);
            }
            self.heal(symbol, market.trades());
        }
        self.send(lane, out);
    }

    /// Trades of an instrument came, or were told of: what they show to be missing is to be asked for.
    #[inline]
    pub(crate) fn heal(&mut self, symbol: SymbolIx, trades: &TradeIds) {
        if trades.has_holes() {
            self.backfills.want(symbol);
        }
    }

    /// A channel of an instrument is taken out of the plan.
    pub(crate) fn end(&mut self, lane: &mut Lane<H::Market>, (channel, symbol): (Channel, SymbolIx), out: &mut Outbox) {
        if channel == Channel::Trades {
            self.backfills.forget(symbol);
        }
        lane.markets.entry(symbol).end(channel, symbol, out);
    }

    /// Sends the requests whose turn has come.
    #[inline]
    pub(crate) fn send(&mut self, lane: &mut Lane<H::Market>, out: &mut Outbox) {
        if self.backfills.is_due() {
            let Self { history, backfills } = self;
            let Outbox { symbols, actions, .. } = out;
            backfills.send(actions, |symbol| history.request(symbols.name(symbol), lane.markets.entry(symbol)));
        }
    }

    /// Takes in the answer to a request for trades and asks for what is missing then. `read` reads the trades from a
    /// body.
    ///
    /// # Errors
    ///
    /// The request was none for trades, or the answer brings none. What follows from it is noted already.
    pub(crate) fn on_answer(
        &mut self,
        lane: &mut Lane<H::Market>,
        (tag, status, body): (&str, u16, &mut [u8]),
        out: &mut Outbox,
        read: impl FnOnce(SymbolIx, &mut [u8]) -> Result<Result<Page, Refused>, FrameError>,
    ) -> Result<(), FrameError> {
        let Some((name, _)) = tag_parts(tag) else {
            return Err(FrameError::Unknown { head: format!("an answer to a request {tag:?} that is never made") });
        };
        let symbol = out.symbols.intern(name)?;
        let Self { history, backfills } = self;
        let trades = lane.markets.entry(symbol).trades();
        if !lane.conns.records(Channel::Trades, name) {
            // Taken out meanwhile: a trade that was on its way may have shown the gap.
            trades.give_up(out, symbol, NOT_RECORDED);
            backfills.forget(symbol);
            return Ok(());
        }
        let answer = match status {
            STATUS_OK => read(symbol, body).unwrap_or_else(|error| Err(error.into())),
            _ => Err(Refused::by_status(tag, status, body)),
        };
        let (served, result) = trades.on_answer(out, symbol, answer);
        let Outbox { symbols, actions, .. } = out;
        backfills.answered(symbol, served, actions, |symbol| {
            history.request(symbols.name(symbol), lane.markets.entry(symbol))
        });
        result
    }
}

impl LaneConns {
    /// A connection ended, for the trades of one instrument.
    pub(crate) fn interrupt(&self, trades: &mut TradeIds, symbol: SymbolIx, via: Via, cause: Cause, out: &mut Outbox) {
        trades.interrupt(out, symbol, via, cause);
        if trades.has_holes() && !self.records(Channel::Trades, out.name(symbol)) {
            trades.give_up(out, symbol, NOT_RECORDED);
        }
    }
}
