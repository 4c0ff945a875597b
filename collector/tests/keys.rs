//! Keys over real HTTP: scopes, expiry, revocation without restart, and delays after unknown keys.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use common::fleet::{KINDS, batch};
use common::process::CollectorProcess;
use common::{Collector, KEY, OTHER_KEY};
use tailor_collector::clock::now_us;
use tailor_collector::keys::{FunctionPattern, Key, Scope, SecretDigest};
use tailor_collector::store::Tenant;

/// A collector that accepts a key with these scopes, in addition to the usual ones.
fn with_key(secret: &str, change: impl Fn(&mut Key)) -> Collector {
    Collector::start_configured(|app| {
        let mut ring = (*app.keys.get()).clone();
        let mut key = Key::without_scopes(SecretDigest::of(secret), Tenant::default());
        change(&mut key);
        ring.insert(key);
        app.keys.replace(ring);
    })
}

fn authorization(key: &str) -> String {
    format!("Authorization: Bearer {key}\r\n")
}

fn log_in(collector: &Collector, headers: &str, key: &str) -> common::Response {
    let form = format!("key={key}");
    collector.raw(
        format!(
            "POST /login HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
            form.len()
        )
        .as_bytes(),
    )
}

#[test]
fn a_key_of_the_functions_only_sends_for_its_functions() {
    let ingest = "ingest-only-0123456789";
    let collector = with_key(ingest, |key| {
        key.scopes = vec![Scope::Ingest];
        key.functions = vec![FunctionPattern("checkout-*".to_owned())];
    });
    let send =
        |kind| collector.post_batch_with(ingest, "", &batch(kind, 1, 1, 10, now_us()).encode().unwrap());
    assert_eq!(send(&KINDS[0]).status, 200);
    let refused = send(&KINDS[1]);
    assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (403, Some("function")));
    assert!(refused.text().contains(KINDS[1].name), "{}", refused.text());
    for path in [
        "/v1/functions",
        "/v1/changes",
        "/metrics",
        "/v1/functions/auth/invocations",
        "/v1/functions/auth/bill",
        "/v1/functions/auth/placement",
        "/v1/functions/auth/profiles",
    ] {
        let response = collector.get_with(path, &authorization(ingest));
        assert_eq!(
            (response.status, response.json()["error"]["code"].as_str()),
            (403, Some("scope")),
            "{path}"
        );
    }
    assert_eq!(collector.get_with("/", &authorization(ingest)).status, 303);
    assert_eq!(log_in(&collector, "", ingest).status, 403);
}

#[test]
fn a_reader_cannot_send_and_only_an_admin_sees_the_metrics_of_all_tenants() {
    let reader = "reader-0123456789abcdef";
    let collector = with_key(reader, |key| key.scopes = vec![Scope::Read]);
    let body = batch(&KINDS[0], 1, 1, 10, now_us()).encode().unwrap();
    assert_eq!(collector.post_batch_with(reader, "", &body).status, 403);
    assert_eq!(collector.get_with("/v1/functions", &authorization(reader)).status, 200);
    for (key, is_admin) in [(reader, false), (OTHER_KEY, false), (KEY, true)] {
        let metrics = collector.get_with("/metrics", &authorization(key));
        assert_eq!(metrics.status, 200, "{key}");
        assert_eq!(metrics.text().contains("tailor_batches_total"), is_admin, "{key}");
        assert!(metrics.text().contains("tailor_function_invocations_total"), "{key}");
    }
}

#[test]
fn an_expired_key_is_refused_with_the_reason() {
    let expired = "expired-0123456789abcdef";
    let collector = with_key(expired, |key| {
        key.expires_at_s = Some(1_700_000_000);
        key.name = "old one".to_owned();
    });
    let response = collector.get_with("/v1/functions", &authorization(expired));
    assert_eq!(response.status, 401);
    assert!(
        response.text().contains("old one") && response.text().contains("expired"),
        "{}",
        response.text()
    );
    assert_eq!(log_in(&collector, "", expired).status, 403);
}

#[test]
fn a_session_ends_when_its_key_is_revoked_and_at_sign_out() {
    let collector = Collector::start();
    let cookie = |response: &common::Response| {
        let head = response.head.lines().find(|line| line.to_ascii_lowercase().starts_with("set-cookie"));
        format!("Cookie: {}\r\n", head.unwrap().split([':', ';']).nth(1).unwrap().trim())
    };
    let (first, second) = (cookie(&log_in(&collector, "", KEY)), cookie(&log_in(&collector, "", KEY)));
    assert_eq!(collector.get_with("/v1/functions", &first).status, 200);
    let sign_out = |headers: &str| {
        let request =
            "POST /logout HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n";
        collector.raw(format!("{request}{headers}\r\n").as_bytes())
    };
    assert_eq!(sign_out(&format!("{first}Sec-Fetch-Site: cross-site\r\n")).status, 403);
    assert_eq!(collector.get_with("/v1/functions", &first).status, 200);
    assert_eq!(sign_out(&first).status, 303);
    assert_eq!(collector.get_with("/v1/functions", &first).status, 401);
    assert_eq!(collector.get_with("/v1/functions", &second).status, 200);
    collector.app.keys.replace(tailor_collector::keys::KeyRing::default());
    assert_eq!(collector.get_with("/v1/functions", &second).status, 401);
}

#[test]
fn another_site_cannot_sign_a_browser_in() {
    let collector = Collector::start();
    for headers in ["Sec-Fetch-Site: cross-site\r\n", "Origin: https://evil.example\r\n", "Origin: null\r\n"]
    {
        assert_eq!(log_in(&collector, headers, KEY).status, 403, "{headers}");
    }
    for headers in ["Sec-Fetch-Site: same-origin\r\n", "Origin: http://localhost\r\n"] {
        assert_eq!(log_in(&collector, headers, KEY).status, 303, "{headers}");
    }
}

#[test]
fn a_ticket_is_not_used_up_by_head() {
    let collector = Collector::start();
    let ticket = collector.app.sessions.issue_ticket(Tenant::default()).unwrap();
    let request = |method| {
        format!("{method} /login?ticket={ticket} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    };
    assert_eq!(collector.raw(request("HEAD").as_bytes()).status, 200);
    assert_eq!(collector.raw(request("GET").as_bytes()).status, 303);
}

#[test]
fn the_cookie_is_secure_behind_a_trusted_proxy_with_tls() {
    let forwarded = "X-Forwarded-Proto: https\r\nX-Forwarded-For: 203.0.113.9\r\n";
    let trusting =
        Collector::start_configured(|app| app.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()].into());
    assert!(log_in(&trusting, forwarded, KEY).head.contains("; Secure"));
    assert!(!log_in(&trusting, "", KEY).head.contains("; Secure"));
    assert!(!log_in(&Collector::start(), forwarded, KEY).head.contains("; Secure"));
}

#[test]
fn unknown_keys_are_delayed_and_known_keys_are_not() {
    let collector = Collector::start();
    let mut statuses = Vec::new();
    for number in 0..12 {
        statuses.push(log_in(&collector, "", &format!("wrong-{number}")).status);
    }
    assert_eq!((statuses[0], statuses[11]), (403, 429), "{statuses:?}");
    let start = Instant::now();
    assert_eq!(collector.get_with("/v1/functions", &authorization("wrong")).status, 401);
    assert!(start.elapsed() >= Duration::from_secs(2), "the answer is delayed");
    let body = batch(&KINDS[0], 1, 1, 10, now_us()).encode().unwrap();
    assert_eq!(collector.post_batch(&body).status, 200);
}

fn tailor(arguments: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tailor")).args(arguments).arg("--data").arg(folder).output().unwrap()
}

/// The status of the fleet's report with this key, which becomes `expected` within a few seconds.
fn becomes(collector: &CollectorProcess, key: &str, expected: u16) -> bool {
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let request = ureq::get(format!("{}/v1/functions", collector.address));
        let request = request.config().http_status_as_error(false).build();
        let status =
            request.header("Authorization", format!("Bearer {key}")).call().unwrap().status().as_u16();
        if status == expected || Instant::now() > deadline {
            return status == expected;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn keys_are_created_and_revoked_without_a_restart() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("data");
    // A folder of an operator that others may look into.
    std::fs::create_dir(&folder).unwrap();
    let operator = parent.path().join("operator-keys");
    std::fs::write(&operator, "mounted-key-0123456789\n").unwrap();
    let collector = CollectorProcess::start_as(
        Command::new(env!("CARGO_BIN_EXE_tailor")),
        &folder,
        &["--api-key-file", operator.to_str().unwrap()],
    );
    assert!(becomes(&collector, "mounted-key-0123456789", 200));
    let created = tailor(&["keys", "create", "--scopes", "read", "--name", "reader"], &folder);
    let key = String::from_utf8(created.stdout).unwrap().trim().to_owned();
    assert!(becomes(&collector, &key, 200));
    assert!(tailor(&["keys", "revoke", "reader"], &folder).status.success());
    assert!(becomes(&collector, &key, 401));

    // SIGHUP reloads, and an invalid file changes nothing.
    std::fs::write(&operator, "another-key-0123456789\n").unwrap();
    let hang_up = || Command::new("kill").args(["-HUP", &collector.child.id().to_string()]).status().unwrap();
    assert!(hang_up().success());
    assert!(becomes(&collector, "another-key-0123456789", 200));
    assert!(becomes(&collector, "mounted-key-0123456789", 401));
    std::fs::write(&operator, "short\n").unwrap();
    assert!(hang_up().success());
    let log = folder.with_extension("log");
    let deadline = Instant::now() + Duration::from_secs(10);
    while !std::fs::read_to_string(&log).unwrap().contains("cannot reload the API keys") {
        assert!(Instant::now() < deadline, "the error is logged");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(becomes(&collector, "another-key-0123456789", 200));

    for entry in std::fs::read_dir(&folder).unwrap() {
        use std::os::unix::fs::PermissionsExt;
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{:?} has the mode {mode:o}", entry.path());
    }
}

#[test]
fn the_first_start_creates_a_key_that_only_sends() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("data");
    let collector = CollectorProcess::start(&folder);
    let secret = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap().trim().to_owned();
    assert!(becomes(&collector, &secret("api-key"), 200));
    assert!(becomes(&collector, &secret("ingest-key"), 403));
}

#[test]
fn no_log_has_a_key() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("data");
    let mut traced = Command::new(env!("CARGO_BIN_EXE_tailor"));
    traced.env("TAILOR_LOG_LEVEL", "trace");
    let collector = CollectorProcess::start_as(traced, &folder, &[]);
    let secret = std::fs::read_to_string(folder.join("api-key")).unwrap().trim().to_owned();
    let unknown = "canary-of-an-unknown-key";
    for key in [&secret, unknown] {
        for _ in 0..12 {
            let request =
                ureq::get(format!("{}/v1/nothing", collector.address)).config().http_status_as_error(false);
            request.build().header("Authorization", format!("Bearer {key}")).call().unwrap();
            let login =
                ureq::post(format!("{}/login", collector.address)).config().http_status_as_error(false);
            login.max_redirects(0).build().send_form([("key", key)]).unwrap();
        }
    }
    assert!(tailor(&["keys", "create"], &folder).status.success());
    std::thread::sleep(Duration::from_secs(3));
    let log = std::fs::read_to_string(folder.with_extension("log")).unwrap();
    assert!(log.contains("unknown API keys") && log.contains("reloaded the API keys"), "{log}");
    assert!(!log.contains(&secret) && !log.contains(unknown), "{log}");
}
