//! The cost of each place.

use std::collections::BTreeMap;

use super::load::busy_shares;
use super::{Context, ManagedPlan, Place, PlaceReport, PlaceVerdict, ProvisionedHour, unknown};
use crate::pricing::managed_instances::{
    Capacity, Demand, InstanceType, InstancesCost, MONTH_HOURS, runtime_limit,
};
use crate::pricing::money::PicoDollars;
use crate::pricing::prices::{PriceSource, ProvisionedRates};
use crate::telemetry::invocation::Work;
use crate::units::{Architecture, round_to_u64};

/// CPU time on arm64 relative to x86_64 in published comparisons: from clearly faster to clearly slower.
const ARM64_CPU: [f64; 2] = [0.8, 1.2];

/// Billed time of a restore, ms: published measurements of SnapStart (billed restores of 28 to 119 ms).
const RESTORE_MS: [f64; 3] = [28.0, 75.0, 119.0];

/// Standard deviations above the mean concurrency of the busiest hour that capacity is for. With independent arrivals, 0.1 %
/// of the time needs more.
const PEAK_DEVIATIONS: f64 = 3.0;

/// How far the CPU time of an invocation may differ where several run at once and share caches.
const CPU_SPREAD: f64 = 0.25;

/// Price of Fargate in us-east-1 on Linux and x86_64, dollars: a vCPU and a GB for an hour (AWS Fargate pricing, 2026).
const FARGATE: [f64; 2] = [0.04048, 0.004445];

impl Context<'_> {
    /// CPU of an invocation while it runs, vCPUs; `None` without CPU telemetry.
    fn cpu(&self) -> Option<f64> {
        let rollup = self.evidence.rollup;
        let wall_us = rollup.warm.wall_us + rollup.cold.wall_us;
        let busy_us = Work::busy_us(&rollup.warm.work) + Work::busy_us(&rollup.cold.work);
        (wall_us > 0).then(|| busy_us as f64 / wall_us as f64)
    }

    pub(super) fn arm64(&self) -> PlaceReport {
        let evidence = self.evidence;
        if evidence.architecture == Architecture::Arm64 {
            return PlaceReport {
                verdict: PlaceVerdict::Present,
                ..unknown(Place::Arm64, "it runs on arm64".to_owned())
            };
        }
        let rates = match self.prices.rates(evidence.region, Architecture::Arm64) {
            Ok(rates) => rates,
            Err(error) => return unknown(Place::Arm64, error.to_string()),
        };
        // Only CPU time changes with the processor. Without CPU telemetry, all of the time may.
        let busy = self.cpu().map_or(1.0, |cpu| cpu.min(1.0));
        let cost = |factor: f64| {
            let ms = self.billed_ms * (1.0 - busy + busy * factor);
            self.month_invocations * rates.expected_pico(evidence.memory, ms, evidence.ephemeral_mb)
        };
        let mut assumptions = vec![format!(
            "CPU time takes {} to {} of that on x86_64, and idle time the same; expected is the same time",
            ARM64_CPU[0], ARM64_CPU[1]
        )];
        if rates.derived {
            assumptions.push("the arm64 price of this region is inferred".to_owned());
        }
        let summary = match self.cpu() {
            Some(_) => format!("{:.0} % of the billed time is CPU time", 100.0 * busy),
            None => "CPU time was not measured: all of the billed time is taken for CPU time".to_owned(),
        };
        self.report(Place::Arm64, cost(1.0), [cost(ARM64_CPU[0]), cost(ARM64_CPU[1])], summary, assumptions)
    }

    /// Provisioned concurrency by hour of the day. An environment is cheaper provisioned when it is busy for more than the
    /// break-even share of the time.
    pub(super) fn provisioned(&self) -> (Vec<ProvisionedHour>, PlaceReport) {
        let place = Place::ProvisionedConcurrency;
        let (Some(prices), Some(break_even)) = (self.rates.provisioned, self.rates.provisioned_break_even())
        else {
            let report = unknown(place, "no price of provisioned concurrency in this region".to_owned());
            return (vec![], self.with_provisioned().unwrap_or(report));
        };
        let by_hour = self.evidence.load.by_hour_of_day();
        let saving = |concurrency: f64| self.worth_provisioning(prices, break_even, concurrency);
        let hours: Vec<ProvisionedHour> = by_hour
            .iter()
            .map(|hour| {
                let (concurrency, saved) = saving(hour.concurrency);
                ProvisionedHour {
                    hour: hour.hour,
                    mean_concurrency: hour.concurrency,
                    concurrency,
                    saving_pico_usd: crate::pricing::cost_model::money(saved),
                }
            })
            .collect();
        if let Some(report) = self.with_provisioned() {
            return (hours, report);
        }
        let days = MONTH_HOURS as f64 / by_hour.len().max(1) as f64;
        let all =
            |factor: f64| days * by_hour.iter().map(|hour| saving(hour.concurrency * factor).1).sum::<f64>();
        let now = self.now.expected_pico_usd.0 as f64;
        let worth = hours.iter().filter(|hour| hour.concurrency > 0).count();
        let summary = match worth {
            0 => format!(
                "in no hour of the day is an environment busy for more than the break-even of {:.0} %",
                100.0 * break_even
            ),
            count => format!(
                "in {count} of {} measured hours of the day some environments are busy for more than {:.0} %",
                by_hour.len(),
                100.0 * break_even
            ),
        };
        let assumptions = vec![
            "invocations arrive independently of each other within an hour; bursts lower the saving".to_owned(),
            "a schedule sets the concurrency of each hour; Inits of provisioned environments are not included"
                .to_owned(),
        ];
        let spread = self.load_spread;
        let expected = now - all(1.0);
        let interval = [now - all(1.0 + spread), now - all((1.0 - spread).max(0.0))];
        let mut report = self.report(place, expected, interval, summary, assumptions);
        if worth == 0 {
            report.verdict = PlaceVerdict::NotCheaper;
        }
        (hours, report)
    }

    /// The environments that are cheaper provisioned than on demand, where this many invocations run at the same time on
    /// average, and what they save in an hour, pico-dollars.
    fn worth_provisioning(&self, prices: ProvisionedRates, break_even: f64, concurrency: f64) -> (u64, f64) {
        let gb = f64::from(self.evidence.memory.0) / 1_024.0;
        let second = |price: PicoDollars| gb * price.0 as f64;
        let (idle, difference) =
            (second(prices.idle_gb_second), second(self.rates.gb_second() - prices.duration_gb_second));
        let saved = |busy: f64| 3_600.0 * (busy * difference - idle);
        let shares = busy_shares(concurrency);
        let always = if break_even < 1.0 { shares.always } else { 0 };
        let further: Vec<f64> = shares.further.into_iter().take_while(|busy| *busy > break_even).collect();
        let each = further.iter().map(|busy| saved(*busy));
        (always + further.len() as u64, always as f64 * saved(1.0) + each.sum::<f64>())
    }

    /// The report of provisioned concurrency where the function has it now; `None` where it does not.
    fn with_provisioned(&self) -> Option<PlaceReport> {
        self.is_provisioned.then(|| PlaceReport {
            verdict: PlaceVerdict::Present,
            ..unknown(
                Place::ProvisionedConcurrency,
                "it has provisioned concurrency; what that costs is not known, because the capacity is not measured: see \
                 `tailor bill --usage`"
                    .to_owned(),
            )
        })
    }

    pub(super) fn snap_start(&self) -> PlaceReport {
        let evidence = self.evidence;
        let rollup = evidence.rollup;
        let is_free = evidence.runtime.starts_with("java");
        if evidence.runtime.is_empty() {
            return unknown(Place::SnapStart, "the runtime is not known".to_owned());
        }
        if !has_snap_start(evidence.runtime) {
            return unknown(
                Place::SnapStart,
                format!("SnapStart does not support the runtime `{}`", evidence.runtime),
            );
        }
        if rollup.initializations.snap_start > 0 {
            return PlaceReport {
                verdict: PlaceVerdict::Present,
                ..unknown(Place::SnapStart, "it has SnapStart".to_owned())
            };
        }
        let inits = rollup.inits();
        if inits == 0 {
            return unknown(Place::SnapStart, "no Init was measured".to_owned());
        }
        let Some(rates) = self.rates.snap_start.filter(|_| !is_free).or_else(|| {
            is_free.then_some(crate::pricing::prices::SnapStartRates {
                cache_gb_second: PicoDollars::ZERO,
                restore_gb: PicoDollars::ZERO,
            })
        }) else {
            return unknown(Place::SnapStart, "no price of SnapStart in this region".to_owned());
        };
        let gb = f64::from(evidence.memory.0) / 1_024.0;
        let each_ms = |us: u64| us as f64 / 1_000.0 / inits as f64;
        let (init_ms, billed_ms) = (each_ms(rollup.init_us), each_ms(rollup.billed_init_us()));
        let month_inits = evidence.load.mean_inits() * MONTH_HOURS as f64;
        let cache = gb * MONTH_HOURS as f64 * 3_600.0 * rates.cache_gb_second.0 as f64;
        let restores = month_inits * gb * rates.restore_gb.0 as f64;
        let ms = gb / 1_000.0 * self.rates.gb_second().0 as f64;
        let now = self.now.expected_pico_usd.0 as f64;
        let [low, expected, high] =
            RESTORE_MS.map(|restore_ms| now - month_inits * (billed_ms - restore_ms) * ms + cache + restores);
        let summary = format!(
            "{month_inits:.0} Inits of {init_ms:.0} ms a month become restores; the cache costs {} a month and the restores {}",
            crate::pricing::cost_model::money(cache),
            crate::pricing::cost_model::money(restores)
        );
        let mut assumptions = vec![
            format!("a restore is billed {} to {} ms", RESTORE_MS[0], RESTORE_MS[2]),
            "one published version is cached; SnapStart needs versions and excludes more than 512 MB of /tmp"
                .to_owned(),
        ];
        // Durations are written with two decimals, so that less may be the rounding.
        if billed_ms < 0.99 * init_ms {
            assumptions.push(format!(
                "of an Init {billed_ms:.0} ms are billed, as in the measured invocations; since August 2025 AWS bills every Init on \
                 demand"
            ));
        }
        self.report(Place::SnapStart, expected, [low, high], summary, assumptions)
    }

    /// Managed instances of the cheapest type of the table.
    pub(super) fn managed(&self) -> (Option<ManagedPlan>, PlaceReport) {
        let place = Place::ManagedInstances;
        let evidence = self.evidence;
        let Some(cpu) = self.cpu() else {
            return (None, unknown(place, "no CPU time was measured: attach the layer".to_owned()));
        };
        let memory_mb = evidence.rollup.max_peak_kib.div_ceil(1_024);
        if memory_mb == 0 {
            return (None, unknown(place, "no memory was measured: attach the layer".to_owned()));
        }
        let Some((instances, source)) = self.prices.instances(evidence.region) else {
            let summary = "no prices of instances in this region: see `tailor prices import`".to_owned();
            return (None, unknown(place, summary));
        };
        let mean = evidence.load.busiest_concurrency();
        let peak = mean + PEAK_DEVIATIONS * mean.sqrt();
        let demand = |concurrency: f64, cpu: f64| Demand {
            concurrency,
            cpu,
            memory_mb,
            runtime_limit: runtime_limit(evidence.runtime),
        };
        let Some((pico, instance, capacity)) = self.cheapest_instances(instances, &demand(peak, cpu)) else {
            let summary = format!("no instance type of the table is for {}", evidence.architecture);
            return (None, unknown(place, summary));
        };
        let at = |concurrency: f64, cpu: f64| {
            let capacity = Capacity::of(&demand(concurrency, cpu), &instance)?;
            self.instances_pico(&capacity, &instance)
        };
        let low = at(mean, cpu * (1.0 - CPU_SPREAD)).unwrap_or(pico);
        let high = at(peak * (1.0 + CPU_SPREAD), cpu * (1.0 + CPU_SPREAD)).unwrap_or(pico);
        let summary = format!(
            "{} × {} for {:.1} invocations at the same time, with {cpu:.2} vCPU and {memory_mb} MB each; {} of {} MB, {} \
             invocations in each",
            capacity.instances,
            instance.name,
            peak,
            plural(capacity.environments, "environment"),
            capacity.environment_mb,
            capacity.environment_concurrency,
        );
        let assumptions = managed_assumptions(source);
        let plan = ManagedPlan {
            concurrency: peak,
            cpu,
            memory_mb,
            capacity,
            max_concurrency: capacity.environment_concurrency,
            gib_per_vcpu: instance.gib_per_vcpu(),
            instance,
        };
        (Some(plan), self.report(place, pico, [low, high], summary, assumptions))
    }

    /// The cheapest type of the table for this demand and the function's architecture, with its cost in a month, pico-dollars.
    fn cheapest_instances(
        &self,
        instances: &BTreeMap<String, PicoDollars>,
        demand: &Demand,
    ) -> Option<(f64, InstanceType, Capacity)> {
        let is_arm64 = self.evidence.architecture == Architecture::Arm64;
        let types = instances.iter().filter_map(|(name, hour)| InstanceType::of(name, *hour));
        let plans = types.filter(|instance| instance.is_arm64() == is_arm64).filter_map(|instance| {
            let capacity = Capacity::of(demand, &instance)?;
            Some((self.instances_pico(&capacity, &instance)?, instance, capacity))
        });
        plans.min_by(|a, b| a.0.total_cmp(&b.0))
    }

    fn instances_pico(&self, capacity: &Capacity, instance: &InstanceType) -> Option<f64> {
        let requests = round_to_u64(self.month_invocations);
        let cost = InstancesCost::of(
            capacity.instances,
            instance.hour,
            MONTH_HOURS,
            requests,
            self.rates.request,
            (1, 1),
        )?;
        Some(cost.total().0 as f64)
    }

    pub(super) fn remarks(&self) -> Vec<String> {
        let mut remarks = vec![];
        if let Some(cpu) = self.cpu() {
            let concurrency = self.evidence.load.mean_concurrency();
            let memory_gb = self.evidence.rollup.max_peak_kib as f64 / 1_048_576.0;
            let dollars = MONTH_HOURS as f64 * concurrency * (cpu * FARGATE[0] + memory_gb * FARGATE[1]);
            remarks.push(format!(
                "Fargate: the work alone, {:.3} vCPU on average, is ${dollars:.2} a month at the prices of us-east-1 ({} per vCPU \
                 and {} per GB an hour). Tasks that wait, a load balancer and another program come on top.",
                concurrency * cpu,
                FARGATE[0],
                FARGATE[1]
            ));
        }
        remarks
    }
}

/// What a plan of managed instances assumes.
fn managed_assumptions(prices: &PriceSource) -> Vec<String> {
    vec![
        format!(
            "capacity is for the mean of the busiest hour and {PEAK_DEVIATIONS} standard deviations of independent arrivals, \
             and a buffer of 50 %; instances run the whole month in three zones"
        ),
        "the handler can run several invocations in one process; its memory is not shared between them"
            .to_owned(),
        format!(
            "prices of instances are of {} ({}), without discounts; the fee is 15 %",
            prices.date, prices.name
        ),
    ]
}

fn plural(count: u64, name: &str) -> String {
    if count == 1 { format!("1 {name}") } else { format!("{count} {name}s") }
}

/// Whether SnapStart supports a runtime: Java 11 and later, Python 3.12 and later, .NET 8 and later.
fn has_snap_start(runtime: &str) -> bool {
    let version = |prefix: &str| -> Option<u32> {
        runtime.strip_prefix(prefix)?.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
    };
    version("java").is_some_and(|version| version >= 11)
        || version("dotnet").is_some_and(|version| version >= 8)
        || version("python3.").is_some_and(|version| version >= 12)
}
