//! The writes to Lambda that a change consists of, and what is known of the function after each.

use serde::{Deserialize, Serialize};

/// What the invocations of a function go through.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Route {
    /// `$LATEST` is invoked: a change of its size acts on all invocations at once.
    #[default]
    Latest,
    /// An alias is invoked: a new version gets a growing part of the invocations.
    Alias(AliasPlan),
}

/// The alias at the time of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasPlan {
    /// Its name.
    pub name: String,
    /// The version that it had. A rollback restores it.
    pub stable: String,
    /// Its description, which is restored at the end.
    pub description: String,
}

/// One call that changes a function. It names the revision on which it was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "kebab-case")]
pub enum Write {
    /// Sets the memory size of `$LATEST`.
    SetMemory {
        /// The size, MB.
        memory_mb: u32,
        /// Revision of `$LATEST`.
        revision_id: String,
    },
    /// Publishes `$LATEST` as a version.
    Publish {
        /// Revision of `$LATEST`.
        revision_id: String,
        /// The code of `$LATEST`. Lambda refuses the call when it is not this code.
        code_sha256: String,
        /// Description of the version: it names the change.
        description: String,
    },
    /// Sets version, weight and description of an alias.
    SetAlias {
        /// Its name.
        alias: String,
        /// The version that gets the rest of the invocations.
        version: String,
        /// A second version, and its part of the invocations in hundredths of a percent.
        additional: Option<(String, u32)>,
        /// The description.
        description: String,
        /// Revision of the alias.
        revision_id: String,
    },
    /// Deletes a version that the tuner published and no alias uses.
    DeleteVersion {
        /// Its number.
        version: String,
    },
}

/// What ends a change before it is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Measurements are worse than predicted.
    Worse,
    /// The measured saving is too small.
    NoSaving,
    /// There were not enough measurements before the deadline.
    Deadline,
    /// Lambda refused a write.
    Refused,
    /// The function was changed outside the tuner.
    External,
    /// The tag or the mode does not permit the change any more.
    Permission,
    /// The tuner was frozen.
    Frozen,
    /// A person requested it.
    Operator,
}

/// What Lambda returned after a write.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Confirmed {
    /// The published version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whether the tuner published this version. It never deletes another.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub version_is_ours: bool,
}
