//! Configuration of a daemon that records from loopback: the files a user would write.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use crate::loopback::{self, Venue};

/// What such a daemon is to do.
pub(crate) struct Settings<'a> {
    /// Where the folder of the configuration and the journal go.
    pub(crate) dir: &'a Path,
    /// Where the rows go.
    pub(crate) database_url: &'a str,
    /// Venues to record from.
    pub(crate) venues: &'a [Venue],
    /// Where they are.
    pub(crate) server: &'a loopback::Server,
    /// Instruments on each.
    pub(crate) symbols: usize,
    /// Port of the daemon's endpoint.
    pub(crate) port: u16,
    /// Compress sealed segments of the journal.
    pub(crate) is_journal_compressed: bool,
    /// How long a stop waits for the database.
    pub(crate) shutdown_seconds: u32,
}

/// Writes `tapeway.yaml` and one file per venue below `dir/config`; returns the folder.
///
/// # Errors
///
/// As the disk has them.
pub(crate) fn write(settings: &Settings<'_>) -> io::Result<PathBuf> {
    let folder = settings.dir.join("config");
    fs::create_dir_all(folder.join("exchanges"))?;
    // A file of its own: the URL may hold a password, and characters that YAML or ${} would take for theirs.
    let url_file = folder.join("database-url");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&url_file)?;
    file.write_all(settings.database_url.as_bytes())?;
    let main = format!(
        "shutdown_deadline: {}s\njournal:\n  dir: {}\n  bytes_max: 16GiB\n  free_bytes_min: 64MiB\n  compress: {}\ndatabase:\n  url_file: {}\nhttp:\n  listen: 127.0.0.1:{}\n",
        settings.shutdown_seconds,
        settings.dir.join("journal").display(),
        settings.is_journal_compressed,
        url_file.display(),
        settings.port,
    );
    fs::write(folder.join("tapeway.yaml"), main)?;
    for venue in settings.venues {
        let has_quotes = *venue != Venue::Coinbase;
        let channels = if has_quotes { "[trades, book, quotes]" } else { "[trades, book]" };
        let list: String = venue.symbols(settings.symbols).iter().map(|symbol| format!("  - {symbol}\n")).collect();
        let text = format!(
            "enabled: true\nsymbols:\n{list}channels: {channels}\nws_url: {}\nhttp_url: {}\n",
            settings.server.ws_url(*venue),
            settings.server.http_url(*venue),
        );
        fs::write(folder.join(format!("exchanges/{}.yaml", venue.name())), text)?;
    }
    Ok(folder)
}
