//! Asking Binance for streams: `SUBSCRIBE` messages, and which answer belongs to which.

use super::Flavor;
use crate::{
    adapter::{Actions, At},
    event::Channel,
    ids::SymbolIx,
    subscription::Subscriptions,
    symbols::Symbols,
};

/// Requests of this connection that have not been answered. Nothing here changes any event.
#[derive(Debug, Default)]
pub(super) struct Requests {
    last_id: i64,
    /// Messages sent again in halves.
    halved: usize,
    pending: Vec<(i64, Vec<(Channel, SymbolIx)>)>,
}

impl Requests {
    /// Forgets everything: a new connection counts anew.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Asks for every given stream, in as few messages as their size allows.
    pub(super) fn subscribe(
        &mut self,
        at: At,
        flavor: Flavor,
        streams: &[(Channel, SymbolIx)],
        (symbols, subscriptions): (&Symbols, &mut Subscriptions),
        actions: &mut Actions,
    ) {
        for (channel, symbol) in streams {
            // Only a busy market answers at once here; the book's snapshot is a request of its own.
            subscriptions.request(*channel, *symbol, at.received, false);
        }
        for (id, asked) in self.send("SUBSCRIBE", flavor, streams, symbols, actions) {
            self.pending.push((id, asked));
        }
    }

    /// Ends streams. The answer is not waited for.
    pub(super) fn unsubscribe(
        &mut self,
        flavor: Flavor,
        streams: &[(Channel, SymbolIx)],
        (symbols, subscriptions): (&Symbols, &mut Subscriptions),
        actions: &mut Actions,
    ) {
        for (channel, symbol) in streams {
            subscriptions.remove(*channel, *symbol);
        }
        self.send("UNSUBSCRIBE", flavor, streams, symbols, actions);
    }

    /// The venue answered request `id`. One it refuses is refused as a whole, whichever of its streams is at fault: it
    /// is sent again in halves, until the fault is alone or [`HALVED_MAX`] messages were sent for that.
    pub(super) fn answered(
        &mut self,
        id: i64,
        refusal: Option<&str>,
        flavor: Flavor,
        (symbols, subscriptions): (&Symbols, &mut Subscriptions),
        actions: &mut Actions,
    ) {
        let Some(at) = self.pending.iter().position(|(pending, _)| *pending == id) else { return };
        let streams = self.pending.swap_remove(at).1;
        if refusal.is_some() && streams.len() > 1 && self.halved < HALVED_MAX {
            let (one, other) = streams.split_at(streams.len() / 2);
            for half in [one, other] {
                let sent = self.send("SUBSCRIBE", flavor, half, symbols, actions);
                self.halved += sent.len();
                self.pending.extend(sent);
            }
            return;
        }
        for (channel, symbol) in streams {
            match refusal {
                None => subscriptions.acknowledge(channel, symbol),
                Some(reason) => subscriptions.refuse(channel, symbol, reason),
            }
        }
    }

    /// Sends the streams in messages of at most [`MESSAGE_BYTES_MAX`]; gives the id and streams of each.
    fn send(
        &mut self,
        method: &str,
        flavor: Flavor,
        streams: &[(Channel, SymbolIx)],
        symbols: &Symbols,
        actions: &mut Actions,
    ) -> Vec<(i64, Vec<(Channel, SymbolIx)>)> {
        let mut sent = Vec::new();
        let mut rest = streams;
        while !rest.is_empty() {
            let (mut params, mut bytes) = (Vec::new(), 0);
            for (channel, symbol) in rest {
                let name = flavor.stream(*channel, symbols.name(*symbol));
                bytes += name.len() + 3;
                if !params.is_empty() && bytes > MESSAGE_BYTES_MAX {
                    break;
                }
                params.push(name);
            }
            let (asked, later) = rest.split_at(params.len());
            rest = later;
            self.last_id += 1;
            let message = serde_json::json!({ "method": method, "params": params, "id": self.last_id });
            actions.send(message.to_string());
            sent.push((self.last_id, asked.to_vec()));
        }
        sent
    }
}

/// Stream names of one message; well below the 4 KiB that the venue's gateway is reported to take.
const MESSAGE_BYTES_MAX: usize = 3_500;
/// Messages sent again in halves on one connection: finds several faults among a thousand streams, and ends soon when it is
/// not the streams that the venue minds.
const HALVED_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        conn::Conn,
        ids::{FramePos, Nanos},
        subscription::SubscriptionState,
    };

    #[test]
    fn many_streams_fall_into_messages_that_the_venue_takes_and_each_answer_finds_its_own() {
        let (mut symbols, mut subscriptions) = (Symbols::default(), Subscriptions::default());
        let streams: Vec<_> =
            (0..500).map(|ix| (Channel::Book, symbols.intern(&format!("SYMBOL{ix}USDT")).unwrap())).collect();
        let (mut requests, mut actions) = (Requests::default(), Actions::default());
        let at = At { pos: FramePos::FIRST, received: Nanos(5), conn: Conn::FIRST };
        requests.subscribe(at, Flavor::Spot, &streams, (&symbols, &mut subscriptions), &mut actions);
        assert!(actions.sends.len() > 1 && actions.sends.iter().all(|message| message.1.len() < 4_096));
        assert!(actions.sends[0].1.starts_with(r#"{"method":"SUBSCRIBE","params":["symbol0usdt@depth@100ms","#));

        requests.answered(1, None, Flavor::Spot, (&symbols, &mut subscriptions), &mut actions);
        requests.answered(99, None, Flavor::Spot, (&symbols, &mut subscriptions), &mut actions);
        // One after the other is refused: in halves first, then for good.
        let messages = actions.sends.len();
        let mut id = 2;
        while id <= i64::try_from(actions.sends.len()).unwrap() {
            let why = Some("too many");
            requests.answered(id, why, Flavor::Spot, (&symbols, &mut subscriptions), &mut actions);
            id += 1;
            assert!(actions.sends.len() <= messages + HALVED_MAX + 2, "it never ends");
        }
        assert!(requests.pending.is_empty());
        let count = |wanted: &dyn Fn(&SubscriptionState) -> bool| {
            subscriptions.list().iter().filter(|entry| wanted(&entry.state)).count()
        };
        let live = count(&|state| *state == SubscriptionState::Live);
        let refused = count(&|state| *state == SubscriptionState::Refused("too many".into()));
        assert!(live > 0 && refused > 0 && live + refused == 500, "{live} live, {refused} refused");
    }

    #[test]
    fn a_stream_that_the_venue_refuses_takes_no_other_with_it() {
        let (mut symbols, mut subscriptions) = (Symbols::default(), Subscriptions::default());
        let streams: Vec<_> =
            (0..100).map(|ix| (Channel::Book, symbols.intern(&format!("SYMBOL{ix}USDT")).unwrap())).collect();
        let (mut requests, mut actions) = (Requests::default(), Actions::default());
        let at = At { pos: FramePos::FIRST, received: Nanos(5), conn: Conn::FIRST };
        requests.subscribe(at, Flavor::Spot, &streams, (&symbols, &mut subscriptions), &mut actions);
        let mut answered = 0;
        while answered < actions.sends.len() {
            let message: serde_json::Value = serde_json::from_str(&actions.sends[answered].1).unwrap();
            let is_bad = ["symbol7usdt@", "symbol8usdt@", "symbol99usdt@"]
                .iter()
                .any(|bad| actions.sends[answered].1.contains(bad));
            let refusal = is_bad.then_some("no such symbol");
            let id = message["id"].as_i64().unwrap();
            requests.answered(id, refusal, Flavor::Spot, (&symbols, &mut subscriptions), &mut actions);
            answered += 1;
        }
        let of = |state: &SubscriptionState| subscriptions.list().iter().filter(|entry| entry.state == *state).count();
        assert_eq!(of(&SubscriptionState::Live), 97);
        assert_eq!(of(&SubscriptionState::Refused("no such symbol".into())), 3);
        assert!(answered < 45, "{answered} messages");
    }
}
