//! One value for each symbol of a lane, made when it is first asked for.

use serde::{Deserialize, Serialize};

use crate::ids::SymbolIx;

/// Values by symbol index. Symbols are interned densely, so a vector is the whole map; it grows no further
/// than [`SYMBOLS_MAX`](crate::symbols::SYMBOLS_MAX).
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct BySymbol<T>(Vec<T>);

impl<T: Default> BySymbol<T> {
    /// The symbol's value, made now if it is new.
    #[inline]
    pub(crate) fn entry(&mut self, symbol: SymbolIx) -> &mut T {
        let at = symbol.0 as usize;
        if self.0.len() <= at {
            self.0.resize_with(at + 1, T::default);
        }
        &mut self.0[at]
    }

    /// Every symbol's value so far.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (SymbolIx, &mut T)> {
        (0..).map(SymbolIx).zip(&mut self.0)
    }

    /// Every symbol's value so far.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SymbolIx, &T)> {
        (0..).map(SymbolIx).zip(&self.0)
    }
}
