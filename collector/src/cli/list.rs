//! The arguments that select, sort and add up functions.

use clap::Args;

use tailor_sizing::pricing::money::PicoDollars;

use super::ShowArgs;
use crate::changes::State;
use crate::changes::selection::{ChangeSelection, ChangeSort};
use crate::clock::now_us;
use crate::query::{self, AdviceFilter, DEFAULT_LIMIT, Group, ListQuery, MAX_LIMIT, SortKey, TagFilter};
use crate::report::hints::HintSort;
use crate::report::list::is_cursor;
use crate::store::FunctionKey;

/// The account and the region of a function.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "List")]
pub(super) struct PlaceArgs {
    /// Only functions of this account.
    #[arg(long)]
    account: Option<String>,
    /// Only functions of this region.
    #[arg(long)]
    region: Option<String>,
}

/// Which functions are selected.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "List")]
pub(super) struct FilterArgs {
    /// Only functions whose names contain this text.
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    pub(super) place: PlaceArgs,
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
    /// Only functions with this tag: `KEY=VALUE`, or `KEY` for any value. With several, a function must have all of them.
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
}

/// Which functions are listed.
#[derive(Debug, Args)]
#[command(next_help_heading = "List")]
pub(super) struct ListArgs {
    #[command(flatten)]
    pub(super) filters: FilterArgs,
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
    /// Show sums by `account`, `region`, `runtime`, or a tag such as `tag:team`.
    #[arg(long, value_name = "PROPERTY")]
    by: Option<Group>,
}

/// Which hints are listed.
#[derive(Debug, Args)]
#[command(next_help_heading = "List")]
pub(super) struct HintArgs {
    #[command(flatten)]
    pub(super) filters: FilterArgs,
    /// Order of the hints.
    #[arg(long, value_enum, default_value_t)]
    pub(super) sort: HintSort,
    /// Reverse the order.
    #[arg(long)]
    pub(super) reverse: bool,
    /// Maximum number of hints; all when absent.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=MAX_LIMIT as u64))]
    limit: Option<u64>,
}

/// Which functions a time series has.
#[derive(Debug, Args)]
#[command(next_help_heading = "List")]
pub(super) struct SeriesArgs {
    #[command(flatten)]
    pub(super) filters: FilterArgs,
    /// The latest point first.
    #[arg(long)]
    pub(super) reverse: bool,
    /// Maximum number of groups.
    #[arg(long, default_value_t = DEFAULT_LIMIT as u64, value_parser = clap::value_parser!(u64).range(1..=MAX_LIMIT as u64))]
    limit: u64,
    /// Show sums by `account`, `region`, `runtime`, or a tag such as `tag:team`.
    #[arg(long, value_name = "PROPERTY")]
    by: Option<Group>,
}

/// Which changes are listed.
#[derive(Debug, Args)]
#[command(next_help_heading = "List")]
pub(super) struct ChangeArgs {
    /// Only changes of functions whose names contain this text.
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    place: PlaceArgs,
    /// Only changes in this state, such as `settled` or `rolled-back`.
    #[arg(long, value_parser = state)]
    state: Option<State>,
    /// Order of the changes.
    #[arg(long, value_enum, default_value_t)]
    sort: ChangeSort,
    /// Reverse the order.
    #[arg(long)]
    reverse: bool,
    /// Maximum number of changes; all when absent.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=MAX_LIMIT as u64))]
    limit: Option<u64>,
}

fn dollars(text: &str) -> Result<PicoDollars, String> {
    query::dollars(text).ok_or_else(|| "an amount of dollars is a number such as 12.5".to_owned())
}

fn cursor(text: &str) -> Result<String, String> {
    if is_cursor(text) { Ok(text.to_owned()) } else { Err("this is not the `next` of a list".to_owned()) }
}

fn state(text: &str) -> Result<State, String> {
    let states: Vec<_> = State::ALL.iter().map(|state| state.code()).collect();
    query::named(text).ok_or_else(|| format!("the states are {}", states.join(", ")))
}

type Parameters = Vec<(&'static str, String)>;

impl PlaceArgs {
    /// Whether a function is in the account and region of the filters.
    pub(super) fn has(&self, key: &FunctionKey) -> bool {
        self.account.as_ref().is_none_or(|account| *account == key.account)
            && self.region.as_ref().is_none_or(|region| *region == key.region)
    }

    /// Account and region as parameters of a request.
    pub(super) fn parameters(&self) -> Parameters {
        let place = [("account", &self.account), ("region", &self.region)];
        place.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect()
    }
}

impl FilterArgs {
    /// The functions for which another size is recommended.
    pub(super) fn recommended_changes() -> Self {
        Self { advice: Some(AdviceFilter::Change), ..Self::default() }
    }

    /// The functions to select from a data folder.
    pub(super) fn query(&self, show: &ShowArgs) -> ListQuery {
        ListQuery {
            hours: show.window_hours(),
            strategy: Some(show.strategy.clone()),
            weight: show.weight,
            name: self.name.clone(),
            account: self.place.account.clone(),
            region: self.place.region.clone(),
            runtime: self.runtime.clone(),
            architecture: self.architecture.clone(),
            advice: self.advice,
            min_cost: self.min_cost,
            tags: TagFilter::parse(&self.tag.join(",")),
            ..ListQuery::default()
        }
    }

    /// The same as parameters of a request.
    pub(super) fn parameters(&self) -> Parameters {
        let mut parameters = self.place.parameters();
        for (name, value) in
            [("name", &self.name), ("runtime", &self.runtime), ("architecture", &self.architecture)]
        {
            parameters.extend(value.clone().map(|value| (name, value)));
        }
        if let Some(advice) = self.advice {
            parameters.push(("advice", advice.code().to_owned()));
        }
        if !self.tag.is_empty() {
            parameters.push(("tag", self.tag.join(",")));
        }
        if let Some(PicoDollars(pico)) = self.min_cost {
            let whole = pico / 1_000_000_000_000;
            parameters.push(("min_cost", format!("{whole}.{:012}", pico % 1_000_000_000_000)));
        }
        parameters
    }
}

impl ListArgs {
    /// The functions to select from a data folder.
    pub(super) fn query(&self, show: &ShowArgs) -> ListQuery {
        ListQuery {
            sort: self.sort,
            is_reversed: self.reverse,
            cursor: self.cursor.clone(),
            limit: usize::try_from(self.limit).unwrap_or(MAX_LIMIT),
            by: self.by.clone(),
            ..self.filters.query(show)
        }
    }

    /// The same as parameters of a request.
    pub(super) fn parameters(&self) -> Parameters {
        let mut parameters = self.filters.parameters();
        parameters.extend([("sort", self.sort.code()), ("limit", self.limit.to_string())]);
        parameters.extend(self.cursor.clone().map(|cursor| ("cursor", cursor)));
        parameters.extend(self.by.as_ref().map(|by| ("by", by.code())));
        parameters.extend(reverse(self.reverse));
        parameters
    }
}

impl HintArgs {
    /// Maximum number of hints.
    pub(super) fn limit(&self) -> usize {
        limit(self.limit).unwrap_or(usize::MAX)
    }

    /// The hints to select, as parameters of a request.
    pub(super) fn parameters(&self) -> Parameters {
        let mut parameters = self.filters.parameters();
        parameters.push(("sort", self.sort.code().to_owned()));
        parameters.extend(self.limit.map(|limit| ("limit", limit.to_string())));
        parameters.extend(reverse(self.reverse));
        parameters
    }
}

impl SeriesArgs {
    /// The functions to select from a data folder.
    pub(super) fn query(&self, show: &ShowArgs) -> ListQuery {
        let limit = usize::try_from(self.limit).unwrap_or(MAX_LIMIT);
        ListQuery { limit, by: self.by.clone(), ..self.filters.query(show) }
    }

    /// The same as parameters of a request; of one function without those that only a list has.
    pub(super) fn parameters(&self, is_list: bool) -> Parameters {
        let mut parameters =
            if is_list { self.filters.parameters() } else { self.filters.place.parameters() };
        if is_list {
            parameters.push(("limit", self.limit.to_string()));
            parameters.extend(self.by.as_ref().map(|by| ("by", by.code())));
        }
        parameters.extend(reverse(self.reverse));
        parameters
    }
}

impl ChangeArgs {
    /// The changes to select from a data folder.
    pub(super) fn selection(&self, show: &ShowArgs) -> ChangeSelection {
        let window = show.named_hours().map(|hours| query::last_hours(now_us(), hours));
        ChangeSelection {
            name: self.name.clone(),
            account: self.place.account.clone(),
            region: self.place.region.clone(),
            state: self.state,
            since_us: window.map_or(0, crate::store::Window::from_us),
            sort: self.sort,
            is_reversed: self.reverse,
            limit: limit(self.limit),
        }
    }

    /// The same as parameters of a request.
    pub(super) fn parameters(&self) -> Parameters {
        let mut parameters = self.place.parameters();
        parameters.push(("sort", self.sort.code().to_owned()));
        parameters.extend(self.name.clone().map(|name| ("name", name)));
        parameters.extend(self.state.map(|state| ("state", state.code().to_owned())));
        parameters.extend(self.limit.map(|limit| ("limit", limit.to_string())));
        parameters.extend(reverse(self.reverse));
        parameters
    }
}

fn reverse(is_reversed: bool) -> Option<(&'static str, String)> {
    is_reversed.then(|| ("reverse", "true".to_owned()))
}

fn limit(limit: Option<u64>) -> Option<usize> {
    limit.and_then(|limit| usize::try_from(limit).ok())
}
