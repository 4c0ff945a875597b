//! Behavior of real processes: environment variables, paths, freezing, /proc and /tmp.

use std::collections::BTreeMap;

use crate::fakes::{FakeRuntime, request_id};
use crate::sandbox::{Builder, IDLE_SCRIPT, Sandbox, is_root, wait_until};

fn variables(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Lets the fake runtime of the first environment serve one invocation, up to the freeze.
fn serve_one(sandbox: &Sandbox) -> FakeRuntime {
    let runtime = FakeRuntime { api: sandbox.api(1) };
    sandbox.await_event("runtime.spawn", 1);
    let invocation = runtime.next();
    runtime.respond(&request_id(&invocation), "1");
    let _next = runtime.next_later();
    sandbox.await_telemetry("platform.report", 1);
    runtime
}

/// The runtime has all variables; extensions lack the withheld ones and every one that begins with `_`.
#[test]
fn environment_variables() {
    let builder = Builder::new();
    let out = |name: &str| builder.path().join(name).display().to_string();
    let script =
        |name: &str| format!("#!/bin/sh\nenv > {0}.tmp; mv {0}.tmp {0}\nexec sleep 1000\n", out(name));
    let (runtime, extension) = (script("runtime"), script("extension"));
    let settings = "handler = 'app.main'\nmemory_mb = 256\n[environment]\nMINE = 'yes'\n_MINE = 'hidden'";
    let sandbox = builder.function("fn", settings, &runtime).extension("a", &extension).start();
    let _caller = sandbox.invoke_later("fn", "{}");
    let extension = variables(&wait_until("variables", || sandbox.read("extension")));
    let api = sandbox.api(1);
    crate::fakes::FakeExtension::register(&api, "a", &["INVOKE"]);
    let runtime = variables(&wait_until("variables", || sandbox.read("runtime")));

    let both = [
        ("AWS_REGION", "us-east-1"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_LAMBDA_FUNCTION_NAME", "fn"),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
        ("TZ", ":UTC"),
        ("MINE", "yes"),
    ];
    // In a network of its own, or at the address that the test uses.
    for variables in [&runtime, &extension] {
        let address = &variables["AWS_LAMBDA_RUNTIME_API"];
        assert!(*address == api || address == "127.0.0.1:9001", "{address}");
    }
    for (name, value) in both {
        assert_eq!(runtime.get(name).map(String::as_str), Some(value), "{name}");
        assert_eq!(extension.get(name).map(String::as_str), Some(value), "{name}");
    }
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
        assert!(runtime.contains_key(name) && extension.contains_key(name), "{name}");
    }
    let withheld = [
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_XRAY_CONTEXT_MISSING",
        "AWS_XRAY_DAEMON_ADDRESS",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_TASK_ROOT",
        "_AWS_XRAY_DAEMON_ADDRESS",
        "_AWS_XRAY_DAEMON_PORT",
        "_HANDLER",
        "_MINE",
    ];
    for name in withheld {
        assert!(runtime.contains_key(name), "the runtime lacks {name}");
        assert!(!extension.contains_key(name), "the extension has {name}");
    }
    assert!(!extension.contains_key("AWS_EXECUTION_ENV"));
    assert_eq!(runtime["_HANDLER"], "app.main");
}

/// Inside, /proc shows only the environment, pid 1 is the supervisor, code is at /var/task, layers at /opt.
#[test]
fn places_and_processes() {
    if !is_root("places_and_processes") {
        return;
    }
    let builder = Builder::new();
    let out = builder.path().join("out");
    let script = format!(
        "#!/bin/sh\n{{ pwd; cat /proc/1/comm; echo $PPID; ls /opt/extensions; ls -d /proc/[0-9]* | wc -l; \
         touch /var/task/x 2>/dev/null || echo read-only; grep -c sandbox.localdomain /etc/hosts; }} > {0}.tmp\n\
         mv {0}.tmp {0}\nexec sleep 1000\n",
        out.display()
    );
    let sandbox = builder.function("fn", "", &script).extension("a", IDLE_SCRIPT).start();
    let _caller = sandbox.invoke_later("fn", "{}");
    sandbox.await_event("extension.spawn", 1);
    crate::fakes::FakeExtension::register(&sandbox.api(1), "a", &["INVOKE"]);
    let text = wait_until("output", || sandbox.read("out"));
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "/var/task");
    assert!(lines[1].starts_with("lambda-sandbox") || lines[1] == "exe", "{}", lines[1]);
    assert_eq!(lines[2], "1", "the runtime's parent is the platform");
    assert_eq!(lines[3], "a");
    let count: u32 = lines[4].trim().parse().unwrap();
    assert!(count <= 6, "{count} processes seen: pid 1, extension, runtime and this pipeline expected");
    assert_eq!(lines[5..], ["read-only", "1"]);
}

/// Runs a process that writes to a file all the time, and checks that it stands still while the environment is
/// frozen, and runs again after the thaw.
fn check_freezing(builder: Builder) {
    let out = builder.path().join("ticks").display().to_string();
    let script = format!("#!/bin/sh\nwhile :; do echo x >> {out}; sleep 0.01; done\n");
    let sandbox = builder.function("fn", "memory_mb = 512", &script).start();
    let size = || std::fs::metadata(sandbox.file("ticks")).map_or(0, |metadata| metadata.len());
    let _caller = sandbox.invoke_later("fn", "{}");
    wait_until("the process to run", || (size() > 0).then_some(()));
    serve_one(&sandbox);
    sandbox.await_event("environment.freeze", 1);
    std::thread::sleep(std::time::Duration::from_millis(200));
    let frozen = size();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(size(), frozen, "the process ran while frozen");
    let _caller = sandbox.invoke_later("fn", "{}");
    sandbox.await_event("environment.thaw", 1);
    wait_until("the process to run again", || (size() > frozen).then_some(()));
}

/// Between invocations no process runs.
#[test]
fn freezing() {
    check_freezing(Builder::new());
}

/// The same without control groups and namespaces: processes are stopped and continued by signals.
#[test]
fn freezing_without_control_groups() {
    check_freezing(Builder::new().arguments(&["--no-limits", "--isolation", "none"]));
}

/// /tmp survives a reset, though every process is new.
#[test]
fn tmp_survives_a_reset() {
    if !is_root("tmp_survives_a_reset") {
        return;
    }
    let builder = Builder::new();
    let out = builder.path().join("out").display().to_string();
    let script = format!(
        "#!/bin/sh\ncat /tmp/state >> {out} 2>/dev/null\necho kept > /tmp/state\nsleep 0.5\nexit 1\n"
    );
    let sandbox = builder.function("fn", "", &script).start();
    for attempt in 1..=2 {
        let caller = sandbox.invoke_later("fn", "{}");
        sandbox.await_event("runtime.spawn", attempt);
        let _next = FakeRuntime { api: sandbox.api(1) }.next_later();
        caller.join().unwrap();
        sandbox.await_event("shutdown.end", attempt);
    }
    assert_eq!(sandbox.read("out").as_deref(), Some("kept\n"));
    assert_eq!(sandbox.events("environment.start").len(), 1);
}

/// A reset also ends the processes that the runtime has started.
#[test]
fn orphans_do_not_survive_a_reset() {
    let builder = Builder::new();
    let out = builder.path().join("ticks").display().to_string();
    let script = format!(
        "#!/bin/sh\n(while :; do echo x >> {out}; sleep 0.01; done) >/dev/null 2>&1 &\nsleep 0.5\nexit 1\n"
    );
    let sandbox = builder.function("fn", "", &script).start();
    let caller = sandbox.invoke_later("fn", "{}");
    let _next = FakeRuntime { api: sandbox.api(1) }.next_later();
    caller.join().unwrap();
    sandbox.await_event("shutdown.end", 1);
    let size = || std::fs::metadata(sandbox.file("ticks")).map_or(0, |metadata| metadata.len());
    let at_end = size();
    assert!(at_end > 0);
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(size(), at_end);
}
