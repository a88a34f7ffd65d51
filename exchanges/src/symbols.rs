//! Symbols of one lane, interned in order of first sight.

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};

use crate::{error::FrameError, ids::SymbolIx};

/// The venue's own spelling of an instrument's name, e.g. `BTCUSDT`, `BTC/USD`, `BTC-USD`.
pub type Symbol = Arc<str>;

/// Interned symbols. Grows only by journaled input and never forgets, so an index stays valid for
/// the life of the lane. Serialized as the list of names in index order.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Vec<Symbol>", into = "Vec<Symbol>")]
pub struct Symbols {
    names: Vec<Symbol>,
    /// Looked up for every frame.
    index: HashMap<Symbol, SymbolIx, FixedState>,
}

impl Symbols {
    /// The index of `name`, given now if it is new.
    ///
    /// # Errors
    ///
    /// [`FrameError::TooManySymbols`] when the lane already knows [`SYMBOLS_MAX`] others: a venue
    /// that invents names must not grow memory without bound.
    pub fn intern(&mut self, name: &str) -> Result<SymbolIx, FrameError> {
        if let Some(ix) = self.index.get(name) {
            return Ok(*ix);
        }
        if self.names.len() >= SYMBOLS_MAX {
            return Err(FrameError::TooManySymbols { name: crate::error::head(name.as_bytes()) });
        }
        if name.is_empty() || name.len() > SYMBOL_BYTES_MAX {
            return Err(FrameError::field("symbol", "1 to 64 bytes long", name));
        }
        let ix = SymbolIx(u32::try_from(self.names.len()).expect("SYMBOLS_MAX fits in u32"));
        let name: Symbol = name.into();
        self.names.push(name.clone());
        self.index.insert(name, ix);
        Ok(ix)
    }

    /// The index of `name` if the lane has seen it.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<SymbolIx> {
        self.index.get(name).copied()
    }

    /// The name behind an index of this lane. Panics on an index of another lane.
    #[must_use]
    pub fn name(&self, ix: SymbolIx) -> &Symbol {
        &self.names[ix.0 as usize]
    }

    /// All names, in index order.
    #[must_use]
    pub fn names(&self) -> &[Symbol] {
        &self.names
    }

    /// How many symbols the lane has seen.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether the lane has seen no symbol.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

impl From<Vec<Symbol>> for Symbols {
    fn from(names: Vec<Symbol>) -> Self {
        let index = (0..).map(SymbolIx).zip(&names).map(|(ix, name)| (name.clone(), ix)).collect();
        Self { names, index }
    }
}

impl From<Symbols> for Vec<Symbol> {
    fn from(symbols: Symbols) -> Self {
        symbols.names
    }
}

/// Most symbols one lane interns: above what any venue lists, below what memory notices.
pub const SYMBOLS_MAX: usize = 65_536;

/// Longest symbol, in bytes. The longest known (option and combo names) are under 40.
pub const SYMBOL_BYTES_MAX: usize = 64;
