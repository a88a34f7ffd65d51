//! Reads `tapeway.yaml` and `exchanges/*.yaml`: files to [`Config`], or every problem in them at once.
//!
//! Which keys exist, their bounds and defaults is in `keys.rs`; the rules that take two keys or the file system
//! are here.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Read,
    path::{Path, PathBuf},
};

use tapeway_exchanges::venue::{VENUES, VenueSpec};

use super::{
    Config, Database, Http, Journal, Logging, Pin, Secret, TablePolicy, Venue, Writer, database_url,
    env::Lookup,
    keys,
    kind::{show_size, show_span},
    problem::{Problem, Problems},
    values::Values,
    venue,
};

impl Config {
    /// Reads the configuration at `path`: `tapeway.yaml`, or the folder it is in. `exchanges/*.yaml` beside it
    /// are read too; values may name environment variables as `${NAME}`.
    ///
    /// Can be called again at any time, to see what has changed.
    ///
    /// # Errors
    ///
    /// Everything that is wrong in any of the files, each with file, line and key, what was found and what is
    /// allowed. Values of secrets are not shown.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        load(path, &|name| std::env::var(name).ok(), VENUES)
    }
}

/// [`Config::load`] with the environment and the registry as arguments.
pub(super) fn load(path: &Path, lookup: Lookup<'_>, registry: &'static [VenueSpec]) -> Result<Config, Problems> {
    let main = if path.is_dir() { path.join(MAIN_FILE) } else { path.to_owned() };
    let mut problems = Problems::default();
    let text = text(&main, &mut problems);
    let values = Values::read(&main, text.as_deref().unwrap_or_default(), keys::DAEMON, lookup, &mut problems);
    // A file that is not there says nothing about the keys that are not in it.
    let database = if text.is_some() { database(&values, &mut problems) } else { None };
    let journal = journal(&values, &mut problems);
    let writer = writer(&values, &mut problems);
    let ca_file = readable(&values, "ca_file", &mut problems);
    let folder = main.parent().unwrap_or(Path::new("")).join(VENUES_FOLDER);
    let venues = venues(&folder, lookup, registry, &mut problems);
    problems.into_result()?;
    Ok(Config {
        journal,
        writer,
        database: database.expect("without a database there is a problem"),
        http: Http { listen: values.address("http.listen") },
        logging: Logging {
            level: values.text("logging.level").expect("it has a default"),
            is_json: values.word("logging.format") == "json",
        },
        shutdown_deadline: values.span("shutdown_deadline"),
        ca_file,
        venues,
    })
}

fn journal(values: &Values<'_>, problems: &mut Problems) -> Journal {
    let journal = Journal {
        dir: values.file("journal.dir").expect("it has a default"),
        segment_bytes_max: values.size("journal.segment_bytes_max"),
        sync_interval: values.span("journal.sync_interval"),
        keep_for: values.span("journal.keep_for"),
        bytes_max: values.size("journal.bytes_max"),
        free_bytes_min: values.size("journal.free_bytes_min"),
        is_compressed: values.flag("journal.compress"),
    };
    let least = journal.segment_bytes_max.saturating_mul(SEGMENTS_MIN);
    if journal.bytes_max < least && values.are_right(&["journal.bytes_max", "journal.segment_bytes_max"]) {
        let found = show_size(journal.bytes_max);
        let allowed = format!("at least {} (four times journal.segment_bytes_max)", show_size(least));
        problems.add(values.problem("journal.bytes_max", found, allowed));
    }
    journal
}

fn writer(values: &Values<'_>, problems: &mut Problems) -> Writer {
    let pin = match values.numbers("writer.pin") {
        Ok(cores) if cores.is_empty() => {
            problems.add(values.problem("writer.pin", "an empty list", values.allowed("writer.pin")));
            Pin::Off
        }
        Ok(cores) => Pin::Cores(cores.into_iter().map(small).collect()),
        Err("off") => Pin::Off,
        Err(_) => Pin::Auto,
    };
    let writer = Writer {
        threads: values.count_opt("writer.threads").map(small),
        pin,
        batch_rows_max: small(values.count("writer.batch_rows_max")),
        batch_bytes_max: small(values.size("writer.batch_bytes_max")),
        batch_age_max: values.span("writer.batch_age_max"),
        queue_chunks_max: small(values.count("writer.queue_chunks_max")),
        chunk_rows_max: small(values.count("writer.chunk_rows_max")),
    };
    let are_right = values.are_right(&["writer.chunk_rows_max", "writer.batch_rows_max"]);
    if writer.chunk_rows_max > writer.batch_rows_max && are_right {
        let found = writer.chunk_rows_max.to_string();
        let allowed = format!("at most {} (writer.batch_rows_max)", writer.batch_rows_max);
        problems.add(values.problem("writer.chunk_rows_max", found, allowed));
    }
    writer
}

fn database(values: &Values<'_>, problems: &mut Problems) -> Option<Database> {
    let url = secret(values, "database.url", problems);
    let password = secret(values, "database.password", problems);
    let is_given = values.is_given("database.url") || values.is_given("database.url_file");
    if !is_given && !values.is_broken() {
        problems.add(values.problem("database.url", "nothing", format!("{URL_ALLOWED}, or a database.url_file")));
    }
    let tables: BTreeMap<_, _> =
        keys::TABLES.into_iter().map(|table| (table.to_owned(), table_policy(values, table, problems))).collect();
    let (every_key, window_key) = ("database.candles.refresh_every", "database.candles.refresh_window");
    let (every, window) = (values.span(every_key), values.span(window_key));
    if window < every && values.are_right(&[every_key, window_key]) {
        let allowed = format!("at least {} ({every_key})", show_span(every));
        problems.add(values.problem(window_key, show_span(window), allowed));
    }
    let drop_key = "database.tables.trades.drop_after";
    let drop_after = tables["trades"].drop_after.filter(|_| values.are_right(&[drop_key, window_key]));
    if let Some(drop_after) = drop_after.filter(|drop_after| *drop_after < window) {
        // A refresh over dropped trades would empty the candles made of them.
        let allowed = format!("at most {} ({drop_key})", show_span(drop_after));
        problems.add(values.problem(window_key, show_span(window), allowed));
    }
    let ca_file = readable(values, "database.ca_file", problems);
    Some(Database {
        url: complete_url(values, url?, password, problems)?,
        ca_file,
        connect_timeout: values.span("database.connect_timeout"),
        statement_timeout: values.span("database.statement_timeout"),
        is_columnstore_wanted: values.word("database.columnstore") == "auto",
        tables,
        candles_refresh_every: every,
        candles_refresh_window: window,
        audit_drop_after: values.span_opt("database.audit_drop_after"),
        metadata_every: values.span("database.metadata_every"),
    })
}

fn table_policy(values: &Values<'_>, table: &str, problems: &mut Problems) -> TablePolicy {
    let path = |key: &str| format!("database.tables.{table}.{key}");
    let policy = TablePolicy {
        chunk_interval: values.span(&path("chunk_interval")),
        compress_after: values.span_opt(&path("compress_after")),
        drop_after: values.span_opt(&path("drop_after")),
    };
    let keys = [path("chunk_interval"), path("compress_after"), path("drop_after")];
    let are_right = values.are_right(&keys.each_ref().map(String::as_str));
    let Some(drop_after) = policy.drop_after.filter(|_| are_right) else { return policy };
    if drop_after < policy.chunk_interval {
        let allowed = format!("at least {} ({})", show_span(policy.chunk_interval), path("chunk_interval"));
        problems.add(values.problem(&path("drop_after"), show_span(drop_after), allowed));
    }
    if let Some(compress_after) = policy.compress_after.filter(|compress_after| *compress_after >= drop_after) {
        let allowed = format!("never or less than {} ({})", show_span(drop_after), path("drop_after"));
        problems.add(values.problem(&path("compress_after"), show_span(compress_after), allowed));
    }
    policy
}

fn complete_url(values: &Values<'_>, url: Secret, password: Option<Secret>, problems: &mut Problems) -> Option<Secret> {
    let key = if values.is_given("database.url") { "database.url" } else { "database.url_file" };
    if !database_url::is_url(url.expose()) {
        problems.add(values.problem(key, "something else (not shown)", URL_ALLOWED));
        return None;
    }
    let Some(password) = password else { return Some(url) };
    let (found, allowed) = match database_url::with_password(url.expose(), password.expose()) {
        Ok(full) => return Some(Secret::new(full)),
        Err(database_url::Refused::Twice) => ("a URL with a password, and database.password", "one of the two"),
        Err(database_url::Refused::NoUser) => ("a URL without a user, and database.password", "a URL with a user"),
        Err(database_url::Refused::Form) => ("something else (not shown)", URL_ALLOWED),
    };
    problems.add(values.problem(key, found, allowed));
    None
}

/// The secret at `path`, or in the file at `path` + `_file`. `None` if neither is given or there is a problem.
fn secret(values: &Values<'_>, path: &str, problems: &mut Problems) -> Option<Secret> {
    let file_key = format!("{path}_file");
    let file = values.file(&file_key);
    match (values.text(path), file) {
        (Some(_), Some(_)) => {
            problems.add(values.problem(&file_key, format!("{path} as well"), "one of the two"));
            None
        }
        (Some(text), None) => Some(Secret::new(text)),
        (None, None) => None,
        (None, Some(file)) => {
            let read = read_file(&file, SECRET_BYTES_MAX).map_err(|error| format!("`{}`, {error}", file.display()));
            let text = read.map(|text| text.trim_end_matches(['\r', '\n']).to_owned());
            match text {
                Ok(text) if text.is_empty() || text.contains('\0') => {
                    let found = format!("`{}`, which holds no text", file.display());
                    problems.add(values.problem(&file_key, found, "a file that holds the secret and nothing else"));
                    None
                }
                Ok(text) => Some(Secret::new(text)),
                Err(found) => {
                    problems.add(values.problem(&file_key, found, "a file that can be read"));
                    None
                }
            }
        }
    }
}

/// The file at `path`, which must be there.
fn readable(values: &Values<'_>, path: &str, problems: &mut Problems) -> Option<PathBuf> {
    let file = values.file(path)?;
    if let Err(error) = read_file(&file, FILE_BYTES_MAX) {
        problems.add(values.problem(path, format!("`{}`, {error}", file.display()), "a file that can be read"));
    }
    Some(file)
}

/// The enabled venues of the folder, by name. All files are checked, enabled or not.
fn venues(folder: &Path, lookup: Lookup<'_>, registry: &'static [VenueSpec], problems: &mut Problems) -> Vec<Venue> {
    let mut venues = Vec::new();
    for file in venue_files(folder, problems) {
        let Some(text) = text(&file, problems) else { continue };
        let values = Values::read(&file, &text, keys::VENUE, lookup, problems);
        venues.extend(venue::read(&file, &values, registry, problems));
    }
    venues
}

fn venue_files(folder: &Path, problems: &mut Problems) -> Vec<PathBuf> {
    let listed: io::Result<Vec<PathBuf>> = match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    let mut files = listed.unwrap_or_else(|error| {
        problems.add(of_file(folder, describe(&error), "a folder that can be read"));
        Vec::new()
    });
    files.retain(|file| {
        let extension = file.extension().and_then(|extension| extension.to_str());
        if extension == Some("yml") {
            problems.add(of_file(file, "the ending .yml", "the ending .yaml"));
        }
        extension == Some("yaml")
    });
    if files.len() > VENUE_FILES_MAX {
        problems.add(of_file(folder, format!("{} files", files.len()), format!("at most {VENUE_FILES_MAX}")));
    }
    files.sort();
    files.truncate(VENUE_FILES_MAX);
    files
}

fn text(file: &Path, problems: &mut Problems) -> Option<String> {
    read_file(file, FILE_BYTES_MAX).map_err(|found| problems.add(of_file(file, found, "a file that can be read"))).ok()
}

/// The file's text, or why there is none.
fn read_file(file: &Path, bytes_max: u64) -> Result<String, String> {
    let open = fs::File::open(file).map_err(|error| describe(&error))?;
    let mut text = String::new();
    open.take(bytes_max + 1).read_to_string(&mut text).map_err(|error| describe(&error))?;
    if text.len() as u64 > bytes_max {
        return Err(format!("more than {}", show_size(bytes_max)));
    }
    Ok(text)
}

fn describe(error: &io::Error) -> String {
    let known = [
        (io::ErrorKind::NotFound, "no such file"),
        (io::ErrorKind::PermissionDenied, "no permission to read it"),
        (io::ErrorKind::InvalidData, "bytes that are not UTF-8"),
    ];
    let found = known.iter().find(|(kind, _)| *kind == error.kind());
    found.map_or_else(|| error.to_string(), |(_, text)| (*text).to_owned())
}

pub(super) fn of_file(file: &Path, found: impl Into<String>, allowed: impl Into<String>) -> Problem {
    Problem { file: file.to_owned(), line: 0, key: String::new(), found: found.into(), allowed: allowed.into() }
}

/// A number whose bounds are far below what a `usize` holds.
pub(super) fn small(value: u64) -> usize {
    usize::try_from(value).expect("the bounds in the list of keys fit")
}

const MAIN_FILE: &str = "tapeway.yaml";
const VENUES_FOLDER: &str = "exchanges";

const URL_ALLOWED: &str = "postgresql://user@host:port/name or host=... user=... dbname=...";

/// Segments that must fit into the journal: one open, one being compressed, its result, one to read.
const SEGMENTS_MIN: u64 = 4;

/// Biggest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Biggest file that holds a secret.
const SECRET_BYTES_MAX: u64 = 1 << 16;

/// Most files in `exchanges/`.
const VENUE_FILES_MAX: usize = 256;
