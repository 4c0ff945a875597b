//! Real handlers with AWS's runtime interface clients: cold, warm, failing, timing out and out of memory.

#![allow(clippy::unwrap_used, reason = "a failed assumption fails the test")]
#![expect(unreachable_pub, reason = "modules of one test program")]
#![allow(dead_code, reason = "helpers shared with the conformance tests")]

#[path = "../conformance/event_stream.rs"]
mod event_stream;
#[path = "../conformance/http.rs"]
mod http;
mod power;
mod prepare;
#[path = "../conformance/sandbox.rs"]
mod sandbox;
mod streaming;

use prepare::{Prepared, Skip};
use sandbox::{Builder, IDLE_SCRIPT, Sandbox, is_root, skip};

/// What differs between languages.
struct Language {
    name: &'static str,
    prepared: Result<Prepared, Skip>,
    memory_mb: u32,
    /// `errorType` of the handler's own failure.
    failure: &'static str,
    /// `errorType` when the kernel kills the runtime.
    out_of_memory: &'static str,
}

/// A sandbox with the function `fn` made of `prepared`.
fn start(prepared: &Prepared, handler: &str, settings: &str) -> Sandbox {
    let builder = Builder::new().function("fn", "", IDLE_SCRIPT);
    let folder = builder.path().join("functions/fn");
    std::fs::remove_file(folder.join("bootstrap")).unwrap();
    let layers = prepared.layer.iter().map(|layer| format!("{:?}", layer.display().to_string()));
    let toml = format!(
        "runtime = '{}'\nhandler = '{handler}'\ncode = '{}'\nlayers = [{}]\n{settings}\n\
         [environment]\nJAVA_TOOL_OPTIONS = '-Xmx1g -XX:TieredStopAtLevel=1'\n",
        prepared.runtime,
        prepared.code.display(),
        layers.collect::<Vec<_>>().join(", ")
    );
    std::fs::write(folder.join("function.toml"), toml).unwrap();
    builder.start()
}

fn check(language: Language) {
    let Language { name, prepared, memory_mb, failure, out_of_memory } = language;
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(reason) => {
            skip(&format!("{name}: {reason}"));
            return;
        }
    };
    let settings = format!("memory_mb = {memory_mb}\ntimeout_s = 10");
    let sandbox = start(&prepared, prepared.handler, &settings);

    // Cold, then warm in the same environment, after it has become idle.
    let settled = |count: usize| {
        sandbox.await_telemetry("platform.report", count);
    };
    for invocations in 1..=2_usize {
        settled(invocations - 1);
        let response = sandbox.invoke("fn", r#"{"do":"echo"}"#);
        assert!(response.header("x-amz-function-error").is_none(), "{name}: {}", response.json());
        let body = response.json();
        assert_eq!(body["invocations"], invocations, "{name}");
        assert_eq!(body["request_id"], response.header("x-amzn-requestid").unwrap(), "{name}");
        assert_eq!(body["memory_mb"].to_string().trim_matches('"'), memory_mb.to_string(), "{name}");
    }
    let first = sandbox.await_telemetry("platform.report", 1);
    assert!(first["metrics"]["initDurationMs"].as_f64().unwrap() > 0.0, "{name}");

    // The handler's own failure: a response, environment kept.
    settled(2);
    let failed = sandbox.invoke("fn", r#"{"do":"fail"}"#);
    assert_eq!(failed.header("x-amz-function-error"), Some("Unhandled"), "{name}");
    assert_eq!(failed.json()["errorMessage"], "boom", "{name}");
    assert!(failed.error_type().contains(failure), "{name}: {}", failed.error_type());
    settled(3);
    assert_eq!(sandbox.invoke("fn", "{}").json()["invocations"], 4, "{name}");
    settled(4);

    if is_root(name) {
        let killed = sandbox.invoke("fn", r#"{"do":"memory","mb":900}"#);
        assert_eq!(killed.error_type(), out_of_memory, "{name}");
        sandbox.await_event("shutdown.end", 1);
        assert_eq!(sandbox.invoke("fn", "{}").json()["invocations"], 1, "{name}: a fresh process");
    }
    let resets = sandbox.events("environment.reset").len();
    let path = "/2015-03-31/functions/fn/configuration";
    sandbox.call("PUT", path, r#"{"Timeout":2}"#);
    sandbox::wait_until("the change", || {
        (sandbox.call("GET", path, "").json()["LastUpdateStatus"] == "Successful").then_some(())
    });
    let late = sandbox.invoke("fn", r#"{"do":"sleep","seconds":30}"#);
    assert_eq!(late.error_type(), "Sandbox.Timedout", "{name}");
    sandbox.await_event("environment.reset", resets + 1);
}

#[test]
fn python() {
    check(Language {
        name: "python",
        prepared: prepare::python(),
        memory_mb: 256,
        failure: "ValueError",
        out_of_memory: "Runtime.OutOfMemory",
    });
}

#[test]
fn node() {
    check(Language {
        name: "node",
        prepared: prepare::node(),
        memory_mb: 256,
        failure: "RangeError",
        out_of_memory: "Runtime.ExitError",
    });
}

#[test]
fn java() {
    check(Language {
        name: "java",
        prepared: prepare::java(),
        memory_mb: 512,
        failure: "IllegalStateException",
        out_of_memory: "Runtime.ExitError",
    });
}

#[test]
fn go() {
    check(Language {
        name: "go",
        prepared: prepare::go(),
        memory_mb: 256,
        failure: "errorString",
        out_of_memory: "Runtime.ExitError",
    });
}

#[test]
fn rust() {
    check(Language {
        name: "rust",
        prepared: prepare::rust(),
        memory_mb: 256,
        failure: "",
        out_of_memory: "Runtime.ExitError",
    });
}
