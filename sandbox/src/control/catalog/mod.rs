//! All functions, with the rules for finding and changing them. No I/O; the time is passed in.

pub mod function_ref;
pub mod record;
pub mod update;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::control::catalog::function_ref::FunctionRef;
use crate::control::catalog::record::{LATEST, Pending, Record, Revision, new_revision_id};
use crate::control::catalog::update::ConfigurationUpdate;
use crate::control::server::error::AwsError;
use crate::fleet::Target;

/// The functions of one account in one region.
pub struct Catalog {
    records: BTreeMap<String, Record>,
    next_generation: u64,
    /// How long a change stays `InProgress`.
    update_delay: Duration,
    account_arn: String,
}

/// Where an invocation goes.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// Environment pool.
    pub target: Target,
    /// ARN as invoked.
    pub function_arn: String,
    /// `x-amz-executed-version`.
    pub version: String,
}

impl Catalog {
    /// An empty catalog.
    pub fn new(region: &str, account: &str, update_delay: Duration) -> Catalog {
        let account_arn = format!("arn:aws:lambda:{region}:{account}");
        Catalog { records: BTreeMap::new(), next_generation: 1, update_delay, account_arn }
    }

    /// The ARN of a function, which need not exist.
    pub fn function_arn(&self, name: &str) -> String {
        format!("{}:function:{name}", self.account_arn)
    }

    /// Adds a function that exists from the start.
    pub fn insert(&mut self, record: Record) {
        self.records.insert(record.name.clone(), record);
    }

    /// A generation that was not used before.
    pub fn next_generation(&mut self) -> u64 {
        self.next_generation += 1;
        self.next_generation
    }

    /// All functions, by name.
    pub fn records(&mut self, now: Instant) -> impl Iterator<Item = &Record> {
        self.records.values_mut().for_each(|record| record.settle(now));
        self.records.values()
    }

    /// Finds a function; an unknown name is an error.
    pub fn record(&mut self, name: &str, now: Instant) -> Result<&mut Record, AwsError> {
        let arn = self.function_arn(name);
        let record = self.records.get_mut(name);
        let record = record.ok_or_else(|| AwsError::not_found(format!("Function not found: {arn}")))?;
        record.settle(now);
        Ok(record)
    }

    /// The revision a qualifier names: a version, `$LATEST`, or an alias's main version.
    pub fn revision(
        &mut self,
        function: &FunctionRef,
        now: Instant,
    ) -> Result<(&mut Record, Revision), AwsError> {
        let arn = self.function_arn(&function.name);
        let record = self.record(&function.name, now)?;
        let qualifier = function.qualifier.as_deref().unwrap_or(LATEST);
        let version = record.aliases.get(qualifier).map_or(qualifier, |alias| alias.version.as_str());
        let revision = record.version(version).cloned();
        let revision =
            revision.ok_or_else(|| AwsError::not_found(format!("Function not found: {arn}:{qualifier}")))?;
        Ok((record, revision))
    }

    /// Where an invocation goes. `chance` is a random number from 0 to 1 that picks between the two versions of
    /// a weighted alias.
    pub fn resolve(
        &mut self,
        function: &FunctionRef,
        now: Instant,
        chance: f64,
    ) -> Result<Resolved, AwsError> {
        let (record, mut revision) = self.revision(function, now)?;
        let alias = function.qualifier.as_ref().and_then(|qualifier| record.aliases.get(qualifier));
        let additional = alias.and_then(|alias| alias.additional.as_ref());
        if let Some((version, _)) = additional.filter(|(_, weight)| chance < *weight) {
            revision = record.version(version).cloned().unwrap_or(revision);
        }
        if revision.config.version == LATEST {
            match &record.pending {
                Some(Pending { previous: Some(previous), .. }) => revision = previous.clone(),
                Some(Pending { previous: None, .. }) => {
                    let message = "The operation cannot be performed at this time. The function is currently in the following state: Pending";
                    return Err(AwsError::conflict(message));
                }
                None => {}
            }
        }
        let mut function_arn = record.arn.clone();
        if let Some(qualifier) = &function.qualifier {
            function_arn = format!("{function_arn}:{qualifier}");
        }
        let version = revision.config.version.clone();
        let target = Target {
            config: revision.config,
            generation: revision.generation,
            reserved_concurrency: record.reserved_concurrency,
        };
        Ok(Resolved { target, function_arn, version })
    }

    /// Changes the configuration of `$LATEST`, under the rules of `UpdateFunctionConfiguration`.
    pub fn update_configuration(
        &mut self,
        name: &str,
        update: ConfigurationUpdate,
        now: Instant,
        time: SystemTime,
    ) -> Result<&Record, AwsError> {
        let config = {
            let record = self.record(name, now)?;
            check_change(record, update.revision_id.as_deref())?;
            update.apply(&record.latest.config)?
        };
        let mut latest = self.record(name, now)?.latest.clone();
        latest.config = Arc::new(config);
        if let Some(description) = update.description {
            latest.description = description;
        }
        if let Some(role) = update.role {
            latest.role = role;
        }
        self.replace_latest(name, latest, now, time)?;
        self.record(name, now).map(|record| &*record)
    }

    /// Makes `latest` the new `$LATEST`, in force after the update delay.
    pub fn replace_latest(
        &mut self,
        name: &str,
        latest: Revision,
        now: Instant,
        time: SystemTime,
    ) -> Result<(), AwsError> {
        let generation = self.next_generation();
        let until = now + self.update_delay;
        let record = self.record(name, now)?;
        let latest = Revision { generation, revision_id: new_revision_id(), last_modified: time, ..latest };
        let previous = std::mem::replace(&mut record.latest, latest);
        record.pending = Some(Pending { until, previous: Some(previous) });
        record.settle(now);
        Ok(())
    }

    /// Removes a function with all its versions.
    pub(in crate::control) fn remove(&mut self, name: &str) {
        self.records.remove(name);
    }

    /// How long a change stays `InProgress`.
    pub(in crate::control) fn update_delay(&self) -> Duration {
        self.update_delay
    }
}

/// Rejects a change while another is in progress, or when the caller's `RevisionId` is not the current one.
pub(in crate::control) fn check_change(record: &Record, revision_id: Option<&str>) -> Result<(), AwsError> {
    if record.pending.is_some() {
        let message = format!(
            "The operation cannot be performed at this time. An update is in progress for resource: {}",
            record.arn
        );
        return Err(AwsError::conflict(message));
    }
    if revision_id.is_some_and(|requested| requested != record.latest.revision_id) {
        let message = "The RevisionId provided does not match the latest RevisionId for the Lambda function or alias. Call the GetFunction or the GetAlias API to retrieve the latest RevisionId";
        return Err(AwsError::precondition(message));
    }
    Ok(())
}
