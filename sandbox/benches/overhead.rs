//! Measures the overhead of the sandbox: an empty handler on AWS's Rust runtime, invoked over HTTP on one kept-alive
//! connection, with a thaw and a freeze each time. `cargo bench -p lambda-sandbox --bench overhead` builds the handler
//! and prints quantiles, and the part that was the function's own time; the target is a median under 2 ms.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;

const WARM_UP: usize = 50;
const INVOCATIONS: usize = 1000;

fn main() {
    let sandbox = Path::new(env!("CARGO_BIN_EXE_lambda-sandbox"));
    let handler = build_handler(sandbox);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let function = folder.path().join("empty");
    std::fs::create_dir(&function).expect("a folder");
    std::fs::copy(handler, function.join("bootstrap")).expect("the handler");
    std::fs::write(function.join("function.toml"), "runtime = 'provided.al2023'\nmemory_mb = 1769\n")
        .expect("a file");
    let mut child = Command::new(sandbox)
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(folder.path().join("data"))
        .arg("--functions")
        .arg(folder.path())
        .arg("--trace")
        .arg(folder.path().join("trace"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the sandbox");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("its address");
    let address = line.trim().rsplit('/').next().expect("an address").to_owned();
    let mut took: Vec<f64> = Vec::new();
    let stream = TcpStream::connect(&address).expect("a connection");
    stream.set_nodelay(true).expect("a socket");
    let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
    for number in 0..WARM_UP + INVOCATIONS {
        let started = Instant::now();
        let request =
            "POST /2015-03-31/functions/empty/invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}";
        (&stream).write_all(request.as_bytes()).expect("a request");
        let mut length = 0;
        loop {
            let mut head = String::new();
            reader.read_line(&mut head).expect("an answer");
            if let Some(value) = head.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
            if head.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("a body");
        assert!(!String::from_utf8_lossy(&body).contains("errorType"), "{}", String::from_utf8_lossy(&body));
        if number >= WARM_UP {
            took.push(started.elapsed().as_secs_f64() * 1e3);
        }
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    child.wait().expect("an end");
    println!("overhead: {INVOCATIONS} invocations: {}", spread(took));
    let (environments, inside) = traced(&folder.path().join("trace"));
    println!("of it in the function's environment: {}; {environments} environment(s)", spread(inside));
}

/// Environments started, and the milliseconds from release to the end of each invocation after the warm-up.
fn traced(trace: &Path) -> (usize, Vec<f64>) {
    let text = std::fs::read_to_string(trace).expect("a trace");
    let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let events = |name: &'static str| lines.iter().filter(move |line| line["event"] == name);
    let durations = events("invocation").skip(WARM_UP);
    let durations = durations.filter_map(|line| Some(line["duration_us"].as_f64()? / 1e3)).collect();
    (events("environment.start").count(), durations)
}

fn spread(mut milliseconds: Vec<f64>) -> String {
    milliseconds.sort_by(f64::total_cmp);
    let at = |quantile: usize| milliseconds[(milliseconds.len() - 1) * quantile / 100];
    format!("p50 {:.3} ms, p95 {:.3} ms, p99 {:.3} ms", at(50), at(95), at(99))
}

/// Builds the handler, because `cargo bench` does not build it.
fn build_handler(sandbox: &Path) -> PathBuf {
    let built = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
        .args(["build", "--quiet", "--release", "-p", "lambda-sandbox", "--example", "handler"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo");
    assert!(built.success(), "the handler cannot be built");
    sandbox.with_file_name("examples").join("handler")
}
