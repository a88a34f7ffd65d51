//! Findings being gathered, with a limit for each kind so that much of one does not hide another.

use std::collections::HashMap;

use super::report::{FINDINGS_MAX, Finding, Severity};

#[derive(Debug, Default)]
pub(super) struct Findings {
    list: Vec<Finding>,
    kinds: HashMap<&'static str, usize>,
    left_out: u64,
    pub(super) has_damage: bool,
    pub(super) has_gap: bool,
}

impl Findings {
    pub(super) fn add(&mut self, finding: Finding) {
        match finding.severity {
            Severity::Damage => self.has_damage = true,
            Severity::Gap => self.has_gap = true,
            Severity::Note => {}
        }
        let of_kind = self.kinds.entry(finding.kind).or_default();
        *of_kind += 1;
        if *of_kind > KIND_MAX || self.list.len() >= FINDINGS_MAX {
            self.left_out += 1;
        } else {
            self.list.push(finding);
        }
    }

    /// The list, worst first, and how many are not in it.
    pub(super) fn finish(mut self) -> (Vec<Finding>, u64) {
        self.list.sort_by(|a, b| (a.severity, &a.at).cmp(&(b.severity, &b.at)));
        (self.list, self.left_out)
    }
}

/// Findings of one kind that are listed.
const KIND_MAX: usize = 500;
