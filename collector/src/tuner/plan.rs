//! Plans: the changes that a round would make now, as a file that can be approved and applied later.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::changes::Intent;
use crate::changes::named::ListedNames;
use crate::store::FunctionKey;

/// A plan. It is bound to the revisions of the functions: it does nothing to a function that was changed since.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// When it was made, microseconds since the Unix epoch.
    pub planned_at_us: u64,
    /// All functions for which a change is advised.
    pub functions: Vec<PlannedFunction>,
    /// Digest of the rest. A plan that was altered is refused.
    #[serde(default)]
    pub sha256: String,
}

/// One function of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedFunction {
    /// The function.
    pub function: FunctionKey,
    /// The change, or nothing when a guard-rail refuses it.
    pub intent: Option<Intent>,
    /// Codes and sentences of the refusals.
    pub refusals: Vec<(String, String)>,
}

impl Plan {
    /// A plan with its digest.
    #[must_use]
    pub fn new(planned_at_us: u64, functions: Vec<PlannedFunction>) -> Self {
        let mut plan = Self { planned_at_us, functions, sha256: String::new() };
        plan.sha256 = plan.digest();
        plan
    }

    /// Whether the plan is as it was made.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.sha256 == self.digest()
    }

    fn digest(&self) -> String {
        let text = serde_json::to_string(&(self.planned_at_us, &self.functions)).unwrap_or_default();
        hex::encode(Sha256::digest(text))
    }

    /// How the plan names its functions.
    #[must_use]
    pub fn names(&self) -> ListedNames<'_> {
        ListedNames::of(self.functions.iter().map(|planned| &planned.function))
    }

    /// The plan as text for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let names = self.names();
        for planned in &self.functions {
            let name = names.text(&planned.function);
            match &planned.intent {
                Some(intent) => {
                    text.push_str(&format!(
                        "{name}: {} MB to {} MB, cost {:+.1} %, mean duration {:+.1} %\n",
                        intent.from_mb,
                        intent.to_mb,
                        intent.cost_change_percent,
                        intent.duration_change_percent
                    ));
                    for reason in &intent.reasons {
                        text.push_str(&format!("  {reason}\n"));
                    }
                }
                None => text.push_str(&format!("{name}: no change\n")),
            }
            for (code, reason) in &planned.refusals {
                text.push_str(&format!("  {code}: {reason}\n"));
            }
        }
        if text.is_empty() { "no change is advised for any function\n".to_owned() } else { text }
    }
}
