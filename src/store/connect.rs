//! Connecting to PostgreSQL.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{io::AsyncRead, io::AsyncWrite, task::JoinHandle};
use tokio_postgres::{AsyncMessage, Client, Config, Row, config::TargetSessionAttrs, error::Severity, types::ToSql};
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::{debug, warn};

use super::{
    Error,
    tls::{self, SslMode},
    within,
};
use crate::config::Database;

/// How to reach the database, checked once; [`connect`](Self::connect) can be called as often as needed.
#[derive(Clone)]
pub struct Connector {
    config: Config,
    tls: MakeRustlsConnect,
    connect_timeout: Duration,
    statement_timeout: Duration,
}

impl Connector {
    /// Reads `database.url`: a URL or key=value pairs, with libpq's `sslmode` and `sslrootcert` beside what
    /// the client library knows. `role` ends up in `application_name` (`tapeway writer 0`).
    ///
    /// # Errors
    ///
    /// [`Error::Url`] and [`Error::CaFile`].
    pub fn new(database: &Database, role: &str) -> Result<Self, Error> {
        let parts = split(database.url.expose())?;
        let mut config: Config = parts.rest.parse().map_err(|error: tokio_postgres::Error| Error::Url {
            what: std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string),
        })?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(Error::Url { what: "no host given; a folder is the host of a Unix socket".into() });
        }
        config.ssl_mode(parts.ssl_mode.client());
        config.application_name(format!("tapeway {role}"));
        config.connect_timeout(database.connect_timeout);
        config.keepalives(true);
        config.keepalives_idle(KEEPALIVE_IDLE);
        config.keepalives_interval(KEEPALIVE_INTERVAL);
        config.keepalives_retries(KEEPALIVE_RETRIES);
        config.tcp_user_timeout(database.statement_timeout);
        if config.get_hosts().len() > 1 && config.get_target_session_attrs() == TargetSessionAttrs::Any {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite); // After a failover the new primary.
        }
        let ca_file = database.ca_file.clone().or(parts.root_cert);
        let tls = MakeRustlsConnect::new(tls::client_config(parts.ssl_mode, ca_file.as_deref())?);
        let Database { connect_timeout, statement_timeout, .. } = *database;
        Ok(Self { config, tls, connect_timeout, statement_timeout })
    }

    /// Opens a connection and sets the session up: limits that outlive us on the server's side, so that a
    /// session whose client is gone does not keep its locks.
    ///
    /// # Errors
    ///
    /// [`Error::Server`] and [`Error::Timeout`].
    pub async fn connect(&self) -> Result<Connection, Error> {
        // One limit for all hosts and the handshake; the library's own is per host and only for the socket.
        let hosts = u32::try_from(self.config.get_hosts().len().max(1)).unwrap_or(u32::MAX);
        let limit = self.connect_timeout.saturating_mul(hosts.saturating_add(1));
        let (client, connection) = within("connect", limit, self.config.connect(self.tls.clone())).await?;
        let notices = Arc::new(Notices::default());
        let driver = tokio::spawn(drive(connection, notices.clone()));
        let connection = Connection { client, notices, driver, timeout: self.statement_timeout };
        let limit_ms = self.statement_timeout.as_millis();
        let setup = format!(
            "SET client_min_messages = warning; \
             SET default_transaction_isolation = 'read committed'; \
             SET statement_timeout = {limit_ms}; \
             SET idle_in_transaction_session_timeout = {}; \
             SET tcp_keepalives_idle = {}; \
             SET tcp_keepalives_interval = {}; \
             SET tcp_keepalives_count = {KEEPALIVE_RETRIES}; \
             SET tcp_user_timeout = {limit_ms}",
            limit_ms.saturating_mul(2),
            KEEPALIVE_IDLE.as_secs(),
            KEEPALIVE_INTERVAL.as_secs(),
        );
        connection.run("session setup", &setup).await?;
        Ok(connection)
    }

    /// Longest time one statement may take.
    #[must_use]
    pub fn statement_timeout(&self) -> Duration {
        self.statement_timeout
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("hosts", &self.config.get_hosts()).finish_non_exhaustive()
    }
}

/// An open connection. Dropping it closes the socket, whatever was under way.
#[derive(Debug)]
pub struct Connection {
    /// The client.
    pub client: Client,
    /// What the server said without being asked.
    pub notices: Arc<Notices>,
    driver: JoinHandle<()>,
    timeout: Duration,
}

impl Connection {
    /// Runs statements that return nothing, under the statement timeout.
    ///
    /// # Errors
    ///
    /// [`Error::Server`] and [`Error::Timeout`].
    pub async fn run(&self, doing: &'static str, sql: &str) -> Result<(), Error> {
        within(doing, self.timeout, self.client.batch_execute(sql)).await
    }

    /// Rows of a query, under the statement timeout.
    ///
    /// # Errors
    ///
    /// [`Error::Server`] and [`Error::Timeout`].
    pub async fn query(&self, doing: &'static str, sql: &str, arguments: Arguments<'_>) -> Result<Vec<Row>, Error> {
        within(doing, self.timeout, self.client.query(sql, arguments)).await
    }

    /// The one row of a query, under the statement timeout.
    ///
    /// # Errors
    ///
    /// [`Error::Server`], also when there is not exactly one; [`Error::Timeout`].
    pub async fn query_one(&self, doing: &'static str, sql: &str, arguments: Arguments<'_>) -> Result<Row, Error> {
        within(doing, self.timeout, self.client.query_one(sql, arguments)).await
    }

    /// Runs a statement with arguments, under the statement timeout; returns the rows it changed.
    ///
    /// # Errors
    ///
    /// [`Error::Server`] and [`Error::Timeout`].
    pub async fn execute(&self, doing: &'static str, sql: &str, arguments: Arguments<'_>) -> Result<u64, Error> {
        within(doing, self.timeout, self.client.execute(sql, arguments)).await
    }

    /// Longest time one statement may take.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }
}

/// Arguments of a statement, `$1` first.
pub type Arguments<'a> = &'a [&'a (dyn ToSql + Sync)];

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Counts of what the server said without being asked.
#[derive(Debug, Default)]
pub struct Notices {
    direct_compress_warnings: AtomicU64,
}

impl Notices {
    /// How often the server said that it will not compress a COPY directly.
    #[must_use]
    pub fn direct_compress_warnings(&self) -> u64 {
        self.direct_compress_warnings.load(Ordering::Relaxed)
    }
}

async fn drive<S, T>(mut connection: tokio_postgres::Connection<S, T>, notices: Arc<Notices>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match std::future::poll_fn(|context| connection.poll_message(context)).await {
            Some(Ok(AsyncMessage::Notice(notice))) => {
                if notice.message().contains("direct compress") {
                    if notices.direct_compress_warnings.fetch_add(1, Ordering::Relaxed) == 0 {
                        warn!(message = notice.message(), "the server does not compress rows as they arrive");
                    }
                } else if notice.parsed_severity() == Some(Severity::Warning) {
                    warn!(message = notice.message(), code = notice.code().code(), "database warning");
                } else {
                    debug!(message = notice.message(), "database notice");
                }
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                debug!(%error, "database connection ended");
                return;
            }
            None => return,
        }
    }
}

/// `database.url` without what the client library does not understand.
#[derive(Debug, Eq, PartialEq)]
struct Parts {
    rest: String,
    ssl_mode: SslMode,
    root_cert: Option<PathBuf>,
}

fn split(url: &str) -> Result<Parts, Error> {
    let mut parts = Parts { rest: String::new(), ssl_mode: SslMode::Prefer, root_cert: None };
    let is_url = url.starts_with("postgres://") || url.starts_with("postgresql://");
    if is_url {
        let (head, query) = url.split_once('?').unwrap_or((url, ""));
        let mut kept = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !parts.take(key, &percent_decoded(value))? {
                kept.push(pair);
            }
        }
        parts.rest = if kept.is_empty() { head.into() } else { format!("{head}?{}", kept.join("&")) };
    } else {
        for (key, value) in pairs(url)? {
            if !parts.take(&key, &value)? {
                let quoted = value.replace('\\', "\\\\").replace('\'', "\\'");
                parts.rest.push_str(&format!("{key}='{quoted}' "));
            }
        }
    }
    Ok(parts)
}

impl Parts {
    /// Keeps a parameter that is ours; `false` when it is the client library's.
    fn take(&mut self, key: &str, value: &str) -> Result<bool, Error> {
        match key {
            "sslmode" => {
                self.ssl_mode = SslMode::parse(value).ok_or_else(|| Error::Url {
                    what: format!(
                        "sslmode {value:?} is none of disable, allow, prefer, require, verify-ca, verify-full"
                    ),
                })?;
            }
            "sslrootcert" if value == "system" => {}
            "sslrootcert" => self.root_cert = Some(value.into()),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = (*first == b'%').then(|| tail.get(..2)).flatten().and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `key = value` pairs as libpq writes them: values may be quoted, a backslash takes the next character.
fn pairs(text: &str) -> Result<Vec<(String, String)>, Error> {
    let mut list = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let mut key = String::new();
        while let Some(c) = chars.next_if(|c| !c.is_whitespace() && *c != '=') {
            key.push(c);
        }
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        match chars.next() {
            None if key.is_empty() => return Ok(list),
            Some('=') if !key.is_empty() => {}
            _ => {
                return Err(Error::Url { what: "neither postgresql://... nor key=value pairs".into() });
            }
        }
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let mut value = String::new();
        let is_quoted = chars.next_if_eq(&'\'').is_some();
        loop {
            match chars.next_if(|c| is_quoted || !c.is_whitespace()) {
                Some('\\') => value.extend(chars.next()),
                Some('\'') if is_quoted => break,
                Some(c) => value.push(c),
                None if is_quoted => {
                    return Err(Error::Url { what: format!("the value of {key} has no closing quote") });
                }
                None => break,
            }
        }
        list.push((key, value));
    }
}

/// Idle time before the first keepalive probe, on both sides.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
/// Time between probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// Probes without an answer before the connection is dead: half a minute in all.
const KEEPALIVE_RETRIES: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_keeps_everything_but_the_tls_parameters() {
        let parts =
            split("postgresql://u:p@h/db?sslmode=verify-full&connect_timeout=3&sslrootcert=%2Fa%20b.pem").unwrap();
        assert_eq!(parts.rest, "postgresql://u:p@h/db?connect_timeout=3");
        assert_eq!(parts.ssl_mode, SslMode::VerifyFull);
        assert_eq!(parts.root_cert, Some("/a b.pem".into()));
    }

    #[test]
    fn key_value_pairs_keep_their_quotes() {
        let parts = split(r"host=/tmp user = u password='it\'s a \\' sslmode=require").unwrap();
        assert_eq!(parts.rest, r"host='/tmp' user='u' password='it\'s a \\' ");
        assert_eq!(parts.ssl_mode, SslMode::Require);
        let config: Config = parts.rest.parse().unwrap();
        assert_eq!(config.get_password(), Some(&b"it's a \\"[..]));
    }

    #[test]
    fn an_error_never_shows_the_url() {
        for bad in ["postgres://u:geheim@h/db?sslmode=full", "host=h password=geheim sslmode=no", "geheim"] {
            let error = split(bad).unwrap_err().to_string();
            assert!(!error.contains("geheim"), "{error}");
        }
    }
}
