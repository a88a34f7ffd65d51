//! Inputs in, events and actions out, for every capture of every venue. A capture is small and our own,
//! written in the venue's documented shape; the evidence is in the folder's NOTES.md.
//!
//! ```text
//! venue/<room>/captures/<venue>.<name>.jsonl     one input a line, with `received` (ns) and one of
//!                                                open, plan (a LanePlan), text, http {tag,status,body}, close
//! venue/<room>/captures/<venue>.<name>.golden    what came of each, blank line between inputs
//! ```
//!
//! `TAPEWAY_BLESS=1` writes golden files anew; they are reviewed like code.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tapeway_exchanges::conn::Conn;
use tapeway_exchanges::{adapter::CloseReason, input::Kind, venue::VENUES};

use crate::harness::{Input, Lane};

pub(crate) struct Capture {
    pub(crate) venue: String,
    pub(crate) path: PathBuf,
    pub(crate) inputs: Vec<Input>,
}

/// Every capture in the repository.
pub(crate) fn all() -> Vec<Capture> {
    let rooms = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/venue");
    let mut found = Vec::new();
    for room in fs::read_dir(rooms).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        let Ok(entries) = fs::read_dir(room.join("captures")) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.extension().is_some_and(|extension| extension == "jsonl") {
                found.push(read(path));
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn read(path: PathBuf) -> Capture {
    let venue = path.file_name().unwrap().to_str().unwrap().split('.').next().unwrap().into();
    let text = fs::read_to_string(&path).unwrap();
    let inputs = text.lines().map(|line| input(&serde_json::from_str(line).unwrap())).collect();
    Capture { venue, path, inputs }
}

fn input(line: &Value) -> Input {
    let received = line["received"].as_i64().unwrap();
    let json = |kind, value: &Value| Input { received, conn: Conn::FIRST, kind, bytes: value.to_string().into_bytes() };
    if let Some(text) = line["text"].as_str() {
        Input::text(received, text)
    } else if let Some(http) = line["http"].as_object() {
        let status = u16::try_from(http["status"].as_u64().unwrap()).unwrap();
        Input::http(received, http["tag"].as_str().unwrap(), status, http["body"].as_str().unwrap())
    } else if line["open"].is_object() {
        json(Kind::Open, &line["open"])
    } else if line["plan"].is_object() {
        json(Kind::Plan, &line["plan"])
    } else {
        let reason: CloseReason = serde_json::from_value(line["close"].clone()).unwrap();
        Input { received, conn: Conn::FIRST, kind: Kind::Close, bytes: serde_json::to_vec(&reason).unwrap() }
    }
}

#[test]
fn captured_inputs_become_exactly_the_golden_events() {
    for capture in all() {
        let mut lane = Lane::new(&capture.venue);
        let blocks: Vec<_> = capture.inputs.iter().map(|input| lane.feed(input).join("\n")).collect();
        let found =
            blocks.iter().enumerate().map(|(index, block)| format!("# input {index}\n{block}\n\n")).collect::<String>();
        let golden = capture.path.with_extension("golden");
        if std::env::var_os("TAPEWAY_BLESS").is_some() {
            fs::write(&golden, &found).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        let differs = found.lines().zip(expected.lines()).position(|(found, expected)| found != expected);
        if let Some(line) = differs {
            let at = |text: &str| text.lines().nth(line).unwrap_or_default().to_string();
            panic!("{}:{}\n   found {}\nexpected {}", golden.display(), line + 1, at(&found), at(&expected));
        }
        assert_eq!(found.lines().count(), expected.lines().count(), "{}", golden.display());
    }
}

#[test]
fn every_venue_has_a_capture() {
    let captures = all();
    for spec in VENUES {
        assert!(captures.iter().any(|capture| capture.venue == spec.name), "{} has no capture", spec.name);
    }
}
