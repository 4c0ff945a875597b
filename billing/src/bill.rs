//! The sums of a bill: per function, period and meter.

use std::collections::BTreeMap;

use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::units::Architecture;

use crate::arn::Function;
use crate::meter::{Meter, MeterKind};
use crate::row::{BillRow, Charge};
use crate::time::{DAY_S, HOUR_S};

/// Maximum number of sums of one function, period and meter. A month of 5,000 functions has about half of them.
const MAX_ENTRIES: usize = 1_000_000;

/// A span of time that one row of the comparison covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period {
    /// Its first hour, in hours since the Unix epoch.
    pub from_hour: i64,
    /// Its length, hours: 24, or the period of an export with monthly rows.
    pub hours: i64,
}

impl Period {
    /// The hour after the last one.
    #[must_use]
    pub const fn until_hour(self) -> i64 {
        self.from_hour + self.hours
    }

    /// The period that a row belongs to: the UTC day of an hourly row, or the row's own.
    fn of(row: &BillRow) -> Self {
        let hours = (row.until_s - row.from_s + HOUR_S - 1).div_euclid(HOUR_S);
        if hours <= 1 {
            Self { from_hour: row.from_s.div_euclid(DAY_S) * 24, hours: 24 }
        } else {
            Self { from_hour: row.from_s.div_euclid(HOUR_S), hours }
        }
    }
}

/// What was billed of one function, period and meter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Billed {
    /// Number of rows.
    pub rows: u64,
    /// Quantity, however it was priced, 10⁻¹².
    pub quantity_pico: i128,
    /// What is billed, after all discounts.
    pub cost: PicoDollars,
    /// By price.
    pub parts: BTreeMap<Part, PartSum>,
    /// Discounts in rows of their own; negative.
    pub discount: PicoDollars,
    /// Quantity by hour of the period, where the rows are hourly, 10⁻¹².
    pub by_hour: Option<Box<[i128; 24]>>,
}

/// Usage of a meter that has its own price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// On demand, in a volume tier from 1.
    Tier(u8),
    /// Within the free tier.
    Free,
    /// Compute on provisioned capacity.
    Provisioned,
    /// Covered by a savings plan.
    Covered,
}

/// The sums of a part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PartSum {
    /// Quantity, 10⁻¹².
    pub quantity_pico: i128,
    /// What is billed.
    pub cost: PicoDollars,
    /// The cost at public prices; what is billed where a row does not have it.
    pub list_cost: PicoDollars,
}

/// Rows that belong to no function or have no usage: by what they are, count and cost.
pub type Rest = BTreeMap<String, (u64, PicoDollars)>;

/// The sums of a bill.
#[derive(Debug, Clone, Default)]
pub struct Bill {
    /// By function, period and meter.
    pub functions: BTreeMap<Function, BTreeMap<(Period, Meter), Billed>>,
    /// Rows that are not compared.
    pub rest: Rest,
    /// The hours that the rows of each account cover: the first, and the one after the last.
    pub hours_by_account: BTreeMap<String, (i64, i64)>,
    entries: usize,
}

impl Bill {
    /// Adds a row.
    pub fn add(&mut self, row: &BillRow) {
        let account = row.function.as_ref().map_or(&row.account, |function| &function.account);
        let (from, until) = (row.from_s.div_euclid(HOUR_S), (row.until_s + HOUR_S - 1).div_euclid(HOUR_S));
        let hours = self.hours_by_account.entry(account.clone()).or_insert((from, until));
        *hours = (hours.0.min(from), hours.1.max(until));
        let part = match (row.charge, &row.function) {
            (Charge::Usage | Charge::Covered | Charge::Discount, Some(function)) => {
                Some((function.clone(), Period::of(row)))
            }
            _ => None,
        };
        match part {
            Some((function, period)) if self.has_room(&function, period, row.what.meter) => {
                let meters = self.functions.entry(function).or_default();
                meters.entry((period, row.what.meter)).or_default().add(row, period);
            }
            Some(_) => self.add_rest(row, "rows above the limit of a million sums"),
            None => self.add_rest(row, rest_name(row)),
        }
    }

    fn has_room(&mut self, function: &Function, period: Period, meter: Meter) -> bool {
        let exists = self.functions.get(function).is_some_and(|meters| meters.contains_key(&(period, meter)));
        if !exists && self.entries >= MAX_ENTRIES {
            return false;
        }
        self.entries += usize::from(!exists);
        true
    }

    fn add_rest(&mut self, row: &BillRow, name: &str) {
        let (rows, cost) = self.rest.entry(name.to_owned()).or_default();
        *rows += 1;
        *cost += row.cost;
    }

    /// Gives compute without an architecture to the one that the function is measured or else billed with. Rows of the free
    /// tier do not have it.
    pub fn resolve_architectures(&mut self, measured: impl Fn(&Function) -> Option<Architecture>) {
        for (function, meters) in &mut self.functions {
            let unknown = Meter { kind: MeterKind::Compute, architecture: None };
            let periods: Vec<Period> =
                meters.keys().filter(|(_, meter)| *meter == unknown).map(|(period, _)| *period).collect();
            if periods.is_empty() {
                continue;
            }
            let billed = meters.keys().filter(|(_, meter)| meter.kind == MeterKind::Compute);
            let billed = billed.filter_map(|(_, meter)| meter.architecture).max();
            let architecture = measured(function).or(billed).unwrap_or(Architecture::X86_64);
            for period in periods {
                if let Some(sums) = meters.remove(&(period, unknown)) {
                    let known = Meter { architecture: Some(architecture), ..unknown };
                    meters.entry((period, known)).or_default().merge(sums);
                }
            }
        }
    }
}

const fn rest_name(row: &BillRow) -> &'static str {
    match row.charge {
        Charge::Usage | Charge::Covered => match row.what.meter.kind {
            MeterKind::DataTransfer => "data transfer without a function",
            _ => "usage without the ARN of a function",
        },
        Charge::Discount => "discounts without a function",
        Charge::Credit => "credits and refunds",
        Charge::Tax => "taxes",
        Charge::Other => "fees and offsets of savings plans",
    }
}

impl Billed {
    fn add(&mut self, row: &BillRow, period: Period) {
        self.rows += 1;
        self.cost += row.cost;
        if row.charge == Charge::Discount {
            self.discount += row.cost;
            return;
        }
        self.quantity_pico = self.quantity_pico.saturating_add(row.quantity_pico);
        let part = match row.charge {
            Charge::Covered => Part::Covered,
            _ if row.what.is_free => Part::Free,
            _ if row.what.is_provisioned => Part::Provisioned,
            _ => Part::Tier(row.what.tier.unwrap_or(1)),
        };
        let sum = self.parts.entry(part).or_default();
        sum.quantity_pico = sum.quantity_pico.saturating_add(row.quantity_pico);
        sum.cost += row.cost;
        sum.list_cost += row.list_cost.unwrap_or(row.cost);
        if row.until_s - row.from_s <= HOUR_S && period.hours == 24 {
            let hour = row.from_s.div_euclid(HOUR_S) - period.from_hour;
            if let Some(slot) =
                usize::try_from(hour).ok().and_then(|hour| self.by_hour.get_or_insert_default().get_mut(hour))
            {
                *slot = slot.saturating_add(row.quantity_pico);
            }
        }
    }

    fn merge(&mut self, other: Self) {
        self.rows += other.rows;
        self.quantity_pico = self.quantity_pico.saturating_add(other.quantity_pico);
        self.cost += other.cost;
        self.discount += other.discount;
        for (part, sum) in other.parts {
            let own = self.parts.entry(part).or_default();
            own.quantity_pico = own.quantity_pico.saturating_add(sum.quantity_pico);
            own.cost += sum.cost;
            own.list_cost += sum.list_cost;
        }
        if let Some(hours) = other.by_hour {
            let own = self.by_hour.get_or_insert_default();
            for (own, other) in own.iter_mut().zip(hours.iter()) {
                *own = own.saturating_add(*other);
            }
        }
    }
}
