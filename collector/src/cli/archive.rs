//! `tailor archive`, and the arguments of the archive.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use tailor_archive::{DAY_US, parse_day, text_of_day};

use super::database::DatabaseArgs;
use super::{runtime, show, streams};
use crate::archive::verify::{Scope, Verification, verify};
use crate::archive::{Archiver, Settings, request};
use crate::clock::{Clock, now_us};
use crate::prices;
use crate::s3::{Connection, Encryption, Location, PutOptions, S3};
use crate::store::archive::{ArchiveRecord, ArchiveStore, SealLimits};
use crate::store::postgres::PostgresStore;
use crate::store::sqlite::{Retention, SqliteStore, is_served};

const MB: u64 = 1_000_000;

/// Days for which uploads are recorded by `tailor archive flush`.
const RECORD_DAYS: u64 = 4_000;

/// How to reach S3: for the archive, for profiles and for imports.
#[derive(Debug, Args)]
#[command(next_help_heading = "S3")]
pub(super) struct S3Args {
    /// URL of a server that is compatible with S3. Credentials are those of the AWS SDK.
    #[arg(long, env = "TAILOR_S3_ENDPOINT", value_name = "URL")]
    s3_endpoint: Option<String>,
    /// Region of the bucket; `AWS_REGION` when absent.
    #[arg(long, env = "TAILOR_S3_REGION", value_name = "REGION")]
    s3_region: Option<String>,
    /// Put the bucket into the path of URLs, which most compatible servers need.
    #[arg(long, env = "TAILOR_S3_PATH_STYLE")]
    s3_path_style: bool,
}

impl S3Args {
    /// How to reach S3.
    pub(super) fn connection(&self) -> Connection {
        Connection {
            endpoint: self.s3_endpoint.clone().filter(|url| !url.is_empty()),
            region: self.s3_region.clone().filter(|region| !region.is_empty()),
            path_style: self.s3_path_style,
        }
    }

    /// A client.
    pub(super) async fn client(&self) -> S3 {
        S3::new(&self.connection()).await
    }
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Archive")]
pub(super) struct ArchiveArgs {
    /// Write every invocation as Parquet to S3: `s3://BUCKET/PREFIX`. docs/archive.md describes the files.
    #[arg(long, env = "TAILOR_ARCHIVE", value_name = "S3-ADDRESS", value_parser = location)]
    archive: Option<Location>,
    /// Storage class of the objects, such as `STANDARD_IA` or `INTELLIGENT_TIERING`; the default of S3 when absent.
    #[arg(long, env = "TAILOR_ARCHIVE_STORAGE_CLASS", value_name = "CLASS")]
    archive_storage_class: Option<String>,
    /// Encryption of the objects: `sse-s3`, or `kms:` with the id, alias or ARN of a key; that of the bucket when absent.
    #[arg(long, env = "TAILOR_ARCHIVE_ENCRYPTION", value_name = "ENCRYPTION", value_parser = encryption)]
    archive_encryption: Option<Encryption>,
    /// Size of the spooled invocations of one day and account from which a file is written, MB.
    #[arg(long, env = "TAILOR_ARCHIVE_ROLL_MB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=256))]
    archive_roll_mb: u64,
    /// Minutes after which a file is written in any case.
    #[arg(long, env = "TAILOR_ARCHIVE_ROLL_MINUTES", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=1_440))]
    archive_roll_minutes: u64,
    /// Limit of the invocations that wait for their upload, MB on disk. What exceeds it is not archived, and counted.
    #[arg(long, env = "TAILOR_ARCHIVE_SPOOL_MB", default_value_t = 4_096, value_parser = clap::value_parser!(u64).range(16..=1_000_000))]
    archive_spool_mb: u64,
    #[command(flatten)]
    s3: S3Args,
}

fn location(text: &str) -> Result<Location, String> {
    text.parse()
}

fn encryption(text: &str) -> Result<Encryption, String> {
    text.parse()
}

impl ArchiveArgs {
    /// How to reach S3.
    pub(super) const fn s3(&self) -> &S3Args {
        &self.s3
    }

    /// The archive; `None` when there is none.
    pub(super) const fn location(&self) -> Option<&Location> {
        self.archive.as_ref()
    }

    /// Whether there is an archive.
    pub(super) const fn is_set(&self) -> bool {
        self.archive.is_some()
    }

    fn settings(&self, folder: &Path, record_days: u64) -> anyhow::Result<Settings> {
        let location = self.archive.clone().context("name the archive with --archive s3://BUCKET/PREFIX")?;
        Ok(Settings {
            location,
            options: PutOptions {
                storage_class: self.archive_storage_class.clone(),
                encryption: self.archive_encryption.clone(),
            },
            limits: SealLimits {
                max_bytes: self.archive_roll_mb * MB,
                max_age_us: self.archive_roll_minutes * 60_000_000,
            },
            record_days,
            folder: folder.to_owned(),
        })
    }

    /// Switches the archive of a store on or off, and returns what uploads it.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub(super) async fn start(
        &self,
        store: Arc<dyn ArchiveStore>,
        folder: &Path,
        prices: tailor_sizing::pricing::prices::PriceTable,
        record_days: u64,
    ) -> anyhow::Result<Option<Archiver>> {
        let spool_bytes = self.is_set().then_some(self.archive_spool_mb * MB);
        let set = store.set_archive(spool_bytes).await;
        if !self.is_set() {
            // A store on a full disk, or one without an archive, starts in any case.
            return Ok(None);
        }
        if let Err(error) = set {
            tracing::error!("the archive keeps its last setting: {error}");
        }
        let settings = self.settings(folder, record_days)?;
        tracing::info!("invocations are archived in {}", settings.location);
        let s3 = self.s3.client().await;
        Ok(Some(Archiver::new(store, s3, settings, prices, Clock::system())))
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum ArchiveCommand {
    /// Show what is archived, what waits for its upload, and what was dropped.
    Status {
        #[command(flatten)]
        folder: FolderArgs,
        /// Output format.
        #[arg(long, value_enum, default_value_t)]
        format: StatusFormat,
    },
    /// Upload everything that is stored now. A running collector does it; without one, this command does.
    Flush {
        #[command(flatten)]
        folder: FolderArgs,
        #[command(flatten)]
        archive: Box<ArchiveArgs>,
        /// File with Lambda's prices in place of the built-in ones, as for `tailor serve`.
        #[arg(long, value_name = "FILE")]
        prices: Option<PathBuf>,
        /// How long to wait for a running collector, seconds.
        #[arg(long, default_value_t = 300)]
        timeout: u64,
    },
    /// Compare the objects with what was uploaded, and the totals with the rollups, by day and account. Exit code 1 when
    /// something differs.
    Verify {
        #[command(flatten)]
        folder: FolderArgs,
        #[command(flatten)]
        archive: Box<ArchiveArgs>,
        /// Also read each object: its invocations, billed time and digest.
        #[arg(long)]
        read: bool,
        /// First day, such as `2026-11-01`: objects of earlier days may be deleted by a lifecycle rule.
        #[arg(long, value_name = "DAY", value_parser = day, default_value = "1970-01-01")]
        from: u64,
    },
    /// Print the definition of the table for Athena.
    Ddl {
        /// The archive: `s3://BUCKET/PREFIX`.
        #[arg(long, env = "TAILOR_ARCHIVE", value_name = "S3-ADDRESS", value_parser = location)]
        archive: Location,
        /// Name of the table.
        #[arg(long, default_value = "lambda_invocations", value_parser = table)]
        table: String,
    },
    /// Print the lifecycle rule of S3 that deletes the objects of the archive. The collector never deletes an object.
    Lifecycle {
        /// The archive: `s3://BUCKET/PREFIX`.
        #[arg(long, env = "TAILOR_ARCHIVE", value_name = "S3-ADDRESS", value_parser = location)]
        archive: Location,
        /// Days after which an object is deleted.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        days: u32,
    },
}

#[derive(Debug, Args)]
pub(super) struct FolderArgs {
    /// The data folder. A collector may be running with it.
    #[arg(long, env = "TAILOR_DATA", default_value = "tailor-data")]
    data: PathBuf,
    #[command(flatten)]
    database: DatabaseArgs,
}

impl FolderArgs {
    /// The store, for reading.
    fn open_to_read(&self) -> anyhow::Result<Arc<dyn ArchiveStore>> {
        if let Some(database) = self.database.database()? {
            let store = PostgresStore::open_to_read(&database);
            return Ok(Arc::new(store.with_context(|| format!("cannot open the {database}"))?));
        }
        Ok(Arc::new(open_to_read(&self.data)?))
    }

    /// The store, for uploads by this process.
    fn open(&self) -> anyhow::Result<Arc<dyn ArchiveStore>> {
        let retention = Retention { daily_days: RECORD_DAYS, ..Retention::default() };
        if let Some(database) = self.database.database()? {
            let store = PostgresStore::open_with(&database, Clock::system(), retention);
            return Ok(Arc::new(store.with_context(|| format!("cannot open the {database}"))?));
        }
        let folder = &self.data;
        ensure!(folder.is_dir(), "there is no data folder {}", folder.display());
        let store = SqliteStore::open_with(folder, Clock::system(), retention)
            .with_context(|| format!("cannot open the store in {}", folder.display()))?;
        Ok(Arc::new(store))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum StatusFormat {
    /// Lines of text.
    #[default]
    Text,
    /// JSON.
    Json,
}

fn day(text: &str) -> Result<u64, String> {
    parse_day(text).ok_or_else(|| "a day is written as 2026-11-29".to_owned())
}

fn table(text: &str) -> Result<String, String> {
    let is_valid = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_valid { Ok(text.to_owned()) } else { Err("use letters, digits and `_`".to_owned()) }
}

pub(super) fn run(command: ArchiveCommand) -> anyhow::Result<ExitCode> {
    let runtime = runtime::multi_threaded()?;
    runtime.block_on(async {
        match command {
            ArchiveCommand::Status { folder, format } => status(&folder, format).await,
            ArchiveCommand::Flush { folder, archive, prices, timeout } => {
                // With a database, this process and collectors may upload at the same time.
                if !folder.database.is_set() && is_served(&folder.data) {
                    request_flush(&folder.data, Duration::from_secs(timeout)).await
                } else {
                    flush(&folder, &archive, prices.as_deref()).await
                }
            }
            ArchiveCommand::Verify { folder, archive, read, from } => {
                verify_archive(&folder, &archive, read, from).await
            }
            ArchiveCommand::Ddl { archive, table } => {
                show::print((tailor_archive::athena(&table, &archive.to_string()), false))
            }
            ArchiveCommand::Lifecycle { archive, days } => {
                show::print((serde_json::to_string_pretty(&lifecycle(&archive, days))? + "\n", false))
            }
        }
    })
}

/// The rule, for `aws s3api put-bucket-lifecycle-configuration --lifecycle-configuration`.
fn lifecycle(archive: &Location, days: u32) -> serde_json::Value {
    let prefix = if archive.prefix.is_empty() { String::new() } else { format!("{}/", archive.prefix) };
    json!({"Rules": [{
        "ID": "lambda-tailor-archive",
        "Status": "Enabled",
        "Filter": {"Prefix": prefix},
        "Expiration": {"Days": days},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
    }]})
}

fn open_to_read(folder: &Path) -> anyhow::Result<SqliteStore> {
    SqliteStore::open_to_read(folder)
        .with_context(|| format!("cannot open the store in {}", folder.display()))
}

async fn status(folder: &FolderArgs, format: StatusFormat) -> anyhow::Result<ExitCode> {
    let record = folder.open_to_read()?.archive_record().await?;
    let text = match format {
        StatusFormat::Json => serde_json::to_string_pretty(&status_json(&record))? + "\n",
        StatusFormat::Text => status_text(&record),
    };
    show::print((text, false))
}

fn status_json(record: &ArchiveRecord) -> serde_json::Value {
    let uploads = record.files.iter().filter_map(|file| file.upload.as_ref());
    json!({
        "is_on": record.max_spool_bytes.is_some(),
        "since_us": record.since_us,
        "uploaded_invocations": record.uploaded().invocations,
        "uploaded_objects": uploads.clone().count(),
        "uploaded_bytes": uploads.clone().map(|upload| upload.bytes).sum::<u64>(),
        "last_upload_us": uploads.map(|upload| upload.at_us).max(),
        "waiting_invocations": record.waiting().invocations,
        "waiting_files": record.files.iter().filter(|file| file.upload.is_none()).count(),
        "spool_bytes": record.spool_bytes,
        "spool_limit_bytes": record.max_spool_bytes,
        "dropped_invocations": record.dropped().invocations,
    })
}

fn status_text(record: &ArchiveRecord) -> String {
    let uploads: Vec<_> = record.files.iter().filter_map(|file| file.upload.as_ref()).collect();
    let bytes: u64 = uploads.iter().map(|upload| upload.bytes).sum();
    let state = match (record.max_spool_bytes, record.since_us) {
        (_, 0) => {
            "the archive was never switched on: start `tailor serve --archive s3://BUCKET/PREFIX`".to_owned()
        }
        (Some(limit), since) => {
            format!("on, since {}; the limit of the spool is {} MB", text_of_day(since / DAY_US), limit / MB)
        }
        (None, _) => "off: what is measured now is counted as dropped".to_owned(),
    };
    let last = uploads.iter().map(|upload| upload.at_us).max();
    let last = last.map_or_else(
        || "none yet".to_owned(),
        |at_us| format!("{} s ago", now_us().saturating_sub(at_us) / 1_000_000),
    );
    let waiting_files = record.files.iter().filter(|file| file.upload.is_none()).count();
    format!(
        "archive: {state}\nuploaded: {} invocations in {} objects, {:.1} MB; last upload: {last}\n\
         waiting: {} invocations ({waiting_files} files), {:.1} MB\ndropped: {} invocations\n",
        record.uploaded().invocations,
        uploads.len(),
        bytes as f64 / MB as f64,
        record.waiting().invocations,
        record.spool_bytes as f64 / MB as f64,
        record.dropped().invocations,
    )
}

/// Sends a request to the running collector, and waits until it is done.
async fn request_flush(folder: &Path, timeout: Duration) -> anyhow::Result<ExitCode> {
    let record = open_to_read(folder)?.archive_record().await?;
    ensure!(
        record.max_spool_bytes.is_some(),
        "the running collector has no archive: start it with --archive"
    );
    request::submit(folder).with_context(|| format!("cannot write to {}", folder.display()))?;
    let start = Instant::now();
    while request::pending(folder) {
        if start.elapsed() > timeout {
            bail!(
                "not everything is uploaded after {} s; the collector continues, and its log has the reason of a failure",
                timeout.as_secs()
            );
        }
        if !is_served(folder) {
            bail!("the collector stopped before everything was uploaded: run the command again");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    show::print((status_text(&open_to_read(folder)?.archive_record().await?), false))
}

/// Uploads in this process.
async fn flush(folder: &FolderArgs, args: &ArchiveArgs, prices: Option<&Path>) -> anyhow::Result<ExitCode> {
    let settings = args.settings(&folder.data, RECORD_DAYS)?;
    let store = folder.open()?;
    store.set_archive(Some(args.archive_spool_mb * MB)).await?;
    let s3 = args.s3.client().await;
    let archiver = Archiver::new(Arc::clone(&store), s3, settings, prices::load(prices)?, Clock::system());
    archiver.flush().await?;
    show::print((status_text(&store.archive_record().await?), false))
}

async fn verify_archive(
    folder: &FolderArgs,
    args: &ArchiveArgs,
    reads: bool,
    from_day: u64,
) -> anyhow::Result<ExitCode> {
    let location = args.archive.clone().context("name the archive with --archive s3://BUCKET/PREFIX")?;
    let comparison = folder.open_to_read()?.archive_comparison().await?;
    let s3 = args.s3.client().await;
    let Verification { lines, objects, differences } =
        verify(&s3, &comparison, &Scope { location, from_day, reads }).await?;
    let mut text = format!(
        "{:<40} {:>12} {:>12} {:>10} {:>9} {:>12}\n",
        "invocations of", "measured", "archived", "waiting", "dropped", "before"
    );
    for (partition, line) in &lines {
        text += &format!(
            "{:<40} {:>12} {:>12} {:>10} {:>9} {:>12}\n",
            partition.path(),
            line.measured.invocations,
            line.archived.invocations,
            line.waiting.invocations,
            line.dropped.invocations,
            line.before.invocations
        );
    }
    for difference in &differences {
        text += &format!("difference: {difference}\n");
    }
    let compared = if reads { "read" } else { "listed" };
    text += &format!("{objects} objects {compared}, {} differences\n", differences.len());
    streams::output(&text)?;
    Ok(if differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
