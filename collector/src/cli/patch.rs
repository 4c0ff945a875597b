//! `tailor changes patch`: the recommended sizes as a change of the source that deploys the functions.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};

use tailor_sizing::units::Megabytes;

use super::arguments::ShowArgs;
use super::show;
use super::streams::{note, output};
use crate::files::read_text;
use crate::patch::advice::{self, Advised};
use crate::patch::{Patch, Source, Target, comment, patch};
use crate::query::Format;
use crate::store::FunctionKey;
use crate::tags::TagTable;
use crate::tuner::aws::AwsLambda;

/// The tag with which CloudFormation marks what it made.
const LOGICAL_ID: &str = "aws:cloudformation:logical-id";

/// Calls to Lambda a second. GetFunction has a request limit of 100 a second of its own.
const READS_PER_SECOND: f64 = 20.0;

/// Which functions are patched, and where.
#[derive(Debug, Args)]
pub(super) struct PatchArgs {
    /// Functions; without any, all functions for which another size is recommended.
    function: Vec<String>,
    /// Folder with the templates or programs that deploy the functions.
    #[arg(long, value_name = "DIR")]
    source: PathBuf,
    /// Set this size in place of the recommended one. Can be repeated.
    #[arg(long, value_name = "NAME=MB", value_parser = size)]
    memory: Vec<(String, Megabytes)>,
    /// File with the output of `tailor functions --advice change --limit 1000 --format json`, in place of a data folder or a
    /// collector.
    #[arg(long, value_name = "FILE", conflicts_with = "server")]
    advice: Option<PathBuf>,
    /// Read the tags of the functions from Lambda, with the credentials of the AWS SDK.
    #[arg(long)]
    read_tags: bool,
    /// Change the files, and print what changed in place of the diff.
    #[arg(long)]
    write: bool,
    /// Print the comment of a change request in place of the diff.
    #[arg(long, value_enum)]
    comment: Option<CommentFormat>,
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CommentFormat {
    /// For GitHub and GitLab. Its first line is a marker, by which a workflow finds and updates it.
    Markdown,
}

fn size(text: &str) -> Result<(String, Megabytes), String> {
    let (name, size) = text.rsplit_once('=').ok_or("a size is NAME=MB, such as orders=512")?;
    match size.parse() {
        Ok(size @ 128..=10_240) if !name.is_empty() => Ok((name.to_owned(), Megabytes(size))),
        _ => Err("a size is NAME=MB, and MB is from 128 to 10240".to_owned()),
    }
}

pub(super) fn run(args: &PatchArgs) -> anyhow::Result<ExitCode> {
    let advised = advised(args)?;
    let mut targets = targets(args, &advised)?;
    set_logical_ids(args, &advised, &mut targets)?;
    let source = Source::read(&args.source)?;
    let patch = patch(&source, &targets);
    if args.write {
        for file in &patch.files {
            write(&args.source.join(&file.file), &file.after)?;
        }
    }
    print(args, &patch, &advised)?;
    Ok(ExitCode::SUCCESS)
}

/// The advice for the functions.
fn advised(args: &PatchArgs) -> anyhow::Result<Vec<Advised>> {
    if let Some(file) = &args.advice {
        let text = read_text(file).with_context(|| format!("cannot read {}", file.display()))?;
        ensure!(!text.trim().is_empty(), "{} is empty: the command that wrote it has failed", file.display());
        let advised = advice::read(&text).with_context(|| {
            format!("{} is not the JSON of `tailor functions --format json`", file.display())
        })?;
        if args.function.is_empty() && advice::has_more(&text) {
            note(format_args!(
                "tailor: {} does not have all functions: write it with `tailor functions --advice change --limit 1000 --format json`",
                file.display()
            ));
        }
        return Ok(advised);
    }
    // Sizes for every function need no measurements.
    let has_sizes = |name: &String| args.memory.iter().any(|(other, _)| other == name);
    if !args.memory.is_empty() && args.function.iter().all(has_sizes) {
        return Ok(show::reports(&args.show, &names(args))
            .and_then(|text| Ok(advice::read(&text)?))
            .unwrap_or_default());
    }
    let text = show::reports(&args.show, &args.function)?;
    advice::read(&text).context("the reports have another form: use a collector of this version")
}

/// The functions that are named in any argument.
fn names(args: &PatchArgs) -> Vec<String> {
    let mut names = args.function.clone();
    for (name, _) in &args.memory {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// The functions and the sizes that they are to have.
fn targets(args: &PatchArgs, advised: &[Advised]) -> anyhow::Result<Vec<Target>> {
    let names = names(args);
    let target = |name: &str, deployed, memory| Target {
        function: name.to_owned(),
        deployed,
        memory,
        logical_id: None,
    };
    if names.is_empty() {
        let changes = advised.iter().filter(|advised| advised.is_change());
        return Ok(changes
            .map(|a| target(&a.name, Some(Megabytes(a.memory_mb)), Megabytes(a.advice.memory_mb)))
            .collect());
    }
    let mut targets = Vec::new();
    for name in &names {
        if let Some((_, memory)) = args.memory.iter().rfind(|(other, _)| other == name) {
            targets.push(target(name, None, *memory));
            continue;
        }
        let found: Vec<_> = advised.iter().filter(|advised| advised.name == *name).collect();
        match found[..] {
            [] => bail!("no advice for `{name}`: `tailor functions` lists the measured functions"),
            [a] if a.is_change() => {
                targets.push(target(name, Some(Megabytes(a.memory_mb)), Megabytes(a.advice.memory_mb)));
            }
            [_] => note(format_args!("tailor: no other size is recommended for `{name}`")),
            _ => bail!("several functions are named `{name}`: set the size with `--memory {name}=MB`"),
        }
    }
    Ok(targets)
}

/// Sets the logical ids from the file of tags, from the reports and from Lambda.
fn set_logical_ids(args: &PatchArgs, advised: &[Advised], targets: &mut [Target]) -> anyhow::Result<()> {
    let table = args.show.tags.as_deref().map(TagTable::read).transpose()?.unwrap_or_default();
    for target in targets.iter_mut() {
        let report = advised.iter().find(|advised| advised.name == target.function);
        let by_name =
            || FunctionKey { account: String::new(), region: String::new(), name: target.function.clone() };
        let key = report.map_or_else(by_name, key);
        let reported = || report.and_then(|report| report.tags.get(LOGICAL_ID)).map(String::as_str);
        target.logical_id = table.value(&key, LOGICAL_ID).or_else(reported).map(str::to_owned);
    }
    if !args.read_tags {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let lambda = AwsLambda::new(None, None, READS_PER_SECOND).await;
        for target in targets.iter_mut().filter(|target| target.logical_id.is_none()) {
            let Some(known) = advised.iter().find(|advised| advised.name == target.function) else {
                continue;
            };
            target.logical_id = lambda.tags(&key(known)).await?.get(LOGICAL_ID).cloned();
        }
        anyhow::Ok(())
    })
}

fn key(advised: &Advised) -> FunctionKey {
    FunctionKey {
        account: advised.account.clone(),
        region: advised.region.clone(),
        name: advised.name.clone(),
    }
}

/// Replaces a file. A new file is renamed over it, so that it is never half written; its access mode stays.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let context = || format!("cannot write {}", path.display());
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tailor-patch");
    let new = path.with_file_name(name);
    let permissions = fs::metadata(path).with_context(context)?.permissions();
    fs::write(&new, text)
        .and_then(|()| fs::set_permissions(&new, permissions))
        .and_then(|()| fs::rename(&new, path))
        .with_context(context)
}

fn print(args: &PatchArgs, patch: &Patch, advised: &[Advised]) -> anyhow::Result<()> {
    let mut text = String::new();
    if args.comment.is_some() {
        text = comment::markdown(patch, advised);
    } else if args.show.format == Format::Json {
        let value = serde_json::json!({
            "changed": patch.changed,
            "unchanged": patch.unchanged,
            "unsure": patch.unsure,
            "unreadable": patch.unreadable,
            "diff": patch.diff(),
        });
        text = format!("{}\n", serde_json::to_string_pretty(&value)?);
    } else if args.write {
        for found in &patch.changed {
            let place = &found.place;
            text.push_str(&format!(
                "{}:{}: {} from {} to {} MB\n",
                place.file, place.line, found.function, found.before_mb, found.after_mb
            ));
        }
    } else {
        text = patch.diff();
    }
    for unsure in &patch.unsure {
        note(format_args!(
            "tailor: `{}` is not changed to {} MB: {}",
            unsure.function, unsure.memory_mb, unsure.reason
        ));
        for place in &unsure.places {
            note(format_args!("    {}:{}", place.file, place.line));
        }
    }
    if !patch.unsure.is_empty() {
        for place in &patch.unreadable {
            note(format_args!(
                "tailor: {}:{} cannot be parsed; the file is left out",
                place.file, place.line
            ));
        }
    }
    output(&text)?;
    Ok(())
}
