//! Where a function should run: its present form, arm64, provisioned concurrency, SnapStart and managed instances, each with the
//! cost of a month, an interval and what is assumed.
//!
//! The load is measured by hour, and CPU and memory of an invocation are measured, too. What cannot be measured is an
//! assumption, and the report lists it.

mod load;
mod managed;
mod options;

use serde::{Deserialize, Serialize};

pub use load::{HourLoad, HourOfDay, Load};
pub use managed::{ConcurrencyLimit, ManagedSettings, ManagedSettingsError, managed_settings};

use crate::pricing::managed_instances::{Capacity, InstanceType, MONTH_HOURS};
use crate::pricing::money::PicoDollars;
use crate::pricing::prices::{PriceError, PriceTable, Rates};
use crate::telemetry::rollup::Rollup;
use crate::units::{Architecture, Megabytes};

/// A place to run a function. The codes are stable: scripts rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// On demand, as it is.
    OnDemand,
    /// On demand, on arm64.
    Arm64,
    /// Provisioned concurrency in the hours in which it is cheaper.
    ProvisionedConcurrency,
    /// On demand, with environments from a snapshot.
    SnapStart,
    /// On EC2 instances that Lambda manages.
    ManagedInstances,
}

impl Place {
    /// Its code, as in JSON.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::OnDemand => "on-demand",
            Self::Arm64 => "arm64",
            Self::ProvisionedConcurrency => "provisioned-concurrency",
            Self::SnapStart => "snap-start",
            Self::ManagedInstances => "managed-instances",
        }
    }
}

/// The expected cost of a month of 730 hours, and its 80 % interval under the assumptions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MonthCost {
    /// Low end of the interval.
    pub low_pico_usd: PicoDollars,
    /// Expected cost.
    pub expected_pico_usd: PicoDollars,
    /// High end of the interval.
    pub high_pico_usd: PicoDollars,
}

/// One place, compared with the present one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlaceReport {
    /// The place.
    pub place: Place,
    /// The cost of a month; `null` when it cannot be computed.
    pub month: Option<MonthCost>,
    /// Expected change of the cost, percent; negative is a saving.
    pub change_percent: Option<f64>,
    /// Whether it is cheaper.
    pub verdict: PlaceVerdict,
    /// What was computed, one sentence.
    pub summary: String,
    /// What is assumed.
    pub assumptions: Vec<String>,
}

/// Whether a place is cheaper than the present one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlaceVerdict {
    /// It is the present place.
    Present,
    /// It is cheaper in the whole interval.
    Cheaper,
    /// It is more expensive in the whole interval, or gains nothing.
    NotCheaper,
    /// It may be cheaper or not: the interval contains the present cost.
    Depends,
    /// It cannot be computed. The summary states why.
    Unknown,
}

/// The managed instances that were computed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ManagedPlan {
    /// The instance type with the lowest cost.
    pub instance: InstanceType,
    /// Invocations at the same time that the capacity is for.
    pub concurrency: f64,
    /// CPU of one invocation while it runs, vCPUs.
    pub cpu: f64,
    /// Memory of one invocation, MB.
    pub memory_mb: u64,
    /// Environments and instances.
    pub capacity: Capacity,
    /// Setting `PerExecutionEnvironmentMaxConcurrency`.
    pub max_concurrency: u64,
    /// Setting `ExecutionEnvironmentMemoryGiBPerVCpu`.
    pub gib_per_vcpu: u64,
}

/// The provisioned concurrency of one hour of the day.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProvisionedHour {
    /// Hour of the day, UTC.
    pub hour: u8,
    /// Mean number of invocations at the same time.
    pub mean_concurrency: f64,
    /// Environments that are cheaper provisioned than on demand.
    pub concurrency: u64,
    /// Expected saving in this hour of one day; zero when there are none.
    pub saving_pico_usd: PicoDollars,
}

/// Where a function should run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Placement {
    /// The places, on demand first.
    pub places: Vec<PlaceReport>,
    /// Provisioned concurrency by hour of the day; empty when no price is known.
    pub provisioned_hours: Vec<ProvisionedHour>,
    /// Share of the time for which a provisioned environment must be busy to be cheaper, 0 to 1.
    pub provisioned_break_even: Option<f64>,
    /// The managed instances; `null` when they cannot be computed.
    pub managed: Option<ManagedPlan>,
    /// Remarks, such as on Fargate.
    pub remarks: Vec<String>,
    /// Hours that were measured.
    pub measured_hours: u64,
}

/// The measurements of one function, and its prices.
#[derive(Debug, Clone, Copy)]
pub struct PlacementEvidence<'a> {
    /// Its region.
    pub region: &'a str,
    /// Its runtime; empty when unknown.
    pub runtime: &'a str,
    /// Its instruction set.
    pub architecture: Architecture,
    /// Its memory size.
    pub memory: Megabytes,
    /// Its `/tmp`, MB.
    pub ephemeral_mb: u32,
    /// Its invocations at this memory size.
    pub rollup: &'a Rollup,
    /// Its load by hour, at all sizes.
    pub load: &'a Load,
}

/// Why no place can be computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// The price is not known.
    #[error(transparent)]
    Price(#[from] PriceError),
    /// Nothing was measured.
    #[error("no invocation was measured in this window")]
    NoEvidence,
}

/// Compares the places where a function can run.
///
/// # Errors
/// [`PlacementError`] when nothing was measured, or no price is known.
pub fn placement(evidence: &PlacementEvidence<'_>, prices: &PriceTable) -> Result<Placement, PlacementError> {
    let rates = prices.rates(evidence.region, evidence.architecture)?;
    if evidence.rollup.invocations == 0 || evidence.load.hours() == 0 {
        return Err(PlacementError::NoEvidence);
    }
    let context = Context::new(evidence, prices, rates);
    let provisioned = context.provisioned();
    let (managed, managed_report) = context.managed();
    let places =
        vec![context.on_demand(), context.arm64(), provisioned.1, context.snap_start(), managed_report];
    Ok(Placement {
        places,
        provisioned_hours: provisioned.0,
        provisioned_break_even: context.rates.provisioned_break_even(),
        managed,
        remarks: context.remarks(),
        measured_hours: evidence.load.hours(),
    })
}

/// What the computations of all places share.
struct Context<'a> {
    evidence: &'a PlacementEvidence<'a>,
    prices: &'a PriceTable,
    rates: Rates,
    /// Invocations of a month.
    month_invocations: f64,
    /// Mean billed time of an invocation, ms.
    billed_ms: f64,
    /// Relative half width of the 80 % interval of the load.
    load_spread: f64,
    /// Whether it has provisioned concurrency now.
    is_provisioned: bool,
    /// The cost now. With provisioned concurrency, the cost of the same invocations on demand.
    now: MonthCost,
}

/// What the present cost of a function with provisioned concurrency is.
const EQUIVALENT: &str = "it has provisioned concurrency, whose capacity is not measured: the present cost is that of the same \
                          invocations on demand";

impl<'a> Context<'a> {
    fn new(evidence: &'a PlacementEvidence<'a>, prices: &'a PriceTable, rates: Rates) -> Self {
        let month_invocations = evidence.load.mean_invocations() * MONTH_HOURS as f64;
        let billed_ms = evidence.rollup.billed_ms as f64 / evidence.rollup.invocations as f64;
        let load_spread = evidence.load.spread();
        let pico = month_invocations * rates.expected_pico(evidence.memory, billed_ms, evidence.ephemeral_mb);
        let now = month(pico, pico * (1.0 - load_spread).max(0.0), pico * (1.0 + load_spread));
        let is_provisioned = evidence.rollup.initializations.provisioned_concurrency > 0;
        Self { evidence, prices, rates, month_invocations, billed_ms, load_spread, is_provisioned, now }
    }

    /// A report whose costs are those of the mean load: the interval gets the spread of the load, which does not matter for the
    /// comparison, because the present cost has it, too.
    fn report(
        &self,
        place: Place,
        pico: f64,
        [low, high]: [f64; 2],
        summary: String,
        mut assumptions: Vec<String>,
    ) -> PlaceReport {
        if self.is_provisioned {
            assumptions.push(EQUIVALENT.to_owned());
        }
        let now = self.now.expected_pico_usd.0 as f64;
        let verdict = match () {
            () if high < now => PlaceVerdict::Cheaper,
            () if low >= now => PlaceVerdict::NotCheaper,
            () => PlaceVerdict::Depends,
        };
        let month = month(pico, low * (1.0 - self.load_spread).max(0.0), high * (1.0 + self.load_spread));
        let change_percent = (now > 0.0).then(|| (1_000.0 * (pico - now) / now).round() / 10.0);
        PlaceReport { place, month: Some(month), change_percent, verdict, summary, assumptions }
    }

    /// On demand: the present place, unless it has provisioned concurrency.
    fn on_demand(&self) -> PlaceReport {
        let mut report = PlaceReport {
            place: Place::OnDemand,
            month: Some(self.now),
            change_percent: Some(0.0),
            verdict: PlaceVerdict::Present,
            summary: format!(
                "{:.0} invocations a month of {:.0} ms billed on {} of {}",
                self.month_invocations, self.billed_ms, self.evidence.memory, self.evidence.architecture
            ),
            assumptions: vec![format!(
                "the measured hours ({}) stand for the whole month; the price is that of the first volume tier, without the free tier",
                self.evidence.load.hours()
            )],
        };
        if self.is_provisioned {
            report.verdict = PlaceVerdict::Unknown;
            report.change_percent = None;
            let sentence = "; it has provisioned concurrency, and whether that is cheaper is not known";
            report.summary.push_str(sentence);
            report.assumptions.push(EQUIVALENT.to_owned());
        }
        report
    }
}

fn unknown(place: Place, summary: String) -> PlaceReport {
    PlaceReport {
        place,
        month: None,
        change_percent: None,
        verdict: PlaceVerdict::Unknown,
        summary,
        assumptions: vec![],
    }
}

fn month(expected: f64, low: f64, high: f64) -> MonthCost {
    let money = crate::pricing::cost_model::money;
    MonthCost {
        low_pico_usd: money(low.min(expected)),
        expected_pico_usd: money(expected),
        high_pico_usd: money(high.max(expected)),
    }
}
