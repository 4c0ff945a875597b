//! `tailor changes` with a command, and `tailor policy`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use serde::Serialize;
use tailor_sizing::pricing::money::PicoDollars;

use super::arguments::{Colour, ShowArgs};
use super::completions::function_names;
use super::database::DatabaseArgs;
use super::list::ChangeArgs;
use super::runtime::block_on;
use super::streams::{note, output};
use super::tuner::{TunerArgs, load_policy};
use super::{serve, show};
use crate::changes::ledger::{self, Saving};
use crate::changes::named::{ListedNames, NamedFunction};
use crate::changes::{self, audit, fleet};
use crate::clock::{Clock, now_us};
use crate::files::read_text;
use crate::prices;
use crate::query::{Format, TableStyle};
use crate::render::changes::Changes;
use crate::render::listing::Listing;
use crate::render::output::{Field, Output, Rows, write};
use crate::render::units;
use crate::store::{ChangeEvent, FunctionKey, Tenant};
use crate::tuner::Tuner;
use crate::tuner::plan::Plan;
use crate::tuner::requests::{RequestStore, TunerRequest};

/// The commands of the tuner's changes.
#[derive(Debug, Subcommand)]
pub(super) enum TunerCommand {
    /// Show the changes. `tailor changes` without a command is the same.
    List {
        #[command(flatten)]
        show: Box<ShowArgs>,
        #[command(flatten)]
        list: ChangeArgs,
    },
    /// Show what the tuner would change now, and why other functions stay. Nothing is written to Lambda.
    Plan {
        #[command(flatten)]
        folder: Folder,
        /// Write the plan to a file, for `tailor changes apply`.
        #[arg(long)]
        out: Option<PathBuf>,
        /// Print the plan as JSON.
        #[arg(long, conflicts_with = "format")]
        json: bool,
        /// Output format.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        /// File with Lambda's prices in place of the built-in ones.
        #[arg(long, value_name = "FILE")]
        prices: Option<PathBuf>,
        #[command(flatten)]
        tuner: Box<TunerArgs>,
    },
    /// Make the changes of a plan, if the functions are as they were. The running collector makes them.
    Apply {
        #[command(flatten)]
        folder: Folder,
        /// The file of the plan.
        plan: PathBuf,
    },
    /// Show every step of the changes of one function.
    Explain {
        #[command(flatten)]
        folder: Folder,
        /// The function.
        #[arg(add = ArgValueCompleter::new(function_names))]
        function: String,
        /// Account of the function, when functions of several accounts have the name.
        #[arg(long)]
        account: Option<String>,
        /// Region of the function, when functions of several regions have the name.
        #[arg(long)]
        region: Option<String>,
        /// Output format.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Roll the latest change of a function back.
    Rollback {
        #[command(flatten)]
        folder: Folder,
        /// The function.
        function: String,
        /// Account of the function, when functions of several accounts have the name.
        #[arg(long)]
        account: Option<String>,
        /// Region of the function, when functions of several regions have the name.
        #[arg(long)]
        region: Option<String>,
        /// The change, which must be the latest one of the function.
        #[arg(long)]
        change: Option<String>,
    },
    /// Start no change, and roll the open ones back. It works while AWS is not reachable.
    Freeze {
        #[command(flatten)]
        folder: Folder,
        /// Why.
        #[arg(long, default_value = "requested on the command line")]
        reason: String,
    },
    /// Allow changes again.
    Unfreeze {
        #[command(flatten)]
        folder: Folder,
        /// Why.
        #[arg(long, default_value = "requested on the command line")]
        reason: String,
    },
    /// Freeze, and give every function the size that it had before the tuner changed it.
    RevertAll {
        #[command(flatten)]
        folder: Folder,
        /// Why.
        #[arg(long, default_value = "requested on the command line")]
        reason: String,
    },
    /// Print the change log: as JSON, one event a line, or in the format that is named.
    Log {
        #[command(flatten)]
        folder: Folder,
        /// Verify the digests of the log instead of printing it.
        #[arg(long)]
        verify: bool,
        /// Print predicted and measured savings instead of the events.
        #[arg(long, conflicts_with = "verify")]
        ledger: bool,
        /// Output format.
        #[arg(long, value_enum, conflicts_with = "verify")]
        format: Option<Format>,
    },
}

/// The data folder or the database of the commands.
#[derive(Debug, Args)]
pub(super) struct Folder {
    /// The data folder.
    #[arg(long, env = "TAILOR_DATA", default_value = "tailor-data")]
    data: PathBuf,
    #[command(flatten)]
    database: DatabaseArgs,
    /// Tenant whose changes are read.
    #[arg(long, default_value = "default")]
    tenant: String,
}

/// The commands of the policy file.
#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Check the policy file and list its faults.
    Check {
        /// The file.
        #[arg(default_value = "tailor.yaml")]
        file: PathBuf,
        /// Output format.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

pub(super) fn policy(command: &PolicyCommand) -> anyhow::Result<ExitCode> {
    let PolicyCommand::Check { file, format } = command;
    let mut checked =
        CheckedPolicy { file: file.display().to_string(), mode: None, rules: 0, problem: String::new() };
    match load_policy(file) {
        Ok(policy) => {
            checked.mode = Some(policy.mode.to_string());
            checked.rules = policy.rules.len();
        }
        // For people, as other errors.
        Err(error) if *format == Format::Table => return Err(error),
        Err(error) => checked.problem = format!("{error:#}"),
    }
    show::print((write(&checked, *format, show::style_with(Colour::Auto)), false))?;
    Ok(if checked.problem.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What `tailor policy check` found.
#[derive(Debug, Serialize)]
struct CheckedPolicy {
    file: String,
    /// The tuner's mode; `null` when the file is not valid.
    mode: Option<String>,
    /// Number of rules of functions.
    rules: usize,
    /// What is wrong; empty when the file is valid.
    problem: String,
}

impl CheckedPolicy {
    fn row(&self) -> Rows {
        let mode = self.mode.as_deref().unwrap_or_default();
        let row = [
            Field::from(&self.file),
            mode.into(),
            Field::number(Some(self.rules)),
            Field::from(&self.problem),
        ];
        Rows::new(&["file", "mode", "rules", "problem"], [row])
    }
}

impl Output for CheckedPolicy {
    fn value(&self) -> impl Serialize {
        self
    }

    fn table(&self, _style: TableStyle) -> String {
        let mode = self.mode.as_deref().unwrap_or_default();
        format!("{}: valid, mode `{mode}`, {} rules of functions\n", self.file, self.rules)
    }

    fn markdown(&self) -> Rows {
        self.row()
    }

    fn csv(&self) -> Rows {
        self.row()
    }
}

pub(super) fn run(command: TunerCommand) -> anyhow::Result<ExitCode> {
    match command {
        TunerCommand::List { show, list } => show::changes(&show, &list),
        TunerCommand::Plan { folder, out, json, format, prices, tuner } => {
            let format = if json { Format::Json } else { format };
            plan(&folder, out.as_deref(), format, prices.as_deref(), &tuner)
        }
        TunerCommand::Apply { folder, plan } => {
            let text = read_text(&plan).with_context(|| format!("cannot read {}", plan.display()))?;
            let plan: Plan = serde_json::from_str(&text)
                .context("the file is not a plan: `tailor changes plan --out FILE` writes one")?;
            ensure!(plan.is_intact(), "the plan was altered after it was made: make a new plan");
            submit(&folder, &TunerRequest::Apply { plan })
        }
        TunerCommand::Explain { folder, function, account, region, format } => {
            explain(&folder, &NamedFunction::new(&function, account.as_deref(), region.as_deref()), format)
        }
        TunerCommand::Rollback { folder, function, account, region, change } => {
            check_name(&folder, &NamedFunction::new(&function, account.as_deref(), region.as_deref()))?;
            submit(&folder, &TunerRequest::Rollback { function, account, region, change_id: change })
        }
        TunerCommand::Freeze { folder, reason } => submit(&folder, &TunerRequest::Freeze { reason }),
        TunerCommand::Unfreeze { folder, reason } => submit(&folder, &TunerRequest::Unfreeze { reason }),
        TunerCommand::RevertAll { folder, reason } => submit(&folder, &TunerRequest::RevertAll { reason }),
        TunerCommand::Log { folder, verify, ledger, format } => log(&folder, verify, ledger, format),
    }
}

/// Checks that exactly one function with changes is meant. Without a log that can be read, the tuner checks it alone.
fn check_name(folder: &Folder, named: &NamedFunction<'_>) -> anyhow::Result<()> {
    if let Ok(events) = events(folder) {
        let found = named.find(events.iter().map(|event| &event.function))?;
        ensure!(
            found.is_some(),
            "there is no change of {}: `tailor changes` lists all changes",
            named.name()
        );
    }
    Ok(())
}

/// Leaves a request for the collector that runs with the data folder or the database, now or later.
fn submit(folder: &Folder, request: &TunerRequest) -> anyhow::Result<ExitCode> {
    let data = &folder.data;
    if folder.database.is_set() {
        let store = folder.database.open_to_read(data)?;
        let requests = RequestStore::Store(store, Tenant(folder.tenant.clone()));
        block_on(requests.submit(request, now_us()))??;
        note("requested from the collector that tunes with this database, now or later");
        return Ok(ExitCode::SUCCESS);
    }
    ensure!(data.is_dir(), "{} is not a data folder: name it with --data", data.display());
    block_on(RequestStore::in_data_folder(data).submit(request, now_us()))??;
    match serve::address_of(data) {
        Some(address) => note(format_args!("requested from the collector at {address}")),
        None => note(format_args!(
            "no collector runs with {}: it is executed when one starts with a tuner",
            data.display()
        )),
    }
    Ok(ExitCode::SUCCESS)
}

fn plan(
    folder: &Folder,
    out: Option<&Path>,
    format: Format,
    prices: Option<&Path>,
    args: &TunerArgs,
) -> anyhow::Result<ExitCode> {
    let mut settings = args.settings(&folder.data)?;
    settings.tenant = Tenant(folder.tenant.clone());
    let store = folder.database.open_to_read(&folder.data)?;
    let prices = prices::load(prices)?;
    let plan = block_on(async {
        let lambda = Arc::new(args.lambda().await);
        Tuner::new(store, lambda, prices, settings, Clock::system()).plan().await
    })??;
    if let Some(out) = out {
        let json = serde_json::to_string_pretty(&plan)?;
        fs::write(out, format!("{json}\n")).with_context(|| format!("cannot write {}", out.display()))?;
    }
    show::print((write(&plan, format, show::style_with(Colour::Auto)), false))
}

fn events(folder: &Folder) -> anyhow::Result<Vec<ChangeEvent>> {
    let store = folder.database.open_to_read(&folder.data)?;
    Ok(block_on(store.changes(&Tenant(folder.tenant.clone()), None))??)
}

fn explain(folder: &Folder, named: &NamedFunction<'_>, format: Format) -> anyhow::Result<ExitCode> {
    let events = events(folder)?;
    let frozen = fleet::frozen(&events);
    let mut changes = changes::fold(events);
    let Some(function) = named.find(changes.iter().map(|change| &change.function))?.cloned() else {
        bail!("the tuner made no change of `{}`; `tailor changes plan` shows why", named.name());
    };
    changes.retain(|change| change.function == function);
    if format != Format::Table {
        return show::print((write(&Changes(&changes), format, show::style_with(Colour::Auto)), false));
    }
    let mut text = String::new();
    if let Some((_, reason)) = frozen {
        text += &format!("the tuner is frozen: {reason}\n");
    }
    text += &format!("{}\n", function.with_region_and_account(&function.name));
    for change in changes {
        text += &format!("change {}: {} to {}, {}\n", change.id, change.from, change.to, change.state.code());
        if change.intent.uncapped_mb > 0 && change.intent.uncapped_mb != change.to.0 {
            text += &format!("  {} MB is advised\n", change.intent.uncapped_mb);
        }
        for step in &change.steps {
            text += &format!("  {} {}: {}\n", units::instant(step.at_us), step.state.code(), step.reason);
        }
    }
    show::print((text, false))
}

fn log(folder: &Folder, verify: bool, show_ledger: bool, format: Option<Format>) -> anyhow::Result<ExitCode> {
    let events = events(folder)?;
    let style = show::style_with(Colour::Auto);
    if show_ledger {
        let listing = ledger_listing(ledger::entries(&changes::fold(events)));
        return show::print((write(&listing, format.unwrap_or(Format::Json), style), false));
    }
    if let Some(format) = format {
        return show::print((write(&event_listing(events), format, style), false));
    }
    if !verify {
        for event in &events {
            if !output(&(serde_json::to_string(event)? + "\n"))? {
                break;
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let result = audit::verify(&events);
    let names = ListedNames::of(result.heads.keys());
    let mut text = String::new();
    for (function, head) in &result.heads {
        let name =
            if fleet::is_fleet(function) { "(all functions)".to_owned() } else { names.text(function) };
        text += &format!("{name} {head}\n");
    }
    text += &format!("{} events are intact, {} have no digest\n", result.correct, result.without_digest);
    for fault in &result.faults {
        text += &format!("{fault}\n");
    }
    output(&text)?;
    Ok(if result.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The predicted and the measured savings.
fn ledger_listing(entries: Vec<Saving>) -> Listing<Vec<Saving>> {
    let saving = |saving: Option<PicoDollars>| {
        saving.map_or_else(|| "not measured".to_owned(), |saving| saving.to_string())
    };
    let names = ListedNames::of(entries.iter().map(|entry| &entry.function));
    let people = entries.iter().map(|entry| {
        [
            names.text(&entry.function),
            entry.change_id.clone(),
            entry.state.code().to_owned(),
            saving(Some(entry.predicted_per_million)),
            saving(entry.realised_per_million),
        ]
    });
    let exact = entries.iter().map(|entry| {
        [
            Field::from(&entry.function.name),
            Field::from(&entry.function.account),
            Field::from(&entry.function.region),
            Field::from(&entry.change_id),
            Field::from(entry.state.code()),
            Field::from(entry.predicted_per_million.0),
            Field::number(entry.realised_per_million.map(|saving| saving.0)),
        ]
    });
    Listing {
        columns: Rows::new(&["FUNCTION", "CHANGE", "STATE", "PREDICTED/MLN", "MEASURED/MLN"], people),
        exact: Rows::new(
            &[
                "function",
                "account",
                "region",
                "change",
                "state",
                "predicted_per_million_pico_usd",
                "realised_per_million_pico_usd",
            ],
            exact,
        ),
        notes: if entries.is_empty() { "no ended changes\n".to_owned() } else { String::new() },
        value: entries,
    }
}

/// The change log.
fn event_listing(events: Vec<ChangeEvent>) -> Listing<Vec<ChangeEvent>> {
    let names = ListedNames::of(events.iter().map(|event| &event.function));
    let step = |event: &ChangeEvent| {
        [
            Field::from(&event.change_id),
            Field::from(event.step),
            Field::from(&event.kind),
            Field::from(event.detail.to_string()),
        ]
    };
    let people = events.iter().map(|event| {
        let [change, step, kind, detail] = step(event);
        [units::instant(event.at_us).into(), names.text(&event.function).into(), change, step, kind, detail]
    });
    let exact = events.iter().map(|event| {
        let FunctionKey { account, region, name } = &event.function;
        let [change, step, kind, detail] = step(event);
        let [name, account, region] = [name, account, region].map(Field::from);
        [event.at_us.into(), name, account, region, change, step, kind, detail]
    });
    Listing {
        columns: Rows::new(&["TIME (UTC)", "FUNCTION", "CHANGE", "STEP", "KIND", "DETAIL"], people),
        exact: Rows::new(
            &["at_us", "function", "account", "region", "change", "step", "kind", "detail"],
            exact,
        ),
        notes: if events.is_empty() { "no changes\n".to_owned() } else { String::new() },
        value: events,
    }
}
