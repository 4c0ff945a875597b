//! What is evidence of a kill, and what is not. The functions have 128 MB.

use super::*;

const KILLED: Option<&str> = Some("Runtime.ExitError");

/// One invocation: the end of its report, `maxMemoryUsedMB`, memory of its processes in MB, and kills by the kernel.
struct Case {
    status: &'static str,
    error_type: Option<&'static str>,
    mark_mb: f64,
    used_mb: Option<u64>,
    kills: Option<u64>,
}

impl Case {
    const fn new(status: &'static str, error_type: Option<&'static str>, mark_mb: f64) -> Self {
        Self { status, error_type, mark_mb, used_mb: None, kills: None }
    }
}

/// The outcomes of invocations of one environment, in their order. `after_reset`: the processes before were ended.
fn outcomes(after_reset: bool, cases: &[Case]) -> Vec<Outcome> {
    let mut ledger = Ledger::new(128);
    ledger.on_init_start(Some(if after_reset { "invoke" } else { "init" }));
    let one = |(number, case): (u128, &Case)| {
        let request_id = RequestId(number).to_string();
        ledger.on_invoke(&request_id, 1, number == 1);
        let measured = case.used_mb.map(|mb| Measured { peak_kib: mb * 1_024, ..Measured::default() });
        ledger.on_measured(&request_id, measured, case.kills);
        let metrics =
            Metrics { duration_ms: Some(1.0), max_memory_used_mb: Some(case.mark_mb), ..Metrics::default() };
        let error_type = case.error_type.map(Into::into);
        ledger.on_report(EndRecord { request_id, error_type, ..record(case.status, metrics) }, NOW);
        ledger.take_all()[0].outcome
    };
    (1..).zip(cases).map(one).collect()
}

fn outcome(case: Case) -> Outcome {
    outcomes(false, &[case])[0]
}

#[test]
fn the_mark_alone_is_not_evidence() {
    let full = || Case::new("success", None, 128.0);
    let ordinary = [
        Case::new("error", Some("ValueError"), 128.0),
        Case::new("error", Some("Function.Unknown"), 128.0),
        Case { used_mb: Some(40), ..Case::new("error", KILLED, 128.0) },
        Case { used_mb: Some(40), kills: Some(0), ..Case::new("error", KILLED, 128.0) },
        Case { used_mb: Some(40), ..Case::new("timeout", None, 128.0) },
        Case::new("error", Some("Extension.Crash"), 128.0),
    ];
    for case in ordinary {
        let expected = if case.status == "timeout" { Outcome::Timeout } else { Outcome::Error };
        let name = format!("{:?}", case.error_type);
        assert_eq!(outcomes(false, &[full(), case]), [Outcome::Success, expected], "{name}");
    }
    assert_eq!(outcome(Case::new("success", None, 128.0)), Outcome::Success);
    assert_eq!(outcome(Case::new("something-new", None, 70.0)), Outcome::Error);
}

#[test]
fn an_out_of_memory_error_is_a_kill() {
    for error in ["Runtime.OutOfMemory", "java.lang.OutOfMemoryError", "System.OutOfMemoryException"] {
        assert_eq!(outcome(Case::new("error", Some(error), 70.0)), Outcome::OutOfMemory, "{error}");
    }
    // Python and Ruby also raise these for one impossible allocation.
    for error in ["MemoryError", "Function.NoMemoryError"] {
        assert_eq!(outcome(Case::new("error", Some(error), 125.0)), Outcome::OutOfMemory, "{error}");
        assert_eq!(outcome(Case::new("error", Some(error), 70.0)), Outcome::Error, "{error}");
    }
}

#[test]
fn a_runtime_that_ended_as_the_memory_ran_out_was_killed() {
    assert_eq!(outcome(Case::new("error", KILLED, 128.0)), Outcome::OutOfMemory);
    // Node.js ends itself at the limit of its heap, which is below the size.
    assert_eq!(outcome(Case::new("error", KILLED, 124.0)), Outcome::OutOfMemory);
    assert_eq!(outcome(Case::new("error", KILLED, 70.0)), Outcome::Error);
    // The mark does not grow any more in the environments that follow.
    let again =
        |used_mb, kills| outcomes(true, &[Case { used_mb, kills, ..Case::new("error", KILLED, 128.0) }])[0];
    assert_eq!(again(Some(60), Some(1)), Outcome::OutOfMemory, "the kernel counted it");
    assert_eq!(again(Some(120), Some(0)), Outcome::OutOfMemory, "its processes used all");
    assert_eq!(again(Some(30), Some(0)), Outcome::Error, "it ended itself");
    assert_eq!(again(None, None), Outcome::OutOfMemory, "nothing more is known");
}

#[test]
fn a_killed_child_of_a_runtime_that_lives_on_is_a_kill() {
    let error = |kills| Case { kills, ..Case::new("error", Some("CalledProcessError"), 128.0) };
    let idle = || Case::new("success", None, 60.0);
    let outcomes = outcomes(false, &[idle(), error(None), error(Some(1)), error(Some(0)), error(None)]);
    assert_eq!(
        outcomes,
        [Outcome::Success, Outcome::OutOfMemory, Outcome::OutOfMemory, Outcome::Error, Outcome::Error]
    );
}

#[test]
fn a_timeout_at_the_limit_is_a_kill() {
    assert_eq!(outcome(Case::new("timeout", None, 128.0)), Outcome::OutOfMemory);
    assert_eq!(outcome(Case::new("timeout", None, 70.0)), Outcome::Timeout);
    let full = || Case { used_mb: Some(100), ..Case::new("timeout", None, 128.0) };
    assert_eq!(outcomes(true, &[full()]), [Outcome::OutOfMemory]);
}

/// Both Inits of a function that needs more memory than it has are killed: the second one has a report.
#[test]
fn a_kill_in_an_init_inside_an_invocation_is_a_kill() {
    let outcome = |kills| {
        let mut ledger = Ledger::new(128);
        ledger.on_init_start(Some("invoke"));
        let init = InitReport {
            phase: Some("invoke".into()),
            status: Some("error".into()),
            error_type: KILLED.map(Into::into),
            duration_ms: Some(900.0),
        };
        ledger.on_init_report(&init, RecordTime::exact(950_000));
        ledger.on_kills_in_init(kills);
        let metrics =
            Metrics { duration_ms: Some(901.5), max_memory_used_mb: Some(128.0), ..Metrics::default() };
        ledger.on_report(record("error", metrics), NOW);
        let invocation = ledger.take_finished()[0];
        assert_eq!(invocation.initialization, Initialization::InsideInvocation);
        invocation.outcome
    };
    assert_eq!(outcome(Some(1)), Outcome::OutOfMemory);
    assert_eq!(outcome(Some(0)), Outcome::Error);
}
