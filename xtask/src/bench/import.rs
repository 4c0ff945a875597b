//! The rate of an import of logs, beside that of a search for the word `REPORT` in the same file.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tailor_test_kit::workspace::{cargo, target_folder};

/// Lines of the function for each invocation.
const LINES: u64 = 20;

/// Measured runs of each program. The fastest counts: the others waited for other processes.
const RUNS: u32 = 3;

/// Options of `cargo xtask bench import`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Size of the generated log, MB.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    megabytes: u64,
    /// A `tailor` that is measured in place of a release build of this source.
    #[arg(long)]
    binary: Option<PathBuf>,
}

/// Generates a log, imports it, and searches it.
pub(super) fn run(options: &Options) -> Result<ExitCode> {
    let target = target_folder()?;
    let tailor = match &options.binary {
        Some(binary) => binary.clone(),
        None => {
            cargo(&["build", "--release", "--quiet", "-p", "tailor-collector"])?;
            target.join("release/tailor")
        }
    };
    let folder = target.join(format!("bench-import-{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let result = measure(options, &tailor, &folder);
    fs::remove_dir_all(&folder).with_context(|| format!("cannot delete {}", folder.display()))?;
    result.map(|()| ExitCode::SUCCESS)
}

fn measure(options: &Options, tailor: &Path, folder: &Path) -> Result<()> {
    let log = folder.join("pay.log");
    let (bytes, invocations) = generate(&log, options.megabytes * 1_000_000)?;
    let megabytes = bytes as f64 / 1e6;
    println!("{megabytes:.0} MB of log with {invocations} invocations; the fastest of {RUNS} runs");
    let import = fastest(|run| {
        let mut command = Command::new(tailor);
        command.args(["import", "logs", "--format", "csv", "--function", "pay", "--region", "eu-west-1"]);
        command.arg("--data").arg(folder.join(format!("data-{run}"))).arg(&log);
        command
    })?;
    println!("tailor import logs: {import:.2} s, {:.0} MB/s", megabytes / import);
    let search = fastest(|_| {
        let mut command = Command::new("rg");
        command.args(["--threads", "1", "-c", "REPORT"]).arg(&log);
        command
    });
    match search {
        Ok(search) => println!(
            "rg -c REPORT: {search:.2} s, {:.0} MB/s; the import takes {:.1} times as long",
            megabytes / search,
            import / search
        ),
        Err(error) => println!("rg -c REPORT was not measured: {error:#}"),
    }
    Ok(())
}

/// The shortest time of some runs, seconds.
fn fastest(command: impl Fn(u32) -> Command) -> Result<f64> {
    let mut shortest = f64::INFINITY;
    for run in 0..RUNS {
        let mut command = command(run);
        let started = Instant::now();
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        let status = status.with_context(|| format!("cannot start {}", command.get_program().display()))?;
        shortest = shortest.min(started.elapsed().as_secs_f64());
        ensure!(status.success(), "{} failed: {status}", command.get_program().display());
    }
    Ok(shortest)
}

/// Writes a log of at least `bytes`. Returns its size and the number of invocations.
fn generate(path: &Path, bytes: u64) -> Result<(u64, u64)> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let mut log = BufWriter::new(file);
    let (mut written, mut count) = (0_u64, 0_u64);
    while written < bytes {
        let text = invocation(count);
        log.write_all(text.as_bytes())?;
        written += text.len() as u64;
        count += 1;
    }
    log.flush()?;
    Ok((written, count))
}

/// The lines of one invocation. Invocations begin one second after each other.
fn invocation(index: u64) -> String {
    let (minute, second) = (index / 60 % 60, index % 60);
    let (day, hour) = (1 + index / 86_400 % 28, index / 3_600 % 24);
    let time = format!("2026-10-{day:02}T{hour:02}:{minute:02}:{second:02}.000Z");
    let id = format!(
        "{index:08x}-{:04x}-4222-8333-{:012x}",
        index % 65_521,
        index.wrapping_mul(0x9e37_79b9) % (1 << 48)
    );
    let mut text = format!("{time} START RequestId: {id} Version: $LATEST\n");
    for line in 0..LINES {
        let (order, customer) = (index * 31 + line, index % 9_973);
        text += &format!("{time} {id} INFO order {order} of customer {customer} was paid\n");
    }
    let duration_ms = 5 + index % 900;
    text += &format!(
        "{time} END RequestId: {id}\n{time} REPORT RequestId: {id}\tDuration: {duration_ms}.25 ms\tBilled Duration: {} ms\t\
         Memory Size: 512 MB\tMax Memory Used: 90 MB\t\n",
        duration_ms + 1
    );
    text
}
