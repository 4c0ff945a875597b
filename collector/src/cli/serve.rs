//! `tailor serve`.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tailor_sizing::pricing::prices::PriceTable;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::push::Push;
use super::serve_arguments::{ConnectionArgs, ServeArgs};
use super::{client, runtime, serve_reload};
use crate::archive::Archiver;
use crate::clock::{Clock, now_us};
use crate::http::connections::{ConnectionLimits, Connections};
use crate::http::tls::{CurrentTls, TlsFiles};
use crate::http::{self, App, TunerView};
use crate::keys::KeyRing;
use crate::keys::folder::{self, FIRST_KEY_FILE, INGEST_KEY_FILE};
use crate::keys::reload::{Follower, KeyFiles, follow};
use crate::keys::sources::KeySources;
use crate::recommendations::Recommendations;
use crate::reconcile::{LastReconciliations, ReconciliationMetrics};
use crate::report::bill::usage::UsageTable;
use crate::report::summaries::Summarizer;
use crate::store::postgres::{Database, PostgresStore};
use crate::store::sqlite::{Retention, SqliteStore, free_bytes, is_served};
use crate::store::{ArchiveStore, KeyStore, Store, Tenant};
use crate::tags::{self, TagTable};
use crate::tuner::mode::Mode;
use crate::tuner::permission::TAG;
use crate::tuner::requests::RequestStore;
use crate::tuner::{Settings, Tuner, unfinished};
use crate::{logging, prices, routes};

/// The file in the data folder to which a running collector writes its address.
const ADDRESS_FILE: &str = "address";

/// The address of the collector that runs with this data folder, if one does, as programs on this machine reach it.
pub(super) fn address_of(folder: &Path) -> Option<String> {
    let address = last_address_of(folder).filter(|_| is_served(folder))?;
    Some(client::on_this_machine(&address))
}

/// The address of the last collector that was started with this data folder.
pub(super) fn last_address_of(folder: &Path) -> Option<String> {
    Some(fs::read_to_string(folder.join(ADDRESS_FILE)).ok()?.trim().to_owned())
}

pub(super) fn serve(args: ServeArgs) -> anyhow::Result<ExitCode> {
    ensure!(
        !args.local_reads || args.listen.ip().is_loopback(),
        "--local-reads is only for a loopback address, not {}",
        args.listen
    );
    // Whatever it creates is for its user only.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    runtime::multi_threaded()?.block_on(serve_until_stopped(args))
}

impl ServeArgs {
    /// Where the keys come from.
    pub(super) fn key_files(&self) -> KeyFiles {
        KeyFiles {
            folder: Some(self.data.clone()),
            operator_file: self.api_key_file.clone(),
            lines: self.api_keys.clone(),
        }
    }

    /// The files of the certificate; `None` without TLS.
    ///
    /// # Errors
    /// There is a certificate without a key, or the other way round.
    pub(super) fn tls_files(&self) -> anyhow::Result<Option<TlsFiles>> {
        // A configuration file can have one without the other, which the definition of the options does not notice.
        match (&self.connections.tls_cert, &self.connections.tls_key) {
            (Some(certificate), Some(key)) => {
                Ok(Some(TlsFiles { certificate: certificate.clone(), key: key.clone() }))
            }
            (None, None) => Ok(None),
            (Some(_), None) => bail!("--tls-cert needs --tls-key, the file with the private key"),
            (None, Some(_)) => bail!("--tls-key needs --tls-cert, the file with the certificate"),
        }
    }
}

async fn serve_until_stopped(args: ServeArgs) -> anyhow::Result<ExitCode> {
    // From here on, SIGHUP does not end the process.
    let hangups = signal(SignalKind::hangup())?;
    let folder = &args.data;
    let prices = prices::load(args.prices.as_deref())?;
    if let Some(file) = &args.usage {
        // An error in the file is reported at the start, and not with the first bill.
        UsageTable::read(file)?;
    }
    let mut tuner_settings = args.tuner.settings(folder)?;
    let push = Push::of(&args.otlp, &args.webhook)?;
    let tls = load_tls(&args)?;
    // Before the folder is created: when the port is in use, no folder and no key are created.
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}: choose another with --listen", args.listen))?;
    create_folder(folder)?;
    let database = args.database.database()?;
    let (store, archiver) = open(&args, database.as_ref(), &prices).await?;
    if database.is_some() {
        let tenant = tuner_settings.tenant.clone();
        tuner_settings.requests = Some(RequestStore::Store(Arc::clone(&store), tenant));
    }
    let key_sources =
        KeySources { store: Some(Arc::clone(&store) as Arc<dyn KeyStore>), files: args.key_files() };
    let keys = load_keys(&key_sources).await?;
    keep_private(folder).with_context(|| format!("cannot make {} private", folder.display()))?;
    let address = listener.local_addr().context("cannot read the address of the listener")?;
    let url = format!("{}://{address}", if tls.is_some() { "https" } else { "http" });
    write_address(folder, &url)?;

    let app = App::new(store, KeyRing::default(), args.local_reads);
    let mut app = App { keys: keys.keys(), ..app };
    if let Some(archiver) = &archiver {
        app.metrics.register(|registry| archiver.metrics().register(registry));
    }
    push.register(&mut app);
    let app = Arc::new(App {
        prices,
        tls,
        tuner: view_of(&tuner_settings),
        profiles: args.profiles.open(args.archive.s3()).await,
        ..configured(app, &args, &key_sources)
    });
    log_start(&args, &app, &url, database.as_ref())?;
    let (stop, stopped) = watch::channel(false);
    use_tags(&args, &app, &stopped)?;

    let mut tasks = Tasks::default();
    tasks.spawn("the reload of keys", follow(keys, hangups, until(stopped.clone())));
    let hangups = signal(SignalKind::hangup())?;
    follow_certificate(&app, &stopped)?;
    if let Some(tuner) = tuner(&args.tuner, tuner_settings, &app).await {
        let stopped = until(stopped.clone());
        tasks.spawn("the tuner", async move { tuner.run(stopped).await });
    }
    if let Some(archiver) = archiver {
        let stopped = until(stopped.clone());
        tasks.spawn("the archive", async move { archiver.run(stopped).await });
    }
    let served = tasks.push(&push, &app, folder, database.is_some(), &stopped)?;
    drop(tokio::spawn(serve_reload::follow(Arc::clone(&app), args, hangups, until(stopped.clone()))));
    let (summarizer, summarizer_stopped) = (summarizer(&app), until(stopped.clone()));
    tasks.spawn("the task of the summaries", async move { summarizer.run(summarizer_stopped).await });
    stop_on_signals(stop)?;
    http::run(listener, routes::router(Arc::clone(&app)), app, until(stopped)).await;
    // An error means that no metrics are exported.
    let _ = served.send(true);
    tasks.join().await?;
    Ok(ExitCode::SUCCESS)
}

/// Uses a new certificate when its files change, and at SIGHUP.
fn follow_certificate(app: &App, stopped: &watch::Receiver<bool>) -> anyhow::Result<()> {
    let Some(tls) = app.tls.clone() else { return Ok(()) };
    let (hangups, stopped) = (signal(SignalKind::hangup())?, until(stopped.clone()));
    // It ends with the process: it writes nothing.
    drop(tokio::spawn(async move { tls.follow(hangups, stopped).await }));
    Ok(())
}

/// The tasks beside the server that write. They end their work when it stops.
#[derive(Default)]
struct Tasks(Vec<(&'static str, tokio::task::JoinHandle<()>)>);

impl Tasks {
    fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.0.push((name, tokio::spawn(task)));
    }

    /// Starts what sends to others. The returned channel ends the export of metrics: it sends for the last time when no
    /// batch can arrive any more.
    fn push(
        &mut self,
        push: &Push,
        app: &Arc<App>,
        folder: &Path,
        has_database: bool,
        stopped: &watch::Receiver<bool>,
    ) -> anyhow::Result<watch::Sender<bool>> {
        let (served, has_served) = watch::channel(false);
        if let Some(exporter) = push.exporter(app, folder)? {
            self.spawn("the export of metrics", exporter.run(until(has_served)));
        }
        if let Some(webhook) = push.webhook(app, folder, has_database)? {
            self.spawn("the webhook", webhook.run(until(stopped.clone())));
        }
        Ok(served)
    }

    /// Waits until all have ended.
    async fn join(self) -> anyhow::Result<()> {
        for (name, task) in self.0 {
            task.await.with_context(|| format!("{name} failed"))?;
        }
        Ok(())
    }
}

fn load_tls(args: &ServeArgs) -> anyhow::Result<Option<Arc<CurrentTls>>> {
    let tls = args.tls_files()?.map(CurrentTls::load).transpose()?.map(Arc::new);
    if let Some(warning) = tls.as_ref().and_then(|tls| tls.loaded().warning(now_us() / 1_000_000)) {
        tracing::warn!("{warning}");
    }
    Ok(tls)
}

/// Creates the data folder. Only its owner may read it, because it contains the measurements and digests of the keys.
fn create_folder(folder: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("cannot create the data folder {}", folder.display()))
}

/// Opens the store, and the archive when it is set.
async fn open(
    args: &ServeArgs,
    database: Option<&Database>,
    prices: &PriceTable,
) -> anyhow::Result<(Arc<dyn Store>, Option<Archiver>)> {
    let retention = Retention { hourly_days: args.hourly_days, daily_days: args.daily_days };
    let (store, archive_store): (Arc<dyn Store>, Arc<dyn ArchiveStore>) = match database {
        Some(database) => {
            let store = Arc::new(open_database(database, retention)?);
            (Arc::clone(&store) as Arc<dyn Store>, store)
        }
        None => {
            let store = Arc::new(open_store(&args.data, retention)?);
            (Arc::clone(&store) as Arc<dyn Store>, store)
        }
    };
    let archiver = args.archive.start(archive_store, &args.data, prices.clone(), args.daily_days).await?;
    Ok((store, archiver))
}

/// Writes the address, which `tailor functions` prints. After a crash the file stays, but the lock of the data folder is
/// released.
fn write_address(folder: &Path, url: &str) -> anyhow::Result<()> {
    match fs::write(folder.join(ADDRESS_FILE), format!("{url}\n")) {
        // On a full disk, stored data can still be read.
        Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
            tracing::warn!(%error, "cannot write the address to {}; trying again", folder.display());
            tokio::spawn(write_address_later(folder.to_owned(), url.to_owned()));
            Ok(())
        }
        written => written.with_context(|| format!("cannot write to {}", folder.display())),
    }
}

/// `app` with the settings of the arguments.
fn configured(mut app: App, args: &ServeArgs, key_sources: &KeySources) -> App {
    let reconciliations = LastReconciliations::of(&args.data);
    app.metrics.add(ReconciliationMetrics(reconciliations.clone()));
    App {
        connections: Arc::new(Connections::new(connection_limits(&args.connections).fitted_to_process())),
        recommendations: Some(Recommendations::of(&args.data)),
        reconciliations: Some(reconciliations),
        trusted_proxies: args.trusted_proxy.clone().into(),
        // Of several collectors with the same settings and no database, each would change only its own keys.
        key_sources: Some(key_sources.clone())
            .filter(|sources| sources.files.lines.is_none() || args.database.is_set()),
        usage_file: args.usage.clone(),
        metrics_functions: args.metrics_functions,
        data_folder: Some(args.data.clone()),
        ..app
    }
}

fn log_start(args: &ServeArgs, app: &App, url: &str, database: Option<&Database>) -> anyhow::Result<()> {
    tracing::info!("listening on {url}, data in {}", args.data.display());
    if let Some(database) = database {
        tracing::info!("measurements in the {database}");
    }
    if let Some(file) = &args.prices {
        tracing::info!("prices of {} from {}", app.prices.compiled(), file.display());
    }
    if args.local_reads {
        tracing::info!("open {url}/ (everyone on this machine can read)");
    } else if !logging::is_json() {
        // Programs that collect logs keep them, so that others could sign in.
        let ticket = app.sessions.issue_ticket(Tenant::default())?;
        tracing::info!("open {url}/login?ticket={ticket} (valid once; after that, sign in with a key)");
    }
    Ok(())
}

/// Keeps the tags that pipelines send, and follows the file with tags.
fn use_tags(args: &ServeArgs, app: &Arc<App>, stopped: &watch::Receiver<bool>) -> anyhow::Result<()> {
    app.tags.keep_sent(&args.data)?;
    if let Some(file) = args.tags.clone() {
        let tenant = Tenant::default();
        app.tags.set_file(&tenant, TagTable::read(&file)?);
        // It ends with the process: it writes nothing.
        drop(tokio::spawn(tags::follow(Arc::clone(&app.tags), tenant, file, until(stopped.clone()))));
    }
    Ok(())
}

fn summarizer(app: &App) -> Summarizer {
    Summarizer {
        store: Arc::clone(&app.store),
        prices: app.prices.clone(),
        clock: app.clock.clone(),
        enforcements: Arc::clone(&app.enforcements),
        fleet_sums: Arc::clone(&app.fleet_sums),
    }
}

/// SIGTERM and SIGINT stop the server.
fn stop_on_signals(stop: watch::Sender<bool>) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping: waiting for open requests");
        // An error means that there is no receiver, because the collector has already stopped.
        let _ = stop.send(true);
    });
    Ok(())
}

/// Writes the address when there is space for it.
async fn write_address_later(folder: PathBuf, url: String) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if fs::write(folder.join(ADDRESS_FILE), format!("{url}\n")).is_ok() {
            return;
        }
    }
}

fn connection_limits(args: &ConnectionArgs) -> ConnectionLimits {
    let size = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let limits = ConnectionLimits::of(size(args.max_connections));
    let max_per_address = args.max_connections_per_address.map_or(limits.max_per_address, size);
    ConnectionLimits { max_per_address, ..limits }
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, which also means to stop.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// What pages see of the tuner; nothing when it does not run.
fn view_of(settings: &Settings) -> Option<TunerView> {
    let requests = settings.requests.clone().filter(|_| settings.mode != Mode::Off)?;
    Some(TunerView { tenant: settings.tenant.clone(), latest_round: Arc::default(), requests })
}

/// The tuner, when it is on. Says which open changes its mode may not end.
async fn tuner(args: &super::tuner::TunerArgs, settings: Settings, app: &App) -> Option<Tuner> {
    unfinished::report(app.store.as_ref(), &settings.tenant, settings.mode).await;
    if settings.mode == Mode::Off {
        return None;
    }
    let lambda = Arc::new(args.lambda().await);
    if settings.mode.may_write() {
        tracing::info!("the tuner may change functions tagged `{TAG} = apply` or `{TAG} = apply-up`")
    } else {
        tracing::info!("the tuner runs in the mode `{}` and changes nothing", settings.mode)
    }
    let tuner = Tuner::new(Arc::clone(&app.store), lambda, app.prices.clone(), settings, app.clock.clone())
        .with_tags(Arc::clone(&app.tags))
        .with_refusals(Arc::clone(&app.refusals));
    Some(match &app.tuner {
        Some(view) => tuner.with_latest_round(Arc::clone(&view.latest_round)),
        None => tuner,
    })
}

fn open_database(database: &Database, retention: Retention) -> anyhow::Result<PostgresStore> {
    let store = PostgresStore::open_with(database, Clock::system(), retention);
    store.with_context(|| format!("cannot open the {database}"))
}

/// Opens the store, or on a full disk opens it for reading only.
fn open_store(folder: &Path, retention: Retention) -> anyhow::Result<SqliteStore> {
    /// Less free space than this explains why the store cannot be opened.
    const FULL_BYTES: u64 = 1 << 20;
    let clock = Clock::system();
    let failed = match SqliteStore::open_with(folder, clock.clone(), retention) {
        Ok(store) => return Ok(store),
        Err(error) => error,
    };
    let is_full = free_bytes(folder).is_ok_and(|free| free < FULL_BYTES);
    let store = if is_full { SqliteStore::open_on_full_disk(folder, clock, retention).ok() } else { None };
    match store {
        Some(store) => {
            tracing::error!(
                "no space left in {}: stored data can be read, and batches are refused until there is space again",
                folder.display()
            );
            Ok(store)
        }
        None => Err(failed).with_context(|| format!("cannot open the store in {}", folder.display())),
    }
}

/// Loads the keys. The first start creates two: one that may do everything, and one for the functions, which only sends.
async fn load_keys(sources: &KeySources) -> anyhow::Result<Follower> {
    let files = &sources.files;
    let has_folder_file = files.folder.as_deref().is_some_and(|folder| folder::path_of(folder).exists());
    let has_files = files.operator_file.is_some() || files.lines.is_some() || has_folder_file;
    if !has_files && let Some([ingest, admin]) = sources.create_first().await? {
        tracing::info!(
            "created two API keys: {} only sends, for TAILOR_API_KEY of the functions; {} has all scopes. Copy them, \
             then delete the files",
            ingest.display(),
            admin.display()
        );
    }
    let keys = Follower::start(sources.clone()).await?;
    if keys.keys().get().is_empty() {
        tracing::warn!("there is no API key: `tailor keys create` creates one");
    }
    Ok(keys)
}

/// Makes the files of the data folder private. Those of earlier versions could be read by others.
fn keep_private(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let mode = entry.metadata()?.permissions().mode();
        if entry.file_type()?.is_file() && mode & 0o077 != 0 && is_ours(&entry.file_name()) {
            fs::set_permissions(entry.path(), fs::Permissions::from_mode(mode & 0o700))?;
        }
    }
    Ok(())
}

/// Whether a file of the data folder was written by the collector.
fn is_ours(name: &std::ffi::OsStr) -> bool {
    name.to_str().is_some_and(|name| {
        [
            "tailor.sqlite",
            "serve.lock",
            "store-id",
            crate::tuner::requests::FOLDER,
            ADDRESS_FILE,
            "sent-tags",
            "keys",
            "key-use",
            crate::archive::request::FILE_NAME,
            crate::push::FILE_NAME,
            crate::push::ID_FILE,
            FIRST_KEY_FILE,
            INGEST_KEY_FILE,
        ]
        .iter()
        .any(|ours| name.starts_with(ours))
    })
}
