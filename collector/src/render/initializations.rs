//! How environments were initialized, in one line.

use tailor_sizing::telemetry::initialization::{Initialization, Initializations};

use super::units::count;

/// First invocations by class, cold starts before the others; `None` without any.
#[must_use]
pub fn initializations(counts: Initializations) -> Option<String> {
    let listed = |cold: bool| {
        let classes = Initialization::FIRST.into_iter().filter(|class| class.is_cold_start() == cold);
        let parts: Vec<String> = classes
            .filter(|&class| counts.of(class) > 0)
            .map(|class| format!("{} {}", count(counts.of(class)), class.as_str()))
            .collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    };
    let cold = listed(true).map(|parts| format!("cold starts: {parts}"));
    let others = listed(false).map(|parts| format!("first invocations that are not cold starts: {parts}"));
    let sentences: Vec<String> = [cold, others].into_iter().flatten().collect();
    (!sentences.is_empty()).then(|| sentences.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_listed_by_whether_they_are_cold_starts() {
        assert_eq!(initializations(Initializations::default()), None);
        let counts = Initializations {
            on_demand: 3,
            proactive: 1,
            inside_invocation: 2,
            ..Initializations::default()
        };
        assert_eq!(
            initializations(counts).unwrap(),
            "cold starts: 3 on-demand, 2 inside-invocation; first invocations that are not cold starts: 1 proactive"
        );
    }
}
