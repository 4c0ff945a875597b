//! Scores the predictor on measured functions.
//!
//! `evaluate DIR [--base MB] [--json] [--picture FILE] [--role train|validation]`, where DIR contains `invocations.csv` in the format of
//! `sizing/eval/data/throttled-functions`: the first half of a function's invocations at one size is its
//! telemetry, the mean of the second half at every other size is the value to predict. DIR may also be a file that
//! `cargo xtask truth` wrote; then `--role` selects its functions.

mod picture;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use tailor_sizing::pricing::prices::PriceTable;
use tailor_sizing::units::{Architecture, Megabytes};
use tailor_sizing_eval::score::{Case, enforcement, score};
use tailor_sizing_eval::truth::Role;

const USAGE: &str =
    "usage: evaluate DIR|TRUTH-FILE [--base MB] [--json] [--picture FILE] [--role train|validation]";

struct Arguments {
    folder: PathBuf,
    bases: Vec<Megabytes>,
    json: bool,
    /// Output file of the plot of predicted and measured durations, from the first base size or 256 MB.
    picture: Option<PathBuf>,
    /// Of a truth file, only the functions with this role.
    role: Option<Role>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("evaluate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let arguments = arguments(std::env::args().skip(1))?;
    let cases = cases(&arguments)?;
    let rates = PriceTable::embedded().rates("us-east-1", Architecture::X86_64)?;
    if let Some(path) = &arguments.picture {
        let base = arguments.bases.first().copied().unwrap_or(Megabytes(256));
        std::fs::write(path, picture::draw(&cases, base))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let report = score(&cases, &arguments.bases, &rates);
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", table::render(&report));
        let high_resolution = |base: u32| {
            format!("{base}: {:.2}", enforcement(&cases, Megabytes(base)).high_resolution_probability())
        };
        let by_base: Vec<String> = report.by_base.keys().map(|&base| high_resolution(base)).collect();
        println!("\nprobability of a high-resolution kernel, by base: {}", by_base.join(", "));
    }
    Ok(())
}

fn cases(arguments: &Arguments) -> anyhow::Result<Vec<Case>> {
    if !arguments.folder.is_file() {
        return tailor_sizing_eval::throttled::read(&arguments.folder);
    }
    let truth = tailor_sizing_eval::truth::read(&arguments.folder)?;
    Ok(truth.cases(arguments.role).into_iter().map(|(_, case)| case).collect())
}

fn arguments(mut given: impl Iterator<Item = String>) -> anyhow::Result<Arguments> {
    let mut folder = None;
    let mut bases = Vec::new();
    let mut json = false;
    let mut picture = None;
    let mut role = None;
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--json" => json = true,
            "--base" => {
                let text = given.next().context(USAGE)?;
                bases.push(Megabytes(text.parse().with_context(|| format!("`{text}` is not a size in MB"))?));
            }
            "--picture" => picture = Some(PathBuf::from(given.next().context(USAGE)?)),
            "--role" => {
                role = Some(match given.next().as_deref() {
                    Some("train") => Role::Train,
                    Some("validation") => Role::Validation,
                    _ => bail!("{USAGE}"),
                });
            }
            other if other.starts_with('-') => bail!("unknown option `{other}`\n{USAGE}"),
            other => folder = Some(PathBuf::from(other)),
        }
    }
    Ok(Arguments { folder: folder.context(USAGE)?, bases, json, picture, role })
}
