//! Builds the lines of a bill.

use super::given::in_hours;
use super::{
    BillLine, FullBill, GivenUsage, ImportedPart, LineStatus, LogDestination, MeasuredUsage, Priced, Terms,
};
use crate::pricing::bill::{MB_MS_PER_GB_SECOND, Usage};
use crate::pricing::meters::{Amount, Meter, UsedAmounts};
use crate::pricing::money::PicoDollars;
use crate::pricing::plan::after_free_tier;
use crate::pricing::prices::{PriceTable, Rates};
use crate::units::Architecture;

/// Milliseconds of an hour.
const HOUR_MS: u128 = 3_600_000;

/// Least time for which a cached snapshot is billed, hours.
const MIN_CACHE_HOURS: u64 = 3;

/// What the builder of lines needs.
struct Builder<'a> {
    measured: &'a MeasuredUsage<'a>,
    given: &'a GivenUsage,
    prices: &'a PriceTable,
    terms: &'a Terms,
    used: &'a mut UsedAmounts,
    lines: Vec<BillLine>,
}

/// The full bill of one function. Its amounts of meters with volume tiers are taken for those of the account.
#[must_use]
pub fn full_bill(
    measured: &MeasuredUsage<'_>,
    given: &GivenUsage,
    prices: &PriceTable,
    terms: &Terms,
) -> FullBill {
    full_bill_in_month(measured, given, prices, terms, &mut UsedAmounts::default())
}

/// The full bill of one function, after `used` was used by others of its account and region in the month. Its own amounts are
/// added to `used`. [`Terms::used_gb_seconds`] is the same for compute.
#[must_use]
pub fn full_bill_in_month(
    measured: &MeasuredUsage<'_>,
    given: &GivenUsage,
    prices: &PriceTable,
    terms: &Terms,
    used: &mut UsedAmounts,
) -> FullBill {
    let mut builder = Builder { measured, given, prices, terms, used, lines: vec![] };
    if measured.is_managed {
        builder.managed();
    } else {
        builder.usage();
        builder.snap_start();
        builder.tenants();
    }
    builder.features();
    builder.logs();
    builder.transfer();
    let assumptions = assumptions(measured, terms);
    FullBill::new(builder.lines, assumptions)
}

fn assumptions(measured: &MeasuredUsage<'_>, terms: &Terms) -> Vec<String> {
    let mut sentences = vec![];
    if terms.used_gb_seconds == 0 && !measured.is_managed {
        sentences.push(
            "Compute has the price of the first volume tier. Tiers apply to all functions of the organization in a month."
                .to_owned(),
        );
    }
    if !terms.free_tier {
        sentences.push("The free tier of the account is not subtracted.".to_owned());
    }
    if terms.savings_plan_factor < 1.0 || terms.discount_factor < 1.0 {
        sentences.push(format!(
            "Costs are after discounts: {} of the list price with the Savings Plan, where it applies, and {} for all.",
            terms.savings_plan_factor, terms.discount_factor
        ));
    }
    sentences
}

impl Builder<'_> {
    /// Compute, Init, requests, `/tmp` and provisioned concurrency, by architecture.
    fn usage(&mut self) {
        let share = self.provisioned_share();
        let mut left = self.prices.free_tier();
        for (architecture, usage) in &self.measured.usage {
            let mut usage = *usage;
            if self.terms.free_tier {
                let before = usage;
                usage = after_free_tier(&before, &Usage::default(), left);
                let used = (before.memory_mb_ms - usage.memory_mb_ms).div_ceil(MB_MS_PER_GB_SECOND);
                left.requests -= (before.requests - usage.requests).min(left.requests);
                left.gb_seconds -= u64::try_from(used).unwrap_or(u64::MAX).min(left.gb_seconds);
            }
            let rates = self.prices.rates(self.measured.region, *architecture).ok();
            self.compute(*architecture, &usage, rates.as_ref(), share.as_ref());
        }
        self.capacity(share.as_ref());
        self.imported();
    }

    fn compute(
        &mut self,
        architecture: Architecture,
        usage: &Usage,
        rates: Option<&Rates>,
        share: Option<&ProvisionedShare>,
    ) {
        let name = architecture.as_str();
        let flat = |price: Option<PicoDollars>| {
            rates.zip(price).map(|(rates, price)| Priced {
                price,
                source: &rates.source,
                derived: rates.derived,
            })
        };
        let (provisioned, on_demand) = split(usage, share);
        let handler = on_demand.memory_mb_ms.saturating_sub(on_demand.init_mb_ms);
        // The handlers come first in a tier, and Init after them.
        let before = u128::from(self.terms.used_gb_seconds).saturating_mul(MB_MS_PER_GB_SECOND);
        for (meter, mb_ms, before) in
            [(Meter::Compute, handler, before), (Meter::Init, on_demand.init_mb_ms, before + handler)]
        {
            let parts = tiers(rates, mb_ms, before);
            for (tier, amount, price) in parts {
                let part = if tier > 1 { format!("{name}, tier {tier}") } else { name.to_owned() };
                let line = BillLine::of(meter, &part, amount, flat(price), self.terms);
                self.lines.push(assumed_share(line, share));
            }
        }
        if provisioned.memory_mb_ms > 0 {
            let amount = Amount::gb_seconds(provisioned.memory_mb_ms);
            let price = rates.and_then(|rates| rates.provisioned).map(|rates| rates.duration_gb_second);
            let line = BillLine::of(Meter::ProvisionedDuration, name, amount, flat(price), self.terms);
            self.lines.push(assumed_share(line, share));
        }
        let requests = Amount::units(usage.requests.into());
        let price = rates.map(|rates| rates.request);
        let source = rates.map(|rates| &rates.source);
        let priced = price.zip(source).map(|(price, source)| Priced { price, source, derived: false });
        self.lines.push(BillLine::of(Meter::Requests, name, requests, priced, self.terms));
        if usage.storage_mb_ms > 0 {
            let price = rates.and_then(|rates| rates.storage_gb_second);
            let priced = price.zip(source).map(|(price, source)| Priced { price, source, derived: false });
            let amount = Amount::gb_seconds(usage.storage_mb_ms);
            self.lines.push(BillLine::of(Meter::EphemeralStorage, name, amount, priced, self.terms));
        }
    }

    /// The share of the handlers' time that was on provisioned environments; `None` when there are none. It is exact when all
    /// first invocations are of one kind.
    fn provisioned_share(&self) -> Option<ProvisionedShare> {
        if self.given.provisioned_concurrency.as_ref().is_some_and(Vec::is_empty) {
            return None;
        }
        let counts = &self.measured.initializations;
        let (part, whole) = (counts.provisioned_concurrency, counts.total());
        if part > 0 {
            let note = if part < whole {
                format!(
                    "{part} of {whole} environments were provisioned, and invocations are divided in this ratio"
                )
            } else {
                String::new()
            };
            return Some(ProvisionedShare { part: part.into(), whole: whole.into(), note });
        }
        // Provisioned environments live for weeks, so that a window may have no first invocation of one.
        let handlers = self.measured.usage.iter().map(|(_, usage)| handler_mb_ms(usage));
        let handlers = handlers.fold(0, u128::saturating_add);
        let served = handlers.min(self.ready_mb_ms());
        (served > 0).then(|| ProvisionedShare { part: served, whole: handlers, note: NOT_SEEN.to_owned() })
    }

    /// The provisioned capacity that is given, memory × time.
    fn ready_mb_ms(&self) -> u128 {
        let measured = self.measured;
        let parts = self.given.provisioned_concurrency.iter().flatten();
        let ready = parts.map(|part| {
            let memory = part.memory_mb.unwrap_or(measured.memory.0);
            let ms = in_hours(part.hours, measured.hours).saturating_mul(HOUR_MS);
            (u128::from(memory) * u128::from(part.concurrency)).saturating_mul(ms)
        });
        ready.fold(0, u128::saturating_add)
    }

    /// Provisioned capacity, used and idle.
    fn capacity(&mut self, share: Option<&ProvisionedShare>) {
        let measured = self.measured;
        if self.given.provisioned_concurrency.is_none() {
            if measured.initializations.provisioned_concurrency > 0 {
                self.lines.push(BillLine::unknown(
                    Meter::ProvisionedConcurrencyIdle,
                    "provisioned environments were seen; give `provisioned_concurrency` in the usage file",
                ));
            }
            return;
        }
        let architecture =
            measured.usage.last().map_or(Architecture::X86_64, |(architecture, _)| *architecture);
        let rates = self.prices.rates(measured.region, architecture).ok();
        let ready_mb_ms = self.ready_mb_ms();
        let served: u128 = measured
            .usage
            .iter()
            .map(|(_, usage)| split(usage, share).0.memory_mb_ms)
            .fold(0, u128::saturating_add);
        let used = served.min(ready_mb_ms);
        for (meter, mb_ms) in [
            (Meter::ProvisionedConcurrencyUsed, used),
            (Meter::ProvisionedConcurrencyIdle, ready_mb_ms - used),
        ] {
            if ready_mb_ms == 0 {
                continue;
            }
            let price = rates.as_ref().and_then(|rates| rates.provisioned).map(|rates| rates.idle_gb_second);
            let priced = rates.as_ref().zip(price).map(|(rates, price)| Priced {
                price,
                source: &rates.source,
                derived: false,
            });
            let line =
                BillLine::of(meter, architecture.as_str(), Amount::gb_seconds(mb_ms), priced, self.terms);
            self.lines.push(assumed_share(line, share));
        }
    }

    /// Marks the lines so far with what imported logs do not show.
    fn imported(&mut self) {
        let note = match self.measured.imported {
            ImportedPart::None => return,
            ImportedPart::Some => "the instruction set of the imported invocations was given at the import",
            ImportedPart::All => "the instruction set was given at the import",
        };
        for line in &mut self.lines {
            *line = line.clone().assuming(note);
        }
        let has_storage = self.lines.iter().any(|line| line.meter == Meter::EphemeralStorage);
        if self.measured.imported == ImportedPart::All && !has_storage {
            self.lines.push(BillLine::unknown(
                Meter::EphemeralStorage,
                "logs do not show the size of `/tmp`; above 512 MB it is billed",
            ));
        }
    }

    fn snap_start(&mut self) {
        let measured = self.measured;
        let versions = self.given.snap_start_versions;
        let restores = measured.initializations.snap_start;
        if restores == 0 && versions.unwrap_or(0) == 0 {
            return;
        }
        let is_free = measured.runtime.starts_with("java");
        let is_known = !measured.runtime.is_empty();
        let rates = measured.usage.first().and_then(|(architecture, _)| {
            self.prices.rates(measured.region, *architecture).ok().filter(|rates| rates.snap_start.is_some())
        });
        let hours = measured.hours.max(MIN_CACHE_HOURS);
        let cached = u128::from(versions.unwrap_or(measured.versions));
        let cache = Amount::gb_seconds(
            (cached * u128::from(measured.memory.0)).saturating_mul(u128::from(hours) * HOUR_MS),
        );
        let price = rates.as_ref().and_then(|rates| rates.snap_start);
        for (meter, amount, price) in [
            (Meter::SnapStartCache, cache, price.map(|price| price.cache_gb_second)),
            (
                Meter::SnapStartRestore,
                Amount::gb_of_mb(measured.restored_mb),
                price.map(|price| price.restore_gb),
            ),
        ] {
            let price = price.filter(|_| is_known);
            let priced = rates.as_ref().zip(price).map(|(rates, price)| Priced {
                price: if is_free { PicoDollars::ZERO } else { price },
                source: &rates.source,
                derived: false,
            });
            let mut line = BillLine::of(meter, "", amount, priced, self.terms);
            if is_free {
                line.cost_pico_usd = Some(PicoDollars::ZERO);
                line.status = LineStatus::Known;
                "free for Java runtimes".clone_into(&mut line.note);
            } else if !is_known && line.status == LineStatus::Unknown {
                "the runtime is not known, and SnapStart is free for Java runtimes"
                    .clone_into(&mut line.note);
            } else if versions.is_none() && meter == Meter::SnapStartCache {
                line = line.assuming("the versions that ran are cached for the whole time, and no others");
            }
            self.lines.push(line);
        }
    }

    /// A line of a meter whose amount in a month the user gives.
    fn given_line(&mut self, meter: Meter, given: Option<Amount>, unknown: &str) {
        let Some(amount) = given else {
            self.lines.push(BillLine::unknown(meter, unknown));
            return;
        };
        self.tiered(meter, amount);
    }

    /// The lines of a meter by tier. The tiers are those of a month, so the amount is taken for that of the whole month, together
    /// with what was used before.
    fn tiered(&mut self, meter: Meter, amount: Amount) {
        let Some(price) = self.prices.meter(self.measured.region, meter) else {
            self.lines.push(BillLine::of(meter, "", amount, None, self.terms));
            return;
        };
        let before = self.used.add(meter, amount);
        for (tier, amount, unit_price) in price.by_tier(before, amount) {
            let part = if price.tiers.len() > 1 { format!("tier {tier}") } else { String::new() };
            let priced = Priced { price: unit_price, source: &price.source, derived: false };
            self.lines.push(BillLine::of(meter, &part, amount, Some(priced), self.terms));
        }
    }

    fn tenants(&mut self) {
        let hours = self.measured.hours;
        let is_arm64 =
            self.measured.usage.iter().all(|(architecture, _)| *architecture == Architecture::Arm64);
        let meter = if is_arm64 { Meter::TenantEnvironmentsArm64 } else { Meter::TenantEnvironments };
        if let Some(environments) = self.given.tenant_environments.filter(|environments| *environments > 0) {
            let mb = in_hours(environments, hours).saturating_mul(self.measured.memory.0.into());
            self.tiered(meter, Amount::gb_of_mb(mb));
        }
    }

    /// What only the user can state. Features that the user does not mention are listed as one unknown line each.
    fn features(&mut self) {
        let hours = self.measured.hours;
        let given = self.given;
        let bytes = |amount: Option<u64>| amount.map(|amount| Amount::gb_of_bytes(in_hours(amount, hours)));
        self.given_line(
            Meter::ResponseStreaming,
            bytes(given.streamed_bytes),
            "telemetry does not show which responses are streamed; give `streamed_bytes`",
        );
        if given.durable_operations.is_none() && given.durable_written_bytes.is_none() {
            self.lines.push(BillLine::unknown(
                Meter::DurableOperations,
                "telemetry does not show durable executions; give `durable_operations`, or 0",
            ));
        } else {
            let operations = given.durable_operations.map(|count| Amount::units(in_hours(count, hours)));
            self.given_line(Meter::DurableOperations, operations, "give `durable_operations`");
            let written = bytes(given.durable_written_bytes);
            self.given_line(Meter::DurableWritten, written, "give `durable_written_bytes`");
            let kept = given.durable_kept_bytes.map(|bytes| byte_hours(bytes, hours));
            self.given_line(Meter::DurableRetained, kept, "give `durable_kept_bytes`");
        }
        for (meter, pollers) in [
            (Meter::EventPollersKafka, given.kafka_poller_hours),
            (Meter::EventPollersSqs, given.sqs_poller_hours),
        ] {
            if let Some(poller_hours) = pollers.filter(|hours| *hours > 0) {
                self.tiered(meter, Amount::units(in_hours(poller_hours, hours)));
            }
        }
    }

    fn logs(&mut self) {
        let hours = self.measured.hours;
        let meter = match self.given.log_destination {
            LogDestination::Cloudwatch => Meter::LogIngestion,
            LogDestination::S3 => Meter::LogDeliveryS3,
            LogDestination::Firehose => Meter::LogDeliveryFirehose,
            LogDestination::None => return,
        };
        let given = self.given.log_bytes.map(|bytes| in_hours(bytes, hours));
        let bytes = given.or_else(|| self.measured.log_bytes.map(u128::from));
        self.given_line(
            meter,
            bytes.map(Amount::gb_of_bytes),
            "log bytes are not measured; `tailor import logs` counts them, or give `log_bytes`",
        );
        if self.given.log_bytes.is_none() && bytes.is_some() {
            for line in self.lines.iter_mut().filter(|line| line.meter == meter) {
                *line = line.clone().assuming("the imported logs have every line of the function");
            }
        }
        if meter == Meter::LogIngestion {
            let stored = self.given.log_stored_bytes.map(|bytes| byte_hours(bytes, hours));
            self.given_line(
                Meter::LogStorage,
                stored,
                "give `log_stored_bytes`, which `aws logs describe-log-groups` shows",
            );
        }
    }

    fn transfer(&mut self) {
        let hours = self.measured.hours;
        let given = self.given.transfer_out_bytes.map(|bytes| Amount::gb_of_bytes(in_hours(bytes, hours)));
        let note = match self.measured.sent_bytes {
            Some(bytes) => format!(
                "{:.3} GB were sent, and their destination is not known; traffic to AWS services of the region is free; give \
                 `transfer_out_bytes`",
                Amount::gb_of_bytes(bytes.into()).to_units()
            ),
            None => "not measured; give `transfer_out_bytes`".to_owned(),
        };
        self.given_line(Meter::DataTransferOut, given, &note);
    }

    /// Managed instances: requests are known, the instances belong to the capacity provider.
    fn managed(&mut self) {
        for (architecture, usage) in &self.measured.usage {
            let rates = self.prices.rates(self.measured.region, *architecture).ok();
            let priced = rates.as_ref().map(|rates| Priced {
                price: rates.request,
                source: &rates.source,
                derived: false,
            });
            let amount = Amount::units(usage.requests.into());
            let line = BillLine::of(Meter::Requests, architecture.as_str(), amount, priced, self.terms);
            self.lines.push(line);
        }
        let note = "instances are billed to the capacity provider and shared by its functions";
        self.lines.push(BillLine::unknown(Meter::ManagedInstances, note));
        self.lines.push(BillLine::unknown(Meter::ManagedInstancesFee, note));
    }
}

/// The parts of compute by tier: the number of the tier, the amount and the price.
fn tiers(rates: Option<&Rates>, mb_ms: u128, before: u128) -> Vec<(usize, Amount, Option<PicoDollars>)> {
    let Some(rates) = rates else { return vec![(1, Amount::gb_seconds(mb_ms), None)] };
    let end = before.saturating_add(mb_ms);
    let limit = |at: usize| {
        let tier = rates.tiers().get(at)?;
        Some(u128::from(tier.from_gb_seconds).saturating_mul(MB_MS_PER_GB_SECOND))
    };
    let parts = rates.tiers().iter().enumerate().filter_map(|(at, tier)| {
        let from = limit(at).unwrap_or(0).max(before);
        let to = limit(at + 1).unwrap_or(u128::MAX).min(end);
        let part = to.saturating_sub(from);
        (part > 0).then(|| (at + 1, Amount::gb_seconds(part), Some(tier.gb_second)))
    });
    parts.collect()
}

/// The part of the handlers' time that was on provisioned environments, as a fraction.
struct ProvisionedShare {
    part: u128,
    /// At least `part` and more than zero.
    whole: u128,
    /// What is assumed; empty when nothing is.
    note: String,
}

/// What is assumed of provisioned concurrency that only the user has stated.
const NOT_SEEN: &str = "no first invocation of a provisioned environment is in the window; invocations are taken to run on \
                        provisioned environments as far as the capacity suffices";

/// Memory × time of handlers, without Init.
const fn handler_mb_ms(usage: &Usage) -> u128 {
    usage.memory_mb_ms.saturating_sub(usage.init_mb_ms)
}

/// The usage on provisioned environments and the rest.
fn split(usage: &Usage, share: Option<&ProvisionedShare>) -> (Usage, Usage) {
    let Some(ProvisionedShare { part, whole, .. }) = share else { return (Usage::default(), *usage) };
    let of = |amount: u128| amount.saturating_mul(*part) / *whole;
    let provisioned =
        Usage { requests: 0, memory_mb_ms: of(handler_mb_ms(usage)), init_mb_ms: 0, storage_mb_ms: 0 };
    let on_demand = Usage { memory_mb_ms: usage.memory_mb_ms - provisioned.memory_mb_ms, ..*usage };
    (provisioned, on_demand)
}

/// Marks a line as assumed when the share of provisioned environments is.
fn assumed_share(line: BillLine, share: Option<&ProvisionedShare>) -> BillLine {
    match share {
        Some(share) if !share.note.is_empty() => line.assuming(&share.note),
        _ => line,
    }
}

/// GB-months of bytes that are kept for the whole time.
fn byte_hours(bytes: u64, hours: u64) -> Amount {
    Amount::gb_months(u128::from(bytes) * u128::from(hours))
}
