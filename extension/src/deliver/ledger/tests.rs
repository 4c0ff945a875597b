use super::*;
use crate::lambda::telemetry::{EndRecord, InitReport, Metrics};
use proptest::prelude::*;
use tailor_sizing::telemetry::invocation::{Initialization, Outcome, Work};

/// The time of records and readings in tests that do not depend on it.
const NOW: RecordTime = RecordTime::exact(1_000_000);

const ID: &str = "11111111-2222-4333-8444-555555555555";

fn record(status: &str, metrics: Metrics) -> EndRecord {
    EndRecord { request_id: ID.into(), status: Some(status.into()), error_type: None, metrics }
}

fn report() -> EndRecord {
    let metrics = Metrics {
        duration_ms: Some(25.4),
        billed_duration_ms: Some(176.0),
        max_memory_used_mb: Some(71.0),
        init_duration_ms: Some(150.12),
        ..Metrics::default()
    };
    record("success", metrics)
}

fn measured() -> Measured {
    let work = Work {
        user_us: 8_000,
        system_us: 1_000,
        starved_us: 4_000,
        top_busy_us: 9_000,
        top_starved_us: 4_000,
        effective_threads_milli: 1_000,
        ..Work::default()
    };
    Measured { work, peak_kib: 60_000, start_kib: 55_000, threads: 3, ..Measured::default() }
}

/// The work of an invocation of 100 ms at 1,769 MB whose processes were measured so.
fn completed(measured: Measured) -> Work {
    let mut ledger = Ledger::new(1_769);
    ledger.on_invoke(ID, 1, false);
    ledger.on_measured(ID, Some(measured), None);
    ledger.on_report(record("success", Metrics { duration_ms: Some(100.0), ..Metrics::default() }), NOW);
    ledger.take_all()[0].work.unwrap()
}

#[test]
fn inferred_starved_time_is_limited_to_what_the_threads_can_wait() {
    let work = Work { user_us: 80_000, starved_us: 41_500_000, ..Work::default() };
    let measured = Measured { work, starved_inferred: true, threads_seen: 4, ..Measured::default() };
    assert_eq!(completed(measured).starved_us, 400_000 - 80_000);
}

/// Its times are multiplied where most threads ended before they were read.
#[test]
fn no_thread_runs_and_waits_longer_than_the_invocation() {
    let busiest = |top_busy_us, top_starved_us| {
        let work = Work { user_us: 150_000, top_busy_us, top_starved_us, ..Work::default() };
        let measured = Measured { work, starved_inferred: true, threads_seen: 4, ..Measured::default() };
        let work = completed(measured);
        assert_eq!(work.idle_us, 0);
        (work.top_busy_us, work.top_starved_us)
    };
    assert_eq!(busiest(240_000, 1_000_000), (100_000, 0));
    assert_eq!(busiest(60_000, 90_000), (60_000, 40_000));
    // Without any duration, it is that of the busiest thread, and no longer than a function may run.
    let mut ledger = Ledger::new(1_769);
    ledger.on_invoke(ID, 1, false);
    let work = Work { top_busy_us: 2_000_000_000, ..Work::default() };
    ledger.on_measured(ID, Some(Measured { work, starved_inferred: true, ..Measured::default() }), None);
    let invocation = ledger.take_all()[0];
    assert_eq!((invocation.duration_us, invocation.billed_ms), (960_000_000, 960_000));
    assert_eq!(invocation.work.unwrap().top_busy_us, 960_000_000);
}

#[test]
fn ended_children_are_limited_to_what_all_cpus_can_do() {
    let finished = |work, ended_children_us, duration_ms| {
        let mut ledger = Ledger::new(1_769);
        ledger.on_invoke(ID, 1, false);
        ledger.on_measured(ID, Some(Measured { work, ended_children_us, ..Measured::default() }), None);
        ledger.on_report(
            record("success", Metrics { duration_ms: Some(duration_ms), ..Metrics::default() }),
            NOW,
        );
        ledger.take_all()[0].work.unwrap()
    };
    // 3 ms by clocks and 40 ms by steps, on two CPUs for 10 ms.
    let work = Work { user_us: 42_000, system_us: 1_000, ..Work::default() };
    assert_eq!(
        (finished(work, 40_000, 10.0).user_us, finished(work, 40_000, 10.0).system_us),
        (19_000, 1_000)
    );
    assert_eq!(finished(work, 40_000, 100.0).busy_us(), 43_000);
    assert_eq!(finished(work, 0, 10.0).busy_us(), 43_000, "the part from clocks is not limited");
}

#[test]
fn unread_threads_count_as_starved_only_at_the_cap() {
    let unseen = |user_us| {
        let work = Work { user_us, starved_us: 100, ..Work::default() };
        completed(Measured { work, threads_unseen: true, ..Measured::default() })
    };
    assert_eq!((unseen(90_000).starved_us, unseen(90_000).idle_us), (10_000, 0));
    assert_eq!((unseen(30_000).starved_us, unseen(30_000).idle_us), (100, 69_900));
}

/// What the ledger receives for one invocation.
#[derive(Debug, Clone)]
enum Input {
    Invoke,
    Start,
    RuntimeDone,
    Report,
    Measured,
}

fn add(ledger: &mut Ledger, input: &Input) {
    match input {
        Input::Invoke => ledger.on_invoke(ID, 1_000, true),
        Input::Start => ledger.on_start(ID, RecordTime::exact(999)),
        Input::RuntimeDone => {
            let metrics = Metrics { duration_ms: Some(20.15), ..Metrics::default() };
            ledger.on_runtime_done(record("success", metrics), NOW);
        }
        Input::Report => _ = ledger.on_report(report(), NOW),
        Input::Measured => ledger.on_measured(ID, Some(measured()), None),
    }
}

proptest! {
    #[test]
    fn any_order_and_any_repetition_give_the_same_invocation(
        order in Just(vec![Input::Invoke, Input::Start, Input::RuntimeDone, Input::Report, Input::Measured]).prop_shuffle(),
        again in prop::collection::vec(prop::sample::select(vec![Input::Start, Input::RuntimeDone, Input::Report]), 0..6),
    ) {
        let mut ledger = Ledger::new(512);
        order.iter().chain(&again).for_each(|input| add(&mut ledger, input));
        let finished = ledger.take_finished();
        prop_assert_eq!(finished.len(), 1);
        let invocation = finished[0];
        prop_assert_eq!(invocation.duration_us, 25_400);
        prop_assert_eq!(invocation.runtime_us, 20_150);
        prop_assert_eq!((invocation.billed_ms, invocation.init_us), (176, 150_120));
        prop_assert_eq!(invocation.started_at_us, 1_000);
        prop_assert_eq!(invocation.outcome, Outcome::Success);
        prop_assert_eq!(invocation.work.unwrap().idle_us, 25_400 - 13_000);
        // Repeated records do not make a second one.
        again.iter().for_each(|input| add(&mut ledger, input));
        prop_assert!(ledger.take_all().is_empty());
    }
}

#[test]
fn an_invocation_waits_for_its_reading_and_its_report() {
    let mut ledger = Ledger::new(512);
    ledger.on_invoke(ID, 1, false);
    ledger.on_report(report(), NOW);
    assert!(ledger.take_finished().is_empty(), "its processes are read at the next INVOKE");
    assert!(!ledger.awaits_report());
    ledger.on_measured(ID, None, None);
    assert_eq!(ledger.take_finished()[0].work, None);
}

#[test]
fn an_invocation_without_a_report_is_marked() {
    let mut ledger = Ledger::new(512);
    ledger.on_invoke(ID, 1, false);
    ledger.on_runtime_done(record("success", Metrics { duration_ms: Some(20.0), ..Metrics::default() }), NOW);
    ledger.on_measured(ID, Some(measured()), None);
    let other = "22222222-2222-4333-8444-555555555555";
    // Many invocations in a short time, or few in a long time: the report may still come.
    for at_us in 0..=REPORT_TIMEOUT_INVOKES {
        ledger.on_invoke(other, at_us, false);
        assert!(ledger.take_finished().is_empty());
    }
    ledger.on_invoke(other, REPORT_TIMEOUT_US, false);
    let invocation = ledger.take_finished()[0];
    assert!(invocation.caveats.report_missing && !invocation.caveats.estimated);
    assert_eq!((invocation.duration_us, invocation.billed_ms), (20_000, 20));
}

#[test]
fn without_telemetry_durations_are_marked_as_estimated() {
    let mut ledger = Ledger::new(512);
    ledger.on_invoke("not-a-uuid", 1, false);
    ledger.on_measured("not-a-uuid", Some(measured()), None);
    let invocation = ledger.take_all()[0];
    assert!(invocation.caveats.estimated && invocation.caveats.report_missing);
    assert_eq!((invocation.duration_us, invocation.billed_ms), (13_000, 13));
    assert_ne!(invocation.request_id, RequestId::default());
}

#[test]
fn without_telemetry_no_report_is_expected() {
    let mut ledger = Ledger::new(512);
    ledger.expect_no_reports();
    ledger.on_invoke("not-a-uuid", 1, false);
    assert!(ledger.take_finished().is_empty(), "it is running");
    ledger.on_measured("not-a-uuid", Some(measured()), None);
    ledger.on_invoke("another", 2, false);
    let finished = ledger.take_finished();
    assert!(finished.len() == 1 && finished[0].caveats.report_missing);
}

#[test]
fn memory_stays_bounded_when_reports_are_lost() {
    let mut ledger = Ledger::new(128);
    for request in 0..10_000u128 {
        ledger.on_start(&RequestId(request + 1).to_string(), RecordTime::exact(1));
    }
    assert_eq!(ledger.take_all().len(), MAX_OPEN);
    assert_eq!(ledger.take_evicted(), 10_000 - MAX_OPEN as u64, "dropped invocations are counted");
    assert!(ledger.finished.len() <= MAX_FINISHED);
}

/// Managed instances have no INVOKE, and a dropped report never comes.
#[test]
fn an_invocation_without_invoke_and_report_is_finished_after_a_timeout() {
    let mut ledger = Ledger::new(2_048);
    ledger.on_start(ID, RecordTime::exact(1));
    for later in 1..=20u64 {
        let time_us = later * 60_000_000;
        ledger.set_time(time_us);
        ledger.on_start(&RequestId(later.into()).to_string(), RecordTime::exact(time_us));
        let taken = ledger.take_finished();
        if later <= 16 {
            assert!(taken.is_empty(), "after {later} minutes it may still run");
        }
        if later == 17 {
            assert_eq!(taken.len(), 1);
            assert_eq!(taken[0].request_id, RequestId::parse(ID).unwrap());
            assert!(taken[0].caveats.estimated && taken[0].caveats.report_missing);
        }
    }
    assert!(ledger.take_all().iter().all(|invocation| invocation.request_id.0 > 3));
}

/// There a function may run for 90 minutes.
#[test]
fn on_managed_instances_a_report_is_expected_for_longer() {
    let mut ledger = Ledger::new(2_048).with_initialization(InitializationType::ManagedInstances);
    ledger.on_start(ID, RecordTime::exact(1));
    ledger.set_time(60_000_000);
    ledger.on_start("another", RecordTime::exact(60_000_000));
    let finished_after = |ledger: &mut Ledger, minutes: u64| {
        ledger.set_time((1 + minutes) * 60_000_000);
        ledger.take_finished().len()
    };
    assert_eq!(finished_after(&mut ledger, 90), 0, "it may still run");
    assert_eq!(finished_after(&mut ledger, 91), 1);
}

/// A lost `platform.start`, where there is no INVOKE.
#[test]
fn a_missing_start_follows_from_the_end() {
    let end_us = 1_790_000_000_000_000;
    let started = |time, duration_ms| {
        let mut ledger = Ledger::new(512);
        ledger.set_time(end_us + 7);
        ledger.on_report(record("success", Metrics { duration_ms, ..Metrics::default() }), time);
        ledger.take_finished()[0].started_at_us
    };
    assert_eq!(started(RecordTime::exact(end_us), Some(25.4)), end_us - 25_400);
    assert_eq!(started(RecordTime::exact(end_us), None), end_us);
    assert_eq!(started(RecordTime::UNKNOWN, Some(25.4)), end_us + 7, "the time of our own clock");
    // Without the report, the end of the handler.
    let mut ledger = Ledger::new(512);
    let done = Metrics { duration_ms: Some(20.0), ..Metrics::default() };
    ledger.on_runtime_done(record("success", done), RecordTime::exact(end_us));
    assert_eq!(ledger.take_all()[0].started_at_us, end_us - 20_000);
}

/// Telemetry is delivered at least once, and the second time may be late.
#[test]
fn a_repetition_is_not_a_new_invocation_however_late_it_comes() {
    let mut ledger = Ledger::new(512);
    let complete = |ledger: &mut Ledger, request: u64| {
        let request_id = RequestId(request.into()).to_string();
        let time_us = request * 1_000;
        ledger.on_start(&request_id, RecordTime::exact(time_us));
        ledger.on_report(EndRecord { request_id, ..report() }, RecordTime::exact(time_us + 500));
        ledger.take_finished().len() as u64
    };
    let many = 3 * MAX_FINISHED as u64;
    assert_eq!((1..=many).map(|request| complete(&mut ledger, request)).sum::<u64>(), many);
    let again: u64 = (1..=many).map(|request| complete(&mut ledger, request)).sum();
    assert_eq!(again, 0, "each was counted before");
    assert!(ledger.take_stale() > 0, "records that are too old are counted");
    assert_eq!(complete(&mut ledger, many + 1), 1, "new ones are accepted");
}

/// At SHUTDOWN the platform ends the runtime first. The last sample is used if it was late enough.
#[test]
fn a_late_sample_represents_the_whole_invocation() {
    let finished = |sampled_at_us| {
        let mut ledger = Ledger::new(512);
        ledger.on_invoke(ID, 1, false);
        ledger.on_measured(ID, Some(Measured { sampled_at_us: Some(sampled_at_us), ..measured() }), None);
        ledger.on_report(report(), NOW);
        ledger.take_finished()[0]
    };
    // The duration is 25.4 ms.
    let late = finished(21_000);
    assert!(
        late.work.is_some()
            && late.caveats.work_estimated
            && !late.caveats.estimated
            && !late.caveats.report_missing
    );
    let early = finished(20_000);
    assert!(early.work.is_none() && early.peak_kib == 0 && !early.caveats.work_estimated);
}

/// Timestamps in whole seconds are the same for more invocations than are kept.
#[test]
fn imprecise_and_unreadable_times_lose_no_invocation() {
    for time in [RecordTime::parse("2026-11-29T01:02:03Z"), RecordTime::UNKNOWN] {
        let mut ledger = Ledger::new(512);
        let many = 3 * MAX_FINISHED;
        let finished: usize = (0..many as u128)
            .map(|request| {
                let request_id = RequestId(request + 1).to_string();
                ledger.on_start(&request_id, time);
                ledger.on_report(EndRecord { request_id, ..report() }, time);
                ledger.take_finished().len()
            })
            .sum();
        assert_eq!((finished, ledger.take_stale()), (many, 0), "{time:?}");
    }
}

/// A report of which nothing but the request can be read.
#[test]
fn a_report_without_metrics_is_marked_and_billed_by_the_rest() {
    let mut ledger = Ledger::new(512);
    ledger.set_time(77);
    ledger.on_start(ID, RecordTime::UNKNOWN);
    let done = Metrics { duration_ms: Some(20.4), ..Metrics::default() };
    ledger.on_runtime_done(record("success", done), RecordTime::UNKNOWN);
    ledger.on_report(record("success", Metrics::default()), RecordTime::UNKNOWN);
    let invocation = ledger.take_finished()[0];
    assert!(invocation.caveats.report_missing && !invocation.caveats.estimated);
    assert_eq!((invocation.duration_us, invocation.billed_ms), (20_400, 21));
    assert_eq!((invocation.started_at_us, invocation.outcome), (77, Outcome::Success));
}

#[test]
fn a_sum_over_several_processes_is_limited_by_the_platforms_figure_and_the_size() {
    let peak_mb = |peak_is_sum_above_kib, max_memory_used_mb| {
        let mut ledger = Ledger::new(512);
        ledger.on_invoke(ID, 1, false);
        let peak_kib = 1_572 * 1_024;
        ledger.on_measured(ID, Some(Measured { peak_kib, peak_is_sum_above_kib, ..measured() }), None);
        let metrics = Metrics { duration_ms: Some(100.0), max_memory_used_mb, ..Metrics::default() };
        ledger.on_report(record("success", metrics), NOW);
        ledger.take_all()[0].peak_kib / 1_024
    };
    assert_eq!(peak_mb(Some(310 * 1_024), Some(318.0)), 318);
    assert_eq!(peak_mb(Some(325 * 1_024), Some(318.0)), 325, "one process had more");
    assert_eq!(peak_mb(Some(310 * 1_024), None), 512, "never more than the size");
    assert_eq!(peak_mb(None, Some(318.0)), 512);
}

mod initialization;
mod outcomes;
mod retries;
