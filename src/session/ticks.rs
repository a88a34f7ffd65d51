//! Once a second: the adapter's timers, the watchdogs of the connections, what is shown of them.

use std::mem::discriminant;

use tapeway_exchanges::{
    adapter::{CloseKind, CloseReason},
    conn::Conn,
    event::Channel,
    ids::{Nanos, SymbolIx},
};
use tracing::warn;

use super::{Session, now, seconds, slot::Slot, watchdog::Finding};
use crate::{
    journal,
    status::{PROBLEMS_MAX, Subscriptions},
};

impl Session {
    /// Once a second: the adapter's timers, the watchdogs, connections to be replaced, the status.
    pub(super) fn on_tick(&mut self) -> Result<(), journal::Error> {
        let now = now();
        if self.intake.lane().progress.ahead().is_some() {
            let detail = "the database is ahead of the journal".into();
            let reason = CloseReason { kind: CloseKind::Rotation, detail };
            for conn in Conn::ALL {
                self.end(conn, &reason)?;
            }
            self.intake.go_on_if_behind()?;
            self.bury(&reason)?;
        }
        self.intake.decoder().tick(now);
        let mut all = Subscriptions::default();
        let (mut problems, mut reasons) = (Vec::new(), Vec::new());
        for conn in Conn::ALL {
            if !self.slots[conn.index()].is_open() {
                continue;
            }
            let (counts, reason) = self.watch(conn, now, &mut problems);
            all.add(&counts);
            reasons.extend(reason.map(|reason| (conn, reason)));
            let last_frame = seconds(self.slots[conn.index()].last_frame);
            self.status.update(|status| {
                let known = status.connections.iter_mut().find(|known| known.connection == conn.number());
                if let Some(known) = known {
                    (known.subscriptions, known.last_frame) = (counts, Some(last_frame));
                }
            });
        }
        if self.slots.iter().any(Slot::is_open) {
            let last_frame = seconds(self.slots.iter().map(|slot| slot.last_frame).max().unwrap_or_default());
            let metrics = self.intake.metrics();
            let Subscriptions { live, requested, refused, stale } = all;
            for (gauge, count) in metrics.subscriptions.iter().zip([live, requested, refused, stale]) {
                gauge.set(f64::from(count));
            }
            metrics.last_frame.set(last_frame);
            problems.truncate(PROBLEMS_MAX);
            self.status.update(|status| {
                status.subscriptions = all;
                status.problems = problems;
                status.last_frame = Some(last_frame);
            });
        }
        for (conn, reason) in reasons {
            self.end(conn, &reason)?;
        }
        self.hand_over()
    }

    /// Looks at one connection: its subscriptions by state, and a reason to reconnect.
    fn watch(&mut self, conn: Conn, now: Nanos, problems: &mut Vec<String>) -> (Subscriptions, Option<CloseReason>) {
        let silence = self.order.link.limits.silence;
        let slot = &mut self.slots[conn.index()];
        let (findings, [live, requested, refused, stale]) =
            slot.watchdog.look(now, silence, slot.last_frame, self.intake.decoder().subscriptions(conn));
        let mut reason = None;
        let mut unsaid = 0;
        for finding in findings {
            let kind = discriminant(&finding);
            let (text, is_reconnect) = self.judge(conn, finding, now);
            let what = format!("{kind:?} {}", text.split(" for ").next().unwrap_or_default());
            if self.slots[conn.index()].link().is_some_and(|link| link.said.insert(what)) {
                if problems.len() < PROBLEMS_MAX {
                    warn!(lane = self.name(), %conn, "{text}");
                } else {
                    unsaid += 1;
                }
            }
            if is_reconnect && reason.is_none() {
                reason = Some(CloseReason { kind: CloseKind::Stall, detail: text.clone() });
            }
            if problems.len() < PROBLEMS_MAX {
                problems.push(text);
            }
        }
        if unsaid > 0 {
            warn!(lane = self.name(), more = unsaid, "problems of subscriptions not logged one by one");
        }
        (Subscriptions { live, requested, refused, stale }, reason)
    }

    /// A finding in words, and whether it is worth a reconnect.
    fn judge(&mut self, conn: Conn, finding: Finding, now: Nanos) -> (String, bool) {
        match finding {
            Finding::ConnectionSilent(silent) => (format!("the connection is silent for {silent:.0?}"), true),
            Finding::Unanswered(symbol, channel, waited, is_due) => {
                if is_due {
                    self.slots[conn.index()].watchdog.strike(symbol, channel, now);
                }
                (format!("{} is unanswered for {waited:.0?}", self.subscription(symbol, channel)), is_due)
            }
            Finding::Refused(symbol, channel, why) => {
                (format!("{} was refused: {why}", self.subscription(symbol, channel)), false)
            }
            Finding::Stale(symbol, channel, silent) => {
                self.slots[conn.index()].watchdog.strike(symbol, channel, now);
                let name = self.subscription(symbol, channel);
                (format!("{name} is silent for {silent:.0?} while others move"), true)
            }
            Finding::AllSilent(silent) => {
                let all = self.intake.decoder().subscriptions(conn).list().iter();
                let all: Vec<_> = all.map(|one| (one.symbol, one.channel)).collect();
                for (symbol, channel) in all {
                    self.slots[conn.index()].watchdog.strike(symbol, channel, now);
                }
                (format!("all subscriptions are silent for {silent:.0?}"), true)
            }
        }
    }

    fn subscription(&mut self, symbol: SymbolIx, channel: Channel) -> String {
        format!("subscription {} {}", channel.name(), self.intake.decoder().symbols().name(symbol))
    }
}
