//! `tailor report`: the monthly report.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use tailor_sizing::advice::strategy::Strategy;

use super::arguments::WindowArgs;
use super::database::{Opened, ReadArgs, TagArgs};
use super::runtime::block_on;
use super::show;
use crate::clock::now_us;
use crate::monthly::{self, Inputs};
use crate::query::{self, Group, ListQuery};
use crate::reconcile::LastReconciliations;
use crate::report::Request;
use crate::tags::CurrentTags;

#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    #[command(flatten)]
    window: WindowArgs,
    /// Properties by which the cost is allocated: `account`, `region`, `runtime`, or a tag such as `tag:team`. It may be
    /// repeated. Default: `account`, and each tag of the file with tags.
    #[arg(long, value_name = "PROPERTY")]
    by: Vec<Group>,
    #[command(flatten)]
    tags: TagArgs,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
    #[command(flatten)]
    read: ReadArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum ReportFormat {
    /// Markdown.
    #[default]
    Markdown,
    /// One HTML page, without external content.
    Html,
}

pub(super) fn run(args: &ReportArgs) -> anyhow::Result<ExitCode> {
    let Opened { store, tenant, prices } = args.read.open()?;
    let tags = CurrentTags::default();
    if let Some(table) = args.tags.read()? {
        tags.set_file(&tenant, table);
    }
    let mut allocations = args.by.clone();
    if allocations.is_empty() {
        allocations.push(Group::Account);
        allocations.extend(tags.of(&tenant).keys().into_iter().map(|key| Group::Tag(key.to_owned())));
    }
    let (now_us, hours) = (now_us(), args.window.hours());
    let inputs = Inputs {
        request: Request {
            store: store.as_ref(),
            tenant: &tenant,
            window: query::last_hours(now_us, hours),
            prices: &prices,
            strategy: Strategy::default(),
            now_us,
            enforcements: None,
            fleet_sums: None,
            tags: Some(&tags),
            computes_all: args.read.computes_all(),
        },
        list: ListQuery { hours, ..ListQuery::default() },
        allocations,
        reconciliation: LastReconciliations::of(&args.read.data).get(&tenant)?,
    };
    let document = block_on(monthly::monthly(&inputs))??;
    let Some(document) = document else {
        tracing::error!("nothing was measured in the last {hours} hours: choose a longer time with --hours");
        return show::print((String::new(), true));
    };
    let text = match args.format {
        ReportFormat::Markdown => monthly::markdown(&document),
        ReportFormat::Html => monthly::html(&document),
    };
    show::print((text, false))
}
