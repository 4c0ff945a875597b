//! The page of the tuner: who may request what, and the two steps of each request, also in a real browser.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
#[path = "common/control_plane.rs"]
mod control_plane;
#[path = "common/faults.rs"]
mod faults;

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use common::{Collector, KEY, fleet, history};
use control_plane::ControlPlane;
use tailor_collector::changes::{self, Change, fleet as tuner_fleet};
use tailor_collector::clock::{Clock, now_us};
use tailor_collector::http::TunerView;
use tailor_collector::store::Tenant;
use tailor_collector::tuner::limits::Limits;
use tailor_collector::tuner::orders::Requests;
use tailor_collector::tuner::{Settings, Tuner};
use tailor_test_kit::skip;
use tokio::runtime::Runtime;

const BROWSER: &str = "/usr/bin/chromium-headless-shell";

/// The functions of the history with these numbers are reduced: one waits for an approval, the other was changed before.
const WAITING: usize = 8;
const CHANGED: usize = 2;

/// A collector with a tuner whose rounds are made by the test.
struct Tuned {
    runtime: Runtime,
    collector: Collector,
    tuner: Tuner,
    plane: Arc<ControlPlane>,
}

impl Tuned {
    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let requests = Requests::in_data_folder(folder.path());
        let view =
            TunerView { tenant: Tenant::default(), outlook: Arc::default(), requests: requests.clone() };
        let shown = view.clone();
        let collector = Collector::start_in(folder, |app| app.tuner = Some(shown));
        runtime.block_on(history::write(&collector.store, 12, 10, 96, now_us()));
        let plane = ControlPlane::new(Duration::ZERO);
        let memory = fleet::KINDS[2].memory;
        plane.add(&history::name(WAITING), memory, false);
        plane.set_tag(&history::name(WAITING), "tailor:approval", "required");
        plane.add(&history::name(CHANGED), memory / 2, false);
        let limits = Limits {
            evidence_us: 0,
            evidence_environments: 0,
            min_saving_usd_month: 0.0,
            after_deployment_us: 0,
            max_price_age_days: i64::MAX,
            ..Limits::default()
        };
        let settings =
            Settings { limits, orders: Some(requests), poll: Duration::ZERO, ..Settings::default() };
        let store = collector.store.shared();
        let prices = collector.app.prices.clone();
        let tuner = Tuner::new(store, Arc::clone(&plane) as _, prices, settings, Clock::system())
            .with_outlook(Arc::clone(&view.outlook));
        Self { runtime, collector, tuner, plane }
    }

    /// Rounds until what Lambda updates is in force.
    fn round(&self) {
        for _ in 0..3 {
            self.runtime.block_on(self.tuner.round()).unwrap();
            self.plane.lock().now_us += 3_000_000;
        }
    }

    fn events(&self) -> Vec<tailor_collector::store::ChangeEvent> {
        self.runtime.block_on(self.collector.store.changes(&Tenant::default(), None)).unwrap()
    }

    /// The latest change of a function.
    fn change(&self, number: usize) -> Option<Change> {
        let mut all = changes::fold(self.events());
        all.retain(|change| change.function.name == history::name(number));
        all.pop()
    }

    /// Posts a form with more headers. Returns the status and the text.
    fn post(&self, path: &str, headers: &str, form: &str) -> (u16, String) {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
            form.len()
        );
        let response = self.collector.raw(request.as_bytes());
        (response.status, format!("{}\r\n{}", response.head, response.text()))
    }

    /// The header with the cookie of a new session.
    fn session(&self) -> String {
        let (status, text) = self.post("/login", "", &format!("key={KEY}"));
        assert_eq!(status, 303, "{text}");
        let cookie = text.split("set-cookie: ").nth(1).unwrap().split(';').next().unwrap();
        format!("Cookie: {cookie}\r\n")
    }
}

#[test]
fn a_request_on_the_page_needs_an_admin_and_two_steps() {
    let tuned = Tuned::start();
    tuned.round();
    let name = history::name(WAITING);
    assert!(tuned.change(WAITING).is_none(), "it waits for an approval");
    let session = tuned.session();
    let page = tuned.collector.get_with("/changes", &session).text();
    assert!(
        page.contains("not-approved") && page.contains("Approve …") && page.contains("Roll back …"),
        "{page}"
    );
    // The key as a header reads the page, but a request of the page needs the session of a browser.
    let page = tuned.collector.get("/changes").text();
    assert!(page.contains("not-approved") && !page.contains("Approve …"), "{page}");

    let confirm = format!("/changes/confirm?action=approve&function={name}&change=");
    assert_eq!(tuned.collector.get(&confirm).status, 403);
    let confirmed = tuned.collector.get_with(&confirm, &session).text();
    assert!(confirmed.contains("2048 MB to 1536 MB"), "{confirmed}");
    let shown = confirmed.split("name=\"shown\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let form = format!("action=approve&function={name}&change=&shown={shown}");
    assert_eq!(tuned.post("/changes/request", "", &form).0, 403, "without a session");
    let cross_site = format!("{session}Sec-Fetch-Site: cross-site\r\n");
    assert_eq!(tuned.post("/changes/request", &cross_site, &form).0, 403, "from another site");
    let skipped = format!("action=approve&function={name}&change=&shown=");
    assert_eq!(tuned.post("/changes/request", &session, &skipped).0, 412, "without the first step");
    assert_eq!(tuned.post("/changes/request", &session, "action=delete").0, 400);
    assert_eq!(tuned.post("/changes/request", &session, &form).0, 303);

    // The approval is for what was shown: after a deployment nothing is changed.
    tuned.plane.foreign(&name, control_plane::Foreign::Code);
    tuned.round();
    assert!(tuned.change(WAITING).is_none());
    let confirmed = tuned.collector.get_with(&confirm, &session).text();
    let shown = confirmed.split("name=\"shown\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let form = format!("action=approve&function={name}&change=&shown={shown}");
    assert_eq!(tuned.post("/changes/request", &session, &form).0, 303);
    tuned.round();
    assert_eq!(tuned.change(WAITING).map(|change| (change.from.0, change.to.0)), Some((2_048, 1_536)));
}

#[test]
fn the_page_of_the_tuner_works_in_a_browser() {
    let modules = std::env::var_os("TAILOR_BROWSER_MODULES").map(PathBuf::from);
    let Some(modules) = modules.filter(|modules| modules.join("node_modules/axe-core").exists()) else {
        return skip(
            "the page of the tuner in a browser (TAILOR_BROWSER_MODULES names no folder with axe-core)",
        );
    };
    if !PathBuf::from(BROWSER).exists() {
        return skip("the page of the tuner in a browser (needs chromium-headless-shell)");
    }
    let tuned = Tuned::start();
    let browse = |actions: &str| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser/changes.mjs");
        let output = Command::new("node")
            .args([script, &format!("http://{}", tuned.collector.address), BROWSER, KEY, actions])
            .env("TAILOR_BROWSER_MODULES", &modules)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains("all steps passed"), "{text}");
    };
    tuned.round();
    browse("Approve,Roll back");
    tuned.round();
    assert_eq!(tuned.change(WAITING).map(|change| change.state.code()), Some("soaking"));
    assert_eq!(tuned.change(CHANGED).map(|change| change.state.code()), Some("rolled-back"));
    browse("Freeze");
    tuned.round();
    assert!(tuner_fleet::frozen(&tuned.events()).is_some());
    assert_eq!(tuned.change(WAITING).map(|change| change.state.code()), Some("frozen"));
    browse("Unfreeze");
    tuned.round();
    assert!(tuner_fleet::frozen(&tuned.events()).is_none());
}
