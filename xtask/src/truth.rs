//! Measures a corpus of functions at six sizes in the sandbox, with the extension's own telemetry. The result is the data set
//! on which predictions are fitted and scored.
//!
//! Each size is measured in three environments, and the sizes of one round are in random order, so that slow changes of the
//! host affect all sizes alike. See `sizing/eval/functions/README.md`.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::num::NonZero;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tailor_sizing::telemetry::invocation::Work;
use tailor_sizing::units::Megabytes;
use tailor_sizing_eval::truth::{Truth, read, write};
use tailor_test_kit::build;
use tailor_test_kit::delay_server;
use tailor_test_kit::fake::BatchRecorder;
use tailor_test_kit::lambda::LambdaClient;
use tailor_test_kit::process::{Server, as_seen_by_functions, free_address, is_root};
use tailor_test_kit::workspace;

use assembly::Assembly;
use block::{FLUSH_INTERVAL_MS, Measurement};
use corpus::Function;
use cpu_share::CpuShares;
use host::Host;
use random::sequence_of;
use state::{Place, Protocol, State, path_of};

mod assembly;
mod block;
mod corpus;
mod cpu_share;
mod host;
mod random;
mod state;

/// Options of `cargo xtask truth`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Measure only these functions of the corpus, separated by commas.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    functions: Vec<String>,
    /// Write the data set to this file. The state of the run is beside it, in FILE.state.jsonl.
    #[arg(long, value_name = "FILE", default_value = "target/truth.json.gz")]
    out: PathBuf,
    /// Continue the run of the state file.
    #[arg(long)]
    resume: bool,
    /// Copy the functions of this data set, and measure only the others.
    #[arg(long, value_name = "FILE")]
    keep: Option<PathBuf>,
    /// Stop after this many minutes; --resume continues later.
    #[arg(long, value_name = "N")]
    minutes: Option<u64>,
    /// Invocations at each size, over all environments: half is telemetry, half is truth.
    #[arg(long, value_name = "N", default_value_t = 60)]
    invocations: usize,
    /// Measure this many functions at the same time, as far as their quotas leave CPUs for each other.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    workers: u8,
    /// Print the functions in the order of the measurement, and measure nothing.
    #[arg(long)]
    list: bool,
    /// Call every function a few times, print its duration or its error, and measure nothing.
    #[arg(long)]
    check: bool,
}

const SIZES: [u32; 6] = [128, 256, 512, 1_024, 2_048, 3_008];

/// Environments at each size.
const ROUNDS: u32 = 3;

/// Calls of each function in a check.
const CHECK_CALLS: u32 = 3;

/// CPUs that the start of a sandbox uses.
const START_CPUS: f64 = 1.0;

/// Time limit for the sandbox to stop.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let sources = workspace::project()?.join("sizing/eval/functions");
    let mut functions = installed(corpus::read(&sources, &options.functions)?);
    let kept = options.keep.as_deref().map(read).transpose()?;
    if let Some(kept) = &kept {
        functions.retain(|function| !kept.functions.contains_key(&function.name));
    }
    if options.list {
        list(&functions);
        return Ok(ExitCode::SUCCESS);
    }
    ensure!(is_root(), "the CPU quotas of the sandbox need root");
    if options.check {
        return check(&Programs::prepare(sources)?.environment(0)?, &functions);
    }
    let rounds = usize::try_from(ROUNDS)?;
    ensure!(
        options.invocations >= 2 * rounds && options.invocations.is_multiple_of(rounds),
        "--invocations must be a multiple of {rounds}, at least {}",
        2 * rounds
    );
    let protocol = Protocol {
        schema: "tailor-truth-state/1".to_owned(),
        rounds: ROUNDS,
        invocations: options.invocations / rounds,
        sizes: SIZES.to_vec(),
        counters: Work::COUNTERS,
    };
    if let Some(folder) = options.out.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let state = State::open(path_of(&options.out), &protocol, options.resume)?;
    let programs = Programs::prepare(sources)?;
    let run = Run::new(options, &functions, state, protocol);
    run.measure_all(&programs, options.workers)?;
    let state = lock(&run.state);
    let is_complete = places(&functions).all(|place| state.is_done(&place));
    let mut truth = state.truth(&functions, &run.protocol);
    if let Some(kept) = kept {
        join(&mut truth, kept)?;
    }
    write(&options.out, &truth)?;
    let bytes = fs::metadata(&options.out)?.len();
    println!("{} functions are complete: {} ({bytes} bytes)", truth.functions.len(), options.out.display());
    if !is_complete {
        println!("the run is not complete: continue it with --resume");
    }
    Ok(ExitCode::SUCCESS)
}

/// Adds the functions of `kept`. The sizes of one function are all of one machine, so the machines may differ in all but what
/// the schema states once.
fn join(truth: &mut Truth, kept: Truth) -> Result<()> {
    ensure!(
        truth.cpus == kept.cpus,
        "the data set to keep was measured with {} CPUs, and this machine has {}",
        kept.cpus,
        truth.cpus
    );
    if truth.kernel != kept.kernel {
        println!("the kernel was {} and is {}: the data set names the later one", kept.kernel, truth.kernel);
    }
    truth.functions.extend(kept.functions);
    Ok(())
}

/// A poisoned lock means that another worker panicked: what it measured before is complete.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Those whose commands are installed.
fn installed(functions: Vec<Function>) -> Vec<Function> {
    let mut missing = BTreeMap::new();
    let is_installed = |function: &Function| {
        missing.entry(function.language.clone()).or_insert_with(|| function.missing_command()).is_none()
    };
    let mut is_installed = is_installed;
    let (installed, skipped): (Vec<_>, Vec<_>) =
        functions.into_iter().partition(|function| is_installed(function));
    for function in skipped {
        println!("skipped: {} (a command for {} is not installed)", function.name, function.language);
    }
    installed
}

fn list(functions: &[Function]) {
    for (at, function) in functions.iter().enumerate() {
        let Function { name, language, kind, role, real, .. } = function;
        let sort = if *real { "real" } else { "pure" };
        println!(
            "{:>4} {name:<28}{language:<8}{kind:<17}{:<12}{sort}",
            at + 1,
            format!("{role:?}").to_lowercase()
        );
    }
}

/// Calls every function. The exit code is 1 if one failed.
fn check(environment: &Environment, functions: &[Function]) -> Result<ExitCode> {
    let mut failed = 0;
    for function in functions {
        let (mut sandbox, lambda) = environment.start(function)?;
        let mut duration = Duration::ZERO;
        let mut error = None;
        for _ in 0..CHECK_CALLS {
            let began = Instant::now();
            let answer = lambda.invoke(&function.name, &function.event)?;
            duration = began.elapsed();
            let describe = |error| format!("{error}: {}", answer.payload);
            error = error.or_else(|| answer.function_error.map(describe));
        }
        sandbox.stop(STOP_LIMIT)?;
        failed += u32::from(error.is_some());
        let result = error.unwrap_or_else(|| format!("{:.1} ms", duration.as_secs_f64() * 1e3));
        println!("{:<32}{result}", function.name);
    }
    println!("{failed} of {} functions failed", functions.len());
    Ok(ExitCode::from(u8::from(failed > 0)))
}

/// What is built once for all workers.
struct Programs {
    sources: PathBuf,
    folder: PathBuf,
    sandbox: PathBuf,
    layer: PathBuf,
    rust_handler: PathBuf,
}

impl Programs {
    fn prepare(sources: PathBuf) -> Result<Self> {
        let sandbox = build::release_sandbox()?;
        let (layer, rust_handler) = build::layer_and_handler()?;
        let folder = workspace::target_folder()?.join("truth");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        Ok(Self { sources, folder, sandbox, layer, rust_handler })
    }

    /// The environment of one worker.
    fn environment(&self, worker: u8) -> Result<Environment> {
        let folder = self.folder.join(format!("worker-{worker}"));
        let recorder = BatchRecorder::start()?;
        let variables = vec![
            ("SERVER", as_seen_by_functions(&delay_server::start()?.to_string())),
            ("TAILOR_ENDPOINT", as_seen_by_functions(&recorder.endpoint())),
            ("TAILOR_API_KEY", "local-truth-key-7d20c41e9a6b".to_owned()),
            ("TAILOR_FLUSH_INTERVAL_MS", FLUSH_INTERVAL_MS.to_string()),
        ];
        let assembly = Assembly {
            sources: self.sources.clone(),
            rust_handler: self.rust_handler.clone(),
            built: folder.join("built"),
            environment: variables,
        };
        let (sandbox, layer) = (self.sandbox.clone(), self.layer.clone());
        Ok(Environment { assembly, folder, sandbox, layer, recorder })
    }
}

/// What functions run in.
struct Environment {
    assembly: Assembly,
    /// For the files of the sandbox.
    folder: PathBuf,
    sandbox: PathBuf,
    layer: PathBuf,
    recorder: BatchRecorder,
}

impl Environment {
    /// Starts a sandbox with only this function.
    fn start(&self, function: &Function) -> Result<(Server, LambdaClient)> {
        let folder = self.folder.join("round");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        let functions = folder.join("functions");
        self.assembly
            .assemble(function, &functions)
            .with_context(|| format!("cannot assemble {}", function.name))?;
        let address = free_address()?.to_string();
        let mut command = Command::new(&self.sandbox);
        command.args(["serve", "--listen", &address]);
        command.arg("--data").arg(folder.join("data"));
        command.arg("--functions").arg(functions);
        command.arg("--layer").arg(&self.layer);
        let ready = || TcpStream::connect(&address).is_ok();
        let sandbox = Server::start(&mut command, &folder.join("sandbox.log"), ready)?;
        Ok((sandbox, LambdaClient::new(&address)))
    }
}

/// A running collection. The workers share it.
struct Run<'a> {
    functions: &'a [Function],
    /// The index of the next function that no worker has begun.
    next: AtomicUsize,
    state: Mutex<State>,
    protocol: Protocol,
    deadline: Option<Instant>,
    progress: Mutex<Progress>,
    cpus: CpuShares,
}

impl<'a> Run<'a> {
    fn new(options: &Options, functions: &'a [Function], state: State, protocol: Protocol) -> Self {
        let left = places(functions).filter(|place| !state.is_done(place)).count();
        let progress = Progress { left, measured: 0, began: Instant::now() };
        println!("{} functions, {left} blocks", functions.len());
        let deadline = options.minutes.map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
        let (next, state, progress) = (AtomicUsize::new(0), Mutex::new(state), Mutex::new(progress));
        let cpus = CpuShares::new(thread::available_parallelism().map_or(1, NonZero::get));
        Self { functions, next, state, protocol, deadline, progress, cpus }
    }

    /// Measures until everything is measured, or the time is over.
    fn measure_all(&self, programs: &Programs, workers: u8) -> Result<()> {
        thread::scope(|scope| {
            let workers: Vec<_> = (0..workers)
                .map(|worker| {
                    let environment = programs.environment(worker)?;
                    Ok(scope.spawn(move || Worker { run: self, environment, host: Host::new() }.measure()))
                })
                .collect::<Result<_>>()?;
            workers.into_iter().try_for_each(|worker| match worker.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })
    }

    fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    fn is_done(&self, place: &Place) -> bool {
        lock(&self.state).is_done(place)
    }
}

/// Measures one function after the other.
struct Worker<'a> {
    run: &'a Run<'a>,
    environment: Environment,
    host: Host,
}

impl Worker<'_> {
    fn measure(&mut self) -> Result<()> {
        while let Some(function) = self.run.functions.get(self.run.next.fetch_add(1, Ordering::Relaxed)) {
            for round in 0..ROUNDS {
                let mut places: Vec<Place> = places_of(function, round).collect();
                sequence_of(&function.name, round).shuffle(&mut places);
                places.retain(|place| !self.run.is_done(place));
                if self.run.is_over() {
                    return Ok(());
                }
                if !places.is_empty() {
                    self.measure_round(function, places)?;
                }
            }
        }
        Ok(())
    }

    /// Measures one environment at each size, in a sandbox of its own so that every environment is new.
    fn measure_round(&mut self, function: &Function, places: Vec<Place>) -> Result<()> {
        let (mut sandbox, lambda) = {
            // Compilers and the start of a sandbox compete with the functions that are measured meanwhile.
            let _share = self.run.cpus.acquire(START_CPUS);
            self.environment.start(function)?
        };
        for place in places {
            if self.run.is_done(&place) {
                lock(&self.run.progress).skip();
                continue;
            }
            if self.run.is_over() {
                break;
            }
            let mut measurement = Measurement {
                lambda: &lambda,
                recorder: &self.environment.recorder,
                host: &mut self.host,
                random: sequence_of(&function.name, place.round + place.memory_mb),
                invocations: self.run.protocol.invocations,
            };
            let shown = format!("{} {} MB", function.name, place.memory_mb);
            let memory = Megabytes(place.memory_mb);
            let _share = self.run.cpus.acquire(memory.share().min(function.most_cpus()));
            match measurement.block(function, place) {
                Ok(block) => {
                    lock(&self.run.progress).add(&block);
                    lock(&self.run.state).add(block)?;
                }
                // One function does not end a collection of hours. The rest of its round is left for --resume.
                Err(error) => {
                    println!("{shown} was not measured: {error:#}");
                    break;
                }
            }
        }
        sandbox.stop(STOP_LIMIT).map(drop)
    }
}

fn places(functions: &[Function]) -> impl Iterator<Item = Place> {
    functions.iter().flat_map(|function| (0..ROUNDS).flat_map(|round| places_of(function, round)))
}

fn places_of(function: &Function, round: u32) -> impl Iterator<Item = Place> {
    let name = function.name.clone();
    SIZES.into_iter().map(move |memory_mb| Place { function: name.clone(), round, memory_mb })
}

/// How far the run is.
struct Progress {
    left: usize,
    measured: u32,
    began: Instant,
}

impl Progress {
    fn skip(&mut self) {
        self.left = self.left.saturating_sub(1);
    }

    fn add(&mut self, block: &state::Block) {
        self.skip();
        self.measured += 1;
        let Place { function, round, memory_mb } = &block.place;
        let mean_ms =
            block.rows.iter().map(|row| row.0 as f64).sum::<f64>() / 1e3 / block.rows.len().max(1) as f64;
        let result = match &block.failure {
            Some(failure) => {
                format!("failed, so this size is left out: {}", failure.chars().take(120).collect::<String>())
            }
            None => format!(
                "{mean_ms:.1} ms after {} calls{}",
                block.warm_up_calls,
                if block.is_disturbed { ", disturbed by other work on the host" } else { "" }
            ),
        };
        println!(
            "{function} {memory_mb} MB, round {}: {result}; {} blocks, {}",
            round + 1,
            self.left,
            self.time_left()
        );
    }

    fn time_left(&self) -> String {
        let block = self.began.elapsed() / self.measured.max(1);
        let minutes = block.as_secs_f64() * self.left as f64 / 60.0;
        format!("about {:.0} h {:02.0} min left", (minutes / 60.0).floor(), minutes % 60.0)
    }
}
