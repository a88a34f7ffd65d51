//! Asking OKX for channels, and what its answers say.

use serde_json::json;

use crate::{
    adapter::Actions,
    event::Channel,
    ids::{Nanos, SymbolIx},
    subscription::Subscriptions,
    symbols::Symbols,
};

/// Subscribes the given channels of instruments.
pub(super) fn subscribe(
    now: Nanos,
    asked: &[(Channel, SymbolIx)],
    (symbols, subscriptions): (&Symbols, &mut Subscriptions),
    actions: &mut Actions,
) {
    for (channel, symbol) in asked {
        subscriptions.request(*channel, *symbol, now, *channel != Channel::Trades);
    }
    send("subscribe", asked, symbols, actions);
}

/// Ends the given channels of instruments.
pub(super) fn unsubscribe(
    ended: &[(Channel, SymbolIx)],
    (symbols, subscriptions): (&Symbols, &mut Subscriptions),
    actions: &mut Actions,
) {
    ended.iter().for_each(|(channel, symbol)| subscriptions.remove(*channel, *symbol));
    send("unsubscribe", ended, symbols, actions);
}

/// Ends and begins one book: its snapshot comes anew.
pub(super) fn resubscribe_book(
    now: Nanos,
    symbol: SymbolIx,
    (symbols, subscriptions): (&Symbols, &mut Subscriptions),
    actions: &mut Actions,
) {
    let book = [(Channel::Book, symbol)];
    send("unsubscribe", &book, symbols, actions);
    subscribe(now, &book, (symbols, subscriptions), actions);
}

/// The channel behind the venue's name of it.
pub(super) fn channel_of(name: &str) -> Option<Channel> {
    match name {
        "trades" => Some(Channel::Trades),
        "books" | "books-l2-tbt" | "books50-l2-tbt" => Some(Channel::Book),
        "bbo-tbt" => Some(Channel::Quotes),
        _ => None,
    }
}

fn send(op: &str, channels: &[(Channel, SymbolIx)], symbols: &Symbols, actions: &mut Actions) {
    for batch in channels.chunks(ARGS_PER_MESSAGE) {
        let arg = |(channel, symbol): &(Channel, SymbolIx)| json!({ "channel": wire_name(*channel), "instId": &**symbols.name(*symbol) });
        let args: Vec<_> = batch.iter().map(arg).collect();
        actions.send(json!({ "op": op, "args": args }).to_string());
    }
}

const fn wire_name(channel: Channel) -> &'static str {
    match channel {
        Channel::Trades => "trades",
        Channel::Book => "books",
        Channel::Quotes => "bbo-tbt",
    }
}

/// Subscriptions of one message: 480 operations an hour are allowed, and 64 KiB of arguments.
const ARGS_PER_MESSAGE: usize = 100;
