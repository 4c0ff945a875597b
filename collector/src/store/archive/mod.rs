//! The spool of the archive: single invocations that wait for their upload, and the record of what is uploaded.
//!
//! The transaction that moves a batch from the pending batches into the rollups also writes its invocations to the spool. So
//! an acknowledged invocation is at each moment pending, or in the rollups and in the spool. A file is sealed before its
//! upload: its parts, and with them its name and content, do not change any more. When it is uploaded, one transaction
//! records that. After a crash between the two, the same object is uploaded again.

use std::collections::BTreeMap;

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use tailor_archive::{Partition, Totals};

use super::StoreError;

mod pieces;
mod state;

pub(super) use pieces::{Piece, Pieces};
pub(super) use state::{Known, Sealing, file_of, missing, with_file_fields};

/// When the waiting parts of a partition become a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealLimits {
    /// Size of the parts from which a file is sealed, bytes.
    pub max_bytes: u64,
    /// Age of the oldest part from which a file is sealed, microseconds.
    pub max_age_us: u64,
}

/// A file whose content is fixed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedFile {
    /// Its partition.
    pub partition: Partition,
    /// Number of its first part. Numbers are never used again.
    pub first: u64,
    /// Number of its last part.
    pub last: u64,
    /// The digest of its parts.
    pub digest: String,
    /// What its parts contain.
    pub totals: Totals,
    /// When it was sealed, microseconds since the Unix epoch.
    pub sealed_at_us: u64,
    /// Its upload; `None` while it waits for it.
    pub upload: Option<Upload>,
}

/// The record of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// When it was acknowledged, microseconds since the Unix epoch.
    pub at_us: u64,
    /// The address of the object: `s3://BUCKET/KEY`.
    pub object: String,
    /// Its size.
    pub bytes: u64,
    /// The SHA-256 of its content, in hexadecimal digits.
    pub sha256: String,
    /// What it contains. Less than the totals of the file when parts were damaged.
    pub totals: Totals,
}

/// One part of a file: the batches of one function that one compaction merged.
#[derive(Debug, Clone)]
pub struct Part {
    /// Its number.
    pub number: u64,
    /// Its stored checksum.
    pub checksum: i64,
    /// Its batches, encoded. Each has only the invocations of the partition's day. Empty when the part is damaged.
    pub batches: Vec<Vec<u8>>,
}

/// Characters of the digest in the name of an object.
const DIGEST_CHARACTERS: usize = 12;

/// The digest of the parts of a file, in the order of their numbers.
#[derive(Debug, Clone, Default)]
pub struct PartsDigest(Sha256);

impl PartsDigest {
    /// Adds a part.
    pub fn add(&mut self, number: u64, checksum: i64) {
        self.0.update(number.to_be_bytes());
        self.0.update(checksum.to_be_bytes());
    }

    /// The digest in hexadecimal digits.
    #[must_use]
    pub fn finish(self) -> String {
        let digest: String = self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        digest[..DIGEST_CHARACTERS].to_owned()
    }
}

/// What is known of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionState {
    /// The partition.
    pub partition: Partition,
    /// Size of the parts that are in no file yet, bytes.
    pub waiting_bytes: u64,
    /// Invocations that are in no file yet.
    pub waiting_invocations: u64,
    /// When the oldest of these was spooled, microseconds since the Unix epoch; 0 without any.
    pub waiting_since_us: u64,
    /// Everything that was ever spooled.
    pub spooled: Totals,
    /// What was not spooled, because the spool was full, the archive was off or the batch was damaged.
    pub dropped: Totals,
}

/// The whole archive at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArchiveRecord {
    /// The limit of the spool, bytes; `None` when the archive is off.
    pub max_spool_bytes: Option<u64>,
    /// When the archive was switched on for the first time, microseconds since the Unix epoch; 0 when it never was.
    pub since_us: u64,
    /// Size of the spool, bytes.
    pub spool_bytes: u64,
    /// All partitions, sorted.
    pub partitions: Vec<PartitionState>,
    /// All files, sorted by partition.
    pub files: Vec<SealedFile>,
}

impl ArchiveRecord {
    /// What is not in the archive, and counted.
    #[must_use]
    pub fn dropped(&self) -> Totals {
        let mut totals = Totals::default();
        self.partitions.iter().for_each(|state| totals.add(state.dropped));
        totals
    }

    /// What was uploaded.
    #[must_use]
    pub fn uploaded(&self) -> Totals {
        let mut totals = Totals::default();
        self.files
            .iter()
            .filter_map(|file| file.upload.as_ref())
            .for_each(|upload| totals.add(upload.totals));
        totals
    }

    /// What was spooled and is not uploaded yet.
    #[must_use]
    pub fn waiting(&self) -> Totals {
        let mut spooled = Totals::default();
        self.partitions.iter().for_each(|state| spooled.add(state.spooled));
        let uploaded = self.uploaded();
        Totals {
            invocations: spooled.invocations.saturating_sub(uploaded.invocations),
            billed_ms: spooled.billed_ms.saturating_sub(uploaded.billed_ms),
        }
    }
}

/// The record of the archive and the totals of the rollups at the same moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArchiveComparison {
    /// The record.
    pub record: ArchiveRecord,
    /// What the rollups contain, without the pending batches.
    pub rollups: BTreeMap<Partition, Totals>,
    /// What the pending batches contain: it is in no spool yet.
    pub pending: BTreeMap<Partition, Totals>,
}

/// The operations of the archive on a store.
#[async_trait]
pub trait ArchiveStore: Send + Sync {
    /// Whether this collector may upload now. Of several with one store, one does. More than one would upload the same objects.
    async fn may_upload(&self) -> Result<bool, StoreError> {
        Ok(true)
    }

    /// Switches the archive on, with the limit of its spool in bytes, or off. The setting is stored.
    async fn set_archive(&self, max_spool_bytes: Option<u64>) -> Result<(), StoreError>;

    /// Seals the files that are due. Returns all files that wait for their upload, the oldest first.
    async fn seal(&self, limits: SealLimits) -> Result<Vec<SealedFile>, StoreError>;

    /// The parts of a file from a number on, up to about `max_bytes`. Empty when there are no more.
    async fn parts(&self, file: &SealedFile, from: u64, max_bytes: u64) -> Result<Vec<Part>, StoreError>;

    /// Records the upload of a file.
    async fn record_upload(&self, file: &SealedFile, upload: Upload) -> Result<(), StoreError>;

    /// Removes some of the parts of uploaded files. Returns whether there are more.
    async fn remove_uploaded(&self) -> Result<bool, StoreError>;

    /// Removes what is recorded of days more than `days` ago, of which everything is uploaded. As for measurements, a clock that is
    /// ahead removes nothing that is not old.
    async fn delete_old_records(&self, days: u64) -> Result<(), StoreError>;

    /// Everything that is recorded.
    async fn archive_record(&self) -> Result<ArchiveRecord, StoreError>;

    /// Everything that is recorded, with the totals of all rollups, which are read.
    async fn archive_comparison(&self) -> Result<ArchiveComparison, StoreError>;

    /// Moves all pending batches into the rollups and the spool.
    async fn compact(&self) -> Result<(), StoreError>;
}
