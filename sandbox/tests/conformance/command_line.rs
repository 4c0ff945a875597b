//! The command `invoke`, and the choice of the environment of an invocation, with real runtimes.

use std::process::{Command, Output};

use crate::sandbox::{Builder, is_root, skip};

/// A runtime that responds to every invocation and then uses CPU time before it requests the next one.
const RUNTIME: &str = "#!/usr/bin/env python3\n\
    import os, time, urllib.request\n\
    api = 'http://' + os.environ['AWS_LAMBDA_RUNTIME_API'] + '/2018-06-01/runtime/invocation/'\n\
    time.sleep(float(os.environ.get('INIT_S', '0')))\n\
    while True:\n  \
      event = urllib.request.urlopen(api + 'next')\n  \
      request = event.headers['Lambda-Runtime-Aws-Request-Id']\n  \
      urllib.request.urlopen(urllib.request.Request(api + request + '/response', b'1')).read()\n  \
      end = time.process_time() + float(os.environ.get('BUSY_S', '0'))\n  \
      while time.process_time() < end: pass\n";

#[track_caller]
fn has_python(test: &str) -> bool {
    let found = Command::new("python3").arg("-V").output().is_ok();
    if !found {
        skip(&format!("{test}: needs python3"));
    }
    found
}

/// Runs `lambda-sandbox invoke` on the function `fn` of `builder`.
fn invoke(builder: &Builder, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lambda-sandbox"))
        .arg("invoke")
        .arg(builder.path().join("functions/fn"))
        .arg("--data")
        .arg(builder.path().join("data"))
        .arg("--layer")
        .arg(builder.path().join("layer"))
        .args(arguments)
        .output()
        .unwrap()
}

/// What extensions and the runtime write in Shutdown is shown.
#[test]
fn invoke_shows_the_logs_of_shutdown() {
    if !has_python("invoke_shows_the_logs_of_shutdown") {
        return;
    }
    let extension = "#!/usr/bin/env python3\n\
        import json, os, urllib.request\n\
        api = 'http://' + os.environ['AWS_LAMBDA_RUNTIME_API'] + '/2020-01-01/extension/'\n\
        def call(path, body, headers):\n  \
          return urllib.request.urlopen(urllib.request.Request(api + path, body, headers))\n\
        events = b'{\"events\":[\"INVOKE\",\"SHUTDOWN\"]}'\n\
        response = call('register', events, {'Lambda-Extension-Name': 'a'})\n\
        own = {'Lambda-Extension-Identifier': response.headers['Lambda-Extension-Identifier']}\n\
        while json.loads(call('event/next', None, own).read())['eventType'] != 'SHUTDOWN': pass\n\
        print('goodbye')\n";
    let builder = Builder::new().function("fn", "memory_mb = 512", RUNTIME).extension("a", extension);
    let output = invoke(&builder, &[]);
    let (responses, logs) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(responses, "1\n", "{logs}");
    let report = logs.find("REPORT RequestId").expect("a report");
    assert!(logs[report..].contains("goodbye"), "{logs}");
}

/// With provisioned concurrency the first invocation waits for the environment that was started ahead.
#[test]
fn the_first_invocation_goes_to_a_provisioned_environment() {
    if !has_python("the_first_invocation_goes_to_a_provisioned_environment") {
        return;
    }
    let settings = "initialization_type = 'provisioned-concurrency'\n[environment]\nINIT_S = '0.3'";
    let builder = Builder::new().function("fn", settings, RUNTIME);
    let trace = builder.path().join("trace");
    let output = invoke(&builder, &["--count", "2", "--trace", trace.to_str().unwrap()]);
    let text = std::fs::read_to_string(trace).unwrap();
    assert_eq!(text.matches("\"environment.start\"").count(), 1, "{text}");
    assert!(text.contains("provisioned-concurrency"));
    let logs = String::from_utf8_lossy(&output.stderr);
    assert_eq!(logs.matches("Init Duration").count(), 0, "{logs}");
}

/// A caller that comes back immediately gets the same environment, even when the small CPU quota delays the runtime for
/// several periods after its response.
#[test]
fn a_throttled_runtime_does_not_cost_a_second_environment() {
    if !is_root("a_throttled_runtime_does_not_cost_a_second_environment")
        || !has_python("a_throttled_runtime_does_not_cost_a_second_environment")
    {
        return;
    }
    let settings = "memory_mb = 128\n[environment]\nBUSY_S = '0.006'";
    let sandbox = Builder::new().function("fn", settings, RUNTIME).start();
    for _ in 0..12 {
        assert_eq!(sandbox.invoke("fn", "{}").json(), 1);
    }
    assert_eq!(sandbox.events("environment.start").len(), 1);
}

/// A missing runtime client is an error that names the package and the command that installs it.
#[test]
fn a_missing_runtime_client_is_named() {
    let clients = [
        ("python3.12", "awslambdaric", "pip install"),
        ("nodejs22.x", "aws-lambda-ric", "npm install"),
        ("java21", "aws-lambda-java-runtime-interface-client", "lib"),
    ];
    for (runtime, package, install) in clients {
        let builder = Builder::new().function("fn", "", RUNTIME);
        let folder = builder.path().join("functions/fn");
        std::fs::remove_file(folder.join("bootstrap")).unwrap();
        std::fs::write(folder.join("function.toml"), format!("runtime = '{runtime}'\nhandler = 'a.b'"))
            .unwrap();
        let output = invoke(&builder, &[]);
        let text = String::from_utf8_lossy(&output.stderr);
        if text.contains("on the PATH") {
            skip(&format!("a_missing_runtime_client_is_named: {runtime} is not installed"));
            continue;
        }
        assert!(!output.status.success());
        assert!(text.contains(package) && text.contains(install), "{text}");
    }
}
