//! Scores the predictor on measured functions.
//!
//! `evaluate SET... [--base MB] [--also MB] [--json] [--save FILE] [--against FILE] [--picture FILE]
//! [--role train|validation]`, where each SET is a folder in the format of `sizing/eval/data/throttled-functions`, with its
//! role in the file `ROLE`, a file that `cargo xtask truth` wrote, of which `--role` selects functions, or a saved run of
//! `cargo xtask bench sizing`. The first half of a function's invocations at one size is its telemetry, the mean of the second
//! half at every other size is the value to predict. `--also` adds the telemetry of a second size to the predictions by kind.
//! `--save` writes all predictions, and `--against` compares with saved ones, paired by function: negative differences are
//! better.

mod picture;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use tailor_sizing::pricing::prices::PriceTable;
use tailor_sizing::units::{Architecture, Megabytes};
use tailor_sizing_eval::dataset;
use tailor_sizing_eval::paired::{self, Predicted};
use tailor_sizing_eval::role;
use tailor_sizing_eval::score::{Case, enforcement, predictions, score};
use tailor_sizing_eval::truth::Role;

const USAGE: &str = "usage: evaluate DIR... [--base MB] [--also MB] [--json] [--save FILE] [--against FILE] \
     [--picture FILE] [--role train|validation]";

struct Arguments {
    folders: Vec<PathBuf>,
    bases: Vec<Megabytes>,
    also: Option<Megabytes>,
    json: bool,
    save: Option<PathBuf>,
    against: Option<PathBuf>,
    /// Output file of the plot of predicted and measured durations, from the first base size or 256 MB.
    picture: Option<PathBuf>,
    /// Of a file with roles, only the functions with this one.
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
    let (mut cases, mut rows) = (Vec::new(), Vec::new());
    for folder in &arguments.folders {
        // A file of `cargo xtask truth` has a role for each function.
        let role = arguments.role.map_or_else(
            || role::of(folder).map(|role| role.to_string()),
            |role| Ok(format!("{role:?}").to_lowercase()),
        )?;
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let of_set = dataset::read(folder, arguments.role)?;
        eprintln!("{name}: {} functions, role {role}", of_set.len());
        rows.extend(
            bases(&arguments.bases, &of_set)
                .into_iter()
                .flat_map(|base| predictions(&name, &of_set, base, arguments.also)),
        );
        cases.extend(of_set);
    }
    eprintln!("the model was fitted to: {}", role::FITTED_TO.join(", "));
    if let Some(path) = &arguments.save {
        std::fs::write(path, serde_json::to_string(&rows)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &arguments.against {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let old: Vec<Predicted> = serde_json::from_str(&text).context("not saved predictions")?;
        println!("{}", paired::differences(&rows, &old));
    }
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
        print!("{}\n{}", table::render(&report), paired::by_kind(&rows));
        let high_resolution = |base: u32| {
            format!("{base}: {:.2}", enforcement(&cases, Megabytes(base)).high_resolution_probability())
        };
        let by_base: Vec<String> = report.by_base.keys().map(|&base| high_resolution(base)).collect();
        println!("\nprobability of a high-resolution kernel, by base: {}", by_base.join(", "));
    }
    Ok(())
}

/// The base sizes to score: `given`, or all sizes of `cases`.
fn bases(given: &[Megabytes], cases: &[Case]) -> Vec<Megabytes> {
    if !given.is_empty() {
        return given.to_vec();
    }
    let mut all: Vec<Megabytes> =
        cases.iter().flat_map(|case| case.sizes.iter().map(|size| size.memory)).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn arguments(mut given: impl Iterator<Item = String>) -> anyhow::Result<Arguments> {
    let mut folders = Vec::new();
    let (mut also, mut save, mut against, mut role) = (None, None, None, None);
    let mut bases = Vec::new();
    let mut json = false;
    let mut picture = None;
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--json" => json = true,
            "--base" => {
                bases.push(megabytes(given.next())?);
            }
            "--role" => {
                role = Some(match given.next().as_deref() {
                    Some("train") => Role::Train,
                    Some("validation") => Role::Validation,
                    _ => bail!("{USAGE}"),
                });
            }
            "--also" => also = Some(megabytes(given.next())?),
            "--save" => save = Some(PathBuf::from(given.next().context(USAGE)?)),
            "--against" => against = Some(PathBuf::from(given.next().context(USAGE)?)),
            "--picture" => picture = Some(PathBuf::from(given.next().context(USAGE)?)),
            other if other.starts_with('-') => bail!("unknown option `{other}`\n{USAGE}"),
            other => folders.push(PathBuf::from(other)),
        }
    }
    ensure!(!folders.is_empty(), USAGE);
    Ok(Arguments { folders, bases, also, json, save, against, picture, role })
}

fn megabytes(text: Option<String>) -> anyhow::Result<Megabytes> {
    let text = text.context(USAGE)?;
    Ok(Megabytes(text.parse().with_context(|| format!("`{text}` is not a size in MB"))?))
}
