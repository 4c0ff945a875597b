//! Shutdown: its order, its budget, and what it leaves behind.

use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use crate::fakes::{FakeExtension, FakeRuntime, TestEnvironment, request_id};
use crate::sandbox::{Builder, IDLE_SCRIPT, is_root};

fn line<'a>(trace: &'a [Value], event: &str) -> &'a Value {
    trace.iter().find(|line| line["event"] == event).unwrap_or_else(|| panic!("no {event}"))
}

/// Runs one invocation of an open environment to its report.
fn run_once(
    environment: &TestEnvironment,
    extension: &FakeExtension,
) -> std::thread::JoinHandle<Option<Value>> {
    let event = extension.next_later();
    let invocation = environment.runtime.next();
    event.join().unwrap();
    environment.runtime.respond(&request_id(&invocation), "1");
    let _next = environment.runtime.next_later();
    let idle = extension.next_later();
    environment.sandbox.await_telemetry("platform.report", 1);
    idle
}

/// SHUTDOWN has the reason `spindown`, in lower case, and a deadline in two seconds.
#[test]
fn spindown() {
    let (mut environment, extension) = TestEnvironment::with_extension("");
    let idle = run_once(&environment, &extension);
    let trace = environment.sandbox.stop();
    let event = idle.join().unwrap().unwrap();
    assert_eq!(event["eventType"], "SHUTDOWN");
    assert_eq!(event["shutdownReason"], "spindown");
    let shutdown = line(&trace, "shutdown");
    assert_eq!(shutdown["budget_ms"], 2000);
    let at_ms = shutdown["time"].as_u64().unwrap() / 1000;
    let ahead = event["deadlineMs"].as_u64().unwrap().abs_diff(at_ms + 2000);
    assert!(ahead <= 20, "{ahead} ms off");
}

/// An extension that ignores SHUTDOWN is killed after two seconds, and reported as killed.
#[test]
fn an_extension_that_stays_is_killed() {
    let (mut environment, extension) = TestEnvironment::with_extension("");
    let _idle = run_once(&environment, &extension);
    let trace = environment.sandbox.stop();
    let end = line(&trace, "shutdown.extensions");
    assert_eq!(end["in_time"], false);
    let took = end["time"].as_u64().unwrap() - line(&trace, "shutdown")["time"].as_u64().unwrap();
    assert!((1_990_000..3_000_000).contains(&took), "{took} us");
}

/// The runtime gets SIGTERM first and at most 600 ms; only then extensions get SHUTDOWN.
#[test]
fn the_runtime_goes_first() {
    let builder = Builder::new();
    let out = builder.path().join("out").display().to_string();
    let stubborn = format!(
        "#!/bin/sh\ntrap 'echo term >> {out}' TERM\necho ready > {out}\nwhile :; do sleep 0.05; done\n"
    );
    let mut sandbox = builder.function("fn", "", &stubborn).extension("a", IDLE_SCRIPT).start();
    let caller = sandbox.invoke_later("fn", "{}");
    let api = sandbox.api(1);
    sandbox.await_event("extension.spawn", 1);
    let extension = FakeExtension::register(&api, "a", &["INVOKE", "SHUTDOWN"]);
    let environment = TestEnvironment { runtime: FakeRuntime { api: api.clone() }, sandbox, api, caller };
    // Frozen before it has set its trap, it would die of the signal.
    crate::sandbox::wait_until("the trap", || environment.sandbox.read("out"));
    let idle = run_once(&environment, &extension);
    sandbox = environment.sandbox;
    let trace = sandbox.stop();
    let event = idle.join().unwrap().unwrap();
    assert_eq!(sandbox.read("out").unwrap(), "ready\nterm\n");
    let started_ms = line(&trace, "shutdown")["time"].as_u64().unwrap() / 1000;
    let released = line(&trace, "shutdown.release")["time"].as_u64().unwrap() / 1000;
    assert!((590..1_200).contains(&(released - started_ms)), "{} ms", released - started_ms);
    assert!(event["deadlineMs"].as_u64().unwrap() <= started_ms + 2_020, "the budget is shared");
}

/// Extensions that are not registered for SHUTDOWN are killed at once.
#[test]
fn unsubscribed_extensions_are_killed() {
    let mut environment = TestEnvironment::start(&["a"], "");
    let extension = FakeExtension::register(&environment.api, "a", &["INVOKE"]);
    let _idle = run_once(&environment, &extension);
    let trace = environment.sandbox.stop();
    let end = line(&trace, "shutdown.extensions");
    assert_eq!((&end["in_time"], &end["states"]), (&json!(true), &json!([["a", "ShutdownFailed"]])));
}

/// Exit code 0 after SHUTDOWN is a clean exit.
#[test]
fn clean_exit() {
    let builder = Builder::new();
    let flag = builder.path().join("flag");
    let script = format!("#!/bin/sh\nwhile [ ! -e {} ]; do sleep 0.02; done\n", flag.display());
    let sandbox = builder.function("fn", "", IDLE_SCRIPT).extension("a", &script).start();
    let caller = sandbox.invoke_later("fn", "{}");
    let api = sandbox.api(1);
    sandbox.await_event("extension.spawn", 1);
    let extension = FakeExtension::register(&api, "a", &["INVOKE", "SHUTDOWN"]);
    let mut environment = TestEnvironment { runtime: FakeRuntime { api: api.clone() }, sandbox, api, caller };
    let idle = run_once(&environment, &extension);
    let leaver = std::thread::spawn(move || {
        let event = idle.join().unwrap().unwrap();
        std::fs::write(flag, "").unwrap();
        event
    });
    let trace = environment.sandbox.stop();
    assert_eq!(leaver.join().unwrap()["eventType"], "SHUTDOWN");
    let end = line(&trace, "shutdown.extensions");
    assert_eq!((&end["in_time"], &end["states"]), (&json!(true), &json!([["a", "Exited"]])));
}

/// Without extensions the runtime is killed at once.
#[test]
fn no_extensions_no_budget() {
    let mut environment = TestEnvironment::start(&[], "");
    let invocation = environment.runtime.next();
    environment.runtime.respond(&request_id(&invocation), "1");
    let _next = environment.runtime.next_later();
    environment.sandbox.await_telemetry("platform.report", 1);
    let trace = environment.sandbox.stop();
    assert_eq!(line(&trace, "shutdown")["budget_ms"], 0);
}

/// With internal extensions only, the budget is half a second.
#[test]
fn internal_extensions_get_half_a_second() {
    let mut environment = TestEnvironment::start(&[], "");
    let inside = FakeExtension::register(&environment.api, "inside", &["INVOKE"]);
    let _idle = run_once(&environment, &inside);
    let trace = environment.sandbox.stop();
    assert_eq!(line(&trace, "shutdown")["budget_ms"], 500);
}

/// Nothing is left: no processes, control groups or folders; after `kill -9` the next start cleans up.
#[test]
fn nothing_is_left_behind() {
    if !is_root("nothing_is_left_behind") {
        return;
    }
    let mut environment = TestEnvironment::start(&[], "");
    let invocation = environment.runtime.next();
    environment.runtime.respond(&request_id(&invocation), "1");
    let _next = environment.runtime.next_later();
    environment.sandbox.await_event("environment.freeze", 1);
    let id = environment.sandbox.id();
    assert!(!leftovers(id).is_empty(), "a running sandbox has groups");
    environment.sandbox.kill();
    crate::sandbox::wait_until("frozen processes to die with their sandbox", || {
        processes(&leftovers(id)).is_empty().then_some(())
    });
    // Started by another sandbox on the same machine, whatever its folders are.
    let mut next = Builder::new().function("fn", "", IDLE_SCRIPT).start();
    assert!(leftovers(id).is_empty(), "{:?}", leftovers(id));
    let next_id = next.id();
    next.stop();
    assert!(leftovers(next_id).is_empty());
    assert!(kill(nix::unistd::Pid::from_raw(id.cast_signed()), None::<Signal>).is_err());
}

/// Control groups of the sandbox with process id `id`.
fn leftovers(id: u32) -> Vec<std::path::PathBuf> {
    fn visit(folder: &std::path::Path, depth: u32, name: &str, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && entry.file_type().is_ok_and(|kind| !kind.is_symlink()) {
                if entry.file_name().to_string_lossy().starts_with(name) {
                    found.push(path);
                } else if depth > 0 {
                    visit(&path, depth - 1, name, found);
                }
            }
        }
    }
    let mut found = Vec::new();
    visit("/sys/fs/cgroup".as_ref(), 4, &format!("lambda-sandbox.{id}-"), &mut found);
    found
}

fn processes(groups: &[std::path::PathBuf]) -> String {
    let inner = groups.iter().flat_map(|group| std::fs::read_dir(group).into_iter().flatten().flatten());
    inner.filter_map(|entry| std::fs::read_to_string(entry.path().join("cgroup.procs")).ok()).collect()
}

/// A caller that continues over a connection that it keeps does not delay the end: after the signal nothing is accepted.
#[test]
fn a_busy_caller_does_not_delay_the_end() {
    use std::io::{Read, Write};
    let runtime = "#!/usr/bin/env python3\n\
        import os, urllib.request\n\
        api = 'http://' + os.environ['AWS_LAMBDA_RUNTIME_API'] + '/2018-06-01/runtime/invocation/'\n\
        while True:\n  \
          request = urllib.request.urlopen(api + 'next').headers['Lambda-Runtime-Aws-Request-Id']\n  \
          urllib.request.urlopen(urllib.request.Request(api + request + '/response', b'1')).read()\n";
    if std::process::Command::new("python3").arg("-V").output().is_err() {
        crate::sandbox::skip("a_busy_caller_does_not_delay_the_end: needs python3");
        return;
    }
    let mut sandbox = Builder::new().function("fn", "memory_mb = 512", runtime).start();
    assert_eq!(sandbox.invoke("fn", "{}").status, 200);
    let address = sandbox.address.clone();
    let caller = std::thread::spawn(move || {
        let mut connection = std::net::TcpStream::connect(address).unwrap();
        let request =
            "POST /2015-03-31/functions/fn/invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}";
        let mut response = [0; 4096];
        while connection.write_all(request.as_bytes()).is_ok()
            && connection.read(&mut response).is_ok_and(|n| n > 0)
        {}
    });
    std::thread::sleep(std::time::Duration::from_millis(300));
    let started = std::time::Instant::now();
    sandbox.stop();
    assert!(started.elapsed() < std::time::Duration::from_secs(12), "environments were killed");
    caller.join().unwrap();
}
