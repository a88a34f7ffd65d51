//! The list of keys as a page to read.

use std::fmt::Write;

use super::{
    keys::{DAEMON, Key, VENUE},
    kind::Kind,
};

/// Every key of `tapeway.yaml` and of `exchanges/<venue>.yaml`, as two Markdown tables: what it may hold, what is
/// taken without it, what it means and costs. `docs/configuration.md` holds exactly these.
#[must_use]
pub fn reference() -> String {
    format!(
        "## tapeway.yaml\n\n{}\n## exchanges/&lt;venue&gt;.yaml\n\n{}",
        table(DAEMON, "none"),
        table(VENUE, "the venue's")
    )
}

fn table(keys: &[Key], no_default: &str) -> String {
    let mut out = String::from("| key | allowed | default | meaning | cost |\n| --- | --- | --- | --- | --- |\n");
    for key in keys {
        let without = if matches!(key.kind, Kind::Names { .. }) { "none" } else { no_default };
        let default = key.default.map_or_else(|| without.to_owned(), |default| format!("`{default}`"));
        let (path, allowed) = (key.path, key.kind.allowed());
        let row = writeln!(out, "| `{path}` | {allowed} | {default} | {} | {} |", key.meaning, key.cost);
        row.expect("writing to a String cannot fail");
    }
    out
}
