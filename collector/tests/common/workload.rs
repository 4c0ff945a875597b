//! Measurements of functions in a test's own time: durations, errors and memory use follow from the function's kind and
//! size. The advice is the real one.

#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use lambda_sandbox::control::catalog::record::LATEST;
use tailor_collector::clock::DAY_US;
use tailor_collector::report::{Evaluation, MeasuredBy, MeasuredVersion};
use tailor_collector::store::{ChangeEvent, FunctionKey, StoreError};
use tailor_collector::tuner::canary::Sample;
use tailor_collector::tuner::guards::{Evidence, Health};
use tailor_collector::tuner::telemetry::{Telemetry, sample_of};
use tailor_sizing::advice::strategy::Strategy;
use tailor_sizing::advice::{FunctionEvidence, advise};
use tailor_sizing::model::accounting::Unaccounted;
use tailor_sizing::model::enforcement::Enforcement;
use tailor_sizing::pricing::prices::{PriceTable, Rates};
use tailor_sizing::telemetry::invocation::{Initialization, Outcome};
use tailor_sizing::telemetry::rollup::Rollup;
use tailor_sizing::units::{Architecture, Megabytes};

use super::control_plane::{ControlPlane, key};
use super::fleet::{Kind, invocation};

/// How the invocations of the new size differ from what is expected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Quality {
    /// Factor of the duration.
    pub(crate) slower: u64,
    /// One invocation of so many fails; none when zero.
    pub(crate) failing_one_of: u64,
    /// One invocation of so many runs out of memory; none when zero.
    pub(crate) killed_one_of: u64,
}

pub(crate) const GOOD: Quality = Quality { slower: 1, failing_one_of: 0, killed_one_of: 0 };

/// One function: its kind, and what was measured.
struct Measured {
    kind: Kind,
    /// Time, version, size, and what was measured of both.
    samples: Vec<(u64, String, u32, Rollup)>,
    /// Sizes that were measured before, each with the factor of the CPU time that an invocation needs there.
    cpu_factors: BTreeMap<u32, u64>,
}

impl Measured {
    /// The function at a size.
    fn kind_at(&self, memory: u32) -> Kind {
        let factor = self.cpu_factors.get(&memory).copied().unwrap_or(1);
        Kind { memory, cpu_us: self.kind.cpu_us * factor, ..self.kind }
    }
}

pub(crate) struct Workload {
    plane: Arc<ControlPlane>,
    prices: PriceTable,
    functions: Mutex<BTreeMap<String, Measured>>,
    advice: Mutex<HashMap<(String, u32, bool, bool), Evaluation>>,
    pub(crate) health: Mutex<Health>,
    /// Whether the invocations are from logs.
    pub(crate) is_imported: AtomicBool,
}

impl Workload {
    pub(crate) fn new(plane: Arc<ControlPlane>) -> Arc<Self> {
        Arc::new(Self {
            plane,
            prices: PriceTable::embedded(),
            functions: Mutex::default(),
            advice: Mutex::default(),
            health: Mutex::new(Health { price_age_days: Some(0), ..Health::default() }),
            is_imported: AtomicBool::new(false),
        })
    }

    pub(crate) fn add(&self, kind: Kind) {
        self.add_with(kind, &[]);
    }

    /// A function of which invocations at these sizes were measured before, each with the factor of their CPU time.
    pub(crate) fn add_with(&self, kind: Kind, cpu_factors: &[(u32, u64)]) {
        let cpu_factors = cpu_factors.iter().copied().collect();
        let measured = Measured { kind, samples: Vec::new(), cpu_factors };
        self.functions.lock().unwrap().insert(kind.name.to_owned(), measured);
    }

    /// Measures invocations of a version at a size.
    pub(crate) fn invoke(&self, name: &str, version: &str, memory_mb: u32, count: u64, quality: Quality) {
        let now_us = self.plane.lock().now_us;
        let mut functions = self.functions.lock().unwrap();
        let measured = functions.get_mut(name).unwrap();
        let kind = measured.kind_at(memory_mb);
        // A large number is a multiple of a small one.
        let (mut count, mut doublings) = (count, 0);
        while count > 800 {
            (count, doublings) = (count / 2, doublings + 1);
        }
        let mut rollup = Rollup::default();
        for index in 0..count {
            let mut one = invocation(&kind, index % 200, now_us);
            one.outcome = Outcome::Success;
            if index % 50 != 0 {
                one.initialization = Initialization::Warm;
            }
            one.duration_us *= quality.slower;
            one.billed_ms *= quality.slower;
            let is_one_of = |number: u64| number > 0 && index % number == number - 1;
            if is_one_of(quality.failing_one_of) {
                one.outcome = Outcome::Error;
            }
            if is_one_of(quality.killed_one_of) {
                one.outcome = Outcome::OutOfMemory;
            }
            rollup.record(&one);
        }
        for _ in 0..doublings {
            rollup.merge(&rollup.clone());
        }
        measured.samples.push((now_us, version.to_owned(), memory_mb, rollup));
    }

    /// Measures invocations as the alias or `$LATEST` distributes them now: `count` in total, those of `new_mb` with a
    /// quality of their own.
    pub(crate) fn traffic(&self, name: &str, count: u64, new_mb: Option<u32>, quality: Quality) {
        self.traffic_by_size(name, count, |memory_mb| if Some(memory_mb) == new_mb { quality } else { GOOD });
    }

    /// The same with a quality for each size.
    pub(crate) fn traffic_by_size(&self, name: &str, count: u64, quality: impl Fn(u32) -> Quality) {
        let record = self.plane.record(name);
        let mut shares = Vec::new();
        match record.aliases.get("live") {
            None => shares.push((LATEST.to_owned(), 1.0)),
            Some(alias) => {
                let weight = alias.additional.as_ref().map_or(0.0, |(_, weight)| *weight);
                shares.push((alias.version.clone(), 1.0 - weight));
                shares.extend(alias.additional.clone());
            }
        }
        for (version, share) in shares {
            // Until an update is in force, invocations use the previous revision.
            let previous = record.pending.as_ref().filter(|_| version == LATEST);
            let previous = previous.and_then(|pending| pending.previous.as_ref());
            let Some(revision) = previous.or_else(|| record.version(&version)) else { continue };
            let memory_mb = revision.config.memory_mb;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a count")]
            self.invoke(name, &version, memory_mb, (count as f64 * share) as u64, quality(memory_mb));
        }
    }

    /// What was measured at a size.
    fn sum(&self, name: &str, memory: u32) -> Rollup {
        let functions = self.functions.lock().unwrap();
        let mut sum = Rollup::default();
        let samples = functions[name].samples.iter().filter(|(_, _, size, _)| *size == memory);
        samples.for_each(|(.., rollup)| sum.merge(rollup));
        sum
    }

    /// The evaluation at the size of the latest invocations.
    fn evaluation(&self, name: &str, strategy: Strategy) -> Option<Evaluation> {
        let (memory, versions, kinds) = {
            let functions = self.functions.lock().unwrap();
            let measured = &functions[name];
            let last = measured.samples.last()?;
            let versions = measured.samples.iter().map(|(at_us, version, ..)| (version.as_str(), *at_us));
            let sizes: BTreeSet<u32> = measured.cpu_factors.keys().copied().chain([last.2]).collect();
            let kinds: Vec<Kind> = sizes.into_iter().map(|size| measured.kind_at(size)).collect();
            (last.2, MeasuredVersion::of(versions), kinds)
        };
        let sum = self.sum(name, memory);
        let present = sum.clone();
        let killed = sum.out_of_memory > 0;
        let is_imported = self.is_imported.load(Ordering::Relaxed);
        let cached = (name.to_owned(), memory, killed, is_imported);
        if let Some(evaluation) = self.advice.lock().unwrap().get(&cached) {
            return Some(Evaluation { present, versions, ..evaluation.clone() });
        }
        let sizes: Vec<(Megabytes, Rollup)> = kinds
            .iter()
            .map(|kind| (Megabytes(kind.memory), two_weeks(kind, killed && kind.memory == memory)))
            .collect();
        let evidence = FunctionEvidence {
            region: super::control_plane::REGION,
            architecture: Architecture::X86_64,
            memory: Megabytes(memory),
            ephemeral_mb: 512,
            timeout_ms: Some(30_000),
            environments: 30,
            enforcement: Enforcement::default(),
            sizes: &sizes,
        };
        let evaluation = Evaluation {
            key: key(name),
            memory: Megabytes(memory),
            architecture: Architecture::X86_64,
            versions,
            measured_by: if is_imported { MeasuredBy::Logs } else { MeasuredBy::Layer },
            unaccounted: Unaccounted::of(&sizes),
            present,
            advice: advise(&evidence, &self.prices, strategy),
        };
        self.advice.lock().unwrap().insert(cached, evaluation.clone());
        Some(evaluation)
    }
}

/// The invocations of two weeks; some ran out of memory if they are `killed`.
fn two_weeks(kind: &Kind, killed: bool) -> Rollup {
    let mut rollup = Rollup::default();
    let start_us = super::control_plane::START_US - 14 * DAY_US;
    for index in 0..600 {
        let mut one = invocation(kind, index, start_us + index * 14 * DAY_US / 600);
        if index % 20 == 0 {
            one.initialization = Initialization::OnDemand;
        }
        if killed && index % 100 == 0 {
            one.outcome = Outcome::OutOfMemory;
            one.peak_kib = u64::from(kind.memory) * 1_000;
            one.max_memory_used_mb = kind.memory;
        }
        rollup.record(&one);
    }
    rollup
}

fn lost() -> StoreError {
    StoreError::Engine("no answer".to_owned())
}

#[async_trait]
impl Telemetry for Workload {
    async fn evaluations(
        &self,
        key: Option<&FunctionKey>,
        strategy: Strategy,
    ) -> Result<Vec<Evaluation>, StoreError> {
        let names: Vec<String> = self.functions.lock().unwrap().keys().cloned().collect();
        let names = names.into_iter().filter(|name| key.is_none_or(|key| key.name == *name));
        Ok(names.filter_map(|name| self.evaluation(&name, strategy)).collect())
    }

    async fn sample(
        &self,
        key: &FunctionKey,
        version: Option<&str>,
        memory: Megabytes,
        since_us: u64,
    ) -> Result<(Evidence, Sample), StoreError> {
        let functions = self.functions.lock().unwrap();
        let samples = functions[&key.name].samples.iter().filter(|(at_us, ..)| *at_us >= since_us);
        let measured = samples
            .map(|(_, version, size, sum)| (version.as_str(), Megabytes(*size), Architecture::X86_64, sum));
        Ok(sample_of(measured, version, memory, |architecture| self.rates(key, architecture)))
    }

    async fn measured(
        &self,
        key: &FunctionKey,
        version: &str,
        memory: Megabytes,
        since_us: u64,
    ) -> Result<Rollup, StoreError> {
        let functions = self.functions.lock().unwrap();
        let mut sum = Rollup::default();
        for (at_us, of, size, rollup) in &functions[&key.name].samples {
            if *at_us >= since_us && of == version && *size == memory.0 {
                sum.merge(rollup);
            }
        }
        Ok(sum)
    }

    async fn health(&self, _: &FunctionKey) -> Result<Health, StoreError> {
        Ok(*self.health.lock().unwrap())
    }

    fn rates(&self, key: &FunctionKey, architecture: Architecture) -> Option<Rates> {
        self.prices.rates(&key.region, architecture).ok()
    }

    async fn log(&self) -> Result<Vec<ChangeEvent>, StoreError> {
        Ok(self.plane.lock().log.clone())
    }

    async fn append(&self, event: &ChangeEvent) -> Result<(), StoreError> {
        let mut state = self.plane.lock();
        let taken = state.log.iter().any(|earlier| {
            (&earlier.function, &earlier.change_id, earlier.step)
                == (&event.function, &event.change_id, event.step)
        });
        if taken {
            let (change_id, step) = (event.change_id.clone(), event.step);
            return Err(StoreError::StepTaken { change_id, step });
        }
        state.append(event).map_err(|()| lost())
    }
}
