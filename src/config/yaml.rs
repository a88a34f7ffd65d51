//! YAML text to a tree in which everything knows its line.
//!
//! Built on the parser's events and not on a ready-made map, because a map has already forgotten the second of
//! two equal keys. Only the plain parts of YAML are taken: one document of mappings, lists and text. Anchors,
//! aliases and tags are refused: a reader of the file should see what it says.

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

/// A node and the line it begins on, counted from 1.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) body: Body,
}

/// What a node holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Body {
    /// A key with nothing after it, or `null`, or `~`.
    Nothing,
    /// A scalar as text, quotes removed. What it means is for the key's kind to say.
    Text(String),
    /// `[a, b]`, or lines that begin with `-`.
    List(Vec<Node>),
    /// Entries in file order, equal keys included.
    Map(Vec<Entry>),
}

/// One `key: value`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) value: Node,
}

impl Body {
    /// What kind of thing this is, for a message. Never the content.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Nothing => "no value",
            Self::Text(_) => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "a group of keys",
        }
    }
}

/// Why a text is not YAML that we take.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Broken {
    /// Line, counted from 1.
    pub(super) line: usize,
    pub(super) found: String,
    pub(super) allowed: String,
}

/// Parses one document. An empty file is [`Body::Nothing`].
pub(super) fn parse(text: &str) -> Result<Node, Broken> {
    let mut tree = Tree::default();
    // An iterator and not the string itself as input: the parser's fast path for strings is its own code.
    for event in Parser::new_from_iter(text.chars()) {
        let (event, span) = event.map_err(|error| {
            let found = format!("broken YAML ({})", error.info());
            Broken { line: error.marker().line().max(1), found, allowed: "YAML".into() }
        })?;
        tree.take(event, span)?;
    }
    Ok(tree.root.unwrap_or(Node { line: 1, body: Body::Nothing }))
}

#[derive(Default)]
struct Tree {
    root: Option<Node>,
    open: Vec<Open>,
    documents: usize,
    nodes: usize,
}

/// A list or mapping whose end has not come yet.
struct Open {
    node: Node,
    /// In a mapping: the key whose value comes next.
    key: Option<(String, usize)>,
}

impl Tree {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Broken> {
        let line = span.start.line().max(1);
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(broken(line, "a second document", "one document a file"));
                }
                Ok(())
            }
            Event::Alias(_) => Err(broken(line, "an alias", "the value itself")),
            Event::Scalar(text, style, anchor, tag) => {
                plain(line, anchor, tag.as_deref())?;
                let is_nothing = style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null");
                let body = if is_nothing { Body::Nothing } else { Body::Text(text.into_owned()) };
                self.put(Node { line, body })
            }
            Event::SequenceStart(anchor, tag) => {
                plain(line, anchor, tag.as_deref())?;
                self.open(Node { line, body: Body::List(Vec::new()) })
            }
            Event::MappingStart(anchor, tag) => {
                plain(line, anchor, tag.as_deref())?;
                self.open(Node { line, body: Body::Map(Vec::new()) })
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(closed) => self.put(closed.node),
                None => Err(broken(line, "an end without a beginning", "YAML")),
            },
        }
    }

    fn open(&mut self, node: Node) -> Result<(), Broken> {
        if self.open.len() >= DEPTH_MAX {
            let allowed = format!("at most {DEPTH_MAX}");
            return Err(Broken { line: node.line, found: "too many levels inside each other".into(), allowed });
        }
        self.open.push(Open { node, key: None });
        Ok(())
    }

    fn put(&mut self, node: Node) -> Result<(), Broken> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(Broken {
                line: node.line,
                found: "too many entries".into(),
                allowed: format!("at most {NODES_MAX}"),
            });
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match (&mut parent.node.body, parent.key.take()) {
            (Body::List(items), _) => items.push(node),
            (Body::Map(entries), Some((key, line))) => entries.push(Entry { key, line, value: node }),
            (Body::Map(_), None) => {
                let Body::Text(key) = node.body else {
                    return Err(Broken {
                        line: node.line,
                        found: format!("{} as a key", node.body.name()),
                        allowed: "a name".into(),
                    });
                };
                parent.key = Some((key, node.line));
            }
            (Body::Nothing | Body::Text(_), _) => return Err(broken(node.line, "a value inside a value", "YAML")),
        }
        Ok(())
    }
}

fn plain(line: usize, anchor: usize, tag: Option<&Tag>) -> Result<(), Broken> {
    if anchor != 0 {
        return Err(broken(line, "an anchor", "the value without it"));
    }
    if tag.is_some() {
        return Err(broken(line, "a tag", "the value without it"));
    }
    Ok(())
}

fn broken(line: usize, found: &str, allowed: &str) -> Broken {
    Broken { line, found: found.into(), allowed: allowed.into() }
}

/// Deepest nesting of lists and mappings.
const DEPTH_MAX: usize = 16;

/// Most keys, values, lists and mappings in one file.
const NODES_MAX: usize = 100_000;
