//! Measures a collector with a large fleet: 10,000 functions with 20 environments each and 30 days of history, while
//! batches arrive.
//!
//! `cargo xtask bench collector`. Senders, readers and collector share the machine, so the results include the cost of the
//! senders. The data folder is in the target folder, because `fsync` costs nothing on a memory disk.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

#[path = "../tests/common/fleet.rs"]
mod fleet;

mod large_fleet {
    pub(crate) mod baseline;
    pub(crate) mod fill;
    pub(crate) mod load;
}

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use large_fleet::{baseline, fill, load};
use serde_json::{Value, json};
use tailor_test_kit::process::status_kib;

/// Environments of each function.
pub(crate) const ENVIRONMENTS: u64 = 20;

/// What is measured.
pub(crate) struct Options {
    functions: u64,
    seconds: u64,
    /// Batches per second; by default, one a minute of each environment.
    rate: Option<u64>,
    /// The collector, by default that of this build.
    binary: PathBuf,
    json: Option<PathBuf>,
    /// Keep the store in this folder, and use the one that is there.
    folder: Option<PathBuf>,
}

impl Options {
    fn parse() -> Self {
        let binary = PathBuf::from(env!("CARGO_BIN_EXE_tailor"));
        let mut options =
            Self { functions: 10_000, seconds: 60, rate: None, binary, json: None, folder: None };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--functions" => options.functions = arguments.next().unwrap().parse().unwrap(),
                "--seconds" => options.seconds = arguments.next().unwrap().parse().unwrap(),
                "--rate" => options.rate = arguments.next().map(|rate| rate.parse().unwrap()),
                "--binary" => options.binary = arguments.next().unwrap().into(),
                "--folder" => options.folder = arguments.next().map(PathBuf::from),
                "--json" => options.json = arguments.next().map(PathBuf::from),
                // `cargo bench` adds it.
                "--bench" => {}
                other => panic!(
                    "unknown argument {other}: --functions N, --seconds N, --rate N, --binary FILE, --folder FOLDER,\n\
                     --json FILE"
                ),
            }
        }
        options
    }
}

fn main() {
    let options = Options::parse();
    let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let folder = options.folder.as_deref().unwrap_or_else(|| temporary.path());
    let is_kept = folder.join("tailor.sqlite").exists();
    let ratios = if is_kept { Value::Null } else { baseline::measure() };
    println!("{} functions with {ENVIRONMENTS} environments each, 30 days of history", options.functions);
    let filled = if is_kept { fill::Filled::default() } else { fill::fill(folder, options.functions) };
    println!("filled in {:.0} s: {}", filled.span.as_secs_f64(), sizes(folder));
    println!("summaries of one function: {:.1} ms of CPU", filled.summary_ms);

    let start = Instant::now();
    let server = Server::start(&options.binary, folder);
    let started = start.elapsed();
    println!("start with the full store: {:.2} s", started.as_secs_f64());
    // Without load, then by default with one batch a minute of each environment.
    let idle = load::measure(&server, folder, &options, 0);
    let rate = options.rate.unwrap_or(options.functions * ENVIRONMENTS / 60);
    let before_bytes = bytes(folder);
    let loaded = load::measure(&server, folder, &options, rate);
    let growth = bytes(folder).saturating_sub(before_bytes);
    let rss_mib = server.peak_rss_mib();
    println!("highest RSS: {rss_mib} MiB; files grew by {} MiB under load", growth >> 20);
    let report = json!({
        "functions": options.functions,
        "environments_per_function": ENVIRONMENTS,
        "one_row_per_batch": ratios,
        "fill_seconds": filled.span.as_secs_f64(),
        "summary_ms_per_function": filled.summary_ms,
        "store_bytes": before_bytes,
        "start_seconds": started.as_secs_f64(),
        "peak_rss_mib": rss_mib,
        "growth_under_load_bytes": growth,
        "without_load": idle,
        "with_load": loaded,
    });
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_string_pretty(&report).unwrap() + "\n").unwrap();
    }
}

/// Median, 95th and 99th percentile and maximum, ms.
pub(crate) fn quantiles(mut values: Vec<Duration>) -> Value {
    values.sort_unstable();
    let at = |percent: usize| {
        let index = (values.len() * percent / 100).min(values.len().saturating_sub(1));
        values.get(index).map_or(0.0, |value| (value.as_secs_f64() * 1e4).round() / 10.0)
    };
    json!({"count": values.len(), "p50_ms": at(50), "p95_ms": at(95), "p99_ms": at(99), "max_ms": at(100)})
}

fn bytes(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).unwrap().filter_map(Result::ok);
    files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
}

fn sizes(folder: &Path) -> String {
    format!("{} MiB", bytes(folder) >> 20)
}

/// The real binary over the data folder.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
    pub(crate) key: String,
    pub(crate) admin_key: String,
}

impl Server {
    fn start(binary: &Path, folder: &Path) -> Self {
        let log = std::fs::File::create(folder.with_extension("log")).unwrap();
        let process = Command::new(binary)
            .args(["serve", "--listen", "127.0.0.1:0", "--local-reads", "--data"])
            .arg(folder)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let mut server = Self {
            child: process.unwrap(),
            address: String::new(),
            key: String::new(),
            admin_key: String::new(),
        };
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let log = std::fs::read_to_string(folder.with_extension("log")).unwrap();
            if let Some((address, _)) =
                log.split("listening on http://").nth(1).and_then(|rest| rest.split_once(','))
            {
                let ready = ureq::get(format!("http://{address}/readyz")).call();
                if ready.is_ok() {
                    let key = std::fs::read_to_string(folder.join("ingest-key"))
                        .or_else(|_| std::fs::read_to_string(folder.join("api-key")));
                    server.key = key.unwrap().trim().to_owned();
                    let admin_key = std::fs::read_to_string(folder.join("api-key")).unwrap();
                    admin_key.trim().clone_into(&mut server.admin_key);
                    server.address = address.to_owned();
                    return server;
                }
            }
            assert!(Instant::now() < deadline, "the collector did not start: {log}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn peak_rss_mib(&self) -> u64 {
        status_kib(Path::new(&format!("/proc/{}", self.child.id())), "VmHWM").unwrap() / 1_024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
