//! What is wrong with the configuration: every problem at once, each with its place.

use std::{
    fmt::{Display, Formatter},
    path::PathBuf,
};

/// One thing that is wrong in one file.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Problem {
    /// The file, as it was named to us.
    pub file: PathBuf,
    /// Line in the file, counted from 1; 0 when the problem is the file itself.
    pub line: usize,
    /// The key's full path, e.g. `journal.dir`; empty when the problem is the file itself.
    pub key: String,
    /// What is there. Never the value of a secret.
    pub found: String,
    /// What may be there.
    pub allowed: String,
}

impl Display for Problem {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if self.line > 0 {
            write!(f, "{}:", self.line)?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " found {}, allowed {}", self.found, self.allowed)
    }
}

/// All problems of one configuration, in file and line order. Never empty once returned as an error.
///
/// Displayed as a count and one line a problem, ready for a terminal.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Notes one more.
    pub(super) fn add(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    /// Whether nothing is wrong; otherwise all problems, sorted.
    pub(super) fn into_result(mut self) -> Result<(), Self> {
        if self.0.is_empty() {
            return Ok(());
        }
        self.0.sort();
        Err(self)
    }

    /// Every problem, in file and line order.
    #[must_use]
    pub fn list(&self) -> &[Problem] {
        &self.0
    }
}

impl Display for Problems {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let count = self.0.len();
        let noun = if count == 1 { "problem" } else { "problems" };
        write!(f, "{count} {noun} in the configuration")?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for Problems {}
