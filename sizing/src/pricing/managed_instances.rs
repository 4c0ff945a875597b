//! The capacity and the cost of Lambda Managed Instances.
//!
//! The steps are those of AWS's calculator (aws-samples/sample-aws-lambda-managed-instances, "LMI Cost Calculator -
//! Methodology"). The calculator takes from its user the CPU of an invocation; here it is a measured value.

use serde::Serialize;

use crate::pricing::meters::Amount;
use crate::pricing::money::PicoDollars;

/// The management fee, percent of the on-demand price of the instance. No discount lowers it.
pub const MANAGEMENT_FEE_PERCENT: u128 = 15;

/// Hours of a month in AWS's calculators.
pub const MONTH_HOURS: u64 = 730;

/// Smallest memory of an execution environment, MB.
pub const MIN_ENVIRONMENT_MB: u64 = 2_048;

/// What each instance needs for itself: one vCPU and one GB.
const RESERVED_VCPUS: u64 = 1;
const RESERVED_MB: u64 = 1_024;

/// Fewest instances: one in each of three availability zones.
pub const MIN_INSTANCES: u64 = 3;

/// Added instances for bursts and for the loss of a zone, percent.
const BUFFER_PERCENT: u64 = 50;

/// An EC2 instance type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InstanceType {
    /// Its name, such as `c7g.xlarge`.
    pub name: String,
    /// vCPUs.
    pub vcpus: u64,
    /// Memory, MB.
    pub memory_mb: u64,
    /// On-demand price of an hour.
    #[serde(rename = "hour_pico_usd")]
    pub hour: PicoDollars,
}

impl InstanceType {
    /// An instance type of the families `c`, `m` and `r`, whose names determine vCPUs and memory: 2, 4 and 8 GiB per vCPU, and
    /// `xlarge` has four vCPUs. `None` for other names.
    #[must_use]
    pub fn of(name: &str, hour: PicoDollars) -> Option<Self> {
        let (family, size) = name.split_once('.')?;
        let gib_per_vcpu = match family.bytes().next()? {
            b'c' => 2,
            b'm' => 4,
            b'r' => 8,
            _ => return None,
        };
        let vcpus = match size.strip_suffix("xlarge")? {
            "" => 4,
            factor => 4 * factor.parse::<u64>().ok().filter(|factor| (1..=64).contains(factor))?,
        };
        Some(Self { name: name.to_owned(), vcpus, memory_mb: vcpus * gib_per_vcpu * 1_024, hour })
    }

    /// Memory per vCPU, GiB. Lambda allows 2 to 8.
    #[must_use]
    pub const fn gib_per_vcpu(&self) -> u64 {
        self.memory_mb / 1_024 / self.vcpus
    }

    /// Whether it is a Graviton instance: the generation is followed by `g`, as in `c7g`.
    #[must_use]
    pub fn is_arm64(&self) -> bool {
        let family = self.name.split('.').next().unwrap_or_default();
        family.trim_start_matches(|letter: char| letter.is_ascii_alphabetic()).contains('g')
    }
}

/// Invocations that one vCPU can run at once in a runtime, at most. AWS's calculator has these limits; runtimes that it does not
/// have get the lowest.
#[must_use]
pub fn runtime_limit(runtime: &str) -> u64 {
    match runtime.trim_end_matches(|letter: char| !letter.is_ascii_alphabetic()) {
        name if name.starts_with("nodejs") => 64,
        name if name.starts_with("java") || name.starts_with("dotnet") => 32,
        _ => 16,
    }
}

/// What has to run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Demand {
    /// Invocations at the same time.
    pub concurrency: f64,
    /// CPU of one invocation while it runs, vCPUs: CPU time / duration.
    pub cpu: f64,
    /// Memory of one invocation, MB.
    pub memory_mb: u64,
    /// Invocations that one vCPU can run at once at most: [`runtime_limit`].
    pub runtime_limit: u64,
}

/// How many instances are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Capacity {
    /// Memory of an execution environment, MB.
    pub environment_mb: u64,
    /// vCPUs of an execution environment.
    pub environment_vcpus: u64,
    /// Invocations that an environment runs at once.
    pub environment_concurrency: u64,
    /// Execution environments.
    pub environments: u64,
    /// Environments on one instance.
    pub environments_per_instance: u64,
    /// Instances without the buffer.
    pub base_instances: u64,
    /// Instances.
    pub instances: u64,
}

impl Capacity {
    /// The capacity for a demand on one instance type. `None` when an environment does not fit on an instance.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "float to integer casts saturate"
    )]
    pub fn of(demand: &Demand, instance: &InstanceType) -> Option<Self> {
        let memory_mb = demand.memory_mb.max(1);
        let vcpu_mb = instance.gib_per_vcpu().max(1) * 1_024;
        let by_memory = (vcpu_mb / memory_mb).clamp(1, demand.runtime_limit.max(1));
        let environment_mb = memory_mb.saturating_mul(by_memory).max(MIN_ENVIRONMENT_MB);
        let environment_vcpus = environment_mb.div_ceil(vcpu_mb);
        // A relative error of a float must not lose a whole invocation: 1 / 0.2 is 5.
        let by_cpu = (1.0 / demand.cpu.max(1e-6) + 1e-9).floor() as u64;
        let per_vcpu = by_cpu.min(demand.runtime_limit);
        let environment_concurrency = if per_vcpu >= 1 {
            per_vcpu * environment_vcpus
        } else {
            // One invocation uses more than one vCPU.
            ((environment_vcpus as f64 / demand.cpu) as u64).max(1)
        };
        let environments = (demand.concurrency / environment_concurrency as f64).ceil() as u64;
        let usable_vcpus = instance.vcpus.saturating_sub(RESERVED_VCPUS);
        let usable_mb = instance.memory_mb.saturating_sub(RESERVED_MB);
        let environments_per_instance = (usable_vcpus / environment_vcpus).min(usable_mb / environment_mb);
        if environments_per_instance == 0 {
            return None;
        }
        let base_instances = environments.div_ceil(environments_per_instance).max(MIN_INSTANCES);
        let instances = base_instances.saturating_mul(100 + BUFFER_PERCENT).div_ceil(100);
        Some(Self {
            environment_mb,
            environment_vcpus,
            environment_concurrency,
            environments,
            environments_per_instance,
            base_instances,
            instances,
        })
    }
}

/// The cost of managed instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct InstancesCost {
    /// The instances, after discounts.
    pub instances: PicoDollars,
    /// The management fee. Discounts do not lower it.
    pub fee: PicoDollars,
    /// Requests.
    pub requests: PicoDollars,
}

impl InstancesCost {
    /// The cost of `instances` for some hours with `requests` requests. `discount` is the part of the instance price that is
    /// paid: numerator and denominator. `None` when the denominator is zero.
    #[must_use]
    pub fn of(
        instances: u64,
        hour: PicoDollars,
        hours: u64,
        requests: u64,
        request: PicoDollars,
        paid: (u128, u128),
    ) -> Option<Self> {
        let list = Amount::units(u128::from(instances) * u128::from(hours)).at(hour);
        Some(Self {
            instances: list.scaled(paid.0, paid.1)?,
            fee: list.scaled(MANAGEMENT_FEE_PERCENT, 100)?,
            requests: request.times(requests),
        })
    }

    /// All parts together.
    #[must_use]
    pub fn total(&self) -> PicoDollars {
        self.instances + self.fee + self.requests
    }
}
