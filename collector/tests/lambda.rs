//! `tailor lambda` as a function in the local Lambda, with events of a function URL and of a schedule, and a real PostgreSQL.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::fleet::{KINDS, batch};
use serde_json::{Value, json};
use tailor_collector::clock::now_us;
use tailor_collector::keys::SecretDigest;
use tailor_test_kit::lambda::LambdaClient;
use tailor_test_kit::postgres::PostgresServer;
use tailor_test_kit::process::as_seen_by_functions;
use tailor_test_kit::skip;

const INGEST: &str = "ingest-key-of-the-functions";
const ADMIN: &str = "key-of-the-administrators";

struct Sandbox {
    child: Child,
    lambda: LambdaClient,
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

/// A sandbox with the collector as its one function.
fn start(folder: &Path, database: &str, webhook: &str) -> Sandbox {
    let function = folder.join("functions/collector");
    fs::create_dir_all(&function).unwrap();
    let keys = format!(
        "sha256:{} scopes=ingest name=functions; sha256:{} scopes=read,admin",
        SecretDigest::of(INGEST),
        SecretDigest::of(ADMIN)
    );
    // The files of the function are those that `cargo xtask package` puts into its zip.
    fs::copy(env!("CARGO_BIN_EXE_tailor"), function.join("tailor")).unwrap();
    let bootstrap = function.join("bootstrap");
    fs::write(&bootstrap, "#!/bin/sh\nexec \"$LAMBDA_TASK_ROOT/tailor\" lambda\n").unwrap();
    fs::set_permissions(&bootstrap, fs::Permissions::from_mode(0o755)).unwrap();
    let text = format!(
        "runtime = \"provided.al2023\"\nmemory_mb = 1769\ntimeout_s = 60\n\
         [environment]\nTAILOR_DATABASE = \"{}\"\nTAILOR_API_KEYS = \"{keys}\"\nTAILOR_LOG_FORMAT = \"json\"\n\
         TAILOR_WEBHOOK = \"{}\"\nTAILOR_WEBHOOK_FORMAT = \"slack\"\n",
        as_seen_by_functions(database),
        as_seen_by_functions(webhook)
    );
    fs::write(function.join("function.toml"), text).unwrap();
    let mut child = Command::new(tailor_test_kit::build::sandbox().unwrap())
        .args(["serve", "--listen", "127.0.0.1:0"])
        .arg("--data")
        .arg(folder.join("sandbox"))
        .arg("--functions")
        .arg(folder.join("functions"))
        .stdout(Stdio::piped())
        .stderr(fs::File::create(folder.join("sandbox.log")).unwrap())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().rsplit("http://").next().unwrap().to_owned();
    Sandbox { child, lambda: LambdaClient::new(&address) }
}

/// A receiver of events: its address, and the bodies of the requests.
fn receiver() -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (bodies, received) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let (mut length, mut line) = (0, String::new());
            while stream.read_line(&mut line).unwrap_or(0) > 2 {
                let lower = line.to_ascii_lowercase();
                if let Some(value) = lower.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            let _ = bodies.send(String::from_utf8(body).unwrap());
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            stream.get_mut().write_all(answer).unwrap();
        }
    });
    (url, received)
}

/// An event as a function URL sends it (payload format 2.0).
fn event(method: &str, path: &str, query: &str, headers: &Value, body: Option<&[u8]>) -> String {
    let mut event = json!({
        "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": query,
        "headers": { "host": "abc.lambda-url.eu-west-1.on.aws", "x-forwarded-proto": "https" },
        "requestContext": {
            "accountId": "anonymous", "apiId": "abc", "domainName": "abc.lambda-url.eu-west-1.on.aws",
            "domainPrefix": "abc", "requestId": "r", "routeKey": "$default", "stage": "$default",
            "time": "29/Nov/2026:10:00:00 +0000", "timeEpoch": 1_795_946_400_000_u64,
            "http": { "method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "203.0.113.9",
                      "userAgent": "test" }
        },
        "isBase64Encoded": body.is_some()
    });
    for (name, value) in headers.as_object().unwrap() {
        event["headers"][name] = value.clone();
    }
    if let Some(body) = body {
        event["body"] = STANDARD.encode(body).into();
        event["headers"]["content-length"] = body.len().to_string().into();
    }
    event.to_string()
}

#[test]
fn the_collector_runs_as_a_function_with_a_function_url() {
    if !PostgresServer::is_installed() {
        return skip("needs PostgreSQL");
    }
    let folder = tempfile::tempdir().unwrap();
    let server = PostgresServer::shared().unwrap();
    let database = server.new_database().unwrap();
    let (webhook, events) = receiver();
    let sandbox = start(folder.path(), &database, &webhook);
    let log = || fs::read_to_string(folder.path().join("sandbox.log")).unwrap_or_default();
    let invoke = |event: &str| {
        let response = sandbox.lambda.invoke("collector", event).unwrap();
        assert_eq!(response.function_error, None, "{:?}\n{}", response.payload, log());
        response.payload
    };
    let with_key = |key: &str| json!({ "authorization": format!("Bearer {key}") });
    let get = |path: &str, query: &str, key: &str| invoke(&event("GET", path, query, &with_key(key), None));

    assert_eq!(get("/healthz", "", "none")["statusCode"], 200);
    assert_eq!(get("/v1/functions", "", "unknown")["statusCode"], 401);
    assert_eq!(get("/v1/functions", "", INGEST)["statusCode"], 403);

    // A batch counts once, however often it is sent.
    let now_us = now_us();
    let body = batch(&KINDS[0], 1, 1, 25, now_us).encode().unwrap();
    let mut headers = with_key(INGEST);
    headers["content-type"] = agent_proto::CONTENT_TYPE.into();
    for _ in 0..2 {
        let response = invoke(&event("POST", "/v1/batches", "", &headers, Some(&body)));
        assert_eq!((&response["statusCode"], &response["isBase64Encoded"]), (&json!(200), &json!(true)));
        assert_eq!(response["headers"]["content-type"], agent_proto::CONTENT_TYPE);
    }
    let report = get("/v1/functions", "hours=24", ADMIN);
    let report: Value = serde_json::from_str(report["body"].as_str().unwrap()).unwrap();
    assert_eq!(report["total"]["invocations"], 25, "{report}");

    // A browser signs in over the TLS of the function URL.
    let form =
        json!({ "content-type": "application/x-www-form-urlencoded", "sec-fetch-site": "same-origin" });
    let signed_in = invoke(&event("POST", "/login", "", &form, Some(format!("key={ADMIN}").as_bytes())));
    assert_eq!(signed_in["statusCode"], 303);
    let cookies = signed_in["cookies"][0].as_str().unwrap().to_owned();
    assert!(cookies.contains("; Secure"), "{signed_in}");
    let cookie = json!({ "cookie": cookies.split(';').next().unwrap() });
    let page = invoke(&event("GET", "/keys", "", &cookie, None));
    let page = page["body"].as_str().unwrap();
    assert!(page.contains("203.0.113.9") && page.contains("functions") && !page.contains("Create a key"));

    // Tags cannot be stored.
    let mut tags = with_key(ADMIN);
    tags["content-type"] = "application/json".into();
    let refused = invoke(&event("PUT", "/v1/tags", "", &tags, Some(b"{}".as_slice())));
    assert_eq!(refused["statusCode"], 501, "{refused}");
    assert!(refused["body"].as_str().unwrap().contains("stores no tags that are sent"), "{refused}");

    // The event of a schedule does the maintenance; a request cannot.
    assert_eq!(get("/events", "", ADMIN)["statusCode"], 404);
    let pending = || server.sql(&database, "SELECT count(*) FROM tailor_pending").unwrap();
    let scheduled = json!({ "version": "0", "id": "e", "detail-type": "Scheduled Event", "source": "aws.events",
                            "account": "123456789012", "time": "2026-11-29T10:00:00Z", "region": "eu-west-1",
                            "resources": [], "detail": {} });
    invoke(&scheduled.to_string());
    assert_eq!(pending().trim(), "0");
    let summaries = server.sql(&database, "SELECT count(*) FROM tailor_summary").unwrap();
    assert_ne!(summaries.trim(), "0");
    let report = get("/v1/functions", "hours=24", ADMIN);
    let report: Value = serde_json::from_str(report["body"].as_str().unwrap()).unwrap();
    assert_eq!(report["total"]["invocations"], 25, "{report}");

    // It also sends what is new since the time before, once.
    let mut lost = batch(&KINDS[0], 2, 1, 5, now_us);
    lost.header.lost.invocations = 3;
    invoke(&event("POST", "/v1/batches", "", &headers, Some(&lost.encode().unwrap())));
    for _ in 0..2 {
        invoke(&scheduled.to_string());
    }
    let events: Vec<String> = events.try_iter().collect();
    assert_eq!(events.len(), 1, "{events:?}\n{}", log());
    assert!(events[0].contains("3 invocations lost before they were sent"), "{events:?}");
}

#[test]
fn the_function_names_what_its_configuration_lacks() {
    let run = |variables: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tailor"));
        let output = command.arg("lambda").envs(variables.iter().copied()).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(run(&[]).contains("use `tailor serve` on a machine"));
    let runtime = ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1");
    assert!(run(&[runtime]).contains("set TAILOR_DATABASE"));
    let otlp = run(&[runtime, ("TAILOR_OTLP_ENDPOINT", "http://localhost:4318")]);
    assert!(otlp.contains("sends no metrics as OTLP"), "{otlp}");
    // Settings of `tailor serve` that would be ignored.
    for (name, value, what) in [
        ("TAILOR_ARCHIVE", "s3://bucket/prefix", "writes no archive of invocations"),
        ("TAILOR_TAGS", "tags.csv", "has no tags of functions"),
        ("TAILOR_USAGE", "usage.json", "reads no file with usage"),
        ("TAILOR_TUNER", "apply", "does not run the tuner"),
    ] {
        let refused = run(&[runtime, (name, value)]);
        assert!(refused.contains(what) && refused.contains(&format!("Remove {name}, and ")), "{refused}");
    }
    assert!(run(&[runtime, ("TAILOR_TUNER", "off"), ("TAILOR_TAGS", "")]).contains("set TAILOR_DATABASE"));
    assert!(run(&[runtime, ("TAILOR_WEBHOOK", "https://example.com")]).contains("--webhook-secret-file"));
}
