//! The states of a change and their stable codes.

use serde::{Deserialize, Serialize};

/// The state of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The plan is on disk; nothing was written to Lambda.
    Planned,
    /// The memory size of `$LATEST` is being set.
    Updating,
    /// A version with the new size is being published, and `$LATEST` gets its previous size again.
    Published,
    /// The alias sends a part of the invocations to the new version.
    Canary,
    /// As [`State::Canary`]; it waits for measurements, or for the window of the function.
    Hold,
    /// The alias gets the new version for all invocations.
    Promoting,
    /// All invocations use the new size, and they are being measured.
    #[serde(alias = "applied")]
    Soaking,
    /// The measurements are as predicted or better. The new size stays.
    Settled,
    /// The function gets its previous size again. The reason is on disk.
    RollingBack,
    /// The function has its previous size again.
    RolledBack,
    /// As [`State::RolledBack`]; the function is not changed again before a time.
    Quarantined,
    /// The write was refused or did not happen. The function is unchanged.
    #[serde(alias = "abandoned")]
    Blocked,
    /// The function was changed outside the tuner, or has not its previous size again. The reason says which, and what to do.
    ExternalChange,
    /// A freeze ended the change. The function has its previous size again.
    Frozen,
}

impl State {
    /// All states.
    pub const ALL: [Self; 14] = [
        Self::Planned,
        Self::Updating,
        Self::Published,
        Self::Canary,
        Self::Hold,
        Self::Promoting,
        Self::Soaking,
        Self::Settled,
        Self::RollingBack,
        Self::RolledBack,
        Self::Quarantined,
        Self::Blocked,
        Self::ExternalChange,
        Self::Frozen,
    ];

    /// Whether the change is not finished.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(
            self,
            Self::Planned
                | Self::Updating
                | Self::Published
                | Self::Canary
                | Self::Hold
                | Self::Promoting
                | Self::Soaking
                | Self::RollingBack
        )
    }

    /// Whether the change was rolled back because its result was worse than predicted.
    #[must_use]
    pub const fn is_rolled_back(self) -> bool {
        matches!(self, Self::RollingBack | Self::RolledBack | Self::Quarantined)
    }

    /// The stable code of the event that sets this state.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Updating => "updating",
            Self::Published => "published",
            Self::Canary => "canary",
            Self::Hold => "hold",
            Self::Promoting => "promoting",
            Self::Soaking => "soaking",
            Self::Settled => "settled",
            Self::RollingBack => "rolling-back",
            Self::RolledBack => "rolled-back",
            Self::Quarantined => "quarantined",
            Self::Blocked => "blocked",
            Self::ExternalChange => "external-change",
            Self::Frozen => "frozen",
        }
    }

    /// The state with this code. Logs of earlier versions have `applied` and `abandoned`.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        match code {
            "applied" => Some(Self::Soaking),
            "abandoned" => Some(Self::Blocked),
            _ => Self::ALL.into_iter().find(|state| state.code() == code),
        }
    }
}
