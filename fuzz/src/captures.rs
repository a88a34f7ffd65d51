//! The repository's captures as inputs: what seeds and targets begin with.

use std::{fs, path::Path};

use serde_json::Value;
use tapeway_exchanges::input::{Kind, put_http};

/// A capture: its venue, its name, its inputs.
#[derive(Debug)]
pub struct Capture {
    /// The venue's name.
    pub venue: String,
    /// What the capture shows.
    pub name: String,
    /// Receive time, kind and bytes, as journaled.
    pub inputs: Vec<(i64, Kind, Vec<u8>)>,
}

/// Every capture in the repository, by file name.
///
/// # Panics
///
/// When a capture cannot be read: the repository is not whole.
pub fn all() -> Vec<Capture> {
    let rooms = Path::new(env!("CARGO_MANIFEST_DIR")).join("../exchanges/src/venue");
    let mut paths = Vec::new();
    for room in fs::read_dir(rooms).expect("the venues' folder is there") {
        let Ok(entries) = fs::read_dir(room.expect("its entries can be read").path().join("captures")) else {
            continue;
        };
        paths.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let file = path.file_stem()?.to_str()?;
        let (venue, name) = file.split_once('.')?;
        let text = fs::read_to_string(path).ok()?;
        let inputs = text.lines().map(|line| input(&serde_json::from_str(line).ok()?)).collect::<Option<_>>()?;
        Some(Capture { venue: venue.into(), name: name.into(), inputs })
    };
    paths.iter().map(|path| read(path).unwrap_or_else(|| panic!("{} is no capture", path.display()))).collect()
}

fn input(line: &Value) -> Option<(i64, Kind, Vec<u8>)> {
    let received = line["received"].as_i64()?;
    if let Some(text) = line["text"].as_str() {
        return Some((received, Kind::Text, text.as_bytes().to_vec()));
    }
    if let Some(http) = line["http"].as_object() {
        let (tag, body) = (http["tag"].as_str()?, http["body"].as_str()?);
        let mut bytes = Vec::new();
        put_http(&mut bytes, tag, u16::try_from(http["status"].as_u64()?).ok()?, body.as_bytes());
        return Some((received, Kind::Http, bytes));
    }
    let found = [("open", Kind::Open), ("plan", Kind::Plan), ("close", Kind::Close)].into_iter();
    found
        .filter(|(key, _)| line[*key].is_object())
        .map(|(key, kind)| (received, kind, line[key].to_string().into_bytes()))
        .next()
}
