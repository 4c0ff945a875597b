//! The rate of an import of logs, beside that of a search for the word `REPORT` in the same file, and its memory at two sizes.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use super::measured::{self, Measured};

/// Lines of the function for each invocation.
const LINES: u64 = 20;

/// Measured runs of each program.
const RUNS: u32 = 3;

/// The first log has this part of the size.
const FIRST_PART: u64 = 4;

/// Options of `cargo xtask bench import`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Size of the generated log, MB.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(4..=100_000))]
    megabytes: u64,
    /// A `tailor` that is measured in place of a release build of this source.
    #[arg(long)]
    binary: Option<PathBuf>,
}

/// Generates logs, imports them, and searches the larger one.
pub(super) fn run(options: &Options) -> Result<ExitCode> {
    let tailor = measured::tailor(options.binary.as_deref())?;
    measured::in_folder("bench-import", |folder| measure(options, &tailor, folder))?;
    Ok(ExitCode::SUCCESS)
}

fn measure(options: &Options, tailor: &Path, folder: &Path) -> Result<()> {
    let (small, log) = (folder.join("small.log"), folder.join("pay.log"));
    let (small_bytes, _) = generate(&small, options.megabytes * 1_000_000 / FIRST_PART)?;
    let (bytes, invocations) = generate(&log, options.megabytes * 1_000_000)?;
    let megabytes = bytes as f64 / 1e6;
    println!("{megabytes:.0} MB of log with {invocations} invocations; the fastest of {RUNS} runs");
    let first = measured::run(&mut import(tailor, &small, &folder.join("data-small")))?;
    let import = measured::fastest(RUNS, |run| import(tailor, &log, &folder.join(format!("data-{run}"))))?;
    print("tailor import logs", &import, megabytes);
    println!(
        "memory: {:.0} MB with {:.0} MB of log, {:.0} MB with {megabytes:.0} MB; ratio {:.2}",
        first.peak_mb,
        small_bytes as f64 / 1e6,
        import.peak_mb,
        import.peak_mb / first.peak_mb.max(1.0)
    );
    let search = measured::fastest(RUNS, |_| {
        let mut command = Command::new("rg");
        command.args(["--threads", "1", "-c", "REPORT"]).arg(&log);
        command
    });
    match search {
        Ok(search) => {
            print("rg -c REPORT", &search, megabytes);
            println!(
                "the import takes {:.1} times as long, and {:.1} times the CPU time",
                import.wall_s / search.wall_s,
                import.cpu_s / search.cpu_s.max(0.01)
            );
        }
        Err(error) => println!("rg -c REPORT was not measured: {error:#}"),
    }
    Ok(())
}

fn import(tailor: &Path, log: &Path, data: &Path) -> Command {
    let mut command = Command::new(tailor);
    command.args(["import", "logs", "--format", "csv", "--function", "pay", "--region", "eu-west-1"]);
    command.arg("--data").arg(data).arg(log);
    command
}

fn print(name: &str, measured: &Measured, megabytes: f64) {
    let Measured { wall_s, cpu_s, .. } = measured;
    println!(
        "{name}: {wall_s:.2} s, {:.0} MB/s; CPU time {cpu_s:.2} s, {:.0} MB/s per core",
        megabytes / wall_s,
        megabytes / cpu_s.max(0.01)
    );
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
