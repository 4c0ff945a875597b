//! The demo: runs real functions in the local sandbox, measures them and shows costs and advice. With `--apply`, the tuner
//! resizes one of them.

use std::fs;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tailor_test_kit::build;
use tailor_test_kit::deployment::{Deployment, Plan};
use tailor_test_kit::functions::{EXAMPLES, Example};
use tailor_test_kit::lambda::LambdaClient;
use tailor_test_kit::workspace;

use crate::layer;

/// Number of functions that are invoked concurrently. A small number keeps them from competing for the machine's cores.
const CONCURRENCY: usize = 2;

/// Time limit for the collector's tuner to collect evidence and make a change.
const TUNE_LIMIT: Duration = Duration::from_secs(60);

/// Tuner options of the demo. The defaults for production use a longer interval and require more evidence.
const TUNER: &[&str] = &[
    "--tuner=apply",
    "--tuner-interval=2",
    // Weighs cost and duration: the demo shows a function that gets faster.
    "--tuner-strategy=balanced",
    "--tuner-evidence=60",
    "--tuner-evidence-days=0",
    "--tuner-evidence-environments=0",
    "--tuner-min-saving=0",
    "--tuner-after-deployment=0",
    "--tuner-comparison=20",
    "--tuner-soak-hours=0",
    "--tuner-max-requests=100",
];

/// Options of `cargo xtask demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Exit after the summary instead of serving the web page.
    #[arg(long)]
    once: bool,
    /// Let the tuner change the memory size of the function with the tag `tailor:tune = apply`.
    #[arg(long)]
    apply: bool,
    /// Also write the summary as JSON to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Port of the web page; 0 selects a free port.
    #[arg(long, default_value_t = 8_420)]
    port: u16,
}

/// Runs the demo.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if let Some(path) = &options.json {
        check_writable(path)?;
    }
    catch_interrupts()?;
    let folder = workspace::target_folder()?.join("demo");
    let _lock = lock(&folder)?;
    check_port(options.port)?;
    eprintln!("building (the first time takes a few minutes)");
    let mut programs = build::programs()?;
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    let zip = folder.join("layer.zip");
    layer::write(&programs.layer.join("extensions/tailor-extension"), &zip)?;
    programs.layer = zip;
    let examples = examples_for_this_machine();
    let listen = format!("127.0.0.1:{}", options.port);
    let tuner: &[&str] = if options.apply { TUNER } else { &[] };
    let project = workspace::project()?;
    let mut deployment = Deployment::start(&Plan {
        collector_listen: &listen,
        collector_arguments: tuner,
        ..Plan::new(programs, &project, &folder, &examples)
    })?;
    for warning in deployment.sandbox_warnings() {
        println!("note: {warning}");
    }
    invoke_all(&deployment.lambda, &examples)?;
    if options.apply {
        show_change(&deployment, &examples)?;
    }
    eprintln!("shutting down the environments; the extensions send their last batches");
    deployment.stop_sandbox()?;

    let json = options.json.as_ref().map(|path| (path, deployment.summary()));
    // With `--once` the server stops before the output, so the output must not refer to the web page.
    let table = if options.once {
        deployment.tailor_offline(&["functions"])?
    } else {
        deployment.tailor(&["functions"])?
    };
    std::io::stdout().write_all(&table.stdout)?;
    if let Some((path, summary)) = json {
        let summary = serde_json::to_string_pretty(&summary?)?;
        fs::write(path, summary + "\n").with_context(|| format!("cannot write {}", path.display()))?;
        println!("summary as JSON: {}", path.display());
    }
    if options.once {
        return Ok(ExitCode::SUCCESS);
    }
    println!("web page: {} (stop with Ctrl-C)", deployment.collector_url());
    while !INTERRUPTED.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(100));
    }
    Ok(ExitCode::SUCCESS)
}

/// Set by Ctrl-C and SIGTERM. The demo then returns as soon as possible, which stops the servers.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

fn catch_interrupts() -> Result<()> {
    ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed)).context("cannot wait for Ctrl-C")
}

fn check_interrupt() -> Result<()> {
    ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
    Ok(())
}

/// Locks the demo folder until the returned file is closed, because a second demo would delete the files of the first.
fn lock(folder: &Path) -> Result<fs::File> {
    let path = folder.with_extension("lock");
    fs::create_dir_all(folder.parent().unwrap_or(folder))?;
    let lock = fs::File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    ensure!(lock.try_lock().is_ok(), "another demo is running; stop it first");
    Ok(lock)
}

/// Checks the port before the build, which takes minutes.
fn check_port(port: u16) -> Result<()> {
    std::net::TcpListener::bind(("127.0.0.1", port))
        .map(drop)
        .with_context(|| format!("port {port} is in use; select another with --port"))
}

/// Checks the output path before the demo, which takes minutes.
fn check_writable(path: &Path) -> Result<()> {
    fs::File::options()
        .create(true)
        .append(true)
        .open(path)
        .map(drop)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The examples whose languages are installed. Prints the names of the others.
fn examples_for_this_machine() -> Vec<Example> {
    let mut examples = vec![];
    for example in &EXAMPLES {
        match example.language.missing_command() {
            None => examples.push(example.clone()),
            Some(command) => println!("skipped: {} (no `{command}` on this machine)", example.name),
        }
    }
    examples
}

/// Invokes every example [`Example::invocations`] times, [`CONCURRENCY`] functions at a time.
fn invoke_all(lambda: &LambdaClient, examples: &[Example]) -> Result<()> {
    let total: u32 = examples.iter().map(|example| example.invocations).sum();
    let next = AtomicUsize::new(0);
    let (progress, steps) = mpsc::channel();
    let (next, started) = (&next, Instant::now());
    thread::scope(|scope| {
        for _ in 0..CONCURRENCY {
            let progress = progress.clone();
            scope.spawn(move || {
                while let Some(example) = examples.get(next.fetch_add(1, Ordering::Relaxed)) {
                    for _ in 0..example.invocations {
                        if check_interrupt().is_err() {
                            return;
                        }
                        let outcome = invoke(lambda, example);
                        let failed = outcome.is_err();
                        if progress.send((example.name, outcome)).is_err() || failed {
                            return;
                        }
                    }
                }
            });
        }
        drop(progress);
        let mut done = 0;
        for (name, outcome) in steps {
            outcome?;
            done += 1;
            show_progress(name, done, total);
        }
        Ok::<_, anyhow::Error>(())
    })?;
    check_interrupt()?;
    eprintln!(
        "invoked {} functions {total} times in {:.0} s",
        examples.len(),
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

fn invoke(lambda: &LambdaClient, example: &Example) -> Result<()> {
    let answer = lambda.invoke(example.name, example.event)?;
    if answer.function_error.is_some() {
        bail!("{} failed: {}", example.name, answer.payload);
    }
    Ok(())
}

/// Shows progress: on a terminal as one line that is updated, otherwise as a line for every 50 invocations.
fn show_progress(name: &str, done: u32, total: u32) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[2Kinvoking {done}/{total}  {name}");
        if done == total {
            eprintln!();
        }
    } else if done.is_multiple_of(50) || done == total {
        eprintln!("invoking {done}/{total}  {name}");
    }
}

/// Waits for the tuner to resize the tagged function, then invokes it at its new size.
fn show_change(deployment: &Deployment, examples: &[Example]) -> Result<()> {
    for example in examples.iter().filter(|example| example.tunable) {
        let before = u64::from(example.memory_mb);
        eprintln!("waiting for the tuner to resize {} from {before} MB", example.name);
        let deadline = Instant::now() + TUNE_LIMIT;
        let after = loop {
            let configuration = deployment.lambda.configuration(example.name)?;
            let size = configuration.get("MemorySize").and_then(Value::as_u64).unwrap_or(before);
            if size != before {
                break size;
            }
            check_interrupt()?;
            if Instant::now() > deadline {
                let changes = deployment.tailor(&["changes"])?;
                bail!(
                    "the tuner left {} at {before} MB:\n{}",
                    example.name,
                    String::from_utf8_lossy(&changes.stdout)
                );
            }
            thread::sleep(Duration::from_millis(500));
        };
        eprintln!("{} now has {after} MB; invoking it again", example.name);
        invoke_all(&deployment.lambda, std::slice::from_ref(example))?;
    }
    Ok(())
}
