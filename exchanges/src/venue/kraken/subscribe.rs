//! Asking Kraken's WebSocket v2 for channels, and what its answers say.

use serde_json::json;

use crate::{
    adapter::Actions,
    event::Channel,
    ids::{Nanos, SymbolIx},
    subscription::Subscriptions,
    symbols::Symbols,
};

/// Subscribes one channel of the given symbols.
pub(super) fn subscribe(
    now: Nanos,
    channel: Channel,
    asked: &[SymbolIx],
    depth: u32,
    (symbols, subscriptions): (&Symbols, &mut Subscriptions),
    actions: &mut Actions,
) {
    for symbol in asked {
        // Books and quotes begin with a snapshot; a market may be without a trade for long.
        subscriptions.request(channel, *symbol, now, channel != Channel::Trades);
    }
    send("subscribe", channel, asked, depth, symbols, actions);
}

/// Ends one channel of the given symbols.
pub(super) fn unsubscribe(
    channel: Channel,
    ended: &[SymbolIx],
    depth: u32,
    (symbols, subscriptions): (&Symbols, &mut Subscriptions),
    actions: &mut Actions,
) {
    ended.iter().for_each(|symbol| subscriptions.remove(channel, *symbol));
    send("unsubscribe", channel, ended, depth, symbols, actions);
}

/// Ends and begins one book: its snapshot comes anew.
pub(super) fn resubscribe_book(
    now: Nanos,
    symbol: SymbolIx,
    depth: u32,
    (symbols, subscriptions): (&Symbols, &mut Subscriptions),
    actions: &mut Actions,
) {
    send("unsubscribe", Channel::Book, &[symbol], depth, symbols, actions);
    subscribe(now, Channel::Book, &[symbol], depth, (symbols, subscriptions), actions);
}

/// The channel that an acknowledgement names.
pub(super) fn channel_of(name: &str) -> Option<Channel> {
    Channel::ALL.into_iter().find(|channel| wire_name(*channel) == name)
}

fn send(method: &str, channel: Channel, asked: &[SymbolIx], depth: u32, symbols: &Symbols, actions: &mut Actions) {
    for batch in asked.chunks(SYMBOLS_PER_MESSAGE) {
        let names: Vec<_> = batch.iter().map(|symbol| &**symbols.name(*symbol)).collect();
        let mut params = json!({ "channel": wire_name(channel), "symbol": names });
        let is_begin = method == "subscribe";
        match channel {
            Channel::Book => params["depth"] = depth.into(),
            Channel::Quotes => params["event_trigger"] = "bbo".into(),
            Channel::Trades => {}
        }
        if is_begin {
            params["snapshot"] = true.into();
        }
        actions.send(json!({ "method": method, "params": params }).to_string());
    }
}

const fn wire_name(channel: Channel) -> &'static str {
    match channel {
        Channel::Trades => "trade",
        Channel::Book => "book",
        Channel::Quotes => "ticker",
    }
}

/// Symbols of one message; acknowledgements and refusals come one a symbol all the same.
const SYMBOLS_PER_MESSAGE: usize = 100;
