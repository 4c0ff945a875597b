//! Where the functions of a fleet should run, those with the largest savings first.
//!
//! A small fleet is computed when it is read. Of a large one, the best place of each function is stored with its summaries.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use tailor_sizing::placement::{MonthCost, PlaceReport, PlaceVerdict};
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::units::Architecture;

use super::{PlacementReport, function};
use crate::query::ListQuery;
use crate::report::Request;
use crate::report::list::{SUMMARY_HOURS, selects_function};
use crate::report::load::keys;
use crate::report::stored::stored;
use crate::store::{FunctionKey, StoreError, SummaryKind};

/// The kind of summary with the best place over this many hours.
pub(in crate::report) fn place_kind(hours: u64) -> SummaryKind {
    SummaryKind { hours, strategy: "placement".to_owned() }
}

/// Where the functions of a fleet should run.
#[derive(Debug, Clone, Serialize)]
pub struct FleetPlacement {
    /// Length of the window, hours.
    pub hours: u64,
    /// The functions that may be cheaper in another place, those with the largest savings first: at most the limit of the query.
    pub functions: Vec<PlaceSum>,
    /// Number of functions that may be cheaper in another place.
    pub matching_functions: u64,
    /// Number of functions that were compared.
    pub compared_functions: u64,
    /// Expected savings of a month over the functions that are cheaper in the whole interval.
    pub saving_pico_usd: PicoDollars,
    /// When the oldest comparison was computed, microseconds since the Unix epoch; `null` when they were computed now.
    pub computed_at_us: Option<u64>,
    /// The day the prices were compiled.
    pub prices_of: String,
}

/// The best place of one function.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlaceSum {
    /// Function name.
    pub name: String,
    /// AWS account; empty when unknown.
    pub account: String,
    /// AWS region.
    pub region: String,
    /// Runtime; empty when unknown.
    pub runtime: String,
    /// Instruction set.
    pub architecture: Architecture,
    /// The cost of a month where it runs now; `null` when it is not known.
    pub now: Option<MonthCost>,
    /// The best other place; `null` when none may be cheaper.
    pub best: Option<PlaceReport>,
    /// Expected saving of a month in the best place.
    pub saving_pico_usd: PicoDollars,
}

impl PlaceSum {
    /// The best place of a report.
    #[must_use]
    pub fn of(report: &PlacementReport) -> Self {
        let places = report.placement.as_ref().map_or(&[][..], |placement| &placement.places);
        let now = places.first().and_then(|place| place.month);
        let expected = |place: &PlaceReport| place.month.map(|month| month.expected_pico_usd);
        let saving = |place: &PlaceReport| Some(now?.expected_pico_usd - expected(place)?);
        let rank = |place: &PlaceReport| match place.verdict {
            PlaceVerdict::Cheaper => Some(0),
            PlaceVerdict::Depends => Some(1),
            PlaceVerdict::Present | PlaceVerdict::NotCheaper | PlaceVerdict::Unknown => None,
        };
        // A place that is cheaper in the whole interval comes before one that may be.
        let best = places
            .iter()
            .filter(|place| saving(place).is_some_and(|saving| saving > PicoDollars::ZERO))
            .filter_map(|place| Some((rank(place)?, expected(place)?, place)))
            .min_by_key(|(rank, expected, _)| (*rank, *expected))
            .map(|(_, _, place)| place);
        Self {
            name: report.name.clone(),
            account: report.account.clone(),
            region: report.region.clone(),
            runtime: report.runtime.clone(),
            architecture: report.architecture,
            now,
            saving_pico_usd: best.and_then(saving).unwrap_or_default(),
            best: best.cloned(),
        }
    }

    /// Whether its best place is cheaper in the whole interval.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        self.best.as_ref().is_some_and(|best| best.verdict == PlaceVerdict::Cheaper)
    }

    /// Its key in the store.
    #[must_use]
    pub fn key(&self) -> FunctionKey {
        FunctionKey { account: self.account.clone(), region: self.region.clone(), name: self.name.clone() }
    }
}

/// Where the functions that `list` selects should run.
///
/// # Errors
/// [`StoreError`] when the store cannot be read.
pub async fn fleet(request: &Request<'_>, list: &ListQuery) -> Result<FleetPlacement, StoreError> {
    let equals = |filter: &Option<String>, value: &str| filter.as_deref().is_none_or(|text| text == value);
    let (mut functions, computed_at_us) = read(request, list).await?;
    functions.retain(|one| {
        equals(&list.runtime, &one.runtime) && equals(&list.architecture, one.architecture.as_str())
    });
    let compared_functions = functions.iter().filter(|one| one.now.is_some()).count() as u64;
    functions.retain(|one| one.best.is_some());
    functions.sort_by(|a, b| (b.saving_pico_usd, a.key()).cmp(&(a.saving_pico_usd, b.key())));
    let certain = functions.iter().filter(|one| one.is_certain());
    let saving_pico_usd = certain.map(|one| one.saving_pico_usd).sum();
    let matching_functions = functions.len() as u64;
    functions.truncate(list.limit);
    Ok(FleetPlacement {
        hours: list.hours,
        functions,
        matching_functions,
        compared_functions,
        saving_pico_usd,
        computed_at_us,
        prices_of: request.prices.compiled().to_owned(),
    })
}

/// The best places of the functions that `list` selects, and when the oldest were computed; `None` when all were computed now.
async fn read(request: &Request<'_>, list: &ListQuery) -> Result<(Vec<PlaceSum>, Option<u64>), StoreError> {
    let tags = request.tag_table();
    let mut keys = keys(request, None).await?;
    keys.retain(|key| selects_function(list, key, &tags));
    let (mut stored, oldest_at_us) = if request.computes(keys.len()) {
        (BTreeMap::new(), None)
    } else {
        // Other windows have the places of the next longer one that is stored.
        let longest = SUMMARY_HOURS[SUMMARY_HOURS.len() - 1];
        let hours = SUMMARY_HOURS.into_iter().find(|hours| *hours >= list.hours).unwrap_or(longest);
        stored::<PlaceSum>(request, &place_kind(hours)).await?
    };
    let mut sums = Vec::with_capacity(keys.len());
    for key in &keys {
        sums.extend(match stored.remove(key) {
            Some(known) => known,
            None => function(request, key).await?.as_ref().map(PlaceSum::of),
        });
        tokio::task::yield_now().await;
    }
    Ok((sums, oldest_at_us))
}
