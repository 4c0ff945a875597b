//! Compares the archive with its record, and both with the rollups.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use tailor_archive::{DAY_US, Partition, Totals, read_totals};

use crate::s3::{Location, S3};
use crate::store::archive::ArchiveComparison;
use crate::store::{SealedFile, Upload};

/// Largest object that is read, bytes: more than any file that is written.
const MAX_OBJECT_BYTES: u64 = 2 << 30;

/// What is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The bucket and prefix whose objects are listed.
    pub location: Location,
    /// The first day, days since the Unix epoch.
    pub from_day: u64,
    /// Whether objects are read, or only listed.
    pub reads: bool,
}

/// The totals of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Line {
    /// In the rollups and in the pending batches.
    pub measured: Totals,
    /// In uploaded objects.
    pub archived: Totals,
    /// Waiting for an upload.
    pub waiting: Totals,
    /// Not in the archive, and counted.
    pub dropped: Totals,
    /// Stored before the archive was switched on.
    pub before: Totals,
}

/// The result.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verification {
    /// The partitions in order.
    pub lines: BTreeMap<Partition, Line>,
    /// Number of objects that were compared.
    pub objects: u64,
    /// What differs, one line each.
    pub differences: Vec<String>,
}

/// Compares the objects with their record, and the record with the rollups.
///
/// # Errors
/// When S3 cannot be reached. An object that is missing, or that cannot be read, is a difference.
pub async fn verify(s3: &S3, comparison: &ArchiveComparison, scope: &Scope) -> anyhow::Result<Verification> {
    let mut result = Verification::default();
    totals(comparison, scope.from_day, &mut result);
    let base = format!("s3://{}/", scope.location.bucket);
    let listed = s3.list(&scope.location).await?;
    let mut listed: BTreeMap<String, u64> =
        listed.into_iter().map(|object| (format!("{base}{}", object.key), object.bytes)).collect();
    for file in &comparison.record.files {
        let Some(upload) = &file.upload else { continue };
        let bytes = listed.remove(&upload.object);
        if file.partition.day < scope.from_day || !upload.object.starts_with(&base) {
            continue;
        }
        result.objects += 1;
        match bytes {
            None => result.differences.push(format!("{}: the object is missing", upload.object)),
            Some(bytes) if bytes != upload.bytes => result.differences.push(format!(
                "{}: the object has {bytes} bytes, {} were uploaded",
                upload.object, upload.bytes
            )),
            Some(_) if scope.reads => result.differences.extend(read(s3, file, upload).await),
            Some(_) => {}
        }
    }
    // A file whose upload was interrupted is overwritten by the next attempt.
    let waiting: Vec<_> = comparison.record.files.iter().filter(|file| file.upload.is_none()).collect();
    for object in listed.into_keys().filter(|object| object.ends_with(".parquet")) {
        let is_waiting = waiting
            .iter()
            .any(|file| object.ends_with(&format!("{:012}-{}.parquet", file.first, file.digest)));
        if !is_waiting && day_of(&object).is_none_or(|day| day >= scope.from_day) {
            result.differences.push(format!("{object}: the object is not in the record of this store"));
        }
    }
    Ok(result)
}

/// The day in the name of an object.
fn day_of(object: &str) -> Option<u64> {
    let (_, rest) = object.split_once("/day=")?;
    tailor_archive::parse_day(rest.split('/').next()?)
}

/// Reads one object; returns what differs.
async fn read(s3: &S3, file: &SealedFile, upload: &Upload) -> Option<String> {
    let object = &upload.object;
    let (bucket, key) = object.strip_prefix("s3://")?.split_once('/')?;
    let content = match s3.get(bucket, key, MAX_OBJECT_BYTES).await {
        Ok(content) => content,
        Err(error) => return Some(format!("{object}: {error:#}")),
    };
    let sha256 = hex::encode(Sha256::digest(&content));
    match read_totals(content) {
        Err(error) => Some(format!("{object}: {error}")),
        Ok(found) if found != upload.totals => Some(format!(
            "{object}: {} invocations with {} billed ms, {} with {} were uploaded",
            found.invocations, found.billed_ms, upload.totals.invocations, upload.totals.billed_ms
        )),
        // Another version of the program may have written the same invocations in other bytes.
        Ok(_) if sha256 != upload.sha256 => {
            Some(format!("{object}: other bytes than those that were uploaded, in {}", file.partition))
        }
        Ok(_) => None,
    }
}

/// What the files of a partition contain.
#[derive(Debug, Clone, Copy, Default)]
struct InFiles {
    uploaded: Totals,
    sealed: Totals,
}

/// Compares the totals of the record and of the rollups.
fn totals(comparison: &ArchiveComparison, from_day: u64, result: &mut Verification) {
    let record = &comparison.record;
    let lines = &mut result.lines;
    for (partition, totals) in comparison.rollups.iter().chain(&comparison.pending) {
        lines.entry(partition.clone()).or_default().measured.add(*totals);
    }
    for (partition, totals) in &comparison.pending {
        lines.entry(partition.clone()).or_default().waiting.add(*totals);
    }
    let mut in_files: BTreeMap<&Partition, InFiles> = BTreeMap::new();
    for file in &record.files {
        let of_partition = in_files.entry(&file.partition).or_default();
        match &file.upload {
            Some(upload) => of_partition.uploaded.add(upload.totals),
            None => of_partition.sealed.add(file.totals),
        }
    }
    for state in &record.partitions {
        let line = lines.entry(state.partition.clone()).or_default();
        let InFiles { uploaded, sealed } = in_files.remove(&state.partition).unwrap_or_default();
        line.archived.add(uploaded);
        line.dropped.add(state.dropped);
        line.waiting.add(difference(state.spooled, uploaded));
        let in_record = uploaded.invocations + sealed.invocations + state.waiting_invocations;
        if in_record != state.spooled.invocations && state.partition.day >= from_day {
            result.differences.push(format!(
                "{}: {} invocations were spooled, files and waiting parts have {in_record}",
                state.partition, state.spooled.invocations
            ));
        }
    }
    lines.retain(|partition, _| partition.day >= from_day);
    let since_day = record.since_us / DAY_US;
    for (partition, line) in lines {
        result.differences.extend(account(partition, line, since_day));
    }
}

/// Compares what was measured with what the archive accounts for. Before the archive was switched on, more was measured.
fn account(partition: &Partition, line: &mut Line, since_day: u64) -> Option<String> {
    let mut accounted = line.archived;
    accounted.add(line.waiting);
    accounted.add(line.dropped);
    let Line { measured, .. } = *line;
    // Rollups are deleted after their retention.
    if accounted == measured || measured.invocations == 0 {
        return None;
    }
    let is_more = measured.invocations >= accounted.invocations && measured.billed_ms >= accounted.billed_ms;
    if partition.day <= since_day && is_more {
        line.before = difference(measured, accounted);
        return None;
    }
    Some(format!(
        "{partition}: {} invocations with {} billed ms were measured; {} with {} are archived, waiting or dropped",
        measured.invocations, measured.billed_ms, accounted.invocations, accounted.billed_ms
    ))
}

fn difference(all: Totals, part: Totals) -> Totals {
    Totals {
        invocations: all.invocations.saturating_sub(part.invocations),
        billed_ms: all.billed_ms.saturating_sub(part.billed_ms),
    }
}
