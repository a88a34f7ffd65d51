//! The registry: every venue tapeway speaks. A new one is a folder beside this file, its `mod` line and
//! its entry in [`VENUES`].

mod binance;
mod bitget;
mod coinbase;
mod kraken;
mod okx;

use crate::{
    adapter::{Adapter, LanePlan},
    config::{Limits, VenueConfig},
    event::Channel,
    metadata,
};

/// Every venue tapeway speaks.
pub static VENUES: &[VenueSpec] =
    &[binance::SPOT, binance::USDM, binance::COINM, coinbase::SPEC, kraken::SPEC, okx::OKX, okx::OKCOIN, bitget::SPEC];

/// What the daemon must know about a venue before it connects.
#[derive(Debug)]
pub struct VenueSpec {
    /// Name in YAML, metric labels and the `venue` column. Fixed once released.
    pub name: &'static str,
    /// Public WebSocket base URL, used when the venue's YAML gives none.
    pub ws_url: &'static str,
    /// Public REST base URL, used when the venue's YAML gives none.
    pub http_url: &'static str,
    /// What can be recorded.
    pub channels: &'static [Channel],
    /// Book depths the venue accepts; empty when there is no choice.
    pub book_depths: &'static [u32],
    /// The venue's limits.
    pub limits: Limits,
    /// How missing data on a channel can be proven.
    pub proof: fn(Channel) -> Proof,
    /// The rule that proves a book whole, in the venue's own field names.
    pub book_rule: &'static str,
    /// Makes the adapter of one lane, as new.
    pub build: fn() -> Box<dyn Adapter>,
    /// Spreads the symbols over lanes within the limits. Symbols already in `current` keep their lane.
    pub plan: fn(config: &VenueConfig, current: &[LanePlan]) -> Vec<LanePlan>,
    /// The tag this venue's adapter would have given the request behind a recorded URL; `None` when it makes
    /// no such request.
    pub tag_of_url: fn(url: &str) -> Option<String>,
    /// Where the instrument list comes from.
    pub metadata: metadata::Source,
}

/// Venues are told apart by name.
impl PartialEq for VenueSpec {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for VenueSpec {}

/// The class of proof a venue's rules allow for one channel.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Proof {
    /// Ids count up by one: a gap is provable and its size known.
    Contiguous,
    /// Each message names the one before it: a gap is provable, its size is not.
    Chain,
    /// A checksum proves the book right or wrong after each message.
    Checksum,
    /// Each message is the whole state: nothing to lose but what was between.
    SnapshotOnly,
    /// Nothing the venue sends can prove that nothing is missing.
    Unprovable,
}

impl Proof {
    /// The name in SQL and status.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Contiguous => "contiguous",
            Self::Chain => "chain",
            Self::Checksum => "checksum",
            Self::SnapshotOnly => "snapshot_only",
            Self::Unprovable => "unprovable",
        }
    }
}

/// The venue called `name`.
#[must_use]
pub fn find(name: &str) -> Option<&'static VenueSpec> {
    VENUES.iter().find(|spec| spec.name == name)
}
