//! The control plane over plain HTTP.

use serde_json::json;

use crate::fakes::{FakeExtension, FakeRuntime, request_id};
use crate::sandbox::{Builder, IDLE_SCRIPT, wait_until};

/// The log tail contains START, the function's lines, END and REPORT.
#[test]
fn log_tail() {
    let sandbox = Builder::new().function("fn", "", IDLE_SCRIPT).start();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let runtime = FakeRuntime { api: sandbox.api(1) };
            let invocation = runtime.next();
            runtime.respond(&request_id(&invocation), "1");
            runtime.next_later()
        });
        let (response, tail) = sandbox.invoke_with_tail("fn", "{}");
        let id = response.header("x-amzn-requestid").unwrap();
        assert!(tail.contains(&format!("START RequestId: {id} Version: $LATEST\n")), "{tail}");
        assert!(tail.contains(&format!("END RequestId: {id}\n")), "{tail}");
        assert!(tail.contains("\tBilled Duration: ") && tail.contains("\tInit Duration: "), "{tail}");
    });
}

/// Unknown functions are 404 with AWS's exception name.
#[test]
fn unknown_function() {
    let sandbox = Builder::new().function("fn", "", IDLE_SCRIPT).start();
    let response = sandbox.invoke("other", "{}");
    assert_eq!(
        (response.status, response.header("x-amzn-errortype")),
        (404, Some("ResourceNotFoundException"))
    );
    let message = response.json()["Message"].as_str().unwrap().to_owned();
    assert_eq!(message, "Function not found: arn:aws:lambda:us-east-1:123456789012:function:other");
}

/// Payloads must be JSON.
#[test]
fn payload_is_json() {
    let sandbox = Builder::new().function("fn", "", IDLE_SCRIPT).start();
    let response = sandbox.invoke("fn", "{no json");
    let exception = "InvalidRequestContentException";
    assert_eq!((response.status, response.header("x-amzn-errortype")), (400, Some(exception)));
}

/// A change is InProgress, then Successful; meanwhile further changes are 409 and invocations go to the old
/// configuration; a wrong RevisionId is 412.
#[test]
fn configuration_changes() {
    let builder = Builder::new().function("fn", "memory_mb = 256", IDLE_SCRIPT);
    let sandbox = builder.arguments(&["--update-delay-ms", "1500"]).start();
    let path = "/2015-03-31/functions/fn/configuration";
    let before = sandbox.call("GET", path, "").json();
    assert_eq!(before["MemorySize"], 256);
    let wrong = sandbox.call("PUT", path, r#"{"MemorySize":512,"RevisionId":"other"}"#);
    assert_eq!((wrong.status, wrong.header("x-amzn-errortype")), (412, Some("PreconditionFailedException")));
    let change = json!({"MemorySize": 512, "RevisionId": before["RevisionId"]}).to_string();
    let changed = sandbox.call("PUT", path, &change).json();
    assert_eq!((&changed["MemorySize"], &changed["LastUpdateStatus"]), (&json!(512), &json!("InProgress")));
    assert_ne!(changed["RevisionId"], before["RevisionId"]);
    let conflict = sandbox.call("PUT", path, r#"{"MemorySize":1024}"#);
    let exception = "ResourceConflictException";
    assert_eq!((conflict.status, conflict.header("x-amzn-errortype")), (409, Some(exception)));
    let _caller = sandbox.invoke_later("fn", "{}");
    assert_eq!(sandbox.await_event("environment.start", 1)["memory_mb"], 256);
    wait_until("the change", || {
        (sandbox.call("GET", path, "").json()["LastUpdateStatus"] == "Successful").then_some(())
    });
    let _caller = sandbox.invoke_later("fn", "{}");
    assert_eq!(sandbox.await_event("environment.start", 2)["memory_mb"], 512);
}

/// Limits of what can be set.
#[test]
fn configuration_limits() {
    let sandbox = Builder::new().function("fn", "", IDLE_SCRIPT).start();
    let path = "/2015-03-31/functions/fn/configuration";
    let large = format!(r#"{{"Environment":{{"Variables":{{"A":"{}"}}}}}}"#, "x".repeat(4096));
    for body in [
        r#"{"MemorySize":127}"#,
        r#"{"MemorySize":10241}"#,
        r#"{"Timeout":0}"#,
        r#"{"Timeout":901}"#,
        r#"{"Environment":{"Variables":{"AWS_REGION":"x"}}}"#,
        large.as_str(),
    ] {
        let response = sandbox.call("PUT", path, body);
        let exception = "InvalidParameterValueException";
        assert_eq!((response.status, response.header("x-amzn-errortype")), (400, Some(exception)), "{body}");
    }
}

/// Environments of an earlier configuration finish their invocations, then shut down.
#[test]
fn old_environments_finish() {
    let sandbox = Builder::new().function("fn", "timeout_s = 30", IDLE_SCRIPT).start();
    let caller = sandbox.invoke_later("fn", "{}");
    let runtime = FakeRuntime { api: sandbox.api(1) };
    let invocation = runtime.next();
    let path = "/2015-03-31/functions/fn/configuration";
    sandbox.call("PUT", path, r#"{"MemorySize":512}"#);
    wait_until("the change", || {
        (sandbox.call("GET", path, "").json()["LastUpdateStatus"] == "Successful").then_some(())
    });
    assert!(sandbox.events("environment.end").is_empty());
    runtime.respond(&request_id(&invocation), r#""old""#);
    let _next = runtime.next_later();
    assert_eq!(caller.join().unwrap().json(), json!("old"));
    sandbox.await_event("environment.end", 1);
}

/// One environment an invocation at a time; a second is started for a second caller, and the first is used again.
#[test]
fn scaling() {
    let sandbox = Builder::new().function("fn", "timeout_s = 30", IDLE_SCRIPT).start();
    let first = sandbox.invoke_later("fn", "1");
    let one = FakeRuntime { api: sandbox.api(1) };
    let invocation = one.next();
    let second = sandbox.invoke_later("fn", "2");
    let two = FakeRuntime { api: sandbox.api(2) };
    let other = two.next();
    assert_eq!((invocation.json(), other.json()), (json!(1), json!(2)));
    for (runtime, invocation) in [(&one, invocation), (&two, other)] {
        runtime.respond(&request_id(&invocation), "0");
        let _next = runtime.next_later();
    }
    first.join().unwrap();
    second.join().unwrap();
    sandbox.await_event("environment.freeze", 2);
    let _third = sandbox.invoke_later("fn", "3");
    sandbox.await_event("environment.thaw", 1);
    assert_eq!(sandbox.events("environment.start").len(), 2);
}

/// Idle environments are shut down after a while.
#[test]
fn reaping() {
    let builder = Builder::new().function("fn", "", IDLE_SCRIPT);
    let sandbox = builder.arguments(&["--idle-timeout-s", "0.3"]).start();
    let _caller = sandbox.invoke_later("fn", "1");
    let runtime = FakeRuntime { api: sandbox.api(1) };
    let invocation = runtime.next();
    runtime.respond(&request_id(&invocation), "0");
    let _next = runtime.next_later();
    sandbox.await_event("environment.end", 1);
    assert_eq!(sandbox.events("shutdown")[0]["reason"], "spindown");
}

/// Until every extension has requested its next event an environment is busy, though its caller has the response: the
/// next invocation gets another environment. One that is done is used again, however soon.
#[test]
fn busy_until_extensions_are_done() {
    let builder = Builder::new().function("fn", "timeout_s = 30", IDLE_SCRIPT);
    let sandbox = builder.extension("a", IDLE_SCRIPT).start();
    let first = sandbox.invoke_later("fn", "1");
    let api = sandbox.api(1);
    sandbox.await_event("extension.spawn", 1);
    let extension = FakeExtension::register(&api, "a", &["INVOKE"]);
    let event = extension.next_later();
    let runtime = FakeRuntime { api };
    let invocation = runtime.next();
    event.join().unwrap().unwrap();
    runtime.respond(&request_id(&invocation), "1");
    let next = runtime.next_later();
    first.join().unwrap();

    let _second = sandbox.invoke_later("fn", "2");
    sandbox.await_event("environment.start", 2);
    assert!(sandbox.events("environment.freeze").is_empty(), "the first still works");

    let _event = extension.next_later();
    sandbox.await_event("environment.freeze", 1);
    let _third = sandbox.invoke_later("fn", "3");
    assert_eq!(next.join().unwrap().unwrap().json(), json!(3));
    assert_eq!(sandbox.events("environment.start").len(), 2);
}
