//! The arguments that select, sort and add up functions.

use clap::Args;

use tailor_sizing::pricing::money::PicoDollars;

use super::ShowArgs;
use crate::query::{self, AdviceFilter, DEFAULT_LIMIT, Group, ListQuery, MAX_LIMIT, SortKey, TagFilter};
use crate::report::list::is_cursor;
use crate::store::FunctionKey;

/// Which functions are listed.
#[derive(Debug, Args)]
#[command(next_help_heading = "List")]
pub(super) struct ListArgs {
    /// Only functions whose names contain this text.
    #[arg(long)]
    name: Option<String>,
    /// Only functions of this account.
    #[arg(long)]
    account: Option<String>,
    /// Only functions of this region.
    #[arg(long)]
    region: Option<String>,
    /// Only functions with this runtime.
    #[arg(long)]
    runtime: Option<String>,
    /// Only functions with this instruction set: `x86_64` or `arm64`.
    #[arg(long)]
    architecture: Option<String>,
    /// Only functions with this kind of advice.
    #[arg(long, value_enum)]
    advice: Option<AdviceFilter>,
    /// Only functions that cost at least so many dollars in the window.
    #[arg(long, value_name = "DOLLARS", value_parser = dollars)]
    min_cost: Option<PicoDollars>,
    /// Order of the functions.
    #[arg(long, value_enum, default_value_t)]
    sort: SortKey,
    /// Reverse the order.
    #[arg(long)]
    reverse: bool,
    /// Maximum number of functions.
    #[arg(long, default_value_t = DEFAULT_LIMIT as u64, value_parser = clap::value_parser!(u64).range(1..=MAX_LIMIT as u64))]
    limit: u64,
    /// Show the next functions. The value is `next` in the output of the previous functions.
    #[arg(long, value_parser = cursor)]
    cursor: Option<String>,
    /// Only functions with this tag: `KEY=VALUE`, or `KEY` for any value. With several, a function must have all of them.
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Show sums by `account`, `region`, `runtime`, or a tag such as `tag:team`.
    #[arg(long, value_name = "PROPERTY")]
    by: Option<Group>,
}

fn dollars(text: &str) -> Result<PicoDollars, String> {
    query::dollars(text).ok_or_else(|| "an amount of dollars is a number such as 12.5".to_owned())
}

fn cursor(text: &str) -> Result<String, String> {
    if is_cursor(text) { Ok(text.to_owned()) } else { Err("this is not the `next` of a list".to_owned()) }
}

impl ListArgs {
    /// The functions to select from a data folder.
    pub(super) fn query(&self, show: &ShowArgs) -> ListQuery {
        ListQuery {
            hours: show.hours,
            strategy: Some(show.strategy.clone()),
            weight: show.weight,
            name: self.name.clone(),
            account: self.account.clone(),
            region: self.region.clone(),
            runtime: self.runtime.clone(),
            architecture: self.architecture.clone(),
            advice: self.advice,
            min_cost: self.min_cost,
            sort: self.sort,
            is_reversed: self.reverse,
            cursor: self.cursor.clone(),
            limit: usize::try_from(self.limit).unwrap_or(MAX_LIMIT),
            tags: TagFilter::parse(&self.tag.join(",")),
            by: self.by.clone(),
        }
    }

    /// Whether a function is in the account and region of the filters.
    pub(super) fn is_at(&self, key: &FunctionKey) -> bool {
        self.account.as_ref().is_none_or(|account| *account == key.account)
            && self.region.as_ref().is_none_or(|region| *region == key.region)
    }

    /// Account and region as parameters of a request.
    pub(super) fn place(&self) -> Vec<(&'static str, String)> {
        let place = [("account", &self.account), ("region", &self.region)];
        place.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect()
    }

    /// The same as parameters of a request.
    pub(super) fn parameters(&self) -> Vec<(&'static str, String)> {
        let mut parameters = vec![("sort", self.sort.code()), ("limit", self.limit.to_string())];
        for (name, value) in [
            ("name", &self.name),
            ("account", &self.account),
            ("region", &self.region),
            ("runtime", &self.runtime),
            ("architecture", &self.architecture),
            ("cursor", &self.cursor),
        ] {
            parameters.extend(value.clone().map(|value| (name, value)));
        }
        if let Some(advice) = self.advice {
            parameters.push(("advice", advice.code().to_owned()));
        }
        if !self.tag.is_empty() {
            parameters.push(("tag", self.tag.join(",")));
        }
        if let Some(by) = &self.by {
            parameters.push(("by", by.code()));
        }
        if let Some(PicoDollars(pico)) = self.min_cost {
            let whole = pico / 1_000_000_000_000;
            parameters.push(("min_cost", format!("{whole}.{:012}", pico % 1_000_000_000_000)));
        }
        if self.reverse {
            parameters.push(("reverse", "true".to_owned()));
        }
        parameters
    }
}
