//! The modes of the tuner, from nothing to every change.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How far the tuner may go. Each mode permits what the modes before it permit.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The tuner does not run.
    #[default]
    Off,
    /// The tuner reads functions from Lambda and plans nothing.
    Observe,
    /// The tuner plans changes and shows them.
    Recommend,
    /// As `recommend`; the plans are meant for `tailor changes patch`, which changes the templates of the functions.
    Patch,
    /// Tagged functions get more memory, never less.
    ApplyUp,
    /// Tagged functions get more or less memory, and are rolled back when they get worse.
    Apply,
}

impl Mode {
    /// All modes, lowest first.
    pub const ALL: [Self; 6] =
        [Self::Off, Self::Observe, Self::Recommend, Self::Patch, Self::ApplyUp, Self::Apply];

    /// The name, as in flags, tags and files.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Observe => "observe",
            Self::Recommend => "recommend",
            Self::Patch => "patch",
            Self::ApplyUp => "apply-up",
            Self::Apply => "apply",
        }
    }

    /// The mode with this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == text)
    }

    /// Whether functions may be changed at all.
    #[must_use]
    pub fn may_write(self) -> bool {
        self >= Self::ApplyUp
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
