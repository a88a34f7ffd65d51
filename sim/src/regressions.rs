//! Seeds that found something once.

use crate::{scenario::Mix, venue::Kind};

/// A seed that found something.
#[derive(Clone, Copy, Debug)]
pub struct Regression {
    /// Short name.
    pub name: &'static str,
    /// The seed.
    pub seed: u64,
    /// Its steps.
    pub steps: u64,
    /// Its mix of faults.
    pub mix: Mix,
    /// The venue of all lanes; `None`: as the seed has it.
    pub venue: Option<Kind>,
    /// What it found, in one sentence.
    pub found: &'static str,
}

/// All of them, oldest first.
pub const ALL: &[Regression] = &[
    Regression {
        name: "poisoned while full",
        seed: 228,
        steps: 200,
        mix: Mix::Any,
        venue: None,
        found: "a session that waited for room in a full journal waited for ever when a write failed meanwhile: it took \
                the poisoned journal for a full one, and the process never ended to be recovered",
    },
    Regression {
        name: "poisoned while full, another way",
        seed: 511,
        steps: 200,
        mix: Mix::Any,
        venue: None,
        found: "the same, with the poison from a failed sync",
    },
    Regression {
        name: "the first lane eats the batch",
        seed: 706,
        steps: 200,
        mix: Mix::Any,
        venue: None,
        found: "while one lane caught up on its journal, the lanes behind it in the same writer got no turn: every batch \
                was filled beginning with the first",
    },
    Regression {
        name: "an end that is lost",
        seed: 1891,
        steps: 200,
        mix: Mix::Any,
        venue: None,
        found: "after a restore from a backup older than the journal reaches, gaps whose end was in the lost frames stayed \
                open for ever",
    },
    Regression {
        name: "an end that is lost, after a power cut",
        seed: 2584,
        steps: 200,
        mix: Mix::Any,
        venue: None,
        found: "the same with a restart in between",
    },
    Regression {
        name: "a sync that fails in recovery",
        seed: 3537,
        steps: 200,
        mix: Mix::Any,
        venue: None,
        found: "when the sync of recovery itself failed, the next recovery believed what it could read, and a later power \
                cut took durable frames",
    },
    Regression {
        name: "twins that wait for each other",
        seed: 338,
        steps: 200,
        mix: Mix::Twins,
        venue: None,
        found: "after a frame of one Kraken connection could not be decoded, both delivered the same messages and \
                each waited for the other: the book stood still for ever, without a gap",
    },
    Regression {
        name: "twins that wait for each other, on Coinbase",
        seed: 133,
        steps: 200,
        mix: Mix::Twins,
        venue: None,
        found: "the same, each connection having lost something of its own",
    },
    Regression {
        name: "a snapshot asked for on a connection that ends",
        seed: 2596,
        steps: 200,
        mix: Mix::Twins,
        venue: None,
        found: "a broken book waited for ever for a snapshot that had been asked for on a connection that was \
                replaced meanwhile",
    },
    Regression {
        name: "twins that are both wrong",
        seed: 4035,
        steps: 200,
        mix: Mix::Twins,
        venue: None,
        found: "a message that both Kraken connections had delivered did not fit the book, and each of its \
                successors was held to be the other connection's fault in turn: the book stood still for ever",
    },
    Regression {
        name: "taken out between two connections",
        seed: 65,
        steps: 200,
        mix: Mix::Plans,
        venue: None,
        found: "quotes that had been interrupted kept their gap open for ever when the next connection came with a \
                plan without them",
    },
    Regression {
        name: "a trade that was on its way",
        seed: 419,
        steps: 200,
        mix: Mix::Plans,
        venue: None,
        found: "a trade that came after its instrument had been taken out opened a gap, whose answer was thrown away: \
                it stayed open, and its turn to ask was never given to another instrument",
    },
    Regression {
        name: "a book that was on its way",
        seed: 2620,
        steps: 200,
        mix: Mix::Plans,
        venue: None,
        found: "the same with a book of Binance",
    },
    Regression {
        name: "behind a connection that ended",
        seed: 50,
        steps: 200,
        mix: Mix::Twins,
        venue: Some(Kind::Okx),
        found: "when the connection that was ahead ended, the other brought what had been stored by that one, and it was \
                stored twice",
    },
    Regression {
        name: "a snapshot of before the last rows",
        seed: 320,
        steps: 200,
        mix: Mix::Twins,
        venue: Some(Kind::Okx),
        found: "the same behind a snapshot that had been asked for earlier on the connection that was behind",
    },
    Regression {
        name: "replaced with something on its way",
        seed: 2,
        steps: 200,
        mix: Mix::Handover,
        venue: Some(Kind::BinanceSpot),
        found: "a connection was closed as soon as its successor was ready, though it was seconds behind that: what was \
                on its way was a gap",
    },
    Regression {
        name: "replaced while the book was quiet",
        seed: 59,
        steps: 200,
        mix: Mix::Handover,
        venue: Some(Kind::Coinbase),
        found: "what the old connection brought of before the new one's snapshot kept the new one out of step, and its end \
                was a gap, when nothing else came",
    },
    Regression {
        name: "found again before a hole",
        seed: 50867,
        steps: 200,
        mix: Mix::Twins,
        venue: None,
        found: "a Coinbase connection one of whose frames could not be decoded was in step again with a message it had \
                delivered before that: when the other ended, the book went on without the lost one, and without a gap",
    },
];
