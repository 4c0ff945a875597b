//! `tailor changes patch`: the recommended sizes as a change of the source that deploys the functions.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};

use tailor_sizing::units::Megabytes;

use super::arguments::ShowArgs;
use super::list::FilterArgs;
use super::show;
use super::streams::{note, output};
use crate::files::read_text;
use crate::patch::advice::{self, Advised};
use crate::patch::{Patch, Source, Target, comment, patch};
use crate::query::Format;
use crate::store::FunctionKey;
use crate::tags::TagTable;
use crate::tuner::aws::AwsLambda;

/// The tags with which CloudFormation marks what it made.
const LOGICAL_ID: &str = "aws:cloudformation:logical-id";
const STACK: &str = "aws:cloudformation:stack-name";

/// Why reports are not understood.
const UNREADABLE: &str = "the reports have another form: use a collector of this version";

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
    /// File with the output of `tailor functions --all --format json`, in place of a data folder or a collector. It has all
    /// functions, because a setting can be for several of them.
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
    let mut others = others(args, &advised, &targets)?;
    let table = args.show.tags.as_deref().map(TagTable::read).transpose()?.unwrap_or_default();
    for target in targets.iter_mut().chain(&mut others) {
        set_tags_of_file(target, &table);
    }
    if args.read_tags {
        read_tags(&advised, &mut targets)?;
    }
    let source = Source::read(&args.source)?;
    let patch = patch(&source, &targets, &others);
    if args.write {
        for file in &patch.files {
            write(&args.source.join(&file.file), &file.after)?;
        }
    }
    print(args, &patch, &advised)?;
    Ok(ExitCode::SUCCESS)
}

/// The advice for the named functions; without any, for all.
fn advised(args: &PatchArgs) -> anyhow::Result<Vec<Advised>> {
    if let Some(file) = &args.advice {
        let text = read_text(file).with_context(|| format!("cannot read {}", file.display()))?;
        ensure!(!text.trim().is_empty(), "{} is empty: the command that wrote it has failed", file.display());
        let advised = advice::read(&text).with_context(|| {
            format!("{} is not the JSON of `tailor functions --format json`", file.display())
        })?;
        if args.function.is_empty() && advice::has_more(&text) {
            note(format_args!(
                "tailor: {} does not have all functions: write it with `tailor functions --all --format json`",
                file.display()
            ));
        }
        return Ok(advised);
    }
    let names = names(args);
    if names.is_empty() {
        return every(args);
    }
    if has_all_sizes(args) {
        return Ok(show::reports(&args.show, &names)
            .and_then(|text| Ok(advice::read(&text)?))
            .unwrap_or_default());
    }
    let text = show::reports(&args.show, &args.function)?;
    advice::read(&text).context(UNREADABLE)
}

/// Whether every function has a size as an argument, so that no measurements are needed.
fn has_all_sizes(args: &PatchArgs) -> bool {
    let has_size = |name: &String| args.memory.iter().any(|(other, _)| other == name);
    !args.memory.is_empty() && args.function.iter().all(has_size)
}

/// The reports of all functions of the store or the collector.
fn every(args: &PatchArgs) -> anyhow::Result<Vec<Advised>> {
    let reports = show::selected_reports(&args.show, &FilterArgs::default())?;
    advice::read(&serde_json::to_string(&reports)?).context(UNREADABLE)
}

/// The known functions that are not to change, each with the size that it has.
fn others(args: &PatchArgs, advised: &[Advised], targets: &[Target]) -> anyhow::Result<Vec<Target>> {
    let present = |all: &[Advised]| -> Vec<Target> {
        all.iter().map(|advised| target(advised, Megabytes(advised.memory_mb))).collect()
    };
    let has_all = args.advice.is_some() || names(args).is_empty();
    let mut others = if has_all {
        present(advised)
    } else {
        match every(args) {
            Ok(all) => present(&all),
            // There need not be a store.
            Err(_) if has_all_sizes(args) && args.show.server.is_none() => Vec::new(),
            Err(error) => return Err(error),
        }
    };
    others.retain(|other| {
        !targets.iter().any(|target| is_of(target, &other.function, &other.account, &other.region))
    });
    Ok(others)
}

/// Whether a target is this function. One without account and region is every function of its name.
fn is_of(target: &Target, name: &str, account: &str, region: &str) -> bool {
    let agrees = |own: &str, other: &str| own.is_empty() || own == other;
    target.function == name && agrees(&target.account, account) && agrees(&target.region, region)
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
    let recommended = |advised: &Advised| target(advised, Megabytes(advised.advice.memory_mb));
    if names.is_empty() {
        return Ok(advised.iter().filter(|advised| advised.is_change()).map(recommended).collect());
    }
    let mut targets = Vec::new();
    for name in &names {
        let found: Vec<_> = advised.iter().filter(|advised| advised.name == *name).collect();
        if let Some((_, memory)) = args.memory.iter().rfind(|(other, _)| other == name) {
            targets.push(with_size(name, *memory, &found));
            continue;
        }
        match found[..] {
            [] => bail!("no advice for `{name}`: `tailor functions` lists the measured functions"),
            [a] if a.is_change() => targets.push(recommended(a)),
            [_] => note(format_args!("tailor: no other size is recommended for `{name}`")),
            _ => bail!("several functions are named `{name}`: set the size with `--memory {name}=MB`"),
        }
    }
    Ok(targets)
}

/// A function of a report, with the size that it is to have.
fn target(advised: &Advised, memory: Megabytes) -> Target {
    Target {
        account: advised.account.clone(),
        region: advised.region.clone(),
        deployed: Some(Megabytes(advised.memory_mb)),
        logical_id: advised.tags.get(LOGICAL_ID).cloned(),
        stack: advised.tags.get(STACK).cloned(),
        ..Target::named(&advised.name, memory)
    }
}

/// All functions of a name, with a size from the arguments. The tags are those that all their reports have.
fn with_size(name: &str, memory: Megabytes, reports: &[&Advised]) -> Target {
    let common = |tag: &str| {
        let first = reports.first()?.tags.get(tag)?;
        reports.iter().all(|report| report.tags.get(tag) == Some(first)).then(|| first.clone())
    };
    let place = match reports {
        [only] => (only.account.clone(), only.region.clone()),
        _ => (String::new(), String::new()),
    };
    Target {
        account: place.0,
        region: place.1,
        logical_id: common(LOGICAL_ID),
        stack: common(STACK),
        ..Target::named(name, memory)
    }
}

/// Sets what the file of tags has. It counts before the reports.
fn set_tags_of_file(target: &mut Target, table: &TagTable) {
    let key = FunctionKey {
        account: target.account.clone(),
        region: target.region.clone(),
        name: target.function.clone(),
    };
    let Target { logical_id, stack, .. } = target;
    for (tag, field) in [(LOGICAL_ID, logical_id), (STACK, stack)] {
        if let Some(value) = table.value(&key, tag) {
            *field = Some(value.to_owned());
        }
    }
}

/// Sets the tags that are not known yet from Lambda.
fn read_tags(advised: &[Advised], targets: &mut [Target]) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let lambda = AwsLambda::new(None, None, READS_PER_SECOND).await;
        for target in targets.iter_mut().filter(|target| target.logical_id.is_none()) {
            let is_known = |known: &&Advised| is_of(target, &known.name, &known.account, &known.region);
            let Some(known) = advised.iter().find(is_known) else { continue };
            let tags = lambda.tags(&key(known)).await?;
            target.logical_id = tags.get(LOGICAL_ID).cloned();
            target.stack = target.stack.take().or_else(|| tags.get(STACK).cloned());
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
