//! Limits the start cost of the extension: at most 400,000 instructions from exec to the first `next` request.
//!
//! The test counts instructions because their number does not depend on the load of the machine. At a small memory size,
//! the start time is proportional to it.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue has failed")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use tailor_test_kit::{build, skip};

const MAX_INSTRUCTIONS: u64 = 400_000;

/// Responds to one request as Lambda does. Returns the path.
fn respond(stream: &TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let mut lines = reader.by_ref().lines().map(Result::unwrap);
    let request = lines.next().unwrap();
    let mut length = 0;
    for header in lines.by_ref().take_while(|line| !line.is_empty()) {
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    reader.read_exact(&mut vec![0; length]).unwrap();
    let path = request.split(' ').nth(1).unwrap().to_owned();
    let body = r#"{"functionName":"counted","functionVersion":"1","handler":"h"}"#;
    if !path.ends_with("/event/next") {
        let head = format!("Lambda-Extension-Identifier: counted\r\ncontent-length: {}", body.len());
        (&*stream).write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}").as_bytes()).unwrap();
    }
    path
}

#[test]
fn start_runs_few_instructions() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        skip("needs valgrind");
        return;
    }
    let extension = build::programs().unwrap().layer.join("extensions/tailor-extension");
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let child = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(extension)
        .env("AWS_LAMBDA_RUNTIME_API", listener.local_addr().unwrap().to_string())
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
        .env("AWS_REGION", "us-east-1")
        .env("TAILOR_ENDPOINT", "https://collector.example.com")
        .env("TAILOR_API_KEY", "counted")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (stream, _) = listener.accept().unwrap();
    let mut paths = vec![];
    while paths.last().is_none_or(|path: &String| !path.ends_with("/event/next")) {
        paths.push(respond(&stream));
    }
    // The extension now waits for an event. On SIGTERM, valgrind prints the number of instructions.
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let counted =
        stderr.lines().find_map(|line| line.split_once("Collected :")).unwrap_or_else(|| panic!("{stderr}"));
    let instructions: u64 = counted.1.trim().parse().unwrap();
    println!("{instructions} instructions to the first next, after {paths:?}");
    assert_eq!(paths.len(), 3, "register, subscribe, next: {paths:?}");
    assert!(instructions <= MAX_INSTRUCTIONS, "{instructions} instructions; the limit is {MAX_INSTRUCTIONS}");
}
