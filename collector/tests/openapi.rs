//! The OpenAPI document: complete, valid, and true for a running server.
//!
//! The last test runs schemathesis, which generates requests from the document and checks the responses. It needs Python.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use common::fleet::{KINDS, batch};
use common::{Collector, KEY, history};
use serde_json::{Map, Value, json};
use tailor_collector::api::openapi::DOCUMENT;
use tailor_collector::clock::now_us;
use tailor_collector::keys::{Key, Scope, SecretDigest};
use tailor_collector::routes;
use tailor_collector::store::Tenant;
use tailor_test_kit::{python, skip};
use tokio::runtime::Runtime;

const READ_KEY: &str = "read-key-0123456789abcdef";
const INGEST_KEY: &str = "ingest-key-0123456789abcdef";

/// Python packages of the last test.
const PACKAGES: [&str; 2] = ["schemathesis==4.32.5", "openapi-spec-validator==0.9.0"];

fn document() -> Value {
    serde_json::from_str(DOCUMENT).unwrap()
}

/// The operations: path, method in lower case, and description.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    let operations = paths.flat_map(|(path, item)| {
        let item = item.as_object().unwrap().iter();
        item.map(|(method, operation)| (path.clone(), method.clone(), operation.clone())).collect::<Vec<_>>()
    });
    operations.collect()
}

/// A collector with functions, single invocations, a change, tags, and a key of each scope.
fn collector() -> Collector {
    let collector = Collector::start_configured(|app| {
        let mut ring = (*app.keys.get()).clone();
        for (secret, scope) in [(READ_KEY, Scope::Read), (INGEST_KEY, Scope::Ingest)] {
            let mut key = Key::without_scopes(SecretDigest::of(secret), Tenant::default());
            key.scopes = vec![scope];
            ring.insert(key);
        }
        app.keys.replace(ring);
    });
    Runtime::new().unwrap().block_on(history::write(&collector.store, 3, 3, 30, now_us()));
    let sent = collector.post_batch(&batch(&KINDS[0], 1, 1, 40, now_us()).encode().unwrap());
    assert_eq!(sent.status, 200);
    collector.app.tags.keep_sent(collector.folder.path()).unwrap();
    assert_eq!(put_tags(&collector, KEY, r#"{"checkout-price": {"team": "payments"}}"#).status, 200);
    collector
}

fn put_tags(collector: &Collector, key: &str, body: &str) -> common::Response {
    let head = format!(
        "PUT /v1/tags HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {key}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    collector.raw(head.as_bytes())
}

#[test]
fn the_document_has_every_route_and_no_other() {
    let served: BTreeSet<String> = routes::table()
        .into_iter()
        .filter(|route| !route.is_page)
        .map(|route| format!("{} {}", route.method, route.path))
        .collect();
    let documented: BTreeSet<String> = operations(&document())
        .into_iter()
        .map(|(path, method, _)| format!("{} {path}", method.to_uppercase()))
        .collect();
    let missing: Vec<_> = served.difference(&documented).collect();
    assert!(missing.is_empty(), "add to collector/openapi.json: {missing:?}");
    let unknown: Vec<_> = documented.difference(&served).collect();
    assert!(unknown.is_empty(), "these are in collector/openapi.json and not served: {unknown:?}");
    assert_eq!(document()["info"]["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn an_operation_needs_the_key_that_the_document_names() {
    let collector = collector();
    let request = |method: &str, path: &str, key: Option<&str>| {
        let key = key.map(|key| format!("Authorization: Bearer {key}\r\n")).unwrap_or_default();
        let head = format!(
            "{} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n{key}\r\n",
            method.to_uppercase()
        );
        collector.raw(head.as_bytes()).status
    };
    for (path, method, operation) in operations(&document()) {
        let path = path.replace("{name}", "checkout-price");
        let is_public = operation["security"].as_array().unwrap().is_empty();
        let without = request(&method, &path, None);
        assert_eq!(without == 401, !is_public, "{method} {path}: {without}");
        let described = operation["description"].as_str().unwrap();
        for (scope, key) in [("read", READ_KEY), ("ingest", INGEST_KEY)] {
            let is_permitted = is_public || described.contains(&format!("scope `{scope}`"));
            let status = request(&method, &path, Some(key));
            assert_eq!(status != 403, is_permitted, "{method} {path} with {scope}: {status}");
        }
        assert_ne!(request(&method, &path, Some(KEY)), 403, "{method} {path}");
    }
}

/// The schema that a schema refers to.
fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(pointer) => document.pointer(pointer.trim_start_matches('#')).unwrap(),
        None => schema,
    }
}

/// The fields of `value` that the schema does not have, as paths.
fn undocumented(document: &Value, schema: &Value, value: &Value, path: &str, found: &mut BTreeSet<String>) {
    let schema = resolved(document, schema);
    let choices = schema["anyOf"].as_array().or_else(|| schema["oneOf"].as_array());
    if let Some(choices) = choices {
        let of_choices = choices.iter().map(|choice| {
            let mut fields = BTreeSet::new();
            undocumented(document, choice, value, path, &mut fields);
            fields
        });
        found.extend(of_choices.min_by_key(BTreeSet::len).unwrap());
        return;
    }
    match value {
        Value::Object(fields) => {
            let nothing = Map::new();
            let known = schema["properties"].as_object().unwrap_or(&nothing);
            for (name, value) in fields {
                let path = format!("{path}.{name}");
                match known.get(name).or_else(|| schema.get("additionalProperties")) {
                    Some(schema) => undocumented(document, schema, value, &path, found),
                    None => {
                        found.insert(path);
                    }
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                undocumented(document, &schema["items"], item, &format!("{path}[]"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn every_field_of_a_response_is_documented() {
    let collector = collector();
    let document = document();
    let mut found = BTreeSet::new();
    let mut checked = 0;
    for (path, method, operation) in operations(&document) {
        let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
        // Without a bucket there are no profiles. `tests/profiles.rs` reads them.
        if method != "get"
            || schema.is_null()
            || path.ends_with("openapi.json")
            || path.ends_with("/profiles")
        {
            continue;
        }
        for name in ["checkout-price", &history::name(2)] {
            let with_query = if path.contains("functions/") { "" } else { "?by=account" };
            let with_query =
                if matches!(path.as_str(), "/version" | "/v1/changes") { "" } else { with_query };
            let response = collector.get(&(path.replace("{name}", name) + with_query));
            assert_eq!(response.status, 200, "{path}: {}", response.text());
            undocumented(&document, schema, &response.json(), &path, &mut found);
            checked += 1;
        }
    }
    assert!(checked > 10);
    assert!(found.is_empty(), "add to collector/openapi.json: {found:#?}");
}

#[test]
fn every_error_has_the_documented_body() {
    let collector = collector();
    for path in ["/v1/functions?hours=0", "/v1/functions/nowhere", "/v1/nowhere", "/v1/functions?cursor=1"] {
        let response = collector.get(path);
        assert!(response.status >= 400, "{path}");
        assert!(response.json()["error"]["code"].is_string(), "{path}: {}", response.text());
    }
    // A method that no route has: the answer names those that it has.
    let request = "DELETE /v1/tags HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let response = collector.raw(request.as_bytes());
    assert_eq!((response.status, response.json()["error"]["code"].as_str()), (405, Some("method")));
    assert!(response.head.to_ascii_lowercase().contains("allow: put"), "{}", response.head);
}

/// Generated requests, valid and invalid ones, with a key of each scope: no failure of the server, and every response as
/// documented.
#[test]
fn a_running_server_conforms_to_the_document() {
    let packages = match python::install("openapi-packages", &PACKAGES) {
        Ok(packages) => packages,
        Err(error) => return skip(&format!("needs python3 and {PACKAGES:?}: {error:#}")),
    };
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openapi");
    let collector = collector();
    let cursor = collector.get("/v1/functions?limit=1").json()["next"].as_str().unwrap().to_owned();
    let scratch = tempfile::tempdir().unwrap();
    let run = |folder: &Path, module: &[&str]| {
        let mut command = Command::new("python3");
        command.env("PYTHONPATH", &packages).env("PYTHONDONTWRITEBYTECODE", "1").current_dir(folder);
        let output = command.env("SCHEMATHESIS_HOOKS", data.join("hooks.py")).args(module).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{module:?}: {}", String::from_utf8_lossy(&text));
    };
    let check = data.join("check.py").display().to_string();
    run(scratch.path(), &[&check, &format!("{}/openapi.json", env!("CARGO_MANIFEST_DIR"))]);

    // `ignored_auth` sends many unknown keys, whose answers are delayed; a test above checks the same.
    let common = ["--checks", "all", "--continue-on-failure", "--no-color", "--seed", "1"];
    let address = format!("http://{}", collector.address);
    let document = format!("{address}/v1/openapi.json");
    let run_with = |key: &str, examples: &str| {
        let folder = scratch.path().join(key);
        std::fs::create_dir(&folder).unwrap();
        let configuration = folder.join("schemathesis.toml");
        let text = format!(
            "headers = {{ Authorization = \"Bearer {key}\" }}\n\
             # A window has one start: `hours` is generated, and a test of the commands has `since`.\n\
             parameters = {{ \"query.since\" = \"\" }}\n\
             [[operations]]\ninclude-path = \"/v1/functions\"\nparameters = {{ \"query.cursor\" = \"{cursor}\" }}\n"
        );
        std::fs::write(&configuration, text).unwrap();
        let configuration = configuration.display().to_string();
        let begin =
            ["-m", "schemathesis.cli", "--config-file", &configuration, "run", &document, "-u", &address];
        let phases = ["--phases", "examples,coverage,fuzzing", "-n", examples];
        let others = ["--exclude-path", "/v1/batches", "--exclude-checks", "ignored_auth"];
        run(&folder, &[&begin[..], &common, &phases, &others].concat());
        // No generated body is a batch.
        let batches =
            ["--include-path", "/v1/batches", "--exclude-checks", "ignored_auth,positive_data_acceptance"];
        run(&folder, &[&begin[..], &common, &phases, &batches].concat());
    };
    let run_with = &run_with;
    std::thread::scope(|threads| {
        for (key, examples) in [(KEY, "12"), (READ_KEY, "3"), (INGEST_KEY, "3")] {
            threads.spawn(move || run_with(key, examples));
        }
    });
}

#[test]
fn the_version_names_program_store_and_prices() {
    let collector = Collector::start();
    let version = collector.get("/version").json();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(version["store"], "sqlite");
    assert_eq!(version["store_schema"], json!(6));
    assert_eq!(version["prices_of"], collector.app.prices.compiled());
}
