//! Logs on stderr: text or one JSON object a line.

use tracing_subscriber::{EnvFilter, filter::ParseError, fmt};

use crate::config::Logging;

/// Starts logging. `TAPEWAY_LOG` overrides the configured level.
///
/// # Errors
///
/// The filter does not parse.
pub fn init(logging: &Logging) -> Result<(), ParseError> {
    let directives = std::env::var("TAPEWAY_LOG").unwrap_or_else(|_| logging.level.clone());
    let filter = EnvFilter::try_new(directives)?;
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let outcome = if logging.is_json {
        builder.json().flatten_event(true).with_current_span(false).try_init()
    } else {
        builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init()
    };
    if outcome.is_err() {
        tracing::debug!("logging was started already");
    }
    Ok(())
}
