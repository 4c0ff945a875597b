//! Changes of functions that are invoked as `$LATEST`: all invocations get the new size at once.

use tailor_collector::report::MeasuredVersion;
use tailor_collector::tuner::mode::Mode;
use tailor_sizing::units::Megabytes;

use super::case::{Case, NONE};
use crate::common::fleet::Kind;
use crate::common::tuned::{NAME, Tuned};
use crate::{IDLE, KILLED};

#[test]
fn a_reduction_for_all_invocations_at_once_is_small_and_needs_the_owner() {
    let mut case = Case::new();
    let with_alias = case.proposal().to;
    case.live.aliases.clear();
    case.evaluation.versions = vec![MeasuredVersion { name: "$LATEST".to_owned(), last_at_us: case.now_us }];
    assert_eq!((with_alias, case.proposal().to), (Megabytes(1_536), Megabytes(1_741)));
    assert_eq!(case.codes(), NONE);
    case.permission.latest_down = false;
    assert_eq!(case.codes(), ["latest-down"]);
    // The other limit may be the smaller one.
    case.limits.max_step_down = 0.12;
    assert_eq!(case.proposal().to, Megabytes(1_803));
    // An increase needs no permission of its own, and its limit is the usual one.
    case.needs_memory(1_024);
    assert_eq!(case.permission.mode, Mode::Apply);
}

#[test]
fn without_the_tag_a_function_without_an_alias_only_gets_more_memory() {
    let tuned = Tuned::new(IDLE, false);
    tuned.plane.set_tag(NAME, "tailor:latest-down", "refuse");
    tuned.rounds(3);
    assert!(tuned.change().is_none(), "{:?}", tuned.change());
    assert!(tuned.plan().contains("latest-down: without an alias"), "{}", tuned.plan());

    let tuned = Tuned::new(Kind { memory: 512, ..IDLE }, false);
    tuned.plane.set_tag(NAME, "tailor:latest-down", "refuse");
    tuned.workload.invoke(NAME, "$LATEST", 512, 300, KILLED);
    tuned.rounds(2);
    let change = tuned.change().unwrap_or_else(|| panic!("{}", tuned.plan()));
    assert!(change.to > change.from && change.intent.for_memory, "{change:?}");
    tuned.assert_no_violations();
}
