//! The connections of one lane: one, or two that carry the same (twins).
//!
//! A connection has a number, not a life: after it closes, the next one may take its number. Which of them are open is
//! journaled input (`Open` and `Close` records name theirs), so replay knows it like the live path does.

use serde::{Deserialize, Serialize};

/// Number of a connection of a lane.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub struct Conn(u8);

impl Conn {
    /// The connection of a lane that has only one.
    pub const FIRST: Self = Self(0);
    /// The other one.
    pub const SECOND: Self = Self(1);
    /// Every number there is.
    pub const ALL: [Self; 2] = [Self::FIRST, Self::SECOND];

    /// The connection of this number; `None` when there is none.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if (number as usize) < Self::ALL.len() { Some(Self(number)) } else { None }
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Its place in an array of [`Conn::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Its twin.
    #[must_use]
    pub const fn other(self) -> Self {
        Self(1 - self.0)
    }
}

impl From<Conn> for u8 {
    fn from(conn: Conn) -> Self {
        conn.0
    }
}

impl TryFrom<u8> for Conn {
    type Error = NoSuchConn;

    fn try_from(number: u8) -> Result<Self, NoSuchConn> {
        Self::new(number).ok_or(NoSuchConn { number })
    }
}

/// A number that no connection has.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{number} is no connection of a lane: there are 0 and 1")]
pub struct NoSuchConn {
    /// The number.
    pub number: u8,
}

impl std::fmt::Display for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Some of a lane's connections: those that are open.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Conns([bool; Conn::ALL.len()]);

impl Conns {
    /// None.
    pub const NONE: Self = Self([false; Conn::ALL.len()]);

    /// Adds one.
    pub const fn insert(&mut self, conn: Conn) {
        self.0[conn.index()] = true;
    }

    /// Takes one out.
    pub const fn remove(&mut self, conn: Conn) {
        self.0[conn.index()] = false;
    }

    /// Whether it is among them.
    #[must_use]
    pub const fn has(self, conn: Conn) -> bool {
        self.0[conn.index()]
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }

    /// They, in the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = Conn> {
        Conn::ALL.into_iter().filter(move |conn| self.has(*conn))
    }

    /// They, without one.
    #[must_use]
    pub const fn without(mut self, conn: Conn) -> Self {
        self.remove(conn);
        self
    }
}

/// One value for each connection.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PerConn<T>([T; Conn::ALL.len()]);

impl<T> PerConn<T> {
    /// Every value, in the order of the numbers.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Conn, &mut T)> {
        Conn::ALL.into_iter().zip(&mut self.0)
    }
}

impl<T> std::ops::Index<Conn> for PerConn<T> {
    type Output = T;

    fn index(&self, conn: Conn) -> &T {
        &self.0[conn.index()]
    }
}

impl<T> std::ops::IndexMut<Conn> for PerConn<T> {
    fn index_mut(&mut self, conn: Conn) -> &mut T {
        &mut self.0[conn.index()]
    }
}

/// The connection an input came from, among those that are open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Via {
    pub(crate) conn: Conn,
    pub(crate) open: Conns,
}

impl Via {
    /// The other connections that are open.
    pub(crate) fn others(self) -> Conns {
        self.open.without(self.conn)
    }
}
