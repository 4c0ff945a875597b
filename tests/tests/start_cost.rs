//! From exec to the first `next`, the shipped extension runs at most 0.4 million instructions. Counted, not timed:
//! the count repeats on a busy machine, and it is what a cold start under a small size's CPU pays for.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use tailor_test_kit::{build, skip};

const MAX_INSTRUCTIONS: u64 = 400_000;

/// Answers one request as Lambda does, and tells its path.
fn answer(stream: &TcpStream) -> String {
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
fn the_first_next_comes_after_few_instructions() {
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
        paths.push(answer(&stream));
    }
    // It waits for an answer that does not come. On SIGTERM valgrind says what it counted until then.
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let counted =
        said.lines().find_map(|line| line.split_once("Collected :")).unwrap_or_else(|| panic!("{said}"));
    let instructions: u64 = counted.1.trim().parse().unwrap();
    println!("{instructions} instructions to the first next, after {paths:?}");
    assert_eq!(paths.len(), 3, "registers, subscribes, asks: {paths:?}");
    assert!(instructions <= MAX_INSTRUCTIONS, "{instructions} are more than {MAX_INSTRUCTIONS}");
}
