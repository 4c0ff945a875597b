//! `lambda-sandbox power` on the Rust handler: values come from the kernel, failures are reported, missing values stay
//! empty.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::prepare;
use crate::sandbox::{is_root, skip};

struct Measured {
    folder: tempfile::TempDir,
    output: Output,
}

impl Measured {
    fn json(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.curve()).unwrap()).unwrap()
    }

    fn curve(&self) -> PathBuf {
        self.folder.path().join("curve.json")
    }

    fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }
}

/// Runs `power` on the Rust handler; `None` if that was not built.
fn power(settings: &str, event: &str, arguments: &[&str]) -> Option<Measured> {
    let code = prepare::rust().map_err(|reason| skip(&format!("power: {reason}"))).ok()?.code;
    let folder = tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap();
    let function = folder.path().join("fn");
    std::fs::create_dir(&function).unwrap();
    let toml =
        format!("runtime = 'provided.al2023'\ntimeout_s = 30\ncode = '{}'\n{settings}", code.display());
    std::fs::write(function.join("function.toml"), toml).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_lambda-sandbox"))
        .args(["power", "--data", "data", "--json", "curve.json"])
        .args(arguments)
        .args(["fn", event])
        .current_dir(folder.path())
        .output()
        .unwrap();
    Some(Measured { folder, output })
}

/// CPU-bound work takes longer with less CPU and uses the same CPU time; one row and one JSON entry per size.
#[test]
fn power_of_work() {
    if !is_root("power_of_work") {
        return;
    }
    let event = r#"{"do":"spin","rounds":3000000}"#;
    let Some(measured) = power("", event, &["--sizes", "128,512", "--count", "4"]) else { return };
    assert!(measured.output.status.success(), "{}", measured.stderr());
    let saved = measured.json();
    assert_eq!((&saved["function"], &saved["warm_invocations"]), (&"fn".into(), &4.into()));
    let [small, large] = &saved["curve"].as_array().unwrap()[..] else { panic!("two sizes: {saved}") };
    for point in [small, large] {
        assert_eq!(point["warm_ms"].as_array().unwrap().len(), 4, "{point}");
        assert!(point["init_ms"].as_f64().unwrap() > 0.0 && point["cold_ms"].as_f64().unwrap() > 0.0);
        assert_eq!(point["failed"], 0);
    }
    let of = |point: &Value, key: &str| point[key].as_f64().unwrap();
    // Four times the CPU; both are slower on a busy machine, the larger size more so.
    let times = of(small, "p50_ms") / of(large, "p50_ms");
    assert!((1.5..8.0).contains(&times), "{times} times as fast");
    // The kernel decides what it takes, which is never more than the quota.
    for (point, share) in [(small, 128.0 / 1769.0), (large, 512.0 / 1769.0)] {
        let used = of(point, "mean_cpu_ms") / of(point, "mean_ms");
        // A period's worth may be used on either side of an invocation.
        assert!(used < share * 1.5 + 0.02, "{used} of a CPU, {share} allowed");
    }
    let gb_seconds = of(small, "mean_billed_ms") / 1e3 * 128.0 / 1024.0;
    assert!((of(small, "gb_seconds") - gb_seconds).abs() < 1e-9);
    let lines = measured.stdout();
    assert_eq!(lines.lines().count(), 4, "{lines}");
    assert!(lines.contains("fastest: 512 MB at "), "{lines}");
}

/// A size at which the function fails has an error and no values; the other sizes have values.
#[test]
fn power_where_memory_does_not_suffice() {
    if !is_root("power_where_memory_does_not_suffice") {
        return;
    }
    let event = r#"{"do":"memory","mb":200}"#;
    let Some(measured) = power("", event, &["--sizes", "128,512", "--count", "5"]) else { return };
    assert!(measured.output.status.success(), "{}", measured.stderr());
    let saved = measured.json();
    let small = &saved["curve"][0];
    assert_eq!((&small["failed"], &small["mean_ms"]), (&3.into(), &Value::Null), "left after three: {small}");
    assert_eq!(small["max_memory_used_mb"], 128);
    assert!(saved["curve"][1]["max_memory_used_mb"].as_u64().unwrap() >= 200);
    let warning = "128 MB: 3 invocation(s) failed: Runtime.ExitError: ";
    assert!(measured.stderr().contains(warning), "{}", measured.stderr());
    assert!(measured.stdout().contains("cheapest: 512 MB"), "{}", measured.stdout());
}

/// Invalid arguments are rejected before the function runs, with an error that names the problem.
#[test]
fn power_rejects() {
    let cases: [(&str, &str, &[&str], &str); 4] = [
        ("", "{}", &["--sizes", "64"], "64 is not in 128..=10240"),
        ("", "{}", &["--count", "0"], "0 is not in 1.."),
        ("", "no json", &[], "the event is not JSON"),
        (
            "initialization_type = 'lambda-managed-instances'",
            "{}",
            &["--sizes", "128"],
            "fn runs on managed instances, which are not billed by memory size",
        ),
    ];
    for (settings, event, arguments, words) in cases {
        let Some(measured) = power(settings, event, arguments) else { return };
        assert!(!measured.output.status.success());
        assert!(measured.stderr().contains(words), "{words}: {}", measured.stderr());
        assert_eq!(measured.stdout(), "");
    }
}

/// Without limits there is a warning; a function that only fails is an error.
#[test]
fn power_without_limits() {
    let arguments = ["--no-limits", "--sizes", "128", "--count", "5"];
    let Some(measured) = power("", r#"{"do":"fail"}"#, &arguments) else { return };
    assert_eq!(measured.output.status.code(), Some(1));
    assert!(measured.stderr().contains("CPU is not limited here"), "{}", measured.stderr());
    assert!(measured.stderr().contains("128 MB: 3 invocation(s) failed: "), "{}", measured.stderr());
}
