//! Asking Coinbase for channels, and reading what it says is subscribed.

use serde_json::json;

use crate::{
    adapter::Actions,
    event::Channel,
    ids::{Nanos, SymbolIx},
    json::{Items, View},
    subscription::{SubscriptionState, Subscriptions},
    symbols::Symbols,
};

/// Subscriptions asked for and not answered yet, message by message. Not part of the saved state: it only decides what
/// is sent.
#[derive(Debug, Default)]
pub(super) struct Asked(Vec<(Vec<Channel>, Vec<SymbolIx>)>);

impl Asked {
    /// Forgets everything: a new connection begins.
    pub(super) fn reset(&mut self) {
        self.0.clear();
    }

    /// Subscribes all channels of the given products.
    pub(super) fn subscribe(
        &mut self,
        now: Nanos,
        channels: &[Channel],
        products: &[SymbolIx],
        (symbols, subscriptions): (&Symbols, &mut Subscriptions),
        actions: &mut Actions,
    ) {
        subscribe(now, channels, products, (symbols, subscriptions), actions);
        self.0.extend(products.chunks(PRODUCTS_PER_MESSAGE).map(|batch| (channels.to_vec(), batch.to_vec())));
    }

    /// The venue listed what is subscribed: messages that have their answer are forgotten.
    pub(super) fn listed(&mut self, subscriptions: &Subscriptions) {
        let is_open = |product: &SymbolIx| {
            let own = subscriptions.list().iter().filter(|one| one.symbol == *product);
            own.into_iter().any(|one| one.state == SubscriptionState::Requested)
        };
        self.0.retain(|(_, products)| products.iter().any(is_open));
    }

    /// The venue refused a message because of a product: asks anew for the others of that message, which were refused
    /// with it. When the reason names none of ours, everything unanswered is refused.
    pub(super) fn refused(
        &mut self,
        now: Nanos,
        reason: &str,
        (symbols, subscriptions): (&Symbols, &mut Subscriptions),
        actions: &mut Actions,
    ) {
        let is_named = |symbol: SymbolIx| words(reason).any(|word| word == &**symbols.name(symbol));
        subscriptions.refuse_unanswered(reason, is_named);
        let is_meant = |(_, products): &(Vec<_>, Vec<SymbolIx>)| products.iter().any(|product| is_named(*product));
        let Some(at) = self.0.iter().position(is_meant) else { return };
        let (channels, mut products) = self.0.remove(at);
        products.retain(|product| !is_named(*product));
        if !products.is_empty() {
            self.subscribe(now, &channels, &products, (symbols, subscriptions), actions);
        }
    }
}

/// Words of a reason, among them product ids.
fn words(reason: &str) -> impl Iterator<Item = &str> {
    reason.split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
}

/// Subscribes all channels of the given products.
fn subscribe(
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
        actions.send(json!({ "type": kind, "product_ids": ids, "channels": names }).to_string());
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
