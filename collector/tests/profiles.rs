//! Presigned uploads and downloads of profiles, with a real S3 server.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;

use common::fleet::{KINDS, batch, environment};
use common::process::CollectorProcess;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tailor_collector::clock::now_us;
use tailor_test_kit::s3::S3Server;
use tailor_test_kit::skip;

const INGEST: &str = "ingest-0123456789abcdef";
const READER: &str = "reader-0123456789abcdef";
const REQUEST: &str = "3f2504e0-4f89-41d3-9a0c-0305e82c3301";

/// Status and body of a response, and its `location`.
struct Answer {
    status: u16,
    body: Value,
    location: String,
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0).build().into()
}

fn answer(response: ureq::http::Response<ureq::Body>) -> Answer {
    let status = response.status().as_u16();
    let location = response.headers().get("location").map_or("", |value| value.to_str().unwrap()).to_owned();
    let text = response.into_body().read_to_string().unwrap();
    Answer { status, body: serde_json::from_str(&text).unwrap_or(Value::String(text)), location }
}

fn post(collector: &CollectorProcess, key: &str, profile: &Value) -> Answer {
    let request = agent().post(format!("{}/v1/profiles", collector.address));
    answer(request.header("authorization", format!("Bearer {key}")).send(profile.to_string()).unwrap())
}

fn get(collector: &CollectorProcess, key: &str, path: &str) -> Answer {
    let request = agent().get(format!("{}{path}", collector.address));
    answer(request.header("authorization", format!("Bearer {key}")).call().unwrap())
}

/// Uploads `content` as the ticket requires. Returns the status of S3.
fn upload(ticket: &Value, content: &[u8]) -> u16 {
    let mut request = agent().put(ticket["url"].as_str().unwrap());
    for (name, value) in ticket["headers"].as_object().unwrap() {
        request = request.header(name, value.as_str().unwrap());
    }
    request.send(content).unwrap().status().as_u16()
}

fn profile(name: &str, content: &[u8], completed_at_us: u64) -> Value {
    let environment = environment(&KINDS[0], 1);
    let sha256 = hex::encode(Sha256::digest(content));
    json!({
        "account": environment.account, "region": environment.region, "function": environment.function,
        "memory_mb": 512, "request_id": REQUEST, "name": name, "bytes": content.len(), "sha256": sha256,
        "completed_at_us": completed_at_us,
    })
}

/// A collector with the bucket `bucket`, that has measurements of the function.
fn start(server: &S3Server, folder: &tempfile::TempDir, bucket: &str, per_hour: &str) -> CollectorProcess {
    let keys = folder.path().join("keys.txt");
    let function = KINDS[0].name;
    std::fs::write(&keys, format!("{INGEST} scopes=ingest functions={function}\n{READER} scopes=read\n"))
        .unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_tailor"));
    program.envs(server.environment());
    let location = format!("s3://{bucket}/some/prefix");
    let arguments =
        ["--api-key-file", keys.to_str().unwrap(), "--profiles", &location, "--profiles-per-hour", per_hour];
    let collector = CollectorProcess::start_as(program, &folder.path().join("data"), &arguments);
    let body = batch(&KINDS[0], 1, 1, 150, now_us()).encode().unwrap();
    let sent = agent()
        .post(format!("{}/v1/batches", collector.address))
        .header("authorization", format!("Bearer {INGEST}"))
        .header("content-type", agent_proto::CONTENT_TYPE)
        .send(&body[..]);
    assert_eq!(sent.unwrap().status().as_u16(), 200);
    collector
}

/// The server that the tests share.
fn server() -> Option<Arc<S3Server>> {
    let server = S3Server::shared();
    server.inspect_err(|error| skip(&format!("needs an S3 server: {error:#}"))).ok()
}

#[test]
fn a_presigned_url_is_for_one_file_and_a_download_needs_the_scope_to_read() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = server() else { return };
    server.create_bucket("profiles").unwrap();
    let collector = start(&server, &folder, "profiles", "3");
    let (name, now_us) = (KINDS[0].name, now_us());
    let list = format!("/v1/functions/{name}/profiles");
    assert_eq!(get(&collector, READER, &list).body, json!({ "profiles": [] }));

    let content = b"a profile";
    let ticket = post(&collector, INGEST, &profile("cpu.pprof", content, now_us));
    assert_eq!(ticket.status, 200, "{}", ticket.body);
    assert_eq!(fields(&ticket.body), documented("ProfileUpload"));
    assert_eq!(upload(&ticket.body, b"a profilf"), 400, "another content");
    assert_eq!(upload(&ticket.body, b"a profile and more"), 403, "another length");
    assert_eq!(get(&collector, READER, &list).body, json!({ "profiles": [] }));
    assert_eq!(upload(&ticket.body, content), 200);
    // The same again, as after a lost answer, is the same object.
    let again = post(&collector, INGEST, &profile("cpu.pprof", content, now_us));
    assert_eq!(upload(&again.body, content), 200);

    let older =
        post(&collector, INGEST, &profile("older.jfr", b"older", now_us - 3 * 24 * 3_600 * 1_000_000));
    assert_eq!(upload(&older.body, b"older"), 200);
    let listed = get(&collector, READER, &list).body;
    let profiles = listed["profiles"].as_array().unwrap();
    let names: Vec<_> = profiles.iter().map(|profile| profile["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["cpu.pprof", "older.jfr"], "the newest first");
    let newest = &profiles[0];
    assert_eq!((fields(newest), fields(&listed)), (documented("Profile"), documented("Profiles")));
    assert_eq!((&newest["bytes"], &newest["format"]), (&json!(9), &json!("pprof")));
    assert_eq!((&newest["request_id"], &newest["memory_mb"]), (&json!(REQUEST), &json!(512)));

    let path = newest["download"].as_str().unwrap();
    let report = get(&collector, READER, &format!("/v1/functions/{name}")).body;
    let hints = report["advice"]["full"]["hints"].as_array().unwrap();
    let starved = hints.iter().find(|hint| hint["code"] == "cpu-starved").unwrap();
    let action = starved["action"].as_str().unwrap();
    assert!(
        action.contains(&format!("the newest profile is cpu.pprof of request {REQUEST}: {path}")),
        "{action}"
    );
    assert!(report["advice"]["reasons"].to_string().contains(action), "{report}");
    let redirect = get(&collector, READER, path);
    assert_eq!(redirect.status, 303, "{}", redirect.body);
    let download = agent().get(&redirect.location).call().unwrap();
    let disposition = download.headers()["content-disposition"].to_str().unwrap().to_owned();
    assert!(disposition.contains("cpu.pprof"), "{disposition}");
    assert_eq!(download.into_body().read_to_vec().unwrap(), content);
    for (key, path, status) in [
        (INGEST, path, 403),
        (INGEST, list.as_str(), 403),
        ("unknown-0123456789abcdef", path, 401),
        (READER, &format!("{list}/..%2F..%2Fsecret"), 404),
        (READER, "/v1/functions/unknown/profiles", 404),
    ] {
        assert_eq!(get(&collector, key, path).status, status, "{key} {path}");
    }

    let refused = |key, profile: &Value| {
        let answer = post(&collector, key, profile);
        (answer.status, answer.body["error"]["code"].as_str().unwrap_or_default().to_owned())
    };
    let mut foreign = profile("cpu.pprof", content, now_us);
    foreign["function"] = KINDS[1].name.into();
    assert_eq!(refused(INGEST, &foreign), (403, "function".to_owned()));
    assert_eq!(refused(READER, &profile("cpu.pprof", content, now_us)), (403, "scope".to_owned()));
    assert_eq!(refused(INGEST, &json!({ "name": "x".repeat(5_000) })).0, 413);
    assert_eq!(refused(INGEST, &json!([])), (400, "profile".to_owned()));
    assert_eq!(refused(INGEST, &profile("more.jfr", content, now_us)), (409, "profile_limit".to_owned()));
}

/// The names of the fields of a schema of the API's document.
fn documented(schema: &str) -> BTreeSet<String> {
    let document: Value = serde_json::from_str(include_str!("../openapi.json")).unwrap();
    fields(&document["components"]["schemas"][schema]["properties"])
}

fn fields(value: &Value) -> BTreeSet<String> {
    value.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn the_policy_permits_what_profiles_need_and_nothing_else() {
    let policy = include_str!("../../docs/iam/profiles.json");
    let policy: Value = serde_json::from_str(policy).unwrap();
    let mut permitted: Vec<&str> = policy["Statement"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|statement| match &statement["Action"] {
            Value::Array(actions) => actions.iter().map(|action| action.as_str().unwrap()).collect(),
            action => vec![action.as_str().unwrap()],
        })
        .collect();
    permitted.sort_unstable();
    let source = include_str!("../src/profiles/mod.rs");
    let needed: Vec<&str> = [
        ("s3.presign_get(", "s3:GetObject"),
        ("s3.page(", "s3:ListBucket"),
        ("s3.presign_put(", "s3:PutObject"),
    ]
    .into_iter()
    .filter_map(|(call, action)| source.contains(call).then_some(action))
    .collect();
    let calls: usize = ["self.s3.", "self.upload_s3."].iter().map(|call| source.matches(call).count()).sum();
    assert_eq!((permitted, calls), (needed, 3));
}

#[test]
fn a_check_of_the_settings_lists_the_buckets() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = server() else { return };
    server.create_bucket("profiles").unwrap();
    let check = |endpoint: &str| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_tailor"));
        program
            .args(["serve", "--check", "--listen", "127.0.0.1:0", "--data"])
            .arg(folder.path().join("data"));
        program.args(["--profiles", "s3://profiles/p", "--archive", "s3://profiles/a"]);
        let output = program.envs(server.environment()).env("TAILOR_S3_ENDPOINT", endpoint).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let (is_valid, found) = check(&server.url());
    for line in ["ok       archive: s3://profiles/a can", "ok       profiles: s3://profiles/p can"] {
        assert!(is_valid && found.contains(line), "{found}");
    }
    let (is_valid, found) = check("http://127.0.0.1:9");
    assert!(!is_valid && found.contains("error    profiles: cannot list s3://profiles/p: "), "{found}");
}

#[test]
fn a_report_is_complete_when_its_profiles_cannot_be_listed() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = server() else { return };
    let collector = start(&server, &folder, "no-such-bucket", "3");
    let name = KINDS[0].name;
    let report = get(&collector, READER, &format!("/v1/functions/{name}"));
    assert_eq!((report.status, &report.body["invocations"]), (200, &json!(150)));
    let caveats = report.body["caveats"].to_string();
    let listed = get(&collector, READER, &format!("/v1/functions/{name}/profiles"));
    // Some servers answer with an empty list where there is no bucket.
    if listed.status == 503 {
        assert!(caveats.contains("profiles cannot be listed"), "{caveats}");
        assert!(listed.body.to_string().contains("no-such-bucket"), "{}", listed.body);
    } else {
        assert_eq!(report.body["profiles"], json!([]));
    }
}
