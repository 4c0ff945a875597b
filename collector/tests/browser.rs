//! The pages in a real browser: journeys with and without JavaScript, accessibility by axe-core in light and dark, and at
//! the width of a phone.
//!
//! It needs Node, `chromium-headless-shell`, and a folder with the npm packages puppeteer-core and axe-core, which
//! `TAILOR_BROWSER_MODULES` names. With `TAILOR_SCREENSHOTS` pictures of the pages are written to that folder.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use common::{Collector, KEY, history};
use tailor_collector::clock::{Clock, now_us};
use tailor_collector::keys::reload::KeyFiles;
use tailor_collector::keys::sources::KeySources;
use tailor_collector::report::summaries::Summarizer;
use tailor_collector::store::{KeyStore, Tenant};
use tailor_collector::tags::TagTable;
use tailor_test_kit::skip;
use tokio::runtime::Runtime;

const BROWSER: &str = "/usr/bin/chromium-headless-shell";

#[test]
fn the_pages_work_in_a_browser() {
    let modules = std::env::var_os("TAILOR_BROWSER_MODULES").map(PathBuf::from);
    let Some(modules) = modules.filter(|modules| modules.join("node_modules/axe-core").exists()) else {
        return skip("the pages in a browser (TAILOR_BROWSER_MODULES names no folder with axe-core)");
    };
    if !PathBuf::from(BROWSER).exists() {
        return skip("the pages in a browser (needs chromium-headless-shell)");
    }
    // More functions than are computed when they are read.
    let functions = number("TAILOR_BROWSER_FUNCTIONS", 72);
    let days = number("TAILOR_BROWSER_DAYS", 10) as u64;
    let folder = tempfile::tempdir().unwrap();
    let files = KeyFiles {
        folder: Some(folder.path().to_owned()),
        operator_file: None,
        lines: Some(format!("{KEY} name=operator")),
    };
    let collector = Collector::start_in(folder, |app| {
        app.local_reads = true;
        let store = Some(Arc::clone(&app.store) as Arc<dyn KeyStore>);
        let sources = KeySources { store, files };
        app.keys = Arc::new(sources.ring(&[]).unwrap().into());
        app.key_sources = Some(sources);
    });
    let runtime = Runtime::new().unwrap();
    runtime.block_on(history::write(&collector.store, functions, days, 96.min(days * 24), now_us()));
    runtime.block_on(collector.store.maintain()).unwrap();
    let file = collector.folder.path().join("tags.csv");
    std::fs::write(&file, history::tags(functions)).unwrap();
    collector.app.tags.set_file(&Tenant::default(), TagTable::read(&file).unwrap());
    let summarizer = Summarizer {
        store: Arc::clone(&collector.app.store),
        prices: collector.app.prices.clone(),
        clock: Clock::system(),
        enforcements: Arc::default(),
        fleet_sums: Arc::clone(&collector.app.fleet_sums),
    };
    while runtime.block_on(summarizer.step()).unwrap() > 0 {}

    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser/pages.mjs");
    let output = Command::new("node")
        .args([script, &format!("http://{}", collector.address), BROWSER, KEY])
        .env("TAILOR_BROWSER_MODULES", &modules)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("all pages passed"), "{text}");
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
