//! `tailor serve --check`: checks everything that the collector needs, and changes nothing.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use aws_credential_types::provider::ProvideCredentials;
use tailor_push::webhook::origin;

use super::runtime::block_on;
use super::serve::address_of;
use super::serve_arguments::ServeArgs;
use super::streams;
use crate::clock::now_us;
use crate::keys::sources::KeySources;
use crate::keys::{KeyRing, Scope};
use crate::prices;
use crate::report::bill::usage::UsageTable;
use crate::s3::{Location, is_denied};
use crate::store::postgres::PostgresStore;
use crate::store::sqlite::{SqliteStore, free_bytes};
use crate::tags::TagTable;
use crate::tuner::mode::Mode;

/// Less free space than this is reported, bytes.
const LITTLE_SPACE: u64 = 1 << 30;

/// How long a list of a bucket may take.
const BUCKET_TIMEOUT: Duration = Duration::from_secs(10);

/// The subject of findings about the archive.
const ARCHIVE: &str = "archive";

/// How long AWS's credentials may take.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Ok,
    Warning,
    Error,
}

/// What was found, one line each.
#[derive(Default)]
struct Findings(Vec<(Level, &'static str, String)>);

impl Findings {
    fn ok(&mut self, subject: &'static str, message: impl Into<String>) {
        self.0.push((Level::Ok, subject, message.into()));
    }

    fn warning(&mut self, subject: &'static str, message: impl Into<String>) {
        self.0.push((Level::Warning, subject, message.into()));
    }

    fn error(&mut self, subject: &'static str, message: impl Into<String>) {
        self.0.push((Level::Error, subject, message.into()));
    }

    fn number(&self, level: Level) -> usize {
        self.0.iter().filter(|(of, ..)| *of == level).count()
    }
}

pub(super) fn run(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    let mut found = Findings::default();
    if let Some(file) = &args.config {
        match args.problems.len() {
            0 => found.ok("configuration", format!("{} is valid", file.display())),
            _ => args.problems.iter().for_each(|problem| found.error("configuration", problem.to_string())),
        }
    }
    address(args, &mut found);
    certificate(args, &mut found);
    let has_folder = data_folder(args, &mut found);
    store(args, has_folder, &mut found);
    keys(args, &mut found);
    files(args, &mut found);
    push(args, &mut found);
    aws(args, &mut found)?;
    buckets(args, &mut found)?;
    let mut text = String::new();
    for (level, subject, message) in &found.0 {
        let level = match level {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Error => "error",
        };
        text += &format!("{level:<8} {subject}: {}\n", message.replace('\n', " "));
    }
    streams::output(&text)?;
    let (errors, warnings) = (found.number(Level::Error), found.number(Level::Warning));
    streams::note(format_args!("{errors} errors, {warnings} warnings"));
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether the address can be used. The socket is closed at once, without a connection accepted.
fn address(args: &ServeArgs, found: &mut Findings) {
    let (subject, address) = ("address", args.listen);
    if args.local_reads && !address.ip().is_loopback() {
        found.error(subject, format!("--local-reads is only for a loopback address, not {address}"));
    }
    match TcpListener::bind(address) {
        Ok(_) => found.ok(subject, format!("{address} can be used")),
        Err(error) if error.kind() == ErrorKind::AddrInUse && address_of(&args.data).is_some() => {
            found.ok(subject, format!("{address} is in use, and a collector runs with this data folder"));
        }
        Err(error) => found.error(subject, format!("cannot listen on {address}: {error}")),
    }
    let has_tls = args.connections.tls_cert.is_some() || !args.trusted_proxy.is_empty();
    if !address.ip().is_loopback() && !has_tls {
        found.warning(
            subject,
            format!(
                "{address} can be reached from other machines, and keys are sent to it without TLS: set --tls-cert and \
                 --tls-key, or put a proxy with TLS in front and name it with --trusted-proxy"
            ),
        );
    }
}

fn certificate(args: &ServeArgs, found: &mut Findings) {
    let subject = "certificate";
    let files = match args.tls_files() {
        Ok(None) => return,
        Ok(Some(files)) => files,
        Err(error) => return found.error(subject, error.to_string()),
    };
    match files.load() {
        Ok(loaded) => {
            let now_s = now_us() / 1_000_000;
            match loaded.warning(now_s) {
                Some(warning) if loaded.expires_at_s.is_some_and(|at_s| at_s <= now_s) => {
                    found.error(subject, warning);
                }
                Some(warning) => found.warning(subject, warning),
                None => found.ok(subject, format!("{} and its key can be used", files.certificate.display())),
            }
            warn_if_others_can_read(&files.key, subject, found);
        }
        Err(error) => found.error(subject, error.to_string()),
    }
}

/// Warns when a file with a secret can be read by everyone.
fn warn_if_others_can_read(path: &Path, subject: &'static str, found: &mut Findings) {
    let mode = fs::metadata(path).map(|file| file.permissions().mode()).unwrap_or_default();
    if mode & 0o007 != 0 {
        found
            .warning(subject, format!("every user of this machine can read {}: chmod o= it", path.display()));
    }
}

/// Whether the folder exists.
fn data_folder(args: &ServeArgs, found: &mut Findings) -> bool {
    let (subject, folder) = ("data folder", args.data.as_path());
    let (existing, exists) = match fs::metadata(folder) {
        Ok(file) if !file.is_dir() => {
            found.error(subject, format!("{} is not a folder", folder.display()));
            return false;
        }
        Ok(_) => (folder, true),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            // The first of the parents that exists must permit to create the others.
            let parents = folder.ancestors().skip(1).map(|path| match path {
                path if path.as_os_str().is_empty() => Path::new("."),
                path => path,
            });
            let Some(parent) = parents.into_iter().find(|path| path.exists()) else { return false };
            (parent, false)
        }
        Err(error) => {
            found.error(subject, format!("cannot use {}: {error}", folder.display()));
            return false;
        }
    };
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    if let Err(error) = rustix::fs::access(existing, access) {
        found.error(subject, format!("cannot write to {}: {error}", existing.display()));
    } else if exists {
        found.ok(subject, format!("{} can be written", folder.display()));
    } else {
        found.ok(subject, format!("{} does not exist: the start creates it", folder.display()));
    }
    match free_bytes(existing) {
        Ok(free) if free < LITTLE_SPACE => {
            found.warning(subject, format!("only {} MiB are free in {}", free >> 20, existing.display()));
        }
        Ok(_) => {}
        Err(error) => found.error(subject, error.to_string()),
    }
    exists
}

fn store(args: &ServeArgs, has_folder: bool, found: &mut Findings) {
    match args.database.database() {
        Err(error) => found.error("database", format!("{error:#}")),
        Ok(Some(database)) => match PostgresStore::exists(&database) {
            Ok(false) => {
                found.ok("database", format!("the {database} is empty: the start creates the tables"))
            }
            Ok(true) => match PostgresStore::open_to_read(&database) {
                Ok(_) => found.ok("database", format!("the {database} has a store of this version")),
                Err(error) => found.error("database", format!("the {database}: {error}")),
            },
            Err(error) => found.error("database", format!("the {database}: {error}")),
        },
        Ok(None) if has_folder && args.data.join("tailor.sqlite").exists() => {
            match SqliteStore::open_to_read(&args.data) {
                Ok(_) => found.ok("store", "it can be read; `tailor check` reads all of it"),
                Err(error) => found.error("store", error.to_string()),
            }
        }
        Ok(None) => found.ok("store", "there is none yet: the start creates it"),
    }
}

fn keys(args: &ServeArgs, found: &mut Findings) {
    let subject = "keys";
    let sources =
        args.database.keys(&args.data, false).map(|keys| KeySources { files: args.key_files(), ..keys });
    let ring = match sources {
        Ok(sources) => block_on(sources.load()).and_then(|ring| Ok(ring?)),
        // That the store cannot be opened is reported already.
        Err(_) => {
            block_on(KeySources { store: None, files: args.key_files() }.load()).and_then(|ring| Ok(ring?))
        }
    };
    let ring = match ring {
        Ok(ring) => ring,
        Err(error) => return found.error(subject, format!("{error:#}")),
    };
    if let Some(file) = &args.api_key_file {
        warn_if_others_can_read(file, subject, found);
    }
    if ring.is_empty() && args.api_key_file.is_none() && args.api_keys.is_none() {
        return found.ok(subject, "there are none yet: the start creates two");
    }
    summarize_keys(&ring, found);
}

fn summarize_keys(ring: &KeyRing, found: &mut Findings) {
    let (subject, now_s) = ("keys", now_us() / 1_000_000);
    let valid: Vec<_> = ring.entries().filter(|entry| !entry.key.has_expired(now_s)).collect();
    let with = |scope| valid.iter().filter(|entry| entry.key.permits(scope)).count();
    let (sending, reading, admin) = (with(Scope::Ingest), with(Scope::Read), with(Scope::Admin));
    found.ok(
        subject,
        format!(
            "{} are valid: {sending} may send, {reading} may read, {admin} have the scope `admin`",
            valid.len()
        ),
    );
    let expired = ring.entries().count() - valid.len();
    if expired > 0 {
        found.warning(subject, format!("{expired} have expired: `tailor keys list` shows them"));
    }
    if sending == 0 {
        found.warning(subject, "no key may send batches: `tailor keys create --scopes ingest` creates one");
    }
}

/// The files of prices, tags and the tuner's policy.
fn files(args: &ServeArgs, found: &mut Findings) {
    match prices::load(args.prices.as_deref()) {
        Ok(prices) => found.ok("prices", format!("of {}", prices.compiled())),
        Err(error) => found.error("prices", format!("{error:#}")),
    }
    if let Some(file) = &args.tags {
        match TagTable::read(file) {
            Ok(table) => found.ok("tags", format!("of {} functions", table.len())),
            Err(error) => found.error("tags", format!("{error:#}")),
        }
    }
    if let Some(file) = &args.usage {
        match UsageTable::read(file) {
            Ok(_) => found.ok("usage", format!("{} is valid", file.display())),
            Err(error) => found.error("usage", format!("{error:#}")),
        }
    }
    match args.tuner.settings(&args.data) {
        Ok(settings) => found.ok("tuner", format!("its mode is `{}`", settings.mode)),
        Err(error) => found.error("tuner", format!("{error:#}")),
    }
}

/// Where metrics and events are sent. Nothing is sent.
fn push(args: &ServeArgs, found: &mut Findings) {
    match args.otlp.settings() {
        Ok(None) => {}
        Ok(Some(settings)) => {
            let origin = settings.origin();
            found.ok("OTLP", format!("metrics are sent to {origin}"));
            if settings.url.starts_with("http://") && !settings.headers.is_empty() && !is_local(origin) {
                found.warning("OTLP", format!("headers are sent to {origin} without TLS: use https"));
            }
        }
        Err(error) => found.error("OTLP", format!("{error:#}")),
    }
    match args.webhook.settings() {
        Ok(None) => {}
        Ok(Some(settings)) => {
            let origin = origin(&settings.url);
            found.ok("webhook", format!("events are sent to {origin}"));
            if settings.url.starts_with("http://") && !is_local(origin) {
                found.warning("webhook", format!("events are sent to {origin} without TLS: use https"));
            }
        }
        Err(error) => found.error("webhook", format!("{error:#}")),
    }
    if let Some(file) = args.webhook.secret_file() {
        warn_if_others_can_read(file, "webhook", found);
    }
}

/// Whether an address is of this machine.
fn is_local(origin: &str) -> bool {
    let host = origin.rsplit("://").next().unwrap_or_default();
    ["localhost", "127.", "[::1]"].iter().any(|local| host.starts_with(local))
}

/// The credentials of the tuner. No request is sent to Lambda.
fn aws(args: &ServeArgs, found: &mut Findings) -> anyhow::Result<()> {
    if args.tuner.tuner == Mode::Off {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let credentials = runtime.block_on(async {
        let lambda = args.tuner.lambda().await;
        let Some(provider) = lambda.shared().credentials_provider() else {
            return Err("there is no provider of credentials".to_owned());
        };
        match tokio::time::timeout(CREDENTIALS_TIMEOUT, provider.provide_credentials()).await {
            Ok(Ok(credentials)) => Ok(credentials.access_key_id().to_owned()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {} s", CREDENTIALS_TIMEOUT.as_secs())),
        }
    });
    match credentials {
        Ok(id) => found.ok("AWS credentials", format!("the access key is {id}")),
        Err(error) => found.error(
            "AWS credentials",
            format!("the tuner needs them: give the machine a role, or set AWS_ACCESS_KEY_ID ({error})"),
        ),
    }
    Ok(())
}

/// The buckets of the archive and of profiles. Nothing is written to them.
fn buckets(args: &ServeArgs, found: &mut Findings) -> anyhow::Result<()> {
    let locations = [(ARCHIVE, args.archive.location()), ("profiles", args.profiles.location())];
    let locations: Vec<(&'static str, &Location)> =
        locations.into_iter().filter_map(|(subject, location)| Some((subject, location?))).collect();
    if locations.is_empty() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let s3 = runtime.block_on(args.archive.s3().client());
    for (subject, location) in locations {
        // With a slash at its end: that is what a policy for `PREFIX/*` permits.
        let (bucket, prefix) = (&location.bucket, location.key(""));
        let list = runtime.block_on(async {
            tokio::time::timeout(BUCKET_TIMEOUT, s3.page(bucket, &prefix, None, None)).await
        });
        match list {
            Ok(Ok(_)) => found.ok(subject, format!("{location} can be listed")),
            Ok(Err(error)) if subject == ARCHIVE && is_denied(&error) => found.warning(
                subject,
                format!(
                    "{location}: the prefix cannot be listed; uploads need only s3:PutObject, and `tailor archive \
                     verify` needs s3:ListBucket"
                ),
            ),
            Ok(Err(error)) => found.error(subject, format!("cannot list {location}: {error:#}")),
            Err(_) => {
                found.error(
                    subject,
                    format!("{location}: S3 did not answer in {} s", BUCKET_TIMEOUT.as_secs()),
                );
            }
        }
    }
    Ok(())
}
