//! The parameters of a report: window, strategy, filters and output format. Command line, API, pages and tuner use them.

use serde::de::{DeserializeOwned, IntoDeserializer};
use serde::{Deserialize, Serialize};

use tailor_sizing::advice::strategy::Strategy;
use tailor_sizing::pricing::full_bill::Terms;
use tailor_sizing::pricing::money::PicoDollars;

use crate::store::{FunctionKey, HOUR_US, Window};

mod format;
mod groups;
mod links;
mod since;
mod strategy;

pub use format::{DEFAULT_WIDTH, Format, TableStyle};
pub use groups::{Group, TagFilter};
pub use links::path_segment;
pub use since::{SINCE, Since};
pub use strategy::{DEFAULT_STRATEGY, STRATEGIES, strategy};

/// The name is not a strategy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{STRATEGIES}")]
pub struct UnknownStrategy;

/// Default length of the window, hours: 30 days.
pub const DEFAULT_HOURS: u64 = 30 * 24;

/// Maximum length of the window, hours: a hundred years. No measurement is older.
pub const MAX_HOURS: u64 = 876_000;

/// What a list of functions is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SortKey {
    /// What the recommended size would have saved; the highest first.
    #[default]
    Saving,
    /// Cost; the highest first.
    Cost,
    /// Number of invocations; the highest first.
    Invocations,
    /// Number of failed invocations; the highest first.
    Errors,
    /// Number of cold starts; the highest first.
    ColdStarts,
    /// 95th percentile of duration; the highest first.
    P95,
    /// Memory size; the highest first.
    Memory,
    /// Function name.
    Name,
}

impl SortKey {
    /// The value of the parameter.
    pub(crate) fn code(self) -> String {
        let code = match self {
            Self::Saving => "saving",
            Self::Cost => "cost",
            Self::Invocations => "invocations",
            Self::Errors => "errors",
            Self::ColdStarts => "cold-starts",
            Self::P95 => "p95",
            Self::Memory => "memory",
            Self::Name => "name",
        };
        code.to_owned()
    }
}

/// A kind of advice, as a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdviceFilter {
    /// Another size is recommended.
    Change,
    /// The present size is the best.
    Keep,
    /// There is not enough evidence.
    Unsure,
    /// There is no advice, for example because no price is known.
    None,
}

impl AdviceFilter {
    /// The code of the kind.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Change => "change",
            Self::Keep => "keep",
            Self::Unsure => "unsure",
            Self::None => "none",
        }
    }
}

/// Rows of a page of a list.
pub const DEFAULT_LIMIT: usize = 50;

/// Maximum number of rows of a page of a list.
pub const MAX_LIMIT: usize = 1_000;

/// Which functions a list has.
#[derive(Debug, Clone)]
pub struct ListQuery {
    /// Length of the window before now, hours.
    pub hours: u64,
    /// Name of the strategy.
    pub strategy: Option<String>,
    /// Weight of cost.
    pub weight: Option<f64>,
    /// A part of the name, in any case.
    pub name: Option<String>,
    /// The tags.
    pub tags: Vec<TagFilter>,
    /// The account.
    pub account: Option<String>,
    /// The region.
    pub region: Option<String>,
    /// The runtime.
    pub runtime: Option<String>,
    /// The instruction set.
    pub architecture: Option<String>,
    /// The kind of advice.
    pub advice: Option<AdviceFilter>,
    /// The lowest cost in the window.
    pub min_cost: Option<PicoDollars>,
    /// The order.
    pub sort: SortKey,
    /// Whether the order is reversed.
    pub is_reversed: bool,
    /// The cursor of the page: [`FleetReport::next`](crate::report::FleetReport::next) of the page before.
    pub cursor: Option<String>,
    /// Maximum number of functions of the page.
    pub limit: usize,
    /// Sums by this property.
    pub by: Option<Group>,
    /// Whether the list names the functions whose cost changed the most. Of a fleet that is computed when it is read, the
    /// rollups of twice the window are read for it.
    pub movers: bool,
}

impl Default for ListQuery {
    fn default() -> Self {
        Self {
            hours: DEFAULT_HOURS,
            strategy: None,
            weight: None,
            name: None,
            tags: Vec::new(),
            account: None,
            region: None,
            runtime: None,
            architecture: None,
            advice: None,
            min_cost: None,
            sort: SortKey::default(),
            is_reversed: false,
            cursor: None,
            limit: DEFAULT_LIMIT,
            by: None,
            movers: false,
        }
    }
}

impl ListQuery {
    /// Whether the filter by name selects it.
    pub(crate) fn has_name(&self, name: &str) -> bool {
        self.name.as_ref().is_none_or(|part| name.to_lowercase().contains(&part.to_lowercase()))
    }

    /// Whether the filters need a report of each function.
    pub(crate) fn needs_report(&self) -> bool {
        self.advice.is_some() || self.min_cost.is_some()
    }

    /// Whether filters and groups are by account, region, runtime and instruction set only.
    pub(crate) fn selects_cells(&self) -> bool {
        !self.needs_report()
            && self.name.is_none()
            && self.tags.is_empty()
            && !matches!(self.by, Some(Group::Tag(_)))
    }

    /// Whether there is neither a filter nor a group.
    pub(crate) fn selects_all(&self) -> bool {
        let filters = [&self.name, &self.account, &self.region, &self.runtime, &self.architecture];
        !self.needs_report()
            && self.tags.is_empty()
            && self.by.is_none()
            && filters.iter().all(|filter| filter.is_none())
    }
}

/// Parses an amount of dollars such as `12.5`, exactly, to at most 12 decimals.
#[must_use]
pub fn dollars(text: &str) -> Option<PicoDollars> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || decimals.len() > 12 || !is_digits(whole) || !is_digits(decimals) {
        return None;
    }
    format!("{whole}{decimals:0<12}").parse().ok().map(PicoDollars)
}

/// The query of a request for a report.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Query {
    /// Length of the window before now, hours; [`DEFAULT_HOURS`] when absent.
    pub(crate) hours: Option<u64>,
    /// Start of the window, in place of `hours`: see [`SINCE`].
    pub(crate) since: Option<String>,
    /// `cost`, `speed`, `balanced` or a latency target such as `p95=300`; [`DEFAULT_STRATEGY`] when absent.
    pub(crate) strategy: Option<String>,
    /// Weight of cost for `balanced`, 0 to 1; the rest is the weight of speed.
    pub(crate) weight: Option<f64>,
    /// Region, for a function whose name is not unique.
    pub(crate) region: Option<String>,
    /// Account, for a function whose name is not unique.
    pub(crate) account: Option<String>,
    /// Output format; JSON when absent.
    pub(crate) format: Option<Format>,
    /// Maximum number of rows.
    pub(crate) limit: Option<usize>,
    /// A part of the function's name; words that begin with `tag:` are tags.
    pub(crate) name: Option<String>,
    /// Tags: `KEY=VALUE`, several with commas between them.
    pub(crate) tag: Option<String>,
    /// Runtime.
    pub(crate) runtime: Option<String>,
    /// Instruction set.
    pub(crate) architecture: Option<String>,
    /// Kind of advice.
    #[serde(deserialize_with = "none_if_empty")]
    pub(crate) advice: Option<AdviceFilter>,
    /// Lowest cost, dollars.
    pub(crate) min_cost: Option<String>,
    /// Order of a list. Each list has its own values.
    pub(crate) sort: Option<String>,
    /// State of a change.
    pub(crate) state: Option<String>,
    /// Whether the order is reversed.
    pub(crate) reverse: bool,
    /// Cursor of a page.
    pub(crate) cursor: Option<String>,
    /// Sums by this property.
    #[serde(deserialize_with = "none_if_empty")]
    pub(crate) by: Option<Group>,
    /// The part of the list price that a Savings Plan leaves, 0 to 1.
    pub(crate) savings_plan_factor: Option<f64>,
    /// The part of all prices that an agreement with AWS leaves, 0 to 1.
    pub(crate) discount_factor: Option<f64>,
    /// Width of a table, characters.
    pub(crate) width: Option<usize>,
    /// Whether the table may have colours.
    colour: bool,
}

impl Query {
    /// The window of the query at `now_us` (microseconds since the Unix epoch). It has no end, so that it includes
    /// invocations of environments whose clocks are ahead.
    #[must_use]
    pub fn window(&self, now_us: u64) -> Window {
        last_hours(now_us, self.hours.unwrap_or(DEFAULT_HOURS))
    }

    /// The strategy of the query.
    ///
    /// # Errors
    /// [`UnknownStrategy`] when the name is not a strategy.
    pub fn strategy(&self) -> Result<Strategy, UnknownStrategy> {
        strategy(self.strategy.as_deref(), self.weight).ok_or(UnknownStrategy)
    }

    /// The discounts of a bill.
    #[must_use]
    pub fn terms(&self) -> Terms {
        Terms {
            savings_plan_factor: self.savings_plan_factor.unwrap_or(1.0),
            discount_factor: self.discount_factor.unwrap_or(1.0),
            ..Terms::default()
        }
    }

    /// Checks the values that have a range.
    ///
    /// # Errors
    /// The name of the parameter and its range.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let weight = self.weight.unwrap_or(0.0);
        if !(0.0..=1.0).contains(&weight) {
            return Err("`weight` is a number from 0 to 1");
        }
        let factors = [self.savings_plan_factor, self.discount_factor];
        if factors.into_iter().flatten().any(|factor| !(0.0..=1.0).contains(&factor)) {
            return Err("`savings_plan_factor` and `discount_factor` are numbers from 0 to 1");
        }
        if self.hours.is_some_and(|hours| !(1..=MAX_HOURS).contains(&hours)) {
            return Err("`hours` is a number from 1 to 876000");
        }
        if self.limit.is_some_and(|limit| !(1..=MAX_LIMIT).contains(&limit)) {
            return Err("`limit` is a number from 1 to 1000");
        }
        if self.width.is_some_and(|width| !(40..=1_000).contains(&width)) {
            return Err("`width` is a number from 40 to 1000");
        }
        Ok(())
    }

    /// Replaces `since` by the hours that it means at `now_us`, microseconds since the Unix epoch.
    ///
    /// # Errors
    /// What is not valid.
    pub(crate) fn resolve_since(&mut self, now_us: u64) -> Result<(), &'static str> {
        let Some(since) = self.since.take().filter(|since| !since.is_empty()) else { return Ok(()) };
        if self.hours.is_some() {
            return Err("use `hours` or `since`, not both");
        }
        let since = Since::parse(&since).ok_or(SINCE)?;
        self.hours = Some(since.hours(now_us).ok_or("`since` is in the future")?);
        Ok(())
    }

    /// The order of a list; the default of the list without one.
    ///
    /// # Errors
    /// The order is not one of this list.
    pub fn sort<T: Default + DeserializeOwned>(&self) -> Result<T, String> {
        match self.sort.as_deref().filter(|sort| !sort.is_empty()) {
            Some(sort) => named(sort).ok_or_else(|| format!("`sort={sort}` is not an order of this list")),
            None => Ok(T::default()),
        }
    }

    /// The functions that the query selects for a list, in its order.
    ///
    /// # Errors
    /// The parameter that is not valid.
    pub fn list(&self) -> Result<ListQuery, String> {
        Ok(ListQuery { sort: self.sort()?, ..self.filters()? })
    }

    /// The functions that the query selects, in the default order.
    ///
    /// # Errors
    /// The parameter that is not valid.
    pub fn filters(&self) -> Result<ListQuery, String> {
        // A form sends empty fields.
        let filter = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let min_cost = match filter(&self.min_cost) {
            Some(text) => Some(dollars(&text).ok_or("`min_cost` is an amount of dollars such as 12.5")?),
            None => None,
        };
        let mut tags = TagFilter::parse(self.tag.as_deref().unwrap_or_default());
        let mut words = vec![];
        for word in self.name.as_deref().unwrap_or_default().split_whitespace() {
            match word.strip_prefix("tag:") {
                Some(tag) => tags.extend(TagFilter::parse(tag)),
                None => words.push(word),
            }
        }
        let name = if tags.is_empty() { filter(&self.name) } else { filter(&Some(words.join(" "))) };
        Ok(ListQuery {
            tags,
            hours: self.hours.unwrap_or(DEFAULT_HOURS),
            strategy: self.strategy.clone(),
            weight: self.weight,
            name,
            account: filter(&self.account),
            region: filter(&self.region),
            runtime: filter(&self.runtime),
            architecture: filter(&self.architecture),
            advice: self.advice,
            min_cost,
            sort: SortKey::default(),
            is_reversed: self.reverse,
            cursor: filter(&self.cursor),
            limit: self.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT),
            by: self.by.clone(),
            movers: false,
        })
    }

    /// Whether the list has filters.
    pub(crate) fn is_filtered(&self) -> bool {
        let texts = [
            &self.name,
            &self.tag,
            &self.account,
            &self.region,
            &self.runtime,
            &self.architecture,
            &self.min_cost,
        ];
        self.advice.is_some() || texts.iter().any(|text| text.as_ref().is_some_and(|text| !text.is_empty()))
    }

    pub(crate) fn style(&self) -> TableStyle {
        TableStyle { colour: self.colour, width: self.width.unwrap_or(DEFAULT_WIDTH), indents: false }
    }

    pub(crate) fn names(&self, key: &FunctionKey) -> bool {
        self.region.as_ref().is_none_or(|region| *region == key.region)
            && self.account.as_ref().is_none_or(|account| *account == key.account)
    }
}

/// The value with this code, as JSON has it; `None` when there is none.
#[must_use]
pub fn named<T: DeserializeOwned>(code: &str) -> Option<T> {
    let text: serde::de::value::StrDeserializer<'_, serde::de::value::Error> = code.into_deserializer();
    T::deserialize(text).ok()
}

/// An empty field of a form is no filter.
fn none_if_empty<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: serde::Deserializer<'de>,
{
    let text = Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty());
    let value = text.map(|text| T::deserialize(serde::de::value::StringDeserializer::new(text)));
    value.transpose().map_err(|error: serde::de::value::Error| serde::de::Error::custom(error))
}

/// The window that starts `hours` before `now_us` (microseconds since the Unix epoch) and has no end.
#[must_use]
pub fn last_hours(now_us: u64, hours: u64) -> Window {
    let from_us = now_us.saturating_sub(hours.saturating_mul(HOUR_US));
    Window { from_hour: from_us / HOUR_US, ..Window::ALL }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_read_exactly() {
        for (text, pico) in
            [("0", 0), ("12", 12_000_000_000_000), ("0.000000000001", 1), ("1.5", 1_500_000_000_000)]
        {
            assert_eq!(dollars(text), Some(PicoDollars(pico)), "{text}");
        }
        for invalid in ["", ".5", "-1", "1e3", "0.0000000000001", "1,5"] {
            assert_eq!(dollars(invalid), None, "{invalid}");
        }
    }
}
