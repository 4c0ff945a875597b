//! One simulated function: its versions and its alias in Lambda, and what was measured of its invocations.

use std::collections::{BTreeMap, HashMap};

use tailor_collector::changes::Write;
use tailor_collector::clock::{DAY_US, HOUR_US};
use tailor_collector::report::{Evaluation, MeasuredBy, MeasuredVersion};
use tailor_collector::store::FunctionKey;
use tailor_collector::tuner::lambda::{Alias, Configuration, LambdaError, ListedVersions, Live, Update};
use tailor_collector::tuner::permission::TAG;
use tailor_sizing::advice::strategy::Strategy;
use tailor_sizing::advice::{FunctionEvidence, advise};
use tailor_sizing::model::accounting::Unaccounted;
use tailor_sizing::model::enforcement::Enforcement;
use tailor_sizing::pricing::prices::PriceTable;
use tailor_sizing::telemetry::rollup::Rollup;
use tailor_sizing::units::{Architecture, Megabytes};

use crate::kind::Truth;
use crate::random::Random;
use crate::traffic::{Span, measure};

/// Start of the simulated time: Monday, 2026-01-05, 00:00 UTC.
pub const START_US: u64 = 1_767_571_200_000_000;

const ACCOUNT: &str = "123456789012";
const REGION: &str = "eu-west-1";
const LATEST: &str = "$LATEST";
const ALIAS: &str = "live";

/// How finely traffic is simulated, and how often the advice is computed.
#[derive(Debug, Clone, Copy)]
pub struct Detail {
    /// Invocations of each span that are simulated one by one.
    pub samples: u64,
    /// The same while an alias has a weight.
    pub canary_samples: u64,
    /// Time between two evaluations of a function, microseconds.
    pub evaluation_us: u64,
    /// Length of the window of measurements, microseconds.
    pub window_us: u64,
}

/// What was measured in a span.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    pub(crate) until_us: u64,
    pub(crate) version: String,
    pub(crate) memory: Megabytes,
    pub(crate) rollup: Rollup,
}

/// What happened on one day.
#[derive(Debug, Clone, Copy, Default)]
pub struct Day {
    /// Cost, dollars.
    pub cost_usd: f64,
    /// Invocations that ran out of memory below the size of the start.
    pub killed_below_start: u64,
    /// All invocations that ran out of memory.
    pub killed: u64,
    /// The size of most invocations at the end of the day, MB.
    pub memory_mb: u32,
}

#[derive(Debug, Clone)]
struct Version {
    memory: Megabytes,
    code: String,
    description: String,
}

/// One function.
pub(crate) struct Function {
    pub(crate) truth: Truth,
    latest: Version,
    versions: BTreeMap<u64, Version>,
    pub(crate) alias: Option<Alias>,
    revision: u64,
    next_version: u64,
    modified_at_us: u64,
    measured_until_us: u64,
    /// The day on which the code of each digest was deployed.
    deployed_day: u64,
    pub(crate) blocks: Vec<Block>,
    pub(crate) days: Vec<Day>,
    pub(crate) evaluation: Option<(u64, Evaluation)>,
    random: Random,
}

impl Function {
    pub(crate) fn new(truth: Truth) -> Self {
        let first = Version {
            memory: Megabytes(truth.start_mb),
            code: "code-0".to_owned(),
            description: String::new(),
        };
        let has_alias = truth.has_alias;
        Self {
            latest: first.clone(),
            versions: if has_alias { BTreeMap::from([(1, first)]) } else { BTreeMap::new() },
            alias: has_alias.then(|| Alias {
                version: "1".to_owned(),
                additional: None,
                description: String::new(),
                revision_id: "0".to_owned(),
            }),
            revision: 0,
            next_version: 2,
            modified_at_us: 0,
            measured_until_us: 0,
            deployed_day: 0,
            blocks: Vec::new(),
            days: Vec::new(),
            evaluation: None,
            random: Random::new(truth.seed ^ 0x51ed_270b),
            truth,
        }
    }

    /// The versions that are invoked now, with their sizes and shares.
    pub(crate) fn routes(&self) -> Vec<(String, Megabytes, f64)> {
        let Some(alias) = &self.alias else { return vec![(LATEST.to_owned(), self.latest.memory, 1.0)] };
        let size = |version: &str| {
            let number = version.parse::<u64>().unwrap_or(0);
            self.versions.get(&number).map_or(self.latest.memory, |version| version.memory)
        };
        let weight = alias.additional.as_ref().map_or(0.0, |(_, weight)| f64::from(*weight) / 10_000.0);
        let mut routes = vec![(alias.version.clone(), size(&alias.version), 1.0 - weight)];
        if let Some((version, _)) = &alias.additional {
            routes.push((version.clone(), size(version), weight));
        }
        routes
    }

    /// Simulates the invocations until `now_us`, microseconds since the start of the simulation.
    pub(crate) fn advance(&mut self, now_us: u64, prices: &PriceTable, detail: &Detail) {
        while self.measured_until_us < now_us {
            let from_us = self.measured_until_us;
            let is_canary = self.alias.as_ref().is_some_and(|alias| alias.additional.is_some());
            // Traffic is the same within an hour of a bursty function, and within a day of another one.
            let unit_us =
                if is_canary || self.truth.kind == crate::kind::Kind::Bursty { HOUR_US } else { DAY_US };
            let until_us = now_us.min((from_us / unit_us + 1) * unit_us);
            self.span(
                from_us,
                until_us,
                if is_canary { detail.canary_samples } else { detail.samples },
                prices,
            );
            self.measured_until_us = until_us;
            if until_us.is_multiple_of(DAY_US) {
                self.end_of_day(until_us / DAY_US);
            }
        }
        let oldest_us = now_us.saturating_sub(detail.window_us);
        self.blocks.retain(|block| block.until_us > oldest_us);
    }

    fn span(&mut self, from_us: u64, until_us: u64, samples: u64, prices: &PriceTable) {
        let (day, hour) = (from_us / DAY_US, from_us % DAY_US / HOUR_US);
        let hours = (until_us - from_us) as f64 / HOUR_US as f64;
        let (traffic, _) = self.truth.day_factors(day);
        let mean = self.truth.per_day * traffic * self.truth.hour_share(day, hour) * hours;
        let count = self.random.poisson(mean);
        let index = usize::try_from(day).unwrap_or(usize::MAX);
        while self.days.len() <= index {
            self.days.push(Day::default());
        }
        for (version, memory, share) in self.routes() {
            let part = self.random.poisson(count as f64 * share);
            let part = if share >= 1.0 { count } else { part.min(count) };
            let first = self.random.poisson(self.truth.environments_per_day * share * hours / 24.0);
            let deployed_day = self.deployed_day;
            let span = Span { from_us, until_us, memory, count: part, first, deployed_day, samples };
            let rollup = measure(&self.truth, &span, START_US, &mut self.random);
            let today = &mut self.days[index];
            if let Ok(rates) = prices.rates(REGION, Architecture::X86_64) {
                today.cost_usd += rates.cost(memory, rollup.billed_ms, rollup.invocations, 512).to_dollars();
            }
            today.killed += rollup.out_of_memory;
            if memory.0 < self.truth.start_mb {
                today.killed_below_start += rollup.out_of_memory;
            }
            if share >= 0.5 {
                today.memory_mb = memory.0;
            }
            if rollup.invocations > 0 {
                self.append(Block { until_us, version, memory, rollup });
            }
        }
    }

    /// Appends a block. Blocks of the same day, version and size are one, unless a change is being measured.
    fn append(&mut self, block: Block) {
        let is_canary = self.alias.as_ref().is_some_and(|alias| alias.additional.is_some());
        if let Some(last) = self.blocks.last_mut().filter(|last| {
            !is_canary
                && last.version == block.version
                && last.memory == block.memory
                && (last.until_us - 1) / DAY_US == (block.until_us - 1) / DAY_US
                && last.until_us / HOUR_US + 1 >= block.until_us / HOUR_US
        }) {
            last.rollup.merge(&block.rollup);
            last.until_us = block.until_us;
            return;
        }
        self.blocks.push(block);
    }

    /// Deploys new code at the end of some days.
    fn end_of_day(&mut self, day: u64) {
        let every = self.truth.deployed_days;
        let is_working_day = day % 7 < 5;
        if every == 0 || !day.is_multiple_of(every) || !is_working_day {
            return;
        }
        self.deployed_day = day;
        self.latest.code = format!("code-{day}");
        self.modified_at_us = START_US + day * DAY_US;
        self.revision += 1;
        if let Some(alias) = &mut self.alias {
            let version = self.next_version;
            self.next_version += 1;
            self.versions
                .insert(version, Version { description: "release".to_owned(), ..self.latest.clone() });
            alias.version = version.to_string();
            alias.additional = None;
            alias.revision_id = format!("a{}", self.revision);
        }
    }

    pub(crate) fn evaluate(
        &self,
        key: FunctionKey,
        prices: &PriceTable,
        strategy: Strategy,
    ) -> Option<Evaluation> {
        let last = self.blocks.last()?;
        // The old version has most invocations of a canary.
        let memory = self.routes().first().map_or(last.memory, |(_, memory, _)| *memory);
        let mut by_size: BTreeMap<Megabytes, Rollup> = BTreeMap::new();
        for block in &self.blocks {
            by_size.entry(block.memory).or_default().merge(&block.rollup);
        }
        let present = by_size.get(&memory)?.clone();
        let sizes: Vec<(Megabytes, Rollup)> = by_size.into_iter().collect();
        let evidence = FunctionEvidence {
            region: REGION,
            architecture: Architecture::X86_64,
            memory,
            ephemeral_mb: 512,
            timeout_ms: Some(30_000),
            environments: sizes.iter().map(|(_, rollup)| rollup.first_invocations()).sum(),
            enforcement: Enforcement::default(),
            sizes: &sizes,
        };
        Some(Evaluation {
            key,
            memory,
            architecture: Architecture::X86_64,
            versions: MeasuredVersion::of(
                self.blocks.iter().map(|block| (block.version.as_str(), block.rollup.last_at_us)),
            ),
            measured_by: MeasuredBy::Layer,
            unaccounted: Unaccounted::of(&sizes),
            present,
            advice: advise(&evidence, prices, strategy),
        })
    }

    pub(crate) fn live(&self) -> Live {
        let configuration = |version: &Version| Configuration {
            memory: version.memory,
            code_sha256: version.code.clone(),
            digest: "same".to_owned(),
            description: version.description.clone(),
            active: true,
        };
        Live {
            account: ACCOUNT.to_owned(),
            latest: configuration(&self.latest),
            revision_id: self.revision.to_string(),
            update: Update::Successful,
            modified_at_us: self.modified_at_us,
            timeout_ms: 30_000,
            snap_start: false,
            managed_instances: false,
            reserved_concurrency: None,
            provisioned: Vec::new(),
            aliases: self.alias.iter().map(|alias| (ALIAS.to_owned(), alias.clone())).collect(),
            versions: self
                .versions
                .iter()
                .map(|(number, it)| (number.to_string(), configuration(it)))
                .collect(),
            listed_versions: ListedVersions::All,
            tags: HashMap::from([
                (TAG.to_owned(), "apply".to_owned()),
                ("tailor:latest-down".to_owned(), "allow".to_owned()),
            ]),
        }
    }

    /// Makes a write, as Lambda does.
    pub(crate) fn write(&mut self, write: &Write, now_us: u64) -> Result<(), LambdaError> {
        let changed = |what: &str| Err(LambdaError::Changed(what.to_owned()));
        let is_present = |revision: &str, own: u64| revision == own.to_string();
        match write {
            Write::SetMemory { memory_mb, revision_id } => {
                if !is_present(revision_id, self.revision) {
                    return changed("PreconditionFailedException");
                }
                self.latest.memory = Megabytes(*memory_mb);
                self.modified_at_us = START_US + now_us;
            }
            Write::Publish { revision_id, code_sha256, description } => {
                if !is_present(revision_id, self.revision) || *code_sha256 != self.latest.code {
                    return changed("PreconditionFailedException");
                }
                let version = Version { description: description.clone(), ..self.latest.clone() };
                self.versions.insert(self.next_version, version);
                self.next_version += 1;
            }
            Write::SetAlias { version, additional, description, revision_id, .. } => {
                let Some(alias) = &mut self.alias else { return changed("ResourceNotFoundException") };
                if alias.revision_id != *revision_id {
                    return changed("PreconditionFailedException");
                }
                alias.version.clone_from(version);
                alias.additional.clone_from(additional);
                alias.description.clone_from(description);
                alias.revision_id = format!("a{}", self.revision + 1);
            }
            Write::DeleteVersion { version } => {
                self.versions.remove(&version.parse().unwrap_or(0));
            }
        }
        self.revision += 1;
        Ok(())
    }
}

/// The key of a function with this name.
pub(crate) fn key(name: &str) -> FunctionKey {
    FunctionKey { account: ACCOUNT.to_owned(), region: REGION.to_owned(), name: name.to_owned() }
}
