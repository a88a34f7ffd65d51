//! The demo's configuration: the files a user would write, pointed at loopback.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::cluster::Cluster;
use crate::loopback::{self, Venue};

/// Writes `tapeway.yaml` and one file per venue below `dir/config`; returns the folder.
///
/// # Errors
///
/// As the disk has them.
pub(super) fn write(
    dir: &Path,
    cluster: &Cluster,
    venues: &loopback::Server,
    symbols: usize,
    port: u16,
) -> io::Result<PathBuf> {
    let folder = dir.join("config");
    fs::create_dir_all(folder.join("exchanges"))?;
    let journal = dir.join("journal");
    let main = format!(
        "journal:\n  dir: {}\n  bytes_max: 8GiB\n  free_bytes_min: 64MiB\ndatabase:\n  url: {}\nhttp:\n  listen: 127.0.0.1:{port}\n",
        journal.display(),
        cluster.url(),
    );
    fs::write(folder.join("tapeway.yaml"), main)?;
    for venue in Venue::ALL {
        let has_quotes = venue != Venue::Coinbase;
        let channels = if has_quotes { "[trades, book, quotes]" } else { "[trades, book]" };
        let list: String = venue.symbols(symbols).iter().map(|symbol| format!("  - {symbol}\n")).collect();
        let text = format!(
            "enabled: true\nsymbols:\n{list}channels: {channels}\nws_url: {}\nhttp_url: {}\n",
            venues.ws_url(venue),
            venues.http_url(venue),
        );
        fs::write(folder.join(format!("exchanges/{}.yaml", venue.name())), text)?;
    }
    Ok(folder)
}
