//! The web pages: external names are escaped, a key is required, and no external content is loaded.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use agent_proto::batch::Batch;
use common::fleet::{KINDS, batch};
use common::{Collector, KEY};
use tailor_collector::clock::now_us;

const HOSTILE_NAME: &str = "\"><script>alert(1)</script>' onload='x${y}|<img src=//evil>";

fn hostile_batch() -> Batch {
    let mut hostile = batch(&KINDS[1], 7, 1, 60, now_us());
    hostile.header.environment.function = HOSTILE_NAME.to_owned();
    hostile.header.environment.runtime = "<b>rt</b>".to_owned();
    hostile.header.environment.version = "<i>1</i>".to_owned();
    hostile.header.environment.account = "<u>acc</u>".to_owned();
    hostile
}

/// The only script of the pages.
const SCRIPT: &str = "<script src=\"/assets/search.js\" defer></script>";

/// Text with the HTML entities replaced that the pages use.
fn unescape(html: &str) -> String {
    let entities = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")];
    entities.iter().fold(html.to_owned(), |text, (entity, character)| text.replace(entity, character))
}

/// What a browser would interpret as markup in a name: elements that no page has, event handlers, attributes outside
/// of double quotes, and links to other schemes.
fn injected(html: &str) -> Vec<String> {
    let mut found = vec![];
    let html = html.replace(SCRIPT, "");
    let mut rest = html.as_str();
    while let Some((_, after)) = rest.split_once('<') {
        let name_length =
            after.find(|letter: char| !letter.is_ascii_alphanumeric() && !"/!".contains(letter));
        let (name, mut attributes) = after.split_at(name_length.unwrap_or(after.len()));
        let name = name.trim_matches('/').to_ascii_lowercase();
        if ["script", "img", "b", "i", "u", "iframe", "object", "embed", ""].contains(&name.as_str()) {
            found.push(format!("element {name}"));
        }
        loop {
            attributes = attributes.trim_start();
            let Some(end) = attributes.find(['=', '>', ' ', '\n']) else { return found };
            let (attribute, after) = attributes.split_at(end);
            if attribute.to_ascii_lowercase().starts_with("on") || attribute.contains(['"', '\'', '<']) {
                found.push(format!("attribute {attribute}"));
            }
            if let Some(value) = after.strip_prefix("=\"") {
                let Some((value, after)) = value.split_once('"') else { return found };
                let is_link = ["href", "src", "action", "formaction"].contains(&attribute);
                // `data:,` is the empty icon.
                if is_link && value != "data:," && !value.starts_with(['/', '?', '#']) {
                    found.push(format!("link {value}"));
                }
                attributes = after;
            } else if let Some(after) = after.strip_prefix('=') {
                found.push(format!("unquoted value of {attribute}"));
                attributes = after;
            } else if let Some(after) = after.strip_prefix('>') {
                rest = after;
                break;
            } else {
                attributes = after;
            }
        }
    }
    found
}

#[test]
fn an_event_handler_from_a_name_is_found() {
    let link = |name: &str| format!("<a title=\"{name}\" href=\"/functions/x\">x</a>");
    assert_eq!(injected(&link("&quot; onload=&quot;x")), [""; 0]);
    assert_eq!(injected(&link("\" onload=\"x")), ["attribute onload"]);
    assert_eq!(
        injected(&link("\" onload='x' y=\"")),
        ["attribute onload", "unquoted value of onload", "attribute 'x'"]
    );
}

#[test]
fn external_names_are_escaped() {
    let collector = Collector::start();
    assert_eq!(collector.post_batch(&hostile_batch().encode().unwrap()).status, 200);
    let fleet = collector.get("/");
    assert_eq!(fleet.status, 200);
    let link = fleet.text().split("href=\"").find(|part| part.starts_with("/functions/")).unwrap().to_owned();
    let link = link.split('"').next().unwrap().replace("&amp;", "&");
    let page = collector.get(&link);
    assert_eq!(page.status, 200, "{link}");
    for text in [fleet.text(), page.text()] {
        assert_eq!(injected(&text), [""; 0]);
        let unescaped = unescape(&text);
        assert!(unescaped.contains(HOSTILE_NAME), "the page shows the name as text");
        for element in ["script", "img"] {
            assert!(
                injected(&unescaped).contains(&format!("element {element}")),
                "the check finds {element}"
            );
        }
        assert!(!text.contains("http://") && !text.contains("https://") && !text.contains("style=\""));
    }
    for response in [fleet, page, collector.get("/login"), collector.get("/v1/functions")] {
        let head = response.head.to_ascii_lowercase();
        assert!(head.contains("content-security-policy: default-src 'none'"), "{head}");
        assert!(head.contains("x-content-type-options: nosniff"), "{head}");
        // With `no-referrer`, browsers send `Origin: null` with the pages' own forms, which are then refused.
        assert!(head.contains("referrer-policy: same-origin"), "{head}");
    }
    let missing = collector.get("/functions/%3Cscript%3Ealert(2)%3C%2Fscript%3E");
    assert_eq!(missing.status, 404);
    assert!(!missing.text().replace(SCRIPT, "").contains("<script"));
    let markdown = collector.get("/v1/functions?format=markdown").text();
    assert!(!markdown.contains("<script") && markdown.contains("\\|"), "{markdown}");
}

#[test]
fn every_kind_of_function_has_its_page_and_text() {
    let collector = Collector::start();
    for (kind, id) in KINDS.iter().zip(1..) {
        assert_eq!(collector.post_batch(&batch(kind, id, 1, 120, now_us()).encode().unwrap()).status, 200);
    }
    let mut unpriced = batch(&KINDS[0], 99, 1, 3, now_us());
    unpriced.header.environment.region = "mars-north-1".to_owned();
    assert_eq!(collector.post_batch(&unpriced.encode().unwrap()).status, 200);

    for kind in &KINDS[1..] {
        let page = collector.get(&format!("/functions/{}", kind.name));
        assert_eq!(page.status, 200);
        let text = page.text();
        assert!(text.contains("<polyline class=\"expected\"") && !text.contains("NaN"), "{}", kind.name);
    }
    assert_eq!(collector.get(&format!("/functions/{}", KINDS[0].name)).status, 409);
    let page = collector.get(&format!("/functions/{}?region=mars-north-1", KINDS[0].name)).text();
    assert!(
        page.contains("No recommendation")
            && page.contains("no x86_64 price is known for region mars-north-1"),
        "{page}"
    );

    let table = collector.get("/v1/functions?format=table").text();
    assert!(table.lines().all(|line| line.chars().count() <= 120), "{table}");
    assert!(table.contains("cpu-starved") && table.contains("memory-overprovisioned"), "{table}");
    let csv = collector.get("/v1/functions?format=csv").text();
    assert_eq!(csv.lines().count(), 1 + KINDS.len() + 1);
}

/// Managed instances are billed per instance, and several invocations share one at the same time.
#[test]
fn managed_instances_have_neither_cost_nor_advice() {
    let collector = Collector::start();
    let mut managed = batch(&KINDS[0], 1, 1, 120, now_us());
    managed.header.environment.initialization_type = agent_proto::batch::InitializationType::ManagedInstances;
    assert_eq!(collector.post_batch(&managed.encode().unwrap()).status, 200);
    let functions: serde_json::Value = serde_json::from_str(&collector.get("/v1/functions").text()).unwrap();
    let function = &functions["functions"][0];
    assert_eq!(
        (&function["invocations"], &function["cost_pico_usd"]),
        (&120.into(), &serde_json::Value::Null)
    );
    let reason = function["advice"]["reasons"][0].as_str().unwrap();
    assert!(reason.starts_with("no advice for managed instances"), "{function}");
    let page = collector.get(&format!("/functions/{}", KINDS[0].name)).text();
    assert!(page.contains("No recommendation") && !page.contains("NaN"), "{page}");
}

#[test]
fn a_browser_session_starts_with_a_key_or_a_one_time_ticket() {
    let collector = Collector::start();
    let cookie = |head: &str| {
        let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with("set-cookie:"))?;
        assert!(line.contains("HttpOnly") && line.contains("SameSite=Lax"), "{line}");
        Some(line.split([':', ';']).nth(1)?.trim().to_owned())
    };
    let log_in = |form: &str| {
        let request = format!(
            "POST /login HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
            form.len()
        );
        collector.raw(request.as_bytes())
    };
    assert_eq!(log_in("key=wrong").status, 403);
    let signed_in = log_in(&format!("key={KEY}"));
    assert_eq!(signed_in.status, 303);
    let session = cookie(&signed_in.head).unwrap();
    assert_eq!(collector.get_with("/", &format!("Cookie: a=b; {session}\r\n")).status, 200);
    assert_eq!(collector.get_with("/v1/functions", &format!("Cookie: {session}\r\n")).status, 200);
    assert_eq!(collector.get_with("/", "Cookie: tailor_session=0000\r\n").status, 303);

    let ticket = collector.app.sessions.issue_ticket(tailor_collector::store::Tenant::default()).unwrap();
    let first = collector.get_with(&format!("/login?ticket={ticket}"), "");
    assert_eq!(first.status, 303);
    assert!(cookie(&first.head).is_some());
    let second = collector.get_with(&format!("/login?ticket={ticket}"), "");
    assert_eq!(second.status, 200);
    assert!(second.text().contains("used already"));
}

#[test]
fn local_reads_need_no_key_and_a_local_host_name() {
    let collector = Collector::start_with(true);
    assert_eq!(collector.get_with("/", "").status, 200);
    let rebound =
        collector.raw(b"GET /v1/functions HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
    assert_eq!(rebound.status, 401);
    let body = batch(&KINDS[0], 1, 1, 1, now_us()).encode().unwrap();
    assert_eq!(collector.post_batch_with("wrong", "", &body).status, 401);
}

#[test]
fn an_invalid_query_gets_an_error_page_or_an_error_object() {
    let collector = Collector::start_with(true);
    let page = collector.get("/?hours=abc");
    assert_eq!(page.status, 400);
    assert!(
        page.text().contains("<html") && page.text().contains("cannot read the query"),
        "{}",
        page.text()
    );
    let api = collector.get("/v1/functions?hours=abc");
    assert_eq!(api.status, 400);
    assert_eq!(api.json()["error"]["code"], "query");
    assert!(api.json()["error"]["message"].as_str().unwrap().contains("hours"), "{}", api.text());
}

#[test]
fn unknown_and_invalid_parameters_are_errors_that_name_them() {
    let collector = Collector::start();
    for (query, name) in [
        ("hour=24", "hour"),
        ("hours=0", "hours"),
        ("hours=-1", "hours"),
        ("hours=1&hours=2", "hours"),
        ("weight=2", "weight"),
        ("weight=NaN", "weight"),
        ("strategy=luck", "strategy"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("width=1", "width"),
        ("format=xml", "format"),
    ] {
        for path in [
            "/v1/functions",
            "/v1/functions/x",
            "/v1/functions/x/invocations",
            "/v1/functions/x/profiles",
            "/v1/changes",
            "/v1/reconciliation",
        ] {
            // The strategy is only read where it is used.
            if name == "strategy" && path != "/v1/functions" {
                continue;
            }
            let response = collector.get(&format!("{path}?{query}"));
            assert_eq!(response.status, 400, "{path}?{query}: {}", response.text());
            let message = response.json()["error"]["message"].as_str().unwrap().to_owned();
            assert!(message.contains(name), "{path}?{query}: {message}");
        }
    }
}

#[test]
fn every_error_of_the_api_is_an_error_object() {
    let collector = Collector::start();
    for path in [
        "/v1/functions/%FF",
        "/v1/functions/%FF/invocations",
        "/v1/functions/a/profiles/%FF",
        "/v1/nothing",
        "/v1/functions?%FF",
    ] {
        let response = collector.get(path);
        assert!(response.status >= 400, "{path}");
        assert!(response.json()["error"]["code"].is_string(), "{path}: {}", response.text());
    }
    assert!(collector.get("/functions/%FF").text().contains("<html"));
    let no_key =
        "POST /login HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 3\r\n\r\na=b";
    let response = collector.raw(no_key.as_bytes());
    assert!(response.status == 400 && response.text().contains("<html"), "{}", response.text());
}

#[test]
fn names_are_neither_formulas_nor_links_in_exports() {
    let collector = Collector::start();
    let names = [" =1+1", "\u{ff1d}1+1", "[x](javascript:alert(1))", "=cmd|'/c calc'!A1"];
    for (id, name) in (1..).zip(names) {
        let mut batch = batch(&KINDS[0], id, 1, 10, now_us());
        batch.header.environment.function = name.to_owned();
        assert_eq!(collector.post_batch(&batch.encode().unwrap()).status, 200, "{name}");
    }
    let csv = collector.get("/v1/functions?format=csv").text();
    for line in csv.lines().skip(1) {
        let cell = line.trim_start_matches('"');
        assert!(cell.starts_with('\'') || cell.starts_with('['), "{line}");
    }
    let markdown = collector.get("/v1/functions?format=markdown").text();
    assert!(markdown.contains("\\[x\\](javascript") && !markdown.contains("| [x]"), "{markdown}");
}
