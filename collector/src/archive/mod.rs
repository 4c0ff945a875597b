//! The archive: single invocations as Parquet objects in S3.
//!
//! The store spools them with the transaction that adds them to the rollups; see [`crate::store::archive`]. This module seals
//! files, writes them as Parquet ([`tailor_archive`]) and uploads them. An acknowledgement never waits for it: while S3
//! cannot be reached, the spool grows to its limit, and what exceeds that is counted.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agent_proto::batch::Batch;
use anyhow::{Context, ensure};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tailor_archive::{DAY_US, FileWriter, ROW_GROUP_ROWS, Row, Totals, object_name};
use tailor_sizing::pricing::prices::PriceTable;

use crate::clock::Clock;
use crate::s3::{Location, PutOptions, S3};
use crate::store::archive::{ArchiveStore, PartsDigest, SealLimits};
use crate::store::{SealedFile, Upload};

pub mod metrics;
pub mod request;
pub mod verify;

use metrics::Metrics;

/// Time between two rounds.
const ROUND: Duration = Duration::from_secs(2);

/// Number of rounds between two readings of the record for the metrics.
const OBSERVE_ROUNDS: u64 = 15;

/// Longest pause after uploads that failed.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Pause between two steps that remove uploaded parts, so that acknowledgements do not wait for several of them.
const REMOVE_PAUSE: Duration = Duration::from_millis(20);

/// Size of the parts that are read at a time, bytes.
const READ_BYTES: u64 = 4 << 20;

/// Where the archive is and when files are written.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The bucket and the prefix.
    pub location: Location,
    /// How objects are stored.
    pub options: PutOptions,
    /// When files are written.
    pub limits: SealLimits,
    /// Days for which uploads are recorded.
    pub record_days: u64,
    /// The data folder.
    pub folder: PathBuf,
}

/// Uploads what the store spooled.
pub struct Archiver {
    store: Arc<dyn ArchiveStore>,
    s3: S3,
    settings: Settings,
    prices: PriceTable,
    clock: Clock,
    metrics: Metrics,
}

/// What one round did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Round {
    /// Number of uploaded files.
    pub files: u64,
    /// What they contain.
    pub totals: Totals,
    /// Their size.
    pub bytes: u64,
}

impl Archiver {
    /// An archive of a store.
    #[must_use]
    pub fn new(
        store: Arc<dyn ArchiveStore>,
        s3: S3,
        settings: Settings,
        prices: PriceTable,
        clock: Clock,
    ) -> Self {
        Self { store, s3, settings, prices, clock, metrics: Metrics::default() }
    }

    /// Its metrics.
    #[must_use]
    pub const fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Uploads until `stop` is ready. A file that is being uploaded then is uploaded again after the next start.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        tokio::select! {
            () = self.rounds() => {}
            () = stop => {}
        }
    }

    async fn rounds(&self) {
        let mut failures = 0u32;
        let mut recorded_day = 0;
        for number in 0u64.. {
            let request = request::pending(&self.settings.folder);
            let result = if request { self.flush().await } else { self.round_of_one().await };
            match &result {
                Ok(_) => {
                    if failures > 0 {
                        tracing::info!("the archive works again");
                    }
                    failures = 0;
                    if request {
                        request::finish(&self.settings.folder);
                    }
                }
                Err(error) => {
                    self.metrics.failed();
                    if failures == 0 {
                        tracing::error!(
                            "cannot upload to the archive: {error:#}. It is attempted again; batches are stored and acknowledged meanwhile"
                        );
                    }
                    failures = failures.saturating_add(1);
                }
            }
            let today = self.clock.now_us() / DAY_US;
            if today != recorded_day && self.store.delete_old_records(self.settings.record_days).await.is_ok()
            {
                recorded_day = today;
            }
            if number.is_multiple_of(OBSERVE_ROUNDS) || !matches!(result, Ok(Round { files: 0, .. })) {
                self.observe().await;
            }
            let pause = ROUND.saturating_mul(2u32.saturating_pow(failures.min(10))).min(MAX_PAUSE);
            self.pause(if failures == 0 { ROUND } else { pause }).await;
        }
    }

    /// Waits; a new request to flush ends it.
    async fn pause(&self, pause: Duration) {
        let before = request::pending(&self.settings.folder);
        let end = tokio::time::Instant::now() + pause;
        while tokio::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(250)).await;
            if !before && request::pending(&self.settings.folder) {
                return;
            }
        }
    }

    /// A round, unless another collector with the same store uploads.
    async fn round_of_one(&self) -> anyhow::Result<Round> {
        if self.store.may_upload().await? {
            self.round(self.settings.limits).await
        } else {
            Ok(Round::default())
        }
    }

    /// Uploads everything that is stored. Another collector may do the same: both write the same objects.
    ///
    /// # Errors
    /// When the store or S3 fails. Repeating it continues.
    pub async fn flush(&self) -> anyhow::Result<Round> {
        self.store.compact().await?;
        self.round(SealLimits { max_age_us: 0, ..self.settings.limits }).await
    }

    /// Seals the files that are due, and uploads all that wait.
    ///
    /// # Errors
    /// When the store or S3 fails. Repeating it continues.
    pub async fn round(&self, limits: SealLimits) -> anyhow::Result<Round> {
        let mut round = Round::default();
        loop {
            let files = self.store.seal(limits).await?;
            if files.is_empty() {
                break;
            }
            for file in &files {
                let upload = self.upload(file).await?;
                round.files += 1;
                round.totals.add(upload.totals);
                round.bytes += upload.bytes;
                self.metrics.uploaded(&upload);
                self.store.record_upload(file, upload).await?;
            }
        }
        while self.store.remove_uploaded().await? {
            tokio::time::sleep(REMOVE_PAUSE).await;
        }
        Ok(round)
    }

    async fn upload(&self, file: &SealedFile) -> anyhow::Result<Upload> {
        let (content, totals) =
            self.content(file).await.with_context(|| format!("cannot write a file of {}", file.partition))?;
        let Location { bucket, prefix } = &self.settings.location;
        let key = object_name(prefix, &file.partition, file.first, &file.digest);
        let sha256 = hex::encode(Sha256::digest(&content));
        let bytes = content.len() as u64;
        self.s3.put(bucket, &key, Bytes::from(content), &self.settings.options).await?;
        let at_us = self.clock.now_us().max(1);
        Ok(Upload { at_us, object: format!("s3://{bucket}/{key}"), bytes, sha256, totals })
    }

    /// The file as Parquet, and what it contains.
    async fn content(&self, file: &SealedFile) -> anyhow::Result<(Vec<u8>, Totals)> {
        let mut writer = FileWriter::start()?;
        let (mut totals, mut digest) = (Totals::default(), PartsDigest::default());
        let mut from = file.first;
        let (mut batches, mut rows) = (vec![], 0);
        loop {
            let parts = self.store.parts(file, from, READ_BYTES).await?;
            for part in &parts {
                from = from.max(part.number + 1);
                digest.add(part.number, part.checksum);
                for body in &part.batches {
                    // What cannot be read is counted as dropped, and does not stop the archive.
                    let Ok(batch) = Batch::decode(body) else { continue };
                    rows += batch.invocations.len();
                    for invocation in &batch.invocations {
                        totals.add(Totals { invocations: 1, billed_ms: invocation.billed_ms });
                    }
                    batches.push(batch);
                    if rows >= ROW_GROUP_ROWS {
                        writer = self.row_group(writer, std::mem::take(&mut batches)).await?;
                        rows = 0;
                    }
                }
            }
            if parts.is_empty() {
                break;
            }
        }
        // Another collector may have uploaded the file and removed parts of it meanwhile. Its object must not be overwritten by less.
        ensure!(digest.finish() == file.digest, "its parts changed while they were read");
        writer = self.row_group(writer, batches).await?;
        Ok((writer.finish()?, totals))
    }

    /// Writes the invocations of some batches, on a thread that may block.
    async fn row_group(&self, mut writer: FileWriter, batches: Vec<Batch>) -> anyhow::Result<FileWriter> {
        let prices = self.prices.clone();
        let written = tokio::task::spawn_blocking(move || {
            let mut rows: Vec<Row<'_>> = batches
                .iter()
                .flat_map(|batch| Row::of_batch(&batch.header, &batch.invocations, &prices))
                .collect();
            writer.write(&mut rows)?;
            drop(rows);
            Ok::<_, anyhow::Error>(writer)
        });
        written.await.context("the writer of files panicked")?
    }

    /// Sets the metrics of the spool.
    async fn observe(&self) {
        if let Ok(record) = self.store.archive_record().await {
            self.metrics.observe(&record);
        }
    }
}
