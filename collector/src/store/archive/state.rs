//! Partitions and files as rows, and the files that parts make. Both stores have the same rows.

use tailor_archive::{Partition, Totals};

use super::{PartitionState, PartsDigest, SealedFile, Upload};
use crate::store::StoreError;
use crate::store::rows::column::{archive_file, archive_partition};
use crate::store::rows::{Field, from_sql, to_ordered_sql, to_sql};

/// Maximum number of invocations in a file. More would only make each query read larger objects.
const MAX_FILE_INVOCATIONS: u64 = 1_000_000;

/// A partition with the number of its first part that is in no file.
#[derive(Debug, Clone)]
pub(in crate::store) struct Known {
    pub(in crate::store) state: PartitionState,
    pub(in crate::store) first_waiting: u64,
}

impl Known {
    pub(in crate::store) fn new(partition: Partition) -> Self {
        let state = PartitionState {
            partition,
            waiting_bytes: 0,
            waiting_invocations: 0,
            waiting_since_us: 0,
            spooled: Totals::default(),
            dropped: Totals::default(),
        };
        Self { state, first_waiting: 0 }
    }

    /// The state in the columns of a row.
    pub(in crate::store) fn of(
        partition: Partition,
        column: impl Fn(usize) -> Result<i64, StoreError>,
    ) -> Result<Self, StoreError> {
        let number = |index| -> Result<u64, StoreError> { Ok(from_sql(column(index)?)) };
        let totals = |invocations, billed_ms| totals_of(&column, invocations, billed_ms);
        let state = PartitionState {
            partition,
            waiting_bytes: number(archive_partition::waiting_bytes)?,
            waiting_invocations: number(archive_partition::waiting_invocations)?,
            waiting_since_us: number(archive_partition::waiting_since_us)?,
            spooled: totals(archive_partition::spooled_invocations, archive_partition::spooled_billed_ms)?,
            dropped: totals(archive_partition::dropped_invocations, archive_partition::dropped_billed_ms)?,
        };
        Ok(Self { state, first_waiting: number(archive_partition::first_waiting)? })
    }

    /// Counts a new part of so many bytes.
    pub(in crate::store) fn spool(&mut self, bytes: u64, totals: Totals, now_us: u64) {
        let state = &mut self.state;
        if state.waiting_invocations == 0 {
            state.waiting_since_us = now_us;
        }
        state.waiting_bytes += bytes;
        state.waiting_invocations += totals.invocations;
        state.spooled.add(totals);
    }

    /// Counts what an upload of a file lacks, because parts were damaged.
    pub(in crate::store) fn drop_missing(&mut self, missing: Totals) {
        self.state.dropped.add(missing);
        let spooled = &mut self.state.spooled;
        spooled.invocations = spooled.invocations.saturating_sub(missing.invocations);
        spooled.billed_ms = spooled.billed_ms.saturating_sub(missing.billed_ms);
    }

    /// Calls `write` with the columns of the row.
    pub(in crate::store) fn with_fields<T>(&self, write: impl FnOnce(&[Field<'_>]) -> T) -> T {
        let PartitionState {
            partition,
            waiting_bytes,
            waiting_invocations,
            waiting_since_us,
            spooled,
            dropped,
        } = &self.state;
        let number = |value: u64| Field::Integer(to_ordered_sql(value));
        write(&[
            Field::Text(&partition.tenant),
            Field::Integer(to_sql(partition.day)),
            Field::Text(&partition.account),
            number(self.first_waiting),
            number(*waiting_bytes),
            number(*waiting_invocations),
            number(*waiting_since_us),
            number(spooled.invocations),
            number(spooled.billed_ms),
            number(dropped.invocations),
            number(dropped.billed_ms),
        ])
    }
}

/// What an upload of a file lacks.
pub(in crate::store) fn missing(sealed: &SealedFile, upload: &Upload) -> Totals {
    Totals {
        invocations: sealed.totals.invocations.saturating_sub(upload.totals.invocations),
        billed_ms: sealed.totals.billed_ms.saturating_sub(upload.totals.billed_ms),
    }
}

/// The totals in two columns of a row.
fn totals_of(
    column: impl Fn(usize) -> Result<i64, StoreError>,
    invocations: usize,
    billed_ms: usize,
) -> Result<Totals, StoreError> {
    Ok(Totals { invocations: from_sql(column(invocations)?), billed_ms: from_sql(column(billed_ms)?) })
}

/// The file in the columns of a row, and whether its parts are still there.
pub(in crate::store) fn file_of(
    partition: Partition,
    column: impl Fn(usize) -> Result<i64, StoreError>,
    text: impl Fn(usize) -> Result<String, StoreError>,
) -> Result<(SealedFile, bool), StoreError> {
    let number = |index| -> Result<u64, StoreError> { Ok(from_sql(column(index)?)) };
    let totals = |invocations, billed_ms| totals_of(&column, invocations, billed_ms);
    let at_us = number(archive_file::uploaded_at_us)?;
    let upload = Upload {
        at_us,
        object: text(archive_file::object)?,
        bytes: number(archive_file::bytes)?,
        sha256: text(archive_file::sha256)?,
        totals: totals(archive_file::uploaded_invocations, archive_file::uploaded_billed_ms)?,
    };
    let file = SealedFile {
        partition,
        first: number(archive_file::first)?,
        last: number(archive_file::last)?,
        digest: text(archive_file::digest)?,
        totals: totals(archive_file::invocations, archive_file::billed_ms)?,
        sealed_at_us: number(archive_file::sealed_at_us)?,
        upload: Some(upload).filter(|_| at_us > 0),
    };
    Ok((file, number(archive_file::has_parts)? > 0))
}

/// Calls `write` with the columns of the row of a file.
pub(in crate::store) fn with_file_fields<T>(
    file: &SealedFile,
    has_parts: bool,
    write: impl FnOnce(&[Field<'_>]) -> T,
) -> T {
    let none = Upload {
        at_us: 0,
        object: String::new(),
        bytes: 0,
        sha256: String::new(),
        totals: Totals::default(),
    };
    let upload = file.upload.as_ref().unwrap_or(&none);
    let number = |value: u64| Field::Integer(to_ordered_sql(value));
    write(&[
        Field::Text(&file.partition.tenant),
        Field::Integer(to_sql(file.partition.day)),
        Field::Text(&file.partition.account),
        number(file.first),
        number(file.last),
        Field::Text(&file.digest),
        number(file.totals.invocations),
        number(file.totals.billed_ms),
        number(file.sealed_at_us),
        number(upload.at_us),
        Field::Text(&upload.object),
        number(upload.bytes),
        Field::Text(&upload.sha256),
        number(upload.totals.invocations),
        number(upload.totals.billed_ms),
        number(u64::from(has_parts)),
    ])
}

/// A file that is being collected.
#[derive(Default)]
struct Collected {
    range: Option<(u64, u64)>,
    totals: Totals,
    bytes: u64,
    digest: PartsDigest,
}

/// The files that the waiting parts of a partition make, in the order of their numbers.
pub(in crate::store) struct Sealing {
    max_bytes: u64,
    files: Vec<Collected>,
    current: Collected,
}

impl Sealing {
    pub(in crate::store) fn new(max_bytes: u64) -> Self {
        Self { max_bytes, files: vec![], current: Collected::default() }
    }

    /// Adds a part with its size and its checksum.
    pub(in crate::store) fn add(&mut self, number: u64, totals: Totals, bytes: u64, checksum: i64) {
        let current = &mut self.current;
        current.range = Some((current.range.map_or(number, |(first, _)| first), number));
        current.totals.add(totals);
        current.bytes += bytes;
        current.digest.add(number, checksum);
        if current.bytes >= self.max_bytes || current.totals.invocations >= MAX_FILE_INVOCATIONS {
            self.files.push(std::mem::take(&mut self.current));
        }
    }

    /// The sealed files. With `takes_rest`, the last one may be small. Changes the state of the partition.
    pub(in crate::store) fn finish(
        mut self,
        known: &mut Known,
        takes_rest: bool,
        now_us: u64,
    ) -> Vec<SealedFile> {
        if takes_rest {
            self.files.push(std::mem::take(&mut self.current));
        }
        let mut sealed = vec![];
        for Collected { range, totals, digest, .. } in self.files {
            let Some((first, last)) = range else { continue };
            let digest = digest.finish();
            let partition = known.state.partition.clone();
            sealed.push(SealedFile {
                partition,
                first,
                last,
                digest,
                totals,
                sealed_at_us: now_us,
                upload: None,
            });
            known.first_waiting = last + 1;
        }
        known.state.waiting_bytes = self.current.bytes;
        known.state.waiting_invocations = self.current.totals.invocations;
        known.state.waiting_since_us = if self.current.totals.invocations > 0 { now_us } else { 0 };
        sealed
    }
}
