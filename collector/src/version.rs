//! The version of the program.

/// Version of the collector.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Commit of its source; `None` unless the variable `TAILOR_COMMIT` was set when it was built.
pub const COMMIT: Option<&str> = option_env!("TAILOR_COMMIT");
