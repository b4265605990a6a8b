//! Where log lines go and what they look like.
//!
//! Every part of mailstow emits tracing events; here they become lines: text as a Postfix log
//! reads, or one JSON object each. Invariants: no value can forge a line or a field; a log without
//! a reader never delays a delivery.

mod delivery;
mod sink;
mod text;

pub(crate) use delivery::DeliveryLine;
pub use sink::Log;

use mailstow_engine::config::{LogFormat, LogSettings};
use std::io;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::SubscriberBuilder;

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogStartError {
    /// An unknown level.
    #[error("log level \"{0}\": use one of error, warn, info, debug, trace")]
    Level(String),
    /// The thread that writes the lines.
    #[error("cannot start a thread for the log: {0}; raise the limit on processes of this user")]
    Thread(io::Error),
    /// Logging was set up before.
    #[error("logging is set up already; start the server only once in a process")]
    Taken,
}

/// Sends the events of the whole process to standard error as `settings` say.
///
/// # Errors
/// See [`LogStartError`].
pub fn start(settings: &LogSettings) -> Result<Log, LogStartError> {
    let level: LevelFilter = settings
        .level
        .parse()
        .map_err(|_| LogStartError::Level(settings.level.clone()))?;
    let log = Log::start(io::stderr()).map_err(LogStartError::Thread)?;
    let builder = SubscriberBuilder::default()
        .with_max_level(level)
        .with_writer(log.clone());
    let taken = match settings.format {
        LogFormat::Json => {
            let json = builder.json().flatten_event(true).with_current_span(false);
            tracing::subscriber::set_global_default(json.with_span_list(false).finish()).is_err()
        }
        LogFormat::Text => {
            let text = builder.event_format(text::TextLine::new());
            tracing::subscriber::set_global_default(text.finish()).is_err()
        }
    };
    if taken {
        Err(LogStartError::Taken)
    } else {
        Ok(log)
    }
}
