//! The log on standard error: as text for people, or as JSON for programs that collect logs.
//!
//! A line in JSON has `timestamp` (RFC 3339, UTC), `level`, `message`, and the fields of the event, such as `error`.

use std::sync::OnceLock;

use clap::ValueEnum;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, reload};

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// For people: time, level, message, fields.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The lowest level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What failed.
    Error,
    /// What will fail, or was worked around.
    Warn,
    /// What started, ended and changed.
    #[default]
    Info,
    /// Single connections and requests.
    Debug,
    /// Everything.
    Trace,
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Off => Self::OFF,
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

/// What can be changed after the start.
struct Log {
    format: LogFormat,
    set_level: Box<dyn Fn(LevelFilter) + Send + Sync>,
}

static LOG: OnceLock<Log> = OnceLock::new();

/// Begins to log. Only the first call of a process has an effect.
pub fn start(format: LogFormat, level: LogLevel) {
    let (filter, handle) = reload::Layer::new(LevelFilter::from(level));
    let registry = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(false);
    // An error means that another log was started before.
    drop(match format {
        LogFormat::Text => registry.with(lines).try_init(),
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_current_span(false).with_span_list(false);
            registry.with(lines).try_init()
        }
    });
    let set_level = Box::new(move |level| drop(handle.reload(level)));
    drop(LOG.set(Log { format, set_level }));
}

/// Changes the level of a log that was started.
pub fn set_level(level: LogLevel) {
    if let Some(log) = LOG.get() {
        (log.set_level)(level.into());
    }
}

/// Whether programs read the log.
#[must_use]
pub fn is_json() -> bool {
    LOG.get().is_some_and(|log| log.format == LogFormat::Json)
}

/// The level in `TAILOR_LOG_LEVEL`, for commands without the option; the default when it is absent or not a level.
#[must_use]
pub fn level_of_environment() -> LogLevel {
    let level = std::env::var("TAILOR_LOG_LEVEL").ok();
    level.and_then(|level| LogLevel::from_str(&level, true).ok()).unwrap_or_default()
}
