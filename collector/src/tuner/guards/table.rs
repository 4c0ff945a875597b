//! The list of guard-rails with their defaults and the sources of the defaults, for documents and pages.

use tailor_sizing::units::Megabytes;

use crate::clock::{DAY_US, HOUR_US};
use crate::tuner::limits::{Limits, OpenChanges};

/// One guard-rail.
#[derive(Debug, Clone, Copy)]
pub struct GuardRail {
    /// The stable code of its refusals.
    pub code: &'static str,
    /// What it refuses.
    pub refuses: &'static str,
    /// Its default, from the limits.
    pub default: fn(&Limits) -> String,
    /// Where the default comes from.
    pub source: &'static str,
}

fn on(_: &Limits) -> String {
    "on".to_owned()
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

fn days(us: u64) -> String {
    format!("{} days", us / DAY_US)
}

fn hours(us: u64) -> String {
    format!("{} h", us / HOUR_US)
}

fn open_changes(limits: &Limits) -> String {
    let OpenChanges { min, percent, max, repairs } = limits.open_changes;
    format!(
        "{percent} % of the tuned functions, at least {min} and at most {max}; {repairs} more after out-of-memory"
    )
}

macro_rules! rails {
    ($($code:literal, $refuses:literal, $default:expr, $source:literal;)*) => {
        &[$(GuardRail { code: $code, refuses: $refuses, default: $default, source: $source }),*]
    };
}

/// All guard-rails.
pub const GUARD_RAILS: &[GuardRail] = rails![
    "not-tagged", "functions without the tag `tailor:tune`", on, "Kubernetes VPA and Compute Optimizer are opt-in; Lambda's tag conditions";
    "mode", "functions whose mode is below `apply-up`", on, "VPA update modes";
    "only-up", "reductions in the mode `apply-up`", on, "VPA `EvictionRequirements`";
    "latest-down", "reductions of functions that are invoked as `$LATEST`, which concern all invocations at once", |limits| format!("on; with `tailor:latest-down = allow` at most {} in one change", percent(limits.max_step_down_latest)), "VPA `EvictionRequirements` for the direction; 15 %: ours, because there is no canary";
    "invalid-tag", "functions with a tag that cannot be read", on, "ours";
    "other-account", "measurements of another account than the credentials", on, "ours";
    "account-not-listed", "accounts that the policy file does not list", on, "ours";
    "region-not-listed", "regions that the policy file does not list", on, "ours";
    "managed-by-stack", "functions of CloudFormation, SAM and CDK", on, "a deployment would reset the size";
    "managed-elsewhere", "functions that were changed back outside the tuner", |limits| format!("{} changes in 30 days", limits.max_external_changes), "ours";
    "outside-window", "changes and higher weights of a canary outside the window of the function, except increases for memory", on, "PerfectScale maintenance windows";
    "freeze-date", "changes and higher weights of a canary on dates of the policy file, except increases for memory", on, "PerfectScale maintenance windows";
    "not-approved", "changes without approval of functions that need one", |_| "off; `tailor:approval = required`".to_owned(), "Compute Optimizer and StormForge: approved recommendations";
    "frozen", "changes while the tuner is frozen", on, "PerfectScale `stopAllAutomation`";
    "imported", "functions of which only imported logs are known", on, "ours";
    "late-telemetry", "changes while batches arrive late", |limits| format!("{} s", limits.max_delay_us.min(limits.max_skew_us) / 1_000_000), "VPA admission status";
    "lost-telemetry", "changes while batches are lost", |limits| percent(limits.max_lost), "VPA admission status";
    "stale-prices", "changes with an old price table", |limits| format!("{} days", limits.max_price_age_days), "ours";
    "cpu-unaccounted", "changes where CPU time is of no known process", on, "ours";
    "updating", "functions that are being updated", on, "Lambda `LastUpdateStatus`";
    "update-failed", "functions whose last update failed", on, "Lambda `LastUpdateStatus`";
    "not-active", "functions that are not active", on, "Lambda `State`";
    "snap-start", "functions with SnapStart", on, "a new version is initialized at publication";
    "managed-instances", "functions on managed instances", on, "their memory is the instance's";
    "lambda-edge", "replicas of Lambda@Edge", on, "they cannot be changed";
    "size-differs", "functions whose size is not the measured one", on, "Argo Rollouts: equal comparison";
    "several-versions", "functions invoked both as `$LATEST` and as a version", |limits| format!("versions with an alias, and others until they are deleted or were not invoked for {}", days(limits.unused_version_us)), "ours: a week has all its days";
    "several-aliases", "functions with several aliases on versions", on, "ours";
    "no-version", "aliases whose version is not listed", on, "ours";
    "weighted-alias", "aliases with weights", on, "CodeDeploy uses the weights";
    "unfinished-change", "aliases with the mark of a change of another collector", on, "ours";
    "provisioned", "aliases and versions with provisioned concurrency", on, "Lambda refuses weights with it";
    "latest-differs", "functions whose `$LATEST` is not what the alias serves", on, "PublishVersion publishes `$LATEST`";
    "concurrency", "canaries near the reserved concurrency", |limits| percent(limits.max_concurrency_share), "old and new environments exist together";
    "few-invocations", "functions with few warm invocations at the present size", |limits| limits.evidence_invocations.to_string(), "Compute Optimizer: 50 in 14 days; KRR: 100 points";
    "short-time", "functions measured for a short time at the present size", |limits| format!("{}; {} with {} times as many invocations and environments; {} after a settled change", days(limits.evidence_us), days(limits.evidence_us / 2), limits.half_time_factor, days(limits.evidence_after_change_us)), "Compute Optimizer and KRR: 14 days; Goldilocks: 8 days";
    "few-environments", "functions with few environments at the present size", |limits| limits.evidence_environments.to_string(), "ours";
    "new-code", "functions with few warm invocations of the code that is served, at the present size", |limits| format!("{}, 1/{} of `few-invocations`", limits.evidence_of_code(), limits.evidence_code_divisor), "ours: measurements of other code show little about it";
    "old-code", "increases after out-of-memory kills of code that is not served any more", on, "ours";
    "little-traffic", "canaries that would not end before their deadline", |limits| format!("{} at one weight", hours(limits.canary_stall_us)), "sequential test";
    "no-advice", "functions without advice", on, "ours";
    "not-advised", "functions whose advice is to stay", on, "VPA: act outside the band only";
    "memory-floor", "reductions below the highest memory use, or near a size that ran out of memory", |limits| format!("use + {}, + {} before 14 days; after a kill × {} or + {} MB", percent(limits.headroom), percent(limits.headroom_early), limits.out_of_memory_floor.0, limits.out_of_memory_floor.1), "VPA and KRR: 15 %; VPA bump 1.2 or 100 MB after a kill";
    "out-of-bounds", "sizes outside the limits of the owner", |limits| format!("{} to {}", Megabytes::MIN, limits.max_memory), "VPA `minAllowed` and `maxAllowed`";
    "small-step", "changes of less than this share", |limits| percent(limits.min_size_change), "VPA: 10 %";
    "small-saving", "savings of less than this a month", |limits| format!("${:.0} after all changes, ${:.2} by one of several", limits.min_saving_usd_month, limits.min_saving_usd_month * limits.min_saving_of_one_change), "PerfectScale `workloadMinWasteUSDPerMonth`; the part of one change: ours";
    "unsure-saving", "savings with a lower probability", |_| "95 %".to_owned(), "VPA lower and upper bound";
    "near-timeout", "reductions with a 99th percentile near the timeout", |limits| percent(limits.max_timeout_share), "Compute Optimizer performance risk";
    "slower", "reductions with a higher 95th percentile without a target", |limits| format!("{}, all reductions in {} together", percent(limits.max_p95_increase), days(limits.p95_increase_us)), "Compute Optimizer performance risk; the time: ours";
    "open-change", "a second open change of a function", on, "VPA: one Pod at a time";
    "deployment", "changes after a deployment", |limits| format!("{} min", limits.after_deployment_us / 60_000_000), "PerfectScale `duringRolloutInProgress: pause`";
    "cool-down", "changes after a reduction or an increase", |limits| format!("{} after a reduction, from its promotion if it is kept; {} after an increase, and after a deployment that ended a canary; an increase after out-of-memory waits only after a rollback of one, {} and doubled each time", days(limits.cooldown_down_us), hours(limits.cooldown_up_us), hours(limits.cooldown_up_us)), "PerfectScale: own frequency for each direction; Kubernetes `CrashLoopBackOff`: doubled";
    "quarantine", "changes after a rollback, doubled each time", |limits| days(limits.quarantine_us), "ours";
    "monthly-changes", "further changes of a function in 30 days, except increases after out-of-memory", |limits| limits.max_changes_per_month.to_string(), "PerfectScale: largest frequency of automation; the number: ours";
    "out-of-memory-again", "further increases after out-of-memory in 24 hours", |limits| limits.max_out_of_memory_steps.to_string(), "VPA issue: increases that cause increases";
    "open-changes", "more open changes at once", open_changes, "VPA eviction limits; Systems Manager rate control: a number or a percentage of the targets; the values: ours";
    "open-spend", "open changes on more of the fleet's cost", |limits| format!("{}, and one function with more", percent(limits.max_open_spend)), "VPA eviction tolerance";
    "rollbacks", "changes after rollbacks in the fleet in 24 hours", |limits| limits.max_rollbacks.to_string(), "circuit breaker";
];

/// The table of `docs/guard-rails.md`.
#[must_use]
pub fn markdown(limits: &Limits) -> String {
    let mut text = "| code | refuses | default | source |\n|---|---|---|---|\n".to_owned();
    for rail in GUARD_RAILS {
        let default = (rail.default)(limits);
        text.push_str(&format!("| `{}` | {} | {default} | {} |\n", rail.code, rail.refuses, rail.source));
    }
    text
}
