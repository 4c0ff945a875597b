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
use tailor_collector::store::{ChangeEvent, FunctionKey, Tenant};
use tailor_collector::tuner::limits::Limits;
use tailor_collector::tuner::plan::PlannedFunction;
use tailor_collector::tuner::requests::{self, RequestStore};
use tailor_collector::tuner::{Settings, Tuner};
use tailor_test_kit::skip;
use tokio::runtime::Runtime;

const BROWSER: &str = "/usr/bin/chromium-headless-shell";

/// The functions of the history with these numbers are reduced: one waits for an approval, the other was changed before.
const WAITING: usize = 8;
const CHANGED: usize = 2;

/// The change of the history.
const CHANGE: &str = "00000001";

/// The fields of an action on a function.
fn fields(action: &str, key: &FunctionKey, change: &str) -> String {
    let FunctionKey { account, region, name } = key;
    format!("action={action}&function={name}&account={account}&region={region}&change={change}")
}

/// The function with this name in another region.
fn twin(key: &FunctionKey) -> FunctionKey {
    FunctionKey { region: "us-east-1".to_owned(), ..key.clone() }
}

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
        let requests = RequestStore::in_data_folder(folder.path());
        let view =
            TunerView { tenant: Tenant::default(), latest_round: Arc::default(), requests: requests.clone() };
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
            Settings { limits, requests: Some(requests), poll: Duration::ZERO, ..Settings::default() };
        let store = collector.store.shared();
        let prices = collector.app.prices.clone();
        let tuner = Tuner::new(store, Arc::clone(&plane) as _, prices, settings, Clock::system())
            .with_latest_round(Arc::clone(&view.latest_round));
        Self { runtime, collector, tuner, plane }
    }

    /// Rounds until what Lambda updates is in force.
    fn round(&self) {
        for _ in 0..3 {
            self.runtime.block_on(self.tuner.round()).unwrap();
            self.plane.lock().now_us += 3_000_000;
        }
    }

    fn events(&self) -> Vec<ChangeEvent> {
        self.runtime.block_on(self.collector.store.changes(&Tenant::default(), None)).unwrap()
    }

    /// The latest change of a function.
    fn change(&self, number: usize) -> Option<Change> {
        let mut all = changes::fold(self.events());
        all.retain(|change| change.function.name == history::name(number));
        all.pop()
    }

    /// The state of the change of the history of a function.
    fn state(&self, key: &FunctionKey) -> Option<&'static str> {
        let all = changes::fold(self.events());
        let found = all.iter().find(|change| change.function == *key && change.id == CHANGE);
        found.map(|change| change.state.code())
    }

    /// The twin of the changed function, with the same changes.
    fn add_twin(&self) -> FunctionKey {
        let own = history::key(CHANGED);
        for event in self.events().into_iter().filter(|event| event.function == own) {
            let event = ChangeEvent { function: twin(&own), ..event };
            self.runtime.block_on(self.collector.store.log_change(&Tenant::default(), &event)).unwrap();
        }
        twin(&own)
    }

    /// The first step of an action. Returns its page, and the form of the second step.
    fn confirm(&self, session: &str, fields: &str) -> (String, String) {
        let page = self.collector.get_with(&format!("/changes/confirm?{fields}"), session).text();
        let shown = page.split("name=\"shown\" value=\"").nth(1).unwrap_or_else(|| panic!("{page}"));
        let shown = shown.split('"').next().unwrap();
        let form = format!("{fields}&shown={shown}");
        (page, form)
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

    let approve = fields("approve", &history::key(WAITING), "");
    assert_eq!(tuned.collector.get(&format!("/changes/confirm?{approve}")).status, 403);
    let (confirmed, form) = tuned.confirm(&session, &approve);
    assert!(confirmed.contains("2048 MB to 1741 MB"), "{confirmed}");
    assert_eq!(tuned.post("/changes/request", "", &form).0, 403, "without a session");
    let cross_site = format!("{session}Sec-Fetch-Site: cross-site\r\n");
    assert_eq!(tuned.post("/changes/request", &cross_site, &form).0, 403, "from another site");
    let skipped = format!("{approve}&shown=");
    assert_eq!(tuned.post("/changes/request", &session, &skipped).0, 412, "without the first step");
    assert_eq!(tuned.post("/changes/request", &session, "action=delete").0, 400);
    assert_eq!(tuned.post("/changes/request", &session, &form).0, 303);

    // The approval is for what was shown: after a deployment nothing is changed.
    tuned.plane.foreign(&name, control_plane::Foreign::Code);
    tuned.round();
    assert!(tuned.change(WAITING).is_none());
    let (_, form) = tuned.confirm(&session, &approve);
    assert_eq!(tuned.post("/changes/request", &session, &form).0, 303);
    tuned.round();
    assert_eq!(tuned.change(WAITING).map(|change| (change.from.0, change.to.0)), Some((2_048, 1_741)));
}

#[test]
fn a_rollback_on_the_page_concerns_one_account_and_region() {
    let tuned = Tuned::start();
    let (own, twin) = (history::key(CHANGED), tuned.add_twin());
    let session = tuned.session();
    let page = tuned.collector.get_with("/changes", &session).text();
    for key in [&own, &twin] {
        let action = format!("/changes/confirm?{}", fields("rollback", key, CHANGE));
        assert!(page.contains(&action.replace('&', "&amp;")), "{action}: {page}");
        let place = format!("region={}&amp;account={}\"", key.region, key.account);
        assert!(page.contains(&place), "{place}: {page}");
    }
    let by_name = format!("/changes/confirm?action=rollback&function={}&change={CHANGE}", own.name);
    assert_eq!(tuned.collector.get_with(&by_name, &session).status, 404, "the name alone names no function");
    let (confirmed, form) = tuned.confirm(&session, &fields("rollback", &twin, CHANGE));
    assert!(confirmed.contains("us-east-1, account 123456789012"), "{confirmed}");
    let of_other = form.replace(&twin.region, &own.region);
    assert_eq!(tuned.post("/changes/request", &session, &of_other).0, 412, "another function was shown");
    assert_eq!(tuned.post("/changes/request", &session, &form).0, 303);
    tuned.round();
    assert_eq!(tuned.state(&own), Some("settled"));
    assert_ne!(tuned.state(&twin), Some("settled"));
}

#[test]
fn an_approval_concerns_one_account_and_region() {
    let tuned = Tuned::start();
    tuned.round();
    let (own, twin) = (history::key(WAITING), twin(&history::key(WAITING)));
    let view = tuned.collector.app.tuner.as_ref().unwrap();
    let mut latest_round = (*view.latest_round.get()).clone();
    let planned = latest_round.functions.iter().find(|planned| planned.function == own).unwrap().clone();
    latest_round.functions.insert(0, PlannedFunction { function: twin.clone(), ..planned });
    view.latest_round.set(latest_round);
    let session = tuned.session();
    let (confirmed, _) = tuned.confirm(&session, &fields("approve", &twin, ""));
    assert!(confirmed.contains("us-east-1, account 123456789012"), "{confirmed}");
    let (confirmed, form) = tuned.confirm(&session, &fields("approve", &own, ""));
    assert!(confirmed.contains("eu-central-1, account 123456789012"), "{confirmed}");
    let of_twin = form.replace(&own.region, &twin.region);
    assert_eq!(tuned.post("/changes/request", &session, &of_twin).0, 412, "another function was shown");
    assert_eq!(tuned.post("/changes/request", &session, &form).0, 303);
    tuned.round();
    assert_eq!(tuned.change(WAITING).map(|change| change.function), Some(own));
}

#[test]
fn commands_show_which_of_several_functions_with_a_name_is_meant() {
    let tuned = Tuned::start();
    let (own, twin) = (history::key(CHANGED), tuned.add_twin());
    let changes = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tailor"));
        command.arg("changes").args(arguments);
        let output = command.arg("--data").arg(tuned.collector.folder.path()).env_clear().output().unwrap();
        let text = if output.status.success() { &output.stdout } else { &output.stderr };
        (output.status.success(), String::from_utf8_lossy(text).into_owned())
    };
    let (is_explained, text) = changes(&["explain", &own.name]);
    let candidates = "2 functions are named";
    assert!(!is_explained && text.contains(candidates), "{text}");
    assert!(text.contains("eu-central-1, account 123456789012; us-east-1, account 123456789012"), "{text}");
    let (is_explained, text) = changes(&["explain", &own.name, "--region", "us-east-1"]);
    assert!(is_explained, "{text}");
    assert!(text.starts_with(&format!("{} (us-east-1, account 123456789012)\n", own.name)), "{text}");
    assert_eq!(text.matches(&format!("change {CHANGE}:")).count(), 1, "{text}");
    let (is_explained, text) = changes(&["explain", &own.name, "--account", "999999999999"]);
    assert!(!is_explained && text.contains("made no change"), "{text}");
    for arguments in
        [&["list"][..], &["list", "--format", "markdown"], &["log", "--ledger", "--format", "table"]]
    {
        let (is_shown, text) = changes(arguments);
        for key in [&own, &twin] {
            let name = format!("{} ({}, account {})", key.name, key.region, key.account);
            assert!(is_shown && text.contains(&name), "{arguments:?}: {text}");
        }
    }
}

#[test]
fn a_rollback_by_a_name_of_several_functions_is_refused() {
    let tuned = Tuned::start();
    let (own, twin) = (history::key(CHANGED), tuned.add_twin());
    // A request of an earlier version.
    let folder = tuned.collector.folder.path().join(requests::FOLDER);
    std::fs::create_dir_all(&folder).unwrap();
    let request = format!(r#"{{"request":"rollback","function":"{}","change_id":null}}"#, own.name);
    std::fs::write(folder.join("00000000000000000001-1.json"), request).unwrap();
    tuned.round();
    assert_eq!((tuned.state(&own), tuned.state(&twin)), (Some("settled"), Some("settled")));
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "the request is not attempted again");

    let rollback = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tailor"));
        command.args(["changes", "rollback", &own.name]).args(arguments);
        command.arg("--data").arg(tuned.collector.folder.path()).env_clear().output().unwrap()
    };
    let refused = rollback(&[]);
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && message.contains("2 functions are named"), "{message}");
    let candidates = "eu-central-1, account 123456789012; us-east-1, account 123456789012";
    assert!(message.contains(candidates), "{message}");
    let unknown = rollback(&["--region", "eu-west-1"]);
    let message = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(!unknown.status.success() && message.contains("there is no change of"), "{message}");
    let accepted = rollback(&["--region", "us-east-1", "--account", "123456789012"]);
    assert!(accepted.status.success(), "{}", String::from_utf8_lossy(&accepted.stderr));
    tuned.round();
    assert_eq!(tuned.state(&own), Some("settled"));
    assert_ne!(tuned.state(&twin), Some("settled"));
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
