//! The arguments of every command that shows reports.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::database::DatabaseArgs;
use crate::clock::now_us;
use crate::query::{self, DEFAULT_HOURS, Format, Since};

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// Data folder to read. A collector may be running with it.
    #[arg(long, env = "TAILOR_DATA", default_value = "tailor-data")]
    pub(super) data: PathBuf,
    /// Read from a running collector instead, such as `http://127.0.0.1:8080`.
    #[arg(long, value_parser = server)]
    pub(super) server: Option<String>,
    /// File with the key for `--server`; without one `TAILOR_API_KEY` is used.
    #[arg(long, requires = "server")]
    pub(super) api_key_file: Option<PathBuf>,
    /// PEM file with certificate authorities that are trusted for `--server`, in addition to those of the system.
    #[arg(long, value_name = "FILE", env = "TAILOR_CA_FILE")]
    pub(super) ca_file: Option<PathBuf>,
    /// Tenant, when a data folder is read.
    #[arg(long, default_value = "default")]
    pub(super) tenant: String,
    /// File with Lambda's prices in place of the built-in ones, as for `tailor serve`. A running collector uses its own.
    #[arg(long, value_name = "FILE", conflicts_with = "server")]
    pub(super) prices: Option<PathBuf>,
    /// File with the tags of functions, as for `tailor serve`. A running collector uses its own.
    #[arg(long, value_name = "FILE", env = "TAILOR_TAGS")]
    pub(super) tags: Option<PathBuf>,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
    #[command(flatten)]
    pub(super) window: WindowArgs,
    /// Optimization goal: `cost`, `speed`, `balanced`, or a latency target such as `p95=300` (milliseconds). `cost` takes the
    /// fastest size within 3 % of the cheapest, `cost=5` within 5 %. `p95=300,cold` counts cold starts.
    #[arg(long, value_parser = strategy, default_value = crate::query::DEFAULT_STRATEGY)]
    pub(super) strategy: String,
    /// Weight of cost for `balanced`, from 0 to 1. The rest is the weight of speed. With a weight, the default strategy is
    /// `balanced`.
    #[arg(long, value_parser = weight)]
    pub(super) weight: Option<f64>,
    /// When the table has colours.
    #[arg(long, value_enum, default_value_t)]
    pub(super) color: Colour,
    // Last, because what follows has its heading.
    #[command(flatten)]
    pub(super) database: DatabaseArgs,
}

/// The window of time.
#[derive(Debug, Args)]
pub(super) struct WindowArgs {
    /// Length of the window before now, hours; 720 (30 days) by default.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) hours: Option<u64>,
    /// Start of the window: a time before now such as `6h`, `7d` or `2w`, a date such as `2026-11-01` (UTC), or a time such
    /// as `2026-11-01T10:00:00Z`. Windows begin at a full hour.
    #[arg(long, value_name = "TIME", value_parser = since, conflicts_with = "hours")]
    since: Option<Since>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Colour {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Also in a file or a pipe.
    Always,
    /// Never.
    Never,
}

fn server(text: &str) -> Result<String, String> {
    if text.starts_with("http://") || text.starts_with("https://") {
        Ok(text.to_owned())
    } else {
        Err(format!("the address must begin with its scheme: http://{text} or https://{text}"))
    }
}

fn since(text: &str) -> Result<Since, String> {
    let since = Since::parse(text).ok_or_else(|| query::SINCE.to_owned())?;
    let is_past = since.hours(now_us()).is_some();
    if is_past { Ok(since) } else { Err("the window begins in the future".to_owned()) }
}

pub(super) fn strategy(text: &str) -> Result<String, String> {
    let known = crate::query::strategy(Some(text), None).map(|_| text.to_owned());
    known.ok_or_else(|| crate::query::STRATEGIES.to_owned())
}

fn weight(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(weight) if (0.0..=1.0).contains(&weight) => Ok(weight),
        _ => Err("a weight is a number from 0 to 1".to_owned()),
    }
}

impl WindowArgs {
    fn named_hours(&self) -> Option<u64> {
        self.hours.or_else(|| self.since.and_then(|since| since.hours(now_us())))
    }

    /// Its length, hours.
    pub(super) fn hours(&self) -> u64 {
        self.named_hours().unwrap_or(DEFAULT_HOURS)
    }
}

impl ShowArgs {
    /// The length of the window in hours, where one is named.
    pub(super) fn named_hours(&self) -> Option<u64> {
        self.window.named_hours()
    }

    /// The length of the window, hours.
    pub(super) fn window_hours(&self) -> u64 {
        self.window.hours()
    }
}
