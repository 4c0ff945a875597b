//! `tailor import`.

use std::fs;
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::{mem, panic, thread};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use tailor_logs::{Assembler, ImportedInvocation, Origin, Problem, Problems, Reader, Source};
use tailor_sizing::pricing::prices::PriceTable;
use tailor_sizing::units::Architecture;
use tokio::runtime::Runtime;

use super::archive::S3Args;
use super::arguments::{Colour, strategy};
use super::database::DatabaseArgs;
use super::recommendations::{self, ComputeOptimizerArgs, PowerTuningArgs};
use super::streams::{confirm, note};
use super::{runtime, show};
use crate::clock::{Clock, now_us};
use crate::import::ledger::Ledger;
use crate::import::log_group::LogGroup;
use crate::import::progress::{Progress, size};
use crate::import::{Importer, NotStored, Settings, Totals, files};
use crate::query::{DEFAULT_HOURS, Format, ListQuery};
use crate::render::output::write;
use crate::render::units::{exactly, instant};
use crate::report;
use crate::s3::objects::{self, Objects};
use crate::store::postgres::PostgresStore;
use crate::store::sqlite::{Retention, SqliteStore};
use crate::store::{HOUR_US, Store, Tenant, Window};
use crate::{prices, query};

/// Days with rollups of imported logs. `tailor serve --daily-days` may be shorter.
const DAILY_DAYS: u64 = 4_000;

/// Invocations that are passed to the thread that stores them at a time.
const CHUNK: usize = 4_096;

/// Chunks that wait for this thread. While it writes, reading goes on for as many.
const WAITING_CHUNKS: usize = 8;

#[derive(Debug, Subcommand)]
pub(super) enum ImportCommand {
    /// Import invocations from logs of Lambda, and show the cost of the functions.
    ///
    /// Every format is recognized: text and JSON logs, exports and subscriptions of CloudWatch Logs, results of Logs Insights,
    /// deliveries of Firehose, `sam logs`, `aws logs`, container logs and CSV, also compressed with gzip or zstd. The same
    /// invocation counts once, however often it is imported. Lines that cannot be read are counted.
    Logs(Box<LogsArgs>),
    /// Import what AWS Lambda Power Tuning recommends for a function, to see it beside the advice.
    PowerTuning(PowerTuningArgs),
    /// Import what AWS Compute Optimizer recommends for functions, to see it beside the advice.
    ComputeOptimizer(ComputeOptimizerArgs),
}

#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    /// Files and folders; `s3://BUCKET/PREFIX` for objects of S3; `-` is standard input.
    #[arg(default_value = "-")]
    paths: Vec<String>,
    /// Log group of CloudWatch Logs, such as `/aws/lambda/NAME`, in the region. What it costs at most is shown before.
    #[arg(long, value_name = "NAME")]
    log_group: Option<String>,
    /// Days of the log group that are read, before now.
    #[arg(long, default_value_t = 30, requires = "log_group", value_parser = clap::value_parser!(u64).range(1..=3_650))]
    days: u64,
    /// Read the log group without a confirmation of the cost.
    #[arg(long, requires = "log_group")]
    yes: bool,
    /// Folder for the data. It is created when it does not exist. No collector may run on it, other than with `--database`: then
    /// the folder only has the record of what was imported.
    #[arg(long, env = "TAILOR_DATA", default_value = "tailor-data")]
    data: PathBuf,
    /// Tenant of the functions.
    #[arg(long, default_value = "default", value_parser = super::keys::tenant)]
    tenant: String,
    /// Name of the function, where neither the log nor the path (`aws/lambda/NAME`) has it.
    #[arg(long)]
    function: Option<String>,
    /// AWS region, where the log does not have it.
    #[arg(long, env = "AWS_REGION")]
    region: Option<String>,
    /// AWS account, where the log does not have it.
    #[arg(long)]
    account: Option<String>,
    /// Instruction set of the functions, which logs do not have: `x86_64` or `arm64`.
    #[arg(long, default_value = "x86_64")]
    architecture: Architecture,
    /// File with Lambda's prices in place of the built-in ones, as for `tailor serve`.
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Optimization goal: `cost`, `speed`, `balanced`, or a latency target such as `p95=300` (milliseconds).
    #[arg(long, value_parser = strategy, default_value = crate::query::DEFAULT_STRATEGY)]
    strategy: String,
    /// When the table has colours.
    #[arg(long, value_enum, default_value_t)]
    color: Colour,
    #[command(flatten)]
    s3: S3Args,
    #[command(flatten)]
    database: DatabaseArgs,
}

pub(super) fn run(command: ImportCommand) -> anyhow::Result<ExitCode> {
    match command {
        ImportCommand::Logs(args) => logs(&args),
        ImportCommand::PowerTuning(args) => recommendations::power_tuning(&args),
        ImportCommand::ComputeOptimizer(args) => recommendations::compute_optimizer(&args),
    }
}

fn logs(args: &LogsArgs) -> anyhow::Result<ExitCode> {
    let runtime = runtime::multi_threaded()?;
    let prices = prices::load(args.prices.as_deref())?;
    let log_group =
        args.log_group.as_deref().map(|name| confirmed(args, name, &prices, &runtime)).transpose()?;
    if reads_stdin(args) && io::stdin().is_terminal() {
        bail!("name the files or folders to import, or pass a log on standard input");
    }
    let (store, ledger) = open_store(args, &runtime)?;
    let settings = Settings { tenant: Tenant(args.tenant.clone()), architecture: args.architecture };
    let importer = runtime.block_on(Importer::start(store.as_ref(), ledger, settings))?;
    let (sender, receiver) = sync_channel(WAITING_CHUNKS);
    let (progress, problems, totals) = thread::scope(|scope| {
        let storing = scope.spawn(|| store_all(importer, receiver, &runtime));
        let mut import = Import {
            args,
            runtime: &runtime,
            chunk: Vec::with_capacity(CHUNK),
            sender,
            reader: Reader::default(),
            assembler: Assembler::default(),
            problems: Problems::default(),
        };
        let progress = import.paths(log_group.as_ref());
        let Import { sender, mut problems, reader, .. } = import;
        problems.merge(reader.problems);
        // The channel closes, and the thread stores what is left.
        drop(sender);
        // Reading also ends when the thread has failed, and its error has the cause.
        let totals = storing.join().unwrap_or_else(|cause| panic::resume_unwind(cause))?;
        anyhow::Ok((progress?, problems, totals))
    })?;
    let report = runtime.block_on(fleet(args, store.as_ref(), &totals, &prices));
    let nothing = totals.functions.is_empty() && totals.measured_by_layer.is_empty();
    let code = show::print((report?, nothing))?;
    summarize(args, &progress, &totals, &problems);
    Ok(code)
}

/// Stores what arrives until the channel closes. It runs beside the reading, because SQLite needs as long as the reader.
fn store_all(
    mut importer: Importer<'_>,
    receiver: Receiver<Vec<ImportedInvocation>>,
    runtime: &Runtime,
) -> anyhow::Result<Totals> {
    for found in receiver.into_iter().flatten() {
        if importer.add(found) {
            runtime.block_on(importer.flush(now_us()))?;
        }
    }
    runtime.block_on(importer.flush(now_us()))?;
    Ok(importer.totals().clone())
}

/// Creates a data folder that is private, if it does not exist.
pub(super) fn create_folder(folder: &Path) -> anyhow::Result<()> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("cannot create the data folder {}", folder.display()))
}

/// Opens the store for writing, and the ledger of the imports into it. Their folder is private and created if necessary.
fn open_store(args: &LogsArgs, runtime: &Runtime) -> anyhow::Result<(Arc<dyn Store>, Ledger)> {
    let folder = &args.data;
    create_folder(folder)?;
    let retention = Retention { daily_days: DAILY_DAYS, ..Retention::default() };
    if let Some(database) = args.database.database()? {
        let store = PostgresStore::open_with(&database, Clock::system(), retention);
        let store = store.with_context(|| format!("cannot open the {database}"))?;
        let (id, migrated_from) = runtime.block_on(store.ids())?;
        let ledger = Ledger::open_for_database(folder, &id, migrated_from.as_deref())?;
        return Ok((Arc::new(store), ledger));
    }
    let store = SqliteStore::open_with(folder, Clock::system(), retention).with_context(|| {
        format!(
            "cannot import into {}: if a collector runs on it, stop it or name another folder with --data",
            folder.display()
        )
    })?;
    Ok((Arc::new(store), Ledger::open(folder)?))
}

/// Whether standard input is imported. With a log group, it must be named.
fn reads_stdin(args: &LogsArgs) -> bool {
    let is_default = args.log_group.is_some() && args.paths == ["-"];
    !is_default && args.paths.iter().any(|path| path == "-")
}

/// The log group, when a person accepts what reading it costs.
fn confirmed(
    args: &LogsArgs,
    name: &str,
    prices: &PriceTable,
    runtime: &Runtime,
) -> anyhow::Result<LogGroup> {
    let group = runtime.block_on(LogGroup::find(name, args.region.as_deref()))?;
    note(format_args!(
        "{name} stores {}. AWS's price list has no charge for the requests (FilterLogEvents). {}. Within the region it is free. \
         Only the platform's lines are read, so that the bytes of the log are not counted",
        size(group.stored_bytes as f64),
        group.transfer_cost(prices)
    ));
    if args.yes {
        return Ok(group);
    }
    if !io::stdin().is_terminal() {
        bail!("confirm the cost with --yes");
    }
    if !confirm("Continue?")? {
        bail!("nothing was read");
    }
    Ok(group)
}

/// An import that is running.
struct Import<'a> {
    args: &'a LogsArgs,
    runtime: &'a Runtime,
    chunk: Vec<ImportedInvocation>,
    sender: SyncSender<Vec<ImportedInvocation>>,
    reader: Reader,
    assembler: Assembler,
    problems: Problems,
}

/// Passes one invocation on. The result is `false` when the thread that stores has ended.
fn pass_on(
    found: ImportedInvocation,
    chunk: &mut Vec<ImportedInvocation>,
    sender: &SyncSender<Vec<ImportedInvocation>>,
) -> bool {
    chunk.push(found);
    chunk.len() < CHUNK || sender.send(mem::replace(chunk, Vec::with_capacity(CHUNK))).is_ok()
}

fn check_storing(is_storing: bool) -> anyhow::Result<()> {
    if is_storing { Ok(()) } else { bail!("the invocations cannot be stored") }
}

impl Import<'_> {
    /// Imports all paths, and the log group.
    fn paths(&mut self, log_group: Option<&LogGroup>) -> anyhow::Result<Progress> {
        let mut inputs = vec![];
        let is_object = |path: &&String| path.starts_with("s3://");
        for path in self.args.paths.iter().filter(|path| *path != "-" && !is_object(path)) {
            inputs.extend(files::find(Path::new(path), &mut self.problems));
        }
        let addresses: Vec<_> = self.args.paths.iter().filter(is_object).collect();
        let mut objects = if addresses.is_empty() {
            Objects::default()
        } else {
            self.runtime.block_on(Objects::find(self.args.s3.client(), &addresses, objects::MANY))?
        };
        let has_stdin = reads_stdin(self.args);
        let file_bytes: u64 = inputs.iter().map(|input| input.bytes).sum();
        let total_bytes = if has_stdin { 0 } else { file_bytes + objects.bytes() };
        let mut progress = Progress::start(total_bytes);
        if has_stdin {
            self.input("standard input", now_us(), progress.count(io::stdin().lock()))?;
        }
        for input in &inputs {
            let name = input.path.display().to_string();
            match files::open(input) {
                Ok(file) => self.input(&name, input.changed_us, progress.count(file))?,
                Err(error) => {
                    self.problems.add(Problem::UnreadableFile, format!("{name}: {error}").as_bytes());
                }
            }
        }
        while let Some((name, changed_us, object)) = objects.next(self.runtime.handle()) {
            match object {
                Ok(object) => self.input(&name, changed_us, progress.count(object))?,
                Err(error) => {
                    self.problems.add(Problem::UnreadableFile, format!("{name}: {error:#}").as_bytes());
                }
            }
        }
        if let Some(group) = log_group {
            self.log_group(group, &mut progress)?;
        }
        self.finish()?;
        progress.finish();
        Ok(progress)
    }

    /// Imports the events of a log group.
    fn log_group(&mut self, group: &LogGroup, progress: &mut Progress) -> anyhow::Result<()> {
        let from_us = now_us().saturating_sub(self.args.days * 24 * HOUR_US);
        let origin = files::complete(group.origin.clone(), &self.arguments());
        let source = Source { name: group.name.clone(), origin };
        let mut page = None;
        while let Some(next) = self.runtime.block_on(group.page(from_us, page.as_ref()))? {
            self.read(&source, now_us(), false, progress.count(next.document.as_slice()))?;
            page = Some(next);
        }
        Ok(())
    }

    /// Imports one input. Its lines without a time get `time_us`, microseconds since the Unix epoch.
    fn input(&mut self, name: &str, time_us: u64, input: impl Read) -> anyhow::Result<()> {
        let source = Source { name: name.to_owned(), origin: files::origin(name, &self.arguments()) };
        self.read(&source, time_us, true, input)
    }

    /// What the arguments state about the functions.
    fn arguments(&self) -> Origin {
        Origin {
            account: self.args.account.clone().unwrap_or_default(),
            region: self.args.region.clone().unwrap_or_default(),
            function: self.args.function.clone().unwrap_or_default(),
            ..Origin::default()
        }
    }

    /// Imports one input. `has_all_events`: whether the size of the log can be counted.
    fn read(
        &mut self,
        source: &Source,
        time_us: u64,
        has_all_events: bool,
        input: impl Read,
    ) -> anyhow::Result<()> {
        let Self { chunk, sender, assembler, problems, reader, .. } = self;
        let mut is_storing = true;
        reader.read(source, input, &mut |mut entry| {
            entry.log_bytes = entry.log_bytes.filter(|_| has_all_events);
            assembler.add(entry, time_us, problems, &mut |found| {
                is_storing = is_storing && pass_on(found, chunk, sender);
            });
        });
        check_storing(is_storing)
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        let Self { chunk, sender, assembler, problems, .. } = self;
        let mut is_storing = true;
        assembler.finish(problems, &mut |found| {
            is_storing = is_storing && pass_on(found, chunk, sender);
        });
        check_storing(is_storing && sender.send(mem::take(chunk)).is_ok())
    }
}

/// The table of all functions in the time of the imported invocations.
async fn fleet(
    args: &LogsArgs,
    store: &dyn Store,
    totals: &Totals,
    prices: &PriceTable,
) -> anyhow::Result<String> {
    let Some((first_us, last_us)) = totals.span_us else {
        if totals.measured_by_layer.is_empty() {
            tracing::error!(
                "no invocation was found: import logs with the lines that Lambda writes, such as REPORT"
            );
        }
        return Ok(String::new());
    };
    let tenant = Tenant(args.tenant.clone());
    let request = report::Request {
        store,
        tenant: &tenant,
        window: Window::covering(first_us, last_us.saturating_add(1)),
        prices,
        // clap validated the argument.
        strategy: query::strategy(Some(&args.strategy), None).unwrap_or_default(),
        now_us: now_us(),
        enforcements: None,
        fleet_sums: None,
        tags: None,
        computes_all: true,
    };
    let list = ListQuery { strategy: Some(args.strategy.clone()), limit: usize::MAX, ..ListQuery::default() };
    let fleet = report::list::computed_fleet(&request, &list).await?;
    Ok(write(&fleet, args.format, show::style_with(args.color)))
}

/// What was imported and what not, on standard error.
fn summarize(args: &LogsArgs, progress: &Progress, totals: &Totals, problems: &Problems) {
    let mut text = String::new();
    let mut line = |sentence: String| {
        text.push_str(&sentence);
        text.push('\n');
    };
    let (bytes, elapsed) = (progress.read_bytes(), progress.elapsed().as_secs_f64());
    line(format!(
        "{} read in {elapsed:.1} s: {} of {} imported, {} imported before",
        size(bytes as f64),
        exactly(totals.stored, "invocation"),
        exactly(totals.functions.len() as u64, "function"),
        totals.repeated
    ));
    if totals.stored > 0 {
        line(format!(
            "prices are for {}: logs do not have the instruction set (--architecture)",
            args.architecture
        ));
    }
    if totals.without_time > 0 {
        line(format!(
            "invocations without a time in the log, counted at the time of the file: {}",
            totals.without_time
        ));
    }
    if let Some((first_us, last_us)) = totals.span_us
        && first_us < now_us().saturating_sub(DEFAULT_HOURS * HOUR_US)
    {
        let day = |at_us: u64| instant(at_us).split(' ').next().unwrap_or_default().to_owned();
        let (first, last) = (day(first_us), day(last_us));
        let until = if first == last { String::new() } else { format!(" to {last}") };
        line(format!(
            "the invocations are of {first}{until}: other commands show the last {} days, unless --since names an earlier \
             start: --since {first}",
            DEFAULT_HOURS / 24
        ));
    }
    for (function, NotStored { invocations, log_bytes }) in &totals.measured_by_layer {
        let log = match log_bytes {
            0 => String::new(),
            bytes => format!("; its log of {} is counted for `tailor bill`", size(*bytes as f64)),
        };
        line(format!(
            "{}: {invocations} invocations not imported, because its layer measures them{log}",
            function.name
        ));
    }
    for function in &totals.without_function_events {
        line(format!(
            "{}: the size of its log is not counted, because it has only lines of the platform, as after a search for them",
            function.name
        ));
    }
    for (problem, count) in problems.iter() {
        line(format!("{}: {}, such as: {}", problem.explanation(), count.count, count.example));
    }
    if totals.stored > 0 {
        line(
            "logs have no CPU time: a function that ran with one memory size gets no recommended size. The layer measures \
             CPU time, waiting and memory of each invocation, and predicts every size from it"
                .to_owned(),
        );
    }
    // Without standard error it cannot be shown.
    let _ = io::stderr().write_all(text.as_bytes());
}
