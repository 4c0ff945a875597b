//! Changes that the tuner may not end: what they left in Lambda, and how a person ends them.

use super::{Change, Route, State};

/// What permits the tuner to end a change.
const PERMIT: &str = "run the collector with `--tuner apply`, and keep the tag `tailor:tune = apply`, until the change has ended";

/// What an open change left in Lambda, by its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// The function.
    pub function: String,
    /// The change.
    pub change_id: String,
    /// The alias, when the function is invoked through one.
    pub alias: Option<String>,
    /// The version with the new size.
    pub version: Option<String>,
    /// The part of the invocations that this version gets, hundredths of a percent.
    pub weight: u32,
    /// What there is, and what to do, as a sentence without its full stop.
    pub instruction: String,
}

impl Unfinished {
    /// What an open change left; `None` for a change that has ended.
    #[must_use]
    pub fn of(change: &Change) -> Option<Self> {
        if !change.state.is_open() {
            return None;
        }
        let alias = match &change.intent.route {
            Route::Latest => None,
            Route::Alias(plan) => Some(plan.name.clone()),
        };
        Some(Self {
            function: change.function.name.clone(),
            change_id: change.id.clone(),
            alias,
            version: change.version.clone(),
            weight: weight(change),
            instruction: instruction(change),
        })
    }
}

/// The weight that the alias has, hundredths of a percent. A change that is rolled back has the last one until the alias is set.
fn weight(change: &Change) -> u32 {
    if is_for_all(change) {
        10_000
    } else {
        change.weights.iter().rev().copied().find(|weight| *weight > 0).unwrap_or(0)
    }
}

/// Whether the new size was set for all invocations at some time.
fn is_for_all(change: &Change) -> bool {
    change.steps.iter().any(|step| matches!(step.state, State::Promoting | State::Soaking))
}

/// What an open change left in Lambda, and how a person ends it, as a sentence without its full stop.
#[must_use]
pub fn instruction(change: &Change) -> String {
    let (name, from, to) = (&change.function.name, change.from, change.to);
    let Route::Alias(plan) = &change.intent.route else {
        return format!("`{name}` may have {to}: {PERMIT}, or set its size to {from}");
    };
    let (alias, stable) = (&plan.name, &plan.stable);
    let weight = weight(change);
    let Some(version) = change.version.as_ref().filter(|_| weight > 0) else {
        return format!("`$LATEST` of `{name}` may have {to}: {PERMIT}, or set its size to {from}");
    };
    let served = match weight {
        10_000 => format!("has version {version} with {to}"),
        weight => {
            format!("sends {} % of the invocations to version {version} with {to}", f64::from(weight) / 100.0)
        }
    };
    format!(
        "alias `{alias}` of `{name}` {served}: {PERMIT}, or set the alias to version {stable} without weights, and its description \
         to `{}`",
        plan.description
    )
}
