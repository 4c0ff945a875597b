//! The real `tailor` binary with its tuner, through the AWS SDK, against the Lambda API of the sandbox.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::fleet::{KINDS, Kind, batch};
use tailor_collector::clock::now_us;

/// A process that is killed at the end of its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A function that waits most of the time, so that the tuner recommends less memory.
const IDLE: Kind = Kind { cpu_us: 400, ..KINDS[2] };

fn start_sandbox(binary: &Path, folder: &Path) -> (Running, String) {
    for (name, tag) in [(IDLE.name, "apply"), ("untagged", "observe")] {
        let function = folder.join("functions").join(name);
        std::fs::create_dir_all(&function).unwrap();
        let text = format!(
            "name = \"{name}\"\nruntime = \"provided.al2023\"\nmemory_mb = {}\ncommand = [\"/bin/true\"]\n\
             [tags]\n\"tailor:tune\" = \"{tag}\"\n\"tailor:latest-down\" = \"allow\"\n",
            IDLE.memory
        );
        std::fs::write(function.join("function.toml"), text).unwrap();
    }
    let mut child = Command::new(binary)
        .args(["serve", "--listen", "127.0.0.1:0", "--region", "eu-west-1", "--account", "123456789012"])
        .arg("--data")
        .arg(folder.join("sandbox"))
        .arg("--functions")
        .arg(folder.join("functions"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().rsplit(' ').next().unwrap().to_owned();
    assert!(address.starts_with("http://"), "{line}");
    (Running(child), address)
}

fn start_collector(data: &Path, lambda: &str, mode: &str) -> (Running, String) {
    let _ = std::fs::remove_file(data.join("address"));
    let child = Command::new(env!("CARGO_BIN_EXE_tailor"))
        .args(["serve", "--listen", "127.0.0.1:0", "--local-reads", "--tuner", mode, "--tuner-interval", "1"])
        .args(["--tuner-evidence", "100", "--tuner-comparison", "50", "--tuner-strategy", "cost"])
        .args(["--tuner-evidence-days", "0", "--tuner-evidence-environments", "0", "--tuner-min-saving", "0"])
        .args(["--tuner-soak-hours", "0", "--tuner-after-deployment", "0", "--tuner-max-requests", "100"])
        .arg("--data")
        .arg(data)
        .env("AWS_ENDPOINT_URL_LAMBDA", lambda)
        .env("AWS_ACCESS_KEY_ID", "any")
        .env("AWS_SECRET_ACCESS_KEY", "any")
        .env("AWS_REGION", "eu-west-1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let running = Running(child);
    let address = wait_for("an address", || {
        let address = std::fs::read_to_string(data.join("address")).ok()?.trim().to_owned();
        (!address.is_empty() && ureq::get(format!("{address}/readyz")).call().is_ok()).then_some(address)
    });
    (running, address)
}

fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < deadline, "timeout while waiting for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn get(url: &str) -> serde_json::Value {
    ureq::get(url).call().unwrap().body_mut().read_json().unwrap()
}

fn memory(sandbox: &str, name: &str) -> u64 {
    get(&format!("{sandbox}/2015-03-31/functions/{name}/configuration"))["MemorySize"].as_u64().unwrap()
}

fn send(collector: &str, key: &str, kind: &Kind, id: u64, count: u64) {
    let mut batch = batch(kind, id, 1, count, now_us());
    for invocation in &mut batch.invocations {
        invocation.started_at_us = now_us();
    }
    let sent = ureq::post(format!("{collector}/v1/batches"))
        .header("Authorization", format!("Bearer {key}"))
        .header("Content-Type", agent_proto::CONTENT_TYPE)
        .send(batch.encode().unwrap());
    assert_eq!(sent.unwrap().status(), 200);
}

#[test]
fn the_tuner_changes_only_the_tagged_function_through_the_real_api() {
    let binary = tailor_test_kit::build::sandbox().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (_sandbox, lambda) = start_sandbox(&binary, folder.path());

    // Without `--tuner apply` nothing is changed, not even a tagged function.
    let (off, collector) = start_collector(&data, &lambda, "off");
    let key = std::fs::read_to_string(data.join("api-key")).unwrap().trim().to_owned();
    send(&collector, &key, &IDLE, 1, 300);
    send(&collector, &key, &Kind { name: "untagged", ..IDLE }, 2, 300);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(get(&format!("{collector}/v1/changes"))["changes"].as_array().unwrap().len(), 0);
    drop(off);

    let (_collector, collector) = start_collector(&data, &lambda, "apply");
    let state = |expected: &str| {
        let changes = get(&format!("{collector}/v1/changes"))["changes"].clone();
        (changes[0]["state"] == expected).then_some(changes)
    };
    let changes = wait_for("the change", || state("soaking"));
    let to = changes[0]["to_mb"].as_u64().unwrap();
    assert_eq!(memory(&lambda, IDLE.name), to);
    assert_eq!(memory(&lambda, "untagged"), u64::from(IDLE.memory));

    send(&collector, &key, &Kind { memory: u32::try_from(to).unwrap(), ..IDLE }, 3, 120);
    let changes = wait_for("the comparison", || state("settled"));
    assert_eq!(changes.as_array().unwrap().len(), 1);
    let report = &get(&format!("{collector}/v1/functions/{}", IDLE.name));
    assert_eq!(report["memory_mb"], to);
    assert!(report["changes"][0]["after"]["mean_ms"].as_f64().unwrap() > 0.0);
    let table =
        Command::new(env!("CARGO_BIN_EXE_tailor")).args(["summary", "--data"]).arg(&data).output().unwrap();
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(
        table.contains("measured before") && table.contains("predicted") && table.contains(&collector),
        "{table}"
    );
}
