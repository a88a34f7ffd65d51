//! One file held against the list of its keys: every value read, every problem noted.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    env::{self, Lookup},
    keys::Key,
    kind::{Kind, Name, Value},
    problem::{Problem, Problems},
    yaml::{self, Body, Entry, Node},
};

/// The values of one file. Keys that the file does not hold have their default.
///
/// A key whose value was wrong counts as absent: its problem is noted, and reading goes on to find the others.
#[derive(Debug)]
pub(super) struct Values<'a> {
    file: &'a Path,
    keys: &'static [Key],
    values: HashMap<&'static str, Value>,
    /// Line of every key the file holds, also of those whose value was wrong.
    lines: HashMap<&'static str, usize>,
    /// Line of every section, to point at when a key in it is missing.
    sections: HashMap<String, usize>,
    /// The text is not a group of keys at all.
    is_broken: bool,
}

impl<'a> Values<'a> {
    /// Reads `text`, which came from `file`, noting what is wrong in `problems`.
    pub(super) fn read(
        file: &'a Path,
        text: &str,
        keys: &'static [Key],
        lookup: Lookup<'_>,
        problems: &mut Problems,
    ) -> Self {
        let mut values = Self {
            file,
            keys,
            values: HashMap::new(),
            lines: HashMap::new(),
            sections: HashMap::new(),
            is_broken: false,
        };
        match yaml::parse(text) {
            Ok(node) => Walk { values: &mut values, lookup, problems }.section("", &node),
            Err(broken) => {
                problems.add(values.problem_at("", broken.line, broken.found, broken.allowed));
                values.is_broken = true;
            }
        }
        values
    }

    /// Whether the file holds `path`, be its value right or wrong.
    pub(super) fn is_given(&self, path: &str) -> bool {
        self.lines.contains_key(path)
    }

    /// Whether the file as a whole was refused, so that a key that is not in it may yet have been meant to be.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Whether none of `paths` has a wrong value, so that a rule over all of them can be checked.
    pub(super) fn are_right(&self, paths: &[&str]) -> bool {
        paths.iter().all(|path| !self.is_given(path) || self.values.contains_key(path))
    }

    /// Line to name for `path`: its own, else its section's, else the first.
    pub(super) fn line(&self, path: &str) -> usize {
        let own = self.lines.get(path).copied();
        let section = || path.rsplit_once('.').and_then(|(section, _)| self.sections.get(section).copied());
        own.or_else(section).unwrap_or(1)
    }

    /// A problem at `path`.
    pub(super) fn problem(&self, path: &str, found: impl Into<String>, allowed: impl Into<String>) -> Problem {
        self.problem_at(path, self.line(path), found, allowed)
    }

    /// A problem with one entry of the list at `path`.
    pub(super) fn problem_at(
        &self,
        path: &str,
        line: usize,
        found: impl Into<String>,
        allowed: impl Into<String>,
    ) -> Problem {
        Problem { file: self.file.to_owned(), line, key: path.to_owned(), found: found.into(), allowed: allowed.into() }
    }

    /// What `path` may hold, in words.
    pub(super) fn allowed(&self, path: &str) -> String {
        self.key(path).kind.allowed()
    }

    /// The flag at `path`. As all of the getters below: panics if `path` is not a key of that kind.
    pub(super) fn flag(&self, path: &str) -> bool {
        let Value::Flag(value) = self.some(path) else { wrong_kind(path) };
        value
    }

    /// The count at `path`.
    pub(super) fn count(&self, path: &str) -> u64 {
        let Value::Count(value) = self.some(path) else { wrong_kind(path) };
        value
    }

    /// The count at `path` if there is one; `None` also for `auto`.
    pub(super) fn count_opt(&self, path: &str) -> Option<u64> {
        let value = self.value(path)?;
        if let Value::Count(count) = value { Some(count) } else { word_instead(path, &value) }
    }

    /// The size at `path`, in bytes.
    pub(super) fn size(&self, path: &str) -> u64 {
        let Value::Size(value) = self.some(path) else { wrong_kind(path) };
        value
    }

    /// The time at `path`.
    pub(super) fn span(&self, path: &str) -> Duration {
        let Value::Span(value) = self.some(path) else { wrong_kind(path) };
        value
    }

    /// The time at `path` if there is one; `None` also for `never`.
    pub(super) fn span_opt(&self, path: &str) -> Option<Duration> {
        let value = self.value(path)?;
        if let Value::Span(span) = value { Some(span) } else { word_instead(path, &value) }
    }

    /// The word chosen at `path`.
    pub(super) fn word(&self, path: &str) -> &'static str {
        let Value::Word(value) = self.some(path) else { wrong_kind(path) };
        value
    }

    /// The numbers at `path`, or the word chosen instead.
    pub(super) fn numbers(&self, path: &str) -> Result<Vec<u64>, &'static str> {
        let value = self.some(path);
        if let Value::Word(word) = value {
            return Err(word);
        }
        let Value::Numbers(numbers) = value else { wrong_kind(path) };
        Ok(numbers)
    }

    /// The address at `path`.
    pub(super) fn address(&self, path: &str) -> SocketAddr {
        let Value::Address(value) = self.some(path) else { wrong_kind(path) };
        value
    }

    /// The text at `path`, if there is one.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        let Value::Text(text) = self.value(path)? else { wrong_kind(path) };
        Some(text)
    }

    /// The path at `path`, if there is one; a relative one begins at the folder of the file.
    pub(super) fn file(&self, path: &str) -> Option<PathBuf> {
        let folder = self.file.parent().unwrap_or(Path::new(""));
        self.text(path).map(|text| folder.join(text))
    }

    /// The names at `path`; empty if there are none.
    pub(super) fn names(&self, path: &str) -> Vec<Name> {
        let Some(value) = self.value(path) else { return Vec::new() };
        let Value::Names(names) = value else { wrong_kind(path) };
        names
    }

    fn some(&self, path: &str) -> Value {
        self.value(path).unwrap_or_else(|| panic!("{path} has no default and was not given"))
    }

    /// The value at `path`, or its default.
    pub(super) fn value(&self, path: &str) -> Option<Value> {
        let key = self.key(path);
        self.values.get(path).cloned().or_else(|| key.default.map(|text| default(key, text)))
    }

    fn key(&self, path: &str) -> &'static Key {
        self.keys.iter().find(|key| key.path == path).unwrap_or_else(|| panic!("{path} is not in the list of keys"))
    }
}

/// A word, such as `auto`, says that there is no such value.
fn word_instead<T>(path: &str, value: &Value) -> Option<T> {
    assert!(matches!(value, Value::Word(_)), "{path} is not of the kind it is read as");
    None
}

fn wrong_kind(path: &str) -> ! {
    panic!("{path} is not of the kind it is read as")
}

/// The value of a default as it stands in the list of keys, where a list is `[a, b]`.
fn default(key: &Key, text: &str) -> Value {
    let names = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match names {
        Some(names) => Value::Names(
            names.split(", ").map(|name| Name { text: name.into(), shown: String::new(), line: 0 }).collect(),
        ),
        None => key.kind.parse(text).unwrap_or_else(|| panic!("the default of {} is not allowed there", key.path)),
    }
}

struct Walk<'a, 'v, 'f> {
    values: &'v mut Values<'f>,
    lookup: Lookup<'a>,
    problems: &'v mut Problems,
}

impl Walk<'_, '_, '_> {
    fn section(&mut self, path: &str, node: &Node) {
        let entries = match &node.body {
            Body::Nothing => return, // All of its keys are commented out.
            Body::Map(entries) => entries,
            other @ (Body::Text(_) | Body::List(_)) => {
                let allowed = format!("a group of keys: {}", self.known(path).join(", "));
                self.problems.add(self.values.problem_at(path, node.line, other.name(), allowed));
                self.values.is_broken |= path.is_empty();
                return;
            }
        };
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for entry in entries {
            let full = if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
            if let Some(first) = seen.get(entry.key.as_str()) {
                let found = format!("the key a second time (first on line {first})");
                self.problems.add(self.values.problem_at(&full, entry.line, found, "it once"));
                continue;
            }
            seen.insert(&entry.key, entry.line);
            self.entry(path, &full, entry);
        }
    }

    fn entry(&mut self, section: &str, full: &str, entry: &Entry) {
        if let Some(key) = self.values.keys.iter().find(|key| key.path == full) {
            self.values.lines.insert(key.path, entry.line);
            if let Some(value) = self.leaf(key, &entry.value) {
                self.values.values.insert(key.path, value);
            }
            return;
        }
        let is_section = self.values.keys.iter().any(|key| below(key.path, full).is_some());
        if is_section {
            self.values.sections.insert(full.to_owned(), entry.line);
            self.section(full, &entry.value);
            return;
        }
        let known = self.known(section);
        let nearest = nearest(&entry.key, &known).map(|name| format!("; the nearest is {name}")).unwrap_or_default();
        let allowed = format!("{}{nearest}", known.join(", "));
        let shown = Problem { key: escaped(full), ..self.values.problem_at("", entry.line, "an unknown key", allowed) };
        self.problems.add(shown);
    }

    /// The value of one key; `None` when it is a problem.
    fn leaf(&mut self, key: &Key, node: &Node) -> Option<Value> {
        let found = match (&node.body, key.kind) {
            (Body::Text(text), _) => {
                let full = self.substitute(key, node.line, text)?;
                match key.kind.parse(&full) {
                    Some(value) => return Some(value),
                    None => shown(text, key.kind),
                }
            }
            (Body::List(items), Kind::Names { len_max } | Kind::ChoiceOrNumbers { len_max, .. }) => {
                if items.len() <= len_max {
                    return self.list(key, items);
                }
                format!("a list of {}", items.len())
            }
            (other @ (Body::Nothing | Body::List(_) | Body::Map(_)), _) => other.name().into(),
        };
        self.problems.add(self.values.problem_at(key.path, node.line, found, key.kind.allowed()));
        None
    }

    fn list(&mut self, key: &Key, items: &[Node]) -> Option<Value> {
        let read: Vec<Option<Name>> = items.iter().map(|item| self.name(key, item)).collect();
        let names: Vec<Name> = read.into_iter().collect::<Option<_>>()?;
        let Kind::ChoiceOrNumbers { end, .. } = key.kind else { return Some(Value::Names(names)) };
        let count = Kind::Count { min: 0, max: end - 1 };
        let mut numbers = Vec::with_capacity(names.len());
        for name in names {
            if let Some(Value::Count(number)) = count.parse(&name.text) {
                numbers.push(number);
            } else {
                self.problems.add(self.values.problem_at(key.path, name.line, name.shown, count.allowed()));
            }
        }
        (numbers.len() == items.len()).then_some(Value::Numbers(numbers))
    }

    fn name(&mut self, key: &Key, item: &Node) -> Option<Name> {
        match &item.body {
            Body::Text(text) => {
                let full = self.substitute(key, item.line, text)?;
                Some(Name { text: full, shown: shown(text, key.kind), line: item.line })
            }
            other @ (Body::Nothing | Body::List(_) | Body::Map(_)) => {
                let found = format!("{} as an entry", other.name());
                self.problems.add(self.values.problem_at(key.path, item.line, found, "a single value"));
                None
            }
        }
    }

    fn substitute(&mut self, key: &Key, line: usize, text: &str) -> Option<String> {
        env::substitute(text, self.lookup)
            .map_err(|unset| self.problems.add(self.values.problem_at(key.path, line, unset.found, unset.allowed)))
            .ok()
    }

    /// Names of the keys and sections directly in `section`.
    fn known(&self, section: &str) -> Vec<&'static str> {
        let mut known: Vec<&'static str> = Vec::new();
        for key in self.values.keys {
            let rest = if section.is_empty() { Some(key.path) } else { below(key.path, section) };
            let name = rest.map(|rest| rest.split_once('.').map_or(rest, |(name, _)| name));
            known.extend(name.filter(|name| known.last() != Some(name)));
        }
        known
    }
}

/// What follows `section.` in `path`.
fn below(path: &'static str, section: &str) -> Option<&'static str> {
    path.strip_prefix(section)?.strip_prefix('.')
}

/// A value in a message: as written, so without what came from the environment; never a secret.
pub(super) fn shown(text: &str, kind: Kind) -> String {
    if kind.is_secret() {
        return "a secret (not shown)".into();
    }
    format!("`{}`", escaped(text))
}

/// Text in a message: not too long, one line, and without the password of a URL that landed at the wrong place.
fn escaped(text: &str) -> String {
    if let Some((scheme, _)) = text.split_once("://").filter(|(_, rest)| rest.contains('@')) {
        return format!("{}://***", escaped(scheme));
    }
    let mut out: String = text.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        out.push_str("...");
    }
    out
}

/// The candidate that takes the fewest edits to reach, if they are few enough to be a slip of the finger.
pub(super) fn nearest<'c>(name: &str, candidates: &[&'c str]) -> Option<&'c str> {
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let scored = candidates.iter().map(|candidate| (edits(name, candidate), *candidate));
    let (distance, best) = scored.min_by_key(|(distance, _)| *distance)?;
    (distance <= 1 + best.len() / 4).then_some(best)
}

/// Insertions, removals, replacements and swaps of neighbours that make `a` into `b`.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

/// Most characters of a value that a message shows.
const SHOWN_CHARS_MAX: usize = 60;

/// Longest name that is compared with the known ones.
const NAME_BYTES_MAX: usize = 64;

#[cfg(test)]
mod nearest_key {
    use super::*;

    #[test]
    fn is_found_for_a_slip_and_not_for_another_word() {
        let known = ["segment_bytes_max", "dir", "keep_for"];
        assert_eq!(nearest("segment_byte_max", &known), Some("segment_bytes_max"));
        assert_eq!(nearest("dri", &known), Some("dir"));
        assert_eq!(nearest("keepfor", &known), Some("keep_for"));
        assert_eq!(nearest("compression", &known), None);
        assert_eq!(nearest(&"x".repeat(100), &known), None);
    }
}
