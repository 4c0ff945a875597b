//! The order of the tasks of the one thread, and the time at the end.

use std::cell::Cell;
use std::collections::HashMap;

use super::*;
use crate::net::client::tests::on_one_thread;

#[test]
fn a_wrong_clock_does_not_prevent_the_last_delivery() {
    let left = |ms: u64| u64::try_from(time_to_end(10_000 + ms, 10_000).as_millis()).unwrap();
    assert_eq!([left(2_000), left(1_393), left(100)], [1_850, 1_243, 0]);
    // The clock is two and a half seconds ahead, then a minute behind.
    assert_eq!(time_to_end(10_000, 12_500), DEFAULT_SHUTDOWN);
    assert_eq!(time_to_end(72_000, 10_000), DEFAULT_SHUTDOWN);
}

/// An extension with a finished invocation whose line is printed and whose delivery is due. Nothing listens at its endpoint.
fn with_finished_invocation() -> Rc<Shared> {
    let variables = HashMap::from([
        ("TAILOR_ENDPOINT", "http://127.0.0.1:1"),
        ("TAILOR_FLUSH_ITEMS", "1"),
        ("TAILOR_LOG_INVOCATIONS", "1"),
    ]);
    let settings = Settings::read(&variables).0;
    let mut agent = Agent::new(crate::deliver::outbox::tests::environment(), &settings);
    let report = br#"[{"type":"platform.report","record":{"requestId":"a","metrics":{"durationMs":1}}}]"#;
    agent.on_telemetry(report, unix_us());
    assert!(agent.has_lines() && agent.is_due());
    Rc::new(Shared {
        agent: RefCell::new(agent),
        shipper: Some(Shipper::new(&settings, &variables).unwrap()),
        profiles: None,
        share: 1.0,
        state: RefCell::new(State::Idle),
        changed: Notify::new(),
        invoked: Notify::new(),
        log_summary: false,
    })
}

/// The request for the next event is written by the task of the connection, which is ready after these tasks. Lambda bills
/// the time until then.
#[test]
fn the_next_event_is_requested_before_lines_and_deliveries_are_made() {
    on_one_thread(async {
        let shared = with_finished_invocation();
        print_if_due(&shared);
        deliver_if_due(&shared);
        assert!(shared.is_delivering());
        let (connection, nothing_was_made) = (Rc::clone(&shared), Rc::new(Cell::new(false)));
        let result = Rc::clone(&nothing_was_made);
        let written = spawn(async move {
            let agent = connection.agent.borrow();
            result.set(agent.has_lines() && agent.makes_new_batch());
        });
        written.await.unwrap();
        assert!(nothing_was_made.get());
        while shared.is_delivering() {
            shared.changed.notified().await;
        }
        let agent = shared.agent.borrow();
        assert!(!agent.has_lines() && !agent.makes_new_batch());
    });
}
