//! Lambda's control plane in this process: the rules of the sandbox, with the test's clock, faults and other writers.
//! Every write of the tuner is checked against the change log and against what others wrote.

#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use lambda_sandbox::config::{Architecture, FunctionConfig, InitializationType, LogFormat};
use lambda_sandbox::control::catalog::Catalog;
use lambda_sandbox::control::catalog::record::{LATEST, Record, Revision, new_revision_id};
use lambda_sandbox::control::server::error::AwsError;
use serde_json::json;
use tailor_collector::changes::{self, Change, State, Write};
use tailor_collector::store::{ChangeEvent, FunctionKey};
use tailor_collector::tuner::lambda::{
    Alias, Configuration, Lambda, LambdaError, ListedVersions, Live, Update,
};
use tailor_sizing::units::Megabytes;

pub(crate) use super::faults::{Fault, Foreign};
use invariants::{Field, differences};

// The path is the same for tests that include this file alone.
#[path = "invariants.rs"]
mod invariants;

/// The account and region of all functions.
pub(crate) const ACCOUNT: &str = "123456789012";
pub(crate) const REGION: &str = "eu-west-1";

/// Start of the test's clock: 2026-11-28 12:00 UTC.
pub(crate) const START_US: u64 = 1_795_867_200_000_000;

pub(crate) struct World {
    pub(crate) catalog: Catalog,
    pub(crate) now_us: u64,
    base: Instant,
    /// Operations until the fault.
    pub(crate) fault: Option<(u32, Fault)>,
    pub(crate) crashed: bool,
    pub(crate) refuse_all: bool,
    pub(crate) writes: Vec<Write>,
    pub(crate) violations: Vec<String>,
    /// What others wrote since the plan, with the number of the operation.
    foreign: BTreeMap<(String, Field), u64>,
    operations: u64,
    last_read: u64,
    /// Versions that the tuner published.
    ours: BTreeSet<(String, String)>,
    pub(crate) log: Vec<ChangeEvent>,
    codes: u64,
    /// Time that each read of a function takes.
    pub(crate) read_us: u64,
    /// Called at each read, with the name of the function.
    pub(crate) at_read: Option<AtRead>,
    /// The sizes that the invocations of each function get, as last read.
    served: BTreeMap<String, Vec<u32>>,
}

pub(crate) type AtRead = Box<dyn FnMut(&str) + Send>;

/// The control plane and the change log behind it.
pub(crate) struct ControlPlane {
    state: Mutex<World>,
}

pub(crate) fn key(name: &str) -> FunctionKey {
    FunctionKey { account: ACCOUNT.to_owned(), region: REGION.to_owned(), name: name.to_owned() }
}

fn config(name: &str, arn: &str, memory_mb: u32) -> FunctionConfig {
    FunctionConfig {
        name: name.to_owned(),
        version: LATEST.to_owned(),
        arn: arn.to_owned(),
        region: REGION.to_owned(),
        runtime: "provided.al2023".to_owned(),
        handler: "bootstrap".to_owned(),
        memory_mb,
        timeout: Duration::from_secs(30),
        architecture: Architecture::X86_64,
        environment: BTreeMap::new(),
        code: PathBuf::new(),
        layers: Vec::new(),
        command: None,
        log_format: LogFormat::Text,
        initialization_type: InitializationType::OnDemand,
        gib_per_vcpu: 2,
        snap_start_versions: false,
        tenant_isolation: false,
        ephemeral_storage_mb: 512,
    }
}

impl ControlPlane {
    pub(crate) fn new(update_delay: Duration) -> Arc<Self> {
        let state = World {
            catalog: Catalog::new(REGION, ACCOUNT, update_delay),
            now_us: START_US,
            base: Instant::now(),
            fault: None,
            crashed: false,
            refuse_all: false,
            writes: Vec::new(),
            violations: Vec::new(),
            foreign: BTreeMap::new(),
            operations: 0,
            last_read: 0,
            ours: BTreeSet::new(),
            log: Vec::new(),
            codes: 0,
            read_us: 0,
            at_read: None,
            served: BTreeMap::new(),
        };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// A function with the tag; with an alias `live` on version 1, or without.
    pub(crate) fn add(&self, name: &str, memory_mb: u32, with_alias: bool) {
        let mut state = self.lock();
        let arn = state.catalog.function_arn(name);
        let revision = Revision {
            config: Arc::new(config(name, &arn, memory_mb)),
            generation: state.catalog.next_generation(),
            revision_id: new_revision_id(),
            code_sha256: "code-0".to_owned(),
            code_size: 1,
            last_modified: SystemTime::UNIX_EPOCH,
            description: String::new(),
            role: "role".to_owned(),
        };
        let mut record = Record::new(name, arn, revision);
        record.tags.insert("tailor:tune".to_owned(), "apply".to_owned());
        record.tags.insert("tailor:latest-down".to_owned(), "allow".to_owned());
        state.catalog.insert(record);
        if with_alias {
            let now = state.instant();
            state
                .catalog
                .publish(name, &serde_json::from_value(json!({})).unwrap(), now, SystemTime::now())
                .unwrap();
            let alias = json!({"Name": "live", "FunctionVersion": "1", "Description": "production"});
            state.catalog.create_alias(name, serde_json::from_value(alias).unwrap(), now).unwrap();
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, World> {
        self.state.lock().unwrap()
    }

    pub(crate) fn changes(&self) -> Vec<Change> {
        changes::fold(self.lock().log.clone())
    }

    /// A write outside the tuner.
    pub(crate) fn foreign(&self, name: &str, write: Foreign) {
        self.lock().foreign(name, write);
    }

    pub(crate) fn tag(&self, name: &str, value: &str) {
        self.set_tag(name, "tailor:tune", value);
    }

    pub(crate) fn set_tag(&self, name: &str, tag: &str, value: &str) {
        let mut state = self.lock();
        let now = state.instant();
        state.catalog.record(name, now).unwrap().tags.insert(tag.to_owned(), value.to_owned());
    }

    pub(crate) fn record(&self, name: &str) -> Record {
        let mut state = self.lock();
        let now = state.instant();
        state.catalog.record(name, now).unwrap().clone()
    }
}

impl World {
    pub(crate) fn instant(&self) -> Instant {
        self.base + Duration::from_micros(self.now_us - START_US)
    }

    fn time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_micros(self.now_us)
    }

    fn foreign(&mut self, name: &str, write: Foreign) {
        let (now, time) = (self.instant(), self.time());
        let Ok(before) = self.catalog.record(name, now).cloned() else { return };
        match write {
            Foreign::Memory(memory_mb) => {
                let update = serde_json::from_value(json!({"MemorySize": memory_mb})).unwrap();
                let _ = self.catalog.update_configuration(name, update, now, time);
            }
            Foreign::Configuration => {
                self.codes += 1;
                let update = serde_json::from_value(json!({"Timeout": 31 + self.codes % 800})).unwrap();
                let _ = self.catalog.update_configuration(name, update, now, time);
            }
            Foreign::Code | Foreign::Release => {
                if before.pending.is_some() {
                    return;
                }
                self.codes += 1;
                let latest =
                    Revision { code_sha256: format!("code-{}", self.codes), ..before.latest.clone() };
                self.catalog.replace_latest(name, latest, now, time).unwrap();
                if write == Foreign::Release && before.aliases.contains_key("live") {
                    // Deployment tools wait until the update is in force.
                    self.catalog.record(name, now).unwrap().pending = None;
                    let publication = serde_json::from_value(json!({})).unwrap();
                    let Ok((_, version)) = self.catalog.publish(name, &publication, now, time) else {
                        return;
                    };
                    let version = version.config.version.clone();
                    // Deployment tools set the version and leave the weights as they are.
                    self.alias(name, json!({"FunctionVersion": version}), now);
                }
            }
            Foreign::Publish => {
                let publication = serde_json::from_value(json!({})).unwrap();
                let _ = self.catalog.publish(name, &publication, now, time);
            }
            Foreign::Description => {
                self.alias(name, json!({"Description": format!("edited {}", self.operations)}), now)
            }
            Foreign::Weights => {
                let main = before.aliases.get("live").map(|alias| alias.version.clone());
                let other =
                    before.versions.keys().map(u64::to_string).find(|version| Some(version) != main.as_ref());
                if let Some(other) = other {
                    let routing = json!({"AdditionalVersionWeights": {other: 0.33}});
                    self.alias(name, json!({"RoutingConfig": routing}), now);
                }
            }
            Foreign::NoWeights => self.alias(name, json!({"RoutingConfig": {}}), now),
            Foreign::Prune => {
                let used = versions_of(&before);
                for version in before.versions.keys().map(u64::to_string) {
                    if !used.contains(&version) {
                        let _ = self.catalog.delete_version(name, &version, now);
                    }
                }
            }
        }
        let after = self.catalog.record(name, now).unwrap().clone();
        self.operations += 1;
        for (field, changed) in differences(&before, &after) {
            if changed {
                self.foreign.insert((name.to_owned(), field), self.operations);
            }
        }
    }

    fn alias(&mut self, name: &str, update: serde_json::Value, now: Instant) {
        let _ = self.catalog.update_alias(name, "live", serde_json::from_value(update).unwrap(), now);
    }

    /// Counts one operation. Returns what happens at it.
    fn tick(&mut self, name: &str) -> Result<Option<Fault>, ()> {
        self.operations += 1;
        if self.crashed {
            return Err(());
        }
        match self.fault {
            Some((0, fault)) => {
                self.fault = None;
                match fault {
                    Fault::CrashBefore => {
                        self.crashed = true;
                        Err(())
                    }
                    Fault::Foreign(write) => {
                        self.foreign(name, write);
                        Ok(None)
                    }
                    fault => Ok(Some(fault)),
                }
            }
            Some((left, fault)) => {
                self.fault = Some((left - 1, fault));
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// Appends an event, and notes that a plan accepts what was read before it.
    pub(crate) fn append(&mut self, event: &ChangeEvent) -> Result<(), ()> {
        let fault = self.tick(&event.function.name)?;
        if matches!(fault, Some(Fault::Throttled | Fault::Refused)) {
            return Err(());
        }
        self.log.push(event.clone());
        self.check_end(event);
        if event.kind == State::Planned.code() {
            let (name, last_read) = (event.function.name.clone(), self.last_read);
            self.foreign.retain(|(function, _), at| *function != name || *at > last_read);
        }
        self.crashed |= fault == Some(Fault::CrashAfter);
        if fault.is_some() { Err(()) } else { Ok(()) }
    }

    fn write(&mut self, name: &str, write: &Write) -> Result<(), AwsError> {
        let (now, time) = (self.instant(), self.time());
        let catalog = &mut self.catalog;
        match write {
            Write::SetMemory { memory_mb, revision_id } => {
                let body = json!({"MemorySize": memory_mb, "RevisionId": revision_id});
                catalog.update_configuration(name, serde_json::from_value(body).unwrap(), now, time).map(drop)
            }
            Write::Publish { revision_id, code_sha256, description } => {
                let body =
                    json!({"RevisionId": revision_id, "CodeSha256": code_sha256, "Description": description});
                catalog.publish(name, &serde_json::from_value(body).unwrap(), now, time).map(drop)
            }
            Write::SetAlias { alias, version, additional, description, revision_id } => {
                let weights: BTreeMap<&String, f64> = additional
                    .iter()
                    .map(|(version, weight)| (version, f64::from(*weight) / 10_000.0))
                    .collect();
                let body = json!({
                    "FunctionVersion": version, "Description": description, "RevisionId": revision_id,
                    "RoutingConfig": {"AdditionalVersionWeights": weights},
                });
                catalog.update_alias(name, alias, serde_json::from_value(body).unwrap(), now).map(drop)
            }
            Write::DeleteVersion { version } => catalog.delete_version(name, version, now),
        }
    }
}

/// The versions that the invocations get: those of the alias, or `$LATEST`.
fn versions_of(record: &Record) -> Vec<String> {
    match record.aliases.get("live") {
        Some(alias) => {
            let additional = alias.additional.iter().map(|(version, _)| version.clone());
            std::iter::once(alias.version.clone()).chain(additional).collect()
        }
        None => vec![LATEST.to_owned()],
    }
}

fn configuration(revision: &Revision) -> Configuration {
    Configuration {
        memory: Megabytes(revision.config.memory_mb),
        code_sha256: revision.code_sha256.clone(),
        digest: format!(
            "{:?}",
            (&revision.config.handler, revision.config.timeout, &revision.config.environment)
        ),
        description: revision.description.clone(),
        active: true,
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a weight is from 0 to 1")]
fn basis_points(weight: f64) -> u32 {
    (weight * 10_000.0).round() as u32
}

/// The published versions by number.
fn configurations(record: &Record) -> HashMap<String, Configuration> {
    record.versions.iter().map(|(number, it)| (number.to_string(), configuration(it))).collect()
}

#[async_trait]
impl Lambda for ControlPlane {
    async fn read(&self, function: &FunctionKey) -> Result<Live, LambdaError> {
        let mut state = self.lock();
        let name = &function.name;
        match state.tick(name) {
            Err(()) => return Err(LambdaError::Other("no answer".to_owned())),
            Ok(Some(Fault::CrashAfter)) => state.crashed = true,
            Ok(Some(_)) => return Err(LambdaError::Other("TooManyRequestsException".to_owned())),
            Ok(None) => {}
        }
        let read_us = state.read_us;
        state.now_us += read_us;
        if let Some(at_read) = &mut state.at_read {
            at_read(name);
        }
        let now = state.instant();
        let Ok(record) = state.catalog.record(name, now).cloned() else {
            return Err(LambdaError::NoFunction(name.clone()));
        };
        state.last_read = state.operations;
        let size = |version: &String| record.version(version).map(|it| it.config.memory_mb);
        let sizes = versions_of(&record).iter().filter_map(size).collect();
        state.served.insert(name.clone(), sizes);
        let alias = |alias: &lambda_sandbox::control::catalog::record::Alias| Alias {
            version: alias.version.clone(),
            additional: alias
                .additional
                .as_ref()
                .map(|(version, weight)| (version.clone(), basis_points(*weight))),
            description: alias.description.clone(),
            revision_id: alias.revision_id.clone(),
        };
        let has_alias = !record.aliases.is_empty();
        let modified = record.latest.last_modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok(Live {
            account: ACCOUNT.to_owned(),
            latest: configuration(&record.latest),
            revision_id: record.latest.revision_id.clone(),
            update: if record.pending.is_some() { Update::InProgress } else { Update::Successful },
            modified_at_us: u64::try_from(modified.as_micros()).unwrap(),
            timeout_ms: 30_000,
            snap_start: record.latest.config.snap_start_versions,
            managed_instances: false,
            reserved_concurrency: record.reserved_concurrency,
            provisioned: record.provisioned_concurrency.keys().cloned().collect(),
            aliases: record.aliases.iter().map(|(name, it)| (name.clone(), alias(it))).collect(),
            listed_versions: if has_alias { ListedVersions::All } else { ListedVersions::None },
            versions: if has_alias { configurations(&record) } else { HashMap::new() },
            tags: record.tags.into_iter().collect::<HashMap<_, _>>(),
        })
    }

    async fn list_versions(&self, function: &FunctionKey, live: &mut Live) -> Result<(), LambdaError> {
        live.versions = configurations(&self.record(&function.name));
        live.listed_versions = ListedVersions::All;
        Ok(())
    }

    async fn write(&self, function: &FunctionKey, write: &Write) -> Result<(), LambdaError> {
        let mut state = self.lock();
        let name = &function.name;
        let fault = state.tick(name).map_err(|()| LambdaError::Other("no answer".to_owned()))?;
        state.check_before(name, write);
        if fault == Some(Fault::Refused) || state.refuse_all {
            return Err(LambdaError::Refused("AccessDeniedException".to_owned()));
        }
        if fault == Some(Fault::Throttled) {
            return Err(LambdaError::Other("TooManyRequestsException".to_owned()));
        }
        let now = state.instant();
        let before = state.catalog.record(name, now).unwrap().clone();
        let result = state.write(name, write);
        if result.is_ok() {
            state.writes.push(write.clone());
            state.check_after(name, write, &before);
        }
        if let Some(fault) = fault {
            state.crashed |= fault == Fault::CrashAfter;
            return Err(LambdaError::Other("the answer was lost".to_owned()));
        }
        result.map_err(|error| match error.exception {
            "PreconditionFailedException" | "ResourceConflictException" => {
                LambdaError::Changed(error.message)
            }
            "InvalidParameterValueException" => LambdaError::Refused(error.message),
            _ => LambdaError::Other(error.message),
        })
    }
}
