//! What the sandbox itself costs: an empty handler on AWS's Rust runtime, invoked over HTTP on one kept-alive
//! connection, thawed and frozen each time. `cargo bench -p lambda-sandbox` prints the spread; the target is a
//! median under 2 ms.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

const WARM_UP: usize = 50;
const INVOCATIONS: usize = 1000;

fn main() {
    let sandbox = Path::new(env!("CARGO_BIN_EXE_lambda-sandbox"));
    // Benches do not build examples, so the handler must have been built before, in whichever profile.
    let profiles = [sandbox.with_file_name("examples"), sandbox.with_file_name("../debug/examples")];
    let Some(handler) = profiles.iter().map(|folder| folder.join("handler")).find(|file| file.is_file())
    else {
        println!("skipped: overhead: run `cargo build -p lambda-sandbox --examples` first");
        return;
    };
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
    took.sort_by(f64::total_cmp);
    let at = |quantile: usize| took[(took.len() - 1) * quantile / 100];
    println!(
        "overhead: {INVOCATIONS} invocations: p50 {:.3} ms, p95 {:.3} ms, p99 {:.3} ms",
        at(50),
        at(95),
        at(99)
    );
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    child.wait().expect("an end");
}
