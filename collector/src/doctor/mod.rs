//! What `tailor doctor` finds: each finding has what was found, on what, and what to do. This module does no I/O.

use serde::Serialize;

pub mod functions;
pub mod host;
pub mod keys;

/// How serious a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Checked, and in order.
    Ok,
    /// Information. Nothing must be done.
    Info,
    /// Something needs attention.
    Warning,
    /// Something does not work.
    Error,
}

impl Level {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How serious it is.
    pub level: Level,
    /// Stable code of what was checked, such as `disk`.
    pub check: &'static str,
    /// What was checked: a folder, an address, a key, or a function.
    pub subject: String,
    /// What was found, one sentence.
    pub finding: String,
    /// What to do; empty when nothing must be done.
    pub action: String,
}

impl Finding {
    /// A finding about something that is in order.
    #[must_use]
    pub fn ok(check: &'static str, subject: impl Into<String>, finding: impl Into<String>) -> Self {
        Self::new(Level::Ok, check, subject, finding, "")
    }

    /// A finding.
    #[must_use]
    pub fn new(
        level: Level,
        check: &'static str,
        subject: impl Into<String>,
        finding: impl Into<String>,
        action: impl Into<String>,
    ) -> Self {
        Self { level, check, subject: subject.into(), finding: finding.into(), action: action.into() }
    }
}
