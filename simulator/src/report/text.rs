//! The report as text for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Report;

/// Reasons that are shown of one kind.
const REASONS_OF_KIND: usize = 4;

impl Report {
    /// The report as text for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!(
            "{} functions, {} days, seed {}: ${:.0} without a change\n\n",
            self.functions, self.days, self.seed, self.unchanged_usd
        );
        self.ways(&mut text);
        self.changes(&mut text);
        self.by_kind(&mut text);
        text
    }

    /// The ways to set sizes, beside each other.
    fn ways(&self, text: &mut String) {
        text.push_str("way                              saved  of the oracle  out of memory  by reductions  slower functions\n");
        for (name, outcome) in [
            ("no change", &self.unchanged),
            ("oracle, same speed", &self.oracle),
            ("oracle, any speed", &self.oracle_any_speed),
            ("tuner", &self.tuner),
            ("Compute Optimizer's rule, once", &self.compute_optimizer),
            ("AWS's runbook, every 14 days", &self.runbook),
            ("Power Tuning, once at the start", &self.power_tuning),
        ] {
            let _ = writeln!(
                text,
                "{name:<32} {:>5.1} %  {:>10.1} %  {:>13}  {:>13}  {:>16}",
                100.0 * outcome.saved_usd / self.unchanged_usd.max(f64::MIN_POSITIVE),
                outcome.share_of_oracle_percent,
                outcome.out_of_memory,
                outcome.out_of_memory_by_reductions,
                outcome.slower_functions
            );
        }
    }

    /// The changes and what kept savings from functions.
    fn changes(&self, text: &mut String) {
        let rollbacks = &self.rollbacks;
        let _ = writeln!(
            text,
            "\nchanges: {:.2} for each function and month, at most {} in 30 days and {} increases after out-of-memory\nrolled back: {}, \
             of them {} in the canary, after {:.1} hours on average and {:.1} at most, ${:.2} more in that time\nsettled \
             although worse: {}",
            self.changes_per_function_month,
            self.max_changes_in_30_days,
            self.max_repairs_in_30_days,
            rollbacks.count,
            rollbacks.in_canary,
            rollbacks.mean_hours,
            rollbacks.max_hours,
            rollbacks.cost_usd,
            self.bad_settled
        );
        let _ = writeln!(
            text,
            "left to their templates (`managed-elsewhere`): {} functions; without them {:.1} % of the oracle. A patch that nobody \
             applies saves nothing, so none is counted.",
            self.left_to_templates, self.share_without_left_percent
        );
        let _ = writeln!(
            text,
            "states: {:?}\n\nwhat the tuner saves less than the oracle, by reason:",
            self.states
        );
        for (code, percent) in largest(&self.missed_percent) {
            let _ = writeln!(text, "{percent:>6.1} %  {code}");
        }
    }

    /// The functions by kind.
    fn by_kind(&self, text: &mut String) {
        text.push_str("\nkind             functions  changes  rolled back  of the oracle  out of memory below the start\n");
        for (name, kind) in &self.kinds {
            let _ = writeln!(
                text,
                "{name:<16} {:>9}  {:>7}  {:>11}  {:>11.1} %  {:>29}",
                kind.functions,
                kind.changes,
                kind.rolled_back,
                kind.share_of_oracle_percent,
                kind.out_of_memory_below_start
            );
        }
        text.push_str("\nthe same reasons by kind:\n");
        for (name, kind) in &self.kinds {
            let reasons = largest(&kind.missed_percent).into_iter().take(REASONS_OF_KIND);
            let reasons: Vec<String> =
                reasons.map(|(code, percent)| format!("{code} {percent:.1} %")).collect();
            let _ = writeln!(text, "{name:<16} {}", reasons.join(", "));
        }
    }
}

/// The reasons, the largest share first.
fn largest(missed: &BTreeMap<String, f64>) -> Vec<(&String, f64)> {
    let mut missed: Vec<_> = missed.iter().map(|(code, percent)| (code, *percent)).collect();
    missed.sort_by(|a, b| b.1.total_cmp(&a.1));
    missed
}
