//! Asking Coinbase for channels, and reading what it says is subscribed.

use serde_json::json;

use crate::{
    adapter::Actions,
    event::Channel,
    ids::{Nanos, SymbolIx},
    json::{Items, View},
    subscription::Subscriptions,
    symbols::Symbols,
};

/// Subscribes all channels of the given products.
pub(super) fn subscribe(
    now: Nanos,
    channels: &[Channel],
    products: &[SymbolIx],
    (symbols, subscriptions): (&Symbols, &mut Subscriptions),
    actions: &mut Actions,
) {
    for product in products {
        for channel in channels {
            subscriptions.request(*channel, *product, now, *channel == Channel::Book);
        }
    }
    send("subscribe", channels, products, symbols, actions);
}

/// Ends all channels of the given products.
pub(super) fn unsubscribe(
    channels: &[Channel],
    products: &[SymbolIx],
    (symbols, subscriptions): (&Symbols, &mut Subscriptions),
    actions: &mut Actions,
) {
    for product in products {
        channels.iter().for_each(|channel| subscriptions.remove(*channel, *product));
    }
    send("unsubscribe", channels, products, symbols, actions);
}

/// Ends and begins the book channel of one product: its snapshot comes anew.
pub(super) fn resubscribe_book(
    now: Nanos,
    product: SymbolIx,
    (symbols, subscriptions): (&Symbols, &mut Subscriptions),
    actions: &mut Actions,
) {
    send("unsubscribe", &[Channel::Book], &[product], symbols, actions);
    subscribe(now, &[Channel::Book], &[product], (symbols, subscriptions), actions);
}

/// The venue listed what is subscribed.
pub(super) fn listed(channels: Items<'_, '_>, symbols: &Symbols, subscriptions: &mut Subscriptions) {
    for listed in channels {
        let channel = match listed.get("name").and_then(View::text) {
            Some("matches") => Channel::Trades,
            Some("level2" | "level2_batch" | "level2_50") => Channel::Book,
            _ => continue,
        };
        for product in listed.get("product_ids").and_then(View::items).into_iter().flatten() {
            if let Some(symbol) = product.text().and_then(|name| symbols.find(name)) {
                subscriptions.acknowledge(channel, symbol);
            }
        }
    }
}

fn send(kind: &str, channels: &[Channel], products: &[SymbolIx], symbols: &Symbols, actions: &mut Actions) {
    let mut names: Vec<_> = channels.iter().filter_map(|channel| wire_name(*channel)).collect();
    if channels.contains(&Channel::Trades) {
        names.push("heartbeat"); // Proves once a second that no trade is missing.
    }
    for batch in products.chunks(PRODUCTS_PER_MESSAGE) {
        let ids: Vec<_> = batch.iter().map(|product| &**symbols.name(*product)).collect();
        actions.sends.push(json!({ "type": kind, "product_ids": ids, "channels": names }).to_string());
    }
}

/// `level2` needs a key; `level2_batch` is the same in 50 ms batches for everyone.
const fn wire_name(channel: Channel) -> Option<&'static str> {
    match channel {
        Channel::Trades => Some("matches"),
        Channel::Book => Some("level2_batch"),
        Channel::Quotes => None,
    }
}

/// Products of one message: a refusal of one refuses all of its message.
const PRODUCTS_PER_MESSAGE: usize = 20;
