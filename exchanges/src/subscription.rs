//! What a lane has asked of its venue, whether the venue agreed, and when it last delivered.

use crate::{
    event::Channel,
    ids::{Nanos, SymbolIx},
};

/// How a subscription stands on the current connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SubscriptionState {
    /// Asked for; no answer yet.
    Requested,
    /// The venue acknowledged it, or delivered.
    Live,
    /// The venue refused it, because.
    Refused(String),
}

/// One channel of one symbol.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Subscription {
    /// The channel.
    pub channel: Channel,
    /// The instrument.
    pub symbol: SymbolIx,
    /// How it stands.
    pub state: SubscriptionState,
    /// When it was asked for.
    pub requested: Nanos,
    /// When it last delivered on this connection; `None` before the first time.
    pub last: Option<Nanos>,
    /// Whether more than the acknowledgement can be expected soon even on a quiet market (a snapshot,
    /// a heartbeat); silence right after subscribing is then an error and not a quiet market.
    pub answers_at_once: bool,
}

/// All subscriptions of one connection. Emptied when the connection closes.
#[derive(Clone, Debug, Default)]
pub struct Subscriptions {
    list: Vec<Subscription>,
    /// Position in `list` by symbol index and channel; `u32::MAX` for none.
    index: Vec<[u32; Channel::ALL.len()]>,
}

impl Subscriptions {
    /// Forgets everything: the connection is gone.
    pub fn clear(&mut self) {
        self.list.clear();
        self.index.clear();
    }

    /// Notes that a subscription was asked for. Asking again resets it to `Requested`.
    pub fn request(&mut self, channel: Channel, symbol: SymbolIx, now: Nanos, answers_at_once: bool) {
        let entry = Subscription {
            channel,
            symbol,
            state: SubscriptionState::Requested,
            requested: now,
            last: None,
            answers_at_once,
        };
        let row = symbol.0 as usize;
        if self.index.len() <= row {
            self.index.resize(row + 1, [NONE; Channel::ALL.len()]);
        }
        let slot = &mut self.index[row][channel as usize];
        if *slot == NONE {
            *slot = u32::try_from(self.list.len()).expect("a lane has far fewer than 2^32 subscriptions");
            self.list.push(entry);
        } else {
            self.list[*slot as usize] = entry;
        }
    }

    /// Forgets one subscription: it was ended on purpose.
    pub fn remove(&mut self, channel: Channel, symbol: SymbolIx) {
        let kept = std::mem::take(&mut self.list);
        self.index.clear();
        for entry in kept {
            if entry.channel == channel && entry.symbol == symbol {
                continue;
            }
            let Subscription { channel, symbol, requested, answers_at_once, .. } = entry;
            self.request(channel, symbol, requested, answers_at_once);
            if let Some(new) = self.list.last_mut() {
                *new = entry;
            }
        }
    }

    /// The venue agreed to a subscription.
    pub fn acknowledge(&mut self, channel: Channel, symbol: SymbolIx) {
        if let Some(entry) = self.entry(channel, symbol) {
            entry.state = SubscriptionState::Live;
        }
    }

    /// The venue refused a subscription.
    pub fn refuse(&mut self, channel: Channel, symbol: SymbolIx, reason: &str) {
        if let Some(entry) = self.entry(channel, symbol) {
            entry.state = SubscriptionState::Refused(reason.into());
        }
    }

    /// The venue refused something without saying exactly what: the unanswered subscriptions that `is_meant`
    /// picks, or all of them when it picks none.
    pub fn refuse_unanswered(&mut self, reason: &str, is_meant: impl Fn(SymbolIx) -> bool) {
        let is_open = |entry: &&mut Subscription| entry.state == SubscriptionState::Requested;
        let has_meant = self.list.iter_mut().filter(is_open).any(|entry| is_meant(entry.symbol));
        for entry in self.list.iter_mut().filter(is_open) {
            if !has_meant || is_meant(entry.symbol) {
                entry.state = SubscriptionState::Refused(reason.into());
            }
        }
    }

    /// A subscription delivered: it is live, whatever its acknowledgement says.
    pub fn delivered(&mut self, channel: Channel, symbol: SymbolIx, now: Nanos) {
        if let Some(entry) = self.entry(channel, symbol) {
            entry.last = Some(now);
            if entry.state == SubscriptionState::Requested {
                entry.state = SubscriptionState::Live;
            }
        }
    }

    /// Whether the venue has answered everything that was asked for, and has delivered whatever answers at once.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        let is_answered = |entry: &Subscription| match entry.state {
            SubscriptionState::Requested => false,
            SubscriptionState::Live => entry.last.is_some() || !entry.answers_at_once,
            SubscriptionState::Refused(_) => true,
        };
        self.list.iter().all(is_answered)
    }

    /// All subscriptions, in the order they were first asked for.
    #[must_use]
    pub fn list(&self) -> &[Subscription] {
        &self.list
    }

    fn entry(&mut self, channel: Channel, symbol: SymbolIx) -> Option<&mut Subscription> {
        let slot = *self.index.get(symbol.0 as usize)?.get(channel as usize)?;
        self.list.get_mut(slot as usize)
    }
}

const NONE: u32 = u32::MAX;
