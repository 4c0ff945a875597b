//! Conditional requests, compression and HEAD over real HTTP, and tags that a pipeline sends.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::Read;

use common::fleet::{KINDS, batch};
use common::{Collector, KEY, OTHER_KEY, Response};
use tailor_collector::clock::now_us;
use tailor_collector::keys::{Key, Scope, SecretDigest};
use tailor_collector::store::Tenant;
use tailor_collector::tags::CurrentTags;

fn collector() -> Collector {
    let collector = Collector::start();
    for kind in &KINDS {
        let sent = collector.post_batch(&batch(kind, 1, 1, 40, now_us()).encode().unwrap());
        assert_eq!(sent.status, 200);
    }
    collector
}

fn request(collector: &Collector, method: &str, path: &str, headers: &str) -> Response {
    collector.raw(
        format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {KEY}\r\n\
             {headers}\r\n"
        )
        .as_bytes(),
    )
}

fn header(response: &Response, name: &str) -> Option<String> {
    response.head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

/// Paths whose responses are compressed and have a tag. The last two change with the time: the length of the window until
/// now, and the time of the process.
const PATHS: [&str; 9] = [
    "/v1/functions",
    "/v1/functions/auth",
    "/v1/functions/auth/invocations",
    "/v1/openapi.json",
    "/assets/style.css",
    "/functions/auth",
    "/",
    "/v1/series?hours=24",
    "/metrics",
];

fn changes_with_time(path: &str) -> bool {
    PATHS[7..].contains(&path)
}

#[test]
fn responses_are_compressed_for_clients_that_accept_it() {
    let collector = collector();
    for path in PATHS {
        let plain = request(&collector, "GET", path, "");
        assert_eq!((plain.status, header(&plain, "content-encoding")), (200, None), "{path}");
        let gzip = request(&collector, "GET", path, "Accept-Encoding: gzip, br\r\n");
        assert_eq!(header(&gzip, "content-encoding").as_deref(), Some("gzip"), "{path}");
        assert!(header(&gzip, "vary").unwrap().contains("Accept-Encoding"), "{path}");
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(&gzip.body[..]).read_to_end(&mut text).unwrap();
        let zstd = request(&collector, "GET", path, "Accept-Encoding: gzip, zstd\r\n");
        assert_eq!(header(&zstd, "content-encoding").as_deref(), Some("zstd"), "{path}");
        let decoded = zstd::decode_all(&zstd.body[..]).unwrap();
        if !changes_with_time(path) {
            assert!(text == plain.body && decoded == plain.body, "{path}");
        }
        assert!(gzip.body.len() * 2 < plain.body.len(), "{path}: {} bytes", gzip.body.len());
        assert_eq!(header(&gzip, "content-length"), Some(gzip.body.len().to_string()), "{path}");
    }
}

#[test]
fn nothing_with_a_secret_and_nothing_for_another_site_is_compressed() {
    let collector = collector();
    for path in ["/login", "/logout"] {
        let response = request(&collector, "GET", path, "Accept-Encoding: gzip\r\n");
        assert_eq!(
            (header(&response, "content-encoding"), header(&response, "etag")),
            (None, None),
            "{path}"
        );
        assert_eq!(header(&response, "cache-control").as_deref(), Some("no-store"), "{path}");
    }
    for (site, coding) in
        [("cross-site", None), ("same-site", None), ("same-origin", Some("gzip")), ("none", Some("gzip"))]
    {
        let headers = format!("Accept-Encoding: gzip\r\nSec-Fetch-Site: {site}\r\n");
        let response = request(&collector, "GET", "/?name=auth", &headers);
        assert_eq!(header(&response, "content-encoding").as_deref(), coding, "{site}");
    }
    let small = request(&collector, "GET", "/version", "Accept-Encoding: gzip\r\n");
    assert_eq!((small.status, header(&small, "content-encoding")), (200, None));
}

#[test]
fn a_response_that_the_client_has_is_not_sent_again() {
    let collector = collector();
    for path in PATHS.into_iter().filter(|path| !changes_with_time(path)) {
        let first = request(&collector, "GET", path, "Accept-Encoding: gzip\r\n");
        let tag = header(&first, "etag").unwrap();
        let again = request(&collector, "GET", path, &format!("If-None-Match: \"x\", {tag}\r\n"));
        assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
        assert_eq!(header(&again, "etag"), Some(tag.clone()), "{path}");
        assert_eq!(header(&again, "content-encoding"), None, "{path}");
        let other = request(&collector, "GET", path, "If-None-Match: \"x\"\r\n");
        assert_eq!(other.status, 200, "{path}");
    }
    let tag = header(&request(&collector, "GET", "/v1/functions", ""), "etag").unwrap();
    let more = batch(&KINDS[0], 1, 2, 40, now_us());
    assert_eq!(collector.post_batch(&more.encode().unwrap()).status, 200);
    let changed = request(&collector, "GET", "/v1/functions", &format!("If-None-Match: {tag}\r\n"));
    assert_eq!(changed.status, 200);
    // An error has no tag.
    let error = request(&collector, "GET", "/v1/functions?hours=0", "If-None-Match: *\r\n");
    assert_eq!((error.status, header(&error, "etag")), (400, None));
}

#[test]
fn head_has_the_headers_of_get_and_no_body() {
    let collector = collector();
    for path in
        PATHS.into_iter().chain(["/version", "/healthz", "/readyz", "/login", "/v1/functions/nowhere"])
    {
        let get = request(&collector, "GET", path, "Accept-Encoding: gzip\r\n");
        let head = request(&collector, "HEAD", path, "Accept-Encoding: gzip\r\n");
        assert_eq!((head.status, head.body.len()), (get.status, 0), "{path}");
        for name in ["content-type", "etag", "content-encoding", "content-length", "cache-control"] {
            if !changes_with_time(path) || !matches!(name, "etag" | "content-length") {
                assert_eq!(header(&head, name), header(&get, name), "{path}: {name}");
            }
        }
    }
}

fn put(collector: &Collector, key: &str, headers: &str, body: &str) -> Response {
    collector.raw(
        format!(
            "PUT /v1/tags HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\
             Authorization: Bearer {key}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .as_bytes(),
    )
}

const JSON: &str = "Content-Type: application/json\r\n";

fn tags_of(collector: &Collector, name: &str) -> serde_json::Value {
    collector.get(&format!("/v1/functions?name={name}")).json()["functions"][0]["tags"].clone()
}

#[test]
fn tags_that_a_pipeline_sends_replace_those_of_the_named_functions_and_survive_a_restart() {
    let collector = collector();
    collector.app.tags.keep_sent(collector.folder.path()).unwrap();
    let sent =
        put(&collector, KEY, JSON, r#"{"auth": {"team": "a", "env": "prod"}, "thumbnails": {"team": "b"}}"#);
    assert_eq!((sent.status, sent.json()["functions"].as_u64()), (200, Some(2)), "{}", sent.text());
    assert_eq!(tags_of(&collector, "auth"), serde_json::json!({"team": "a", "env": "prod"}));
    // The same request again changes nothing; an ARN counts before the name; `{}` removes.
    let arn = "arn:aws:lambda:eu-west-1:123456789012:function:auth";
    let body = format!(r#"{{"{arn}": {{"team": "c"}}, "thumbnails": {{}}}}"#);
    for _ in 0..2 {
        assert_eq!(put(&collector, KEY, JSON, &body).json()["functions"].as_u64(), Some(2));
    }
    assert_eq!(tags_of(&collector, "auth"), serde_json::json!({"team": "c", "env": "prod"}));
    assert_eq!(tags_of(&collector, "thumbnails"), serde_json::json!({}));
    assert_eq!(collector.get("/v1/functions?tag=team=c").json()["matching_functions"], 1);
    // Another tenant does not see them.
    assert_eq!(put(&collector, OTHER_KEY, JSON, "{}").status, 403);
    let restarted = CurrentTags::default();
    restarted.keep_sent(collector.folder.path()).unwrap();
    assert_eq!(restarted.of(&Tenant::default()), collector.app.tags.of(&Tenant::default()));
    assert!(restarted.of(&Tenant("other".to_owned())).keys().is_empty());
}

#[test]
fn tags_that_are_not_valid_change_nothing() {
    let collector = collector();
    collector.app.tags.keep_sent(collector.folder.path()).unwrap();
    assert_eq!(put(&collector, KEY, JSON, r#"{"auth": {"team": "a"}}"#).status, 200);
    let many: String = (0..51).map(|number| format!("\"k{number}\":\"v\",")).collect();
    let many = format!("{{\"auth\":{{{}}}}}", many.trim_end_matches(','));
    let long = format!(r#"{{"auth":{{"k":"{}"}}}}"#, "v".repeat(257));
    let functions: String = (0..20_001).map(|number| format!("\"f{number}\":{{\"k\":\"v\"}},")).collect();
    let functions = format!("{{{}}}", functions.trim_end_matches(','));
    for (body, part) in [
        (many.as_str(), "at most 50 tags"),
        (&long, "more than 256 characters"),
        (&functions, "at most 20000 functions"),
        (r#"{"auth":{"a=b":"c"}}"#, "no `=`"),
        (r#"{"auth":{"":"c"}}"#, "is not a key"),
        (r#"{"":{"a":"c"}}"#, "has a name"),
        (r#"{"arn:aws:s3:::bucket":{}}"#, "the ARN of a function is"),
        (r#"{"auth":3}"#, "invalid type"),
        ("[]", "invalid type"),
        ("", "EOF"),
    ] {
        let response = put(&collector, KEY, JSON, body);
        assert_eq!(response.status, 400, "{part}: {}", response.text());
        assert!(response.text().contains(part), "{part}: {}", response.text());
    }
    let too_large = format!("{{\"a\":{{\"k\":\"{}\"}}}}", "v".repeat(5 << 20));
    assert_eq!(put(&collector, KEY, JSON, &too_large).status, 413);
    assert_eq!(put(&collector, KEY, "Content-Type: text/csv\r\n", "{}").status, 415);
    assert_eq!(put(&collector, KEY, &format!("{JSON}Content-Encoding: gzip\r\n"), "{}").status, 415);
    assert_eq!(tags_of(&collector, "auth"), serde_json::json!({"team": "a"}));
}

/// Local reads and keys without the scope `admin` may not write. Tags that cannot be stored are refused.
#[test]
fn only_a_key_with_the_scope_admin_sends_tags() {
    let reader = "reader-0123456789abcdef";
    let collector = Collector::start_configured(|app| {
        app.local_reads = true;
        let mut ring = (*app.keys.get()).clone();
        let mut key = Key::without_scopes(SecretDigest::of(reader), Tenant::default());
        key.scopes = vec![Scope::Read, Scope::Ingest];
        ring.insert(key);
        app.keys.replace(ring);
    });
    assert_eq!(put(&collector, reader, JSON, "{}").status, 403);
    let local = "PUT /v1/tags HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
                 Content-Length: 2\r\n\r\n{}";
    assert_eq!(collector.raw(local.as_bytes()).status, 401);
    // Without a folder they would be lost.
    let refused = put(&collector, KEY, JSON, r#"{"auth": {"team": "a"}}"#);
    assert_eq!(refused.status, 501, "{}", refused.text());
    assert!(refused.text().contains("stores no tags that are sent"), "{}", refused.text());
    assert_eq!(collector.app.tags.of(&Tenant::default()), CurrentTags::default().of(&Tenant::default()));
    collector.app.tags.keep_sent(collector.folder.path()).unwrap();
    assert_eq!(put(&collector, KEY, JSON, "{}").status, 200);
}
