//! `tailor lambda`: the collector as a Lambda function behind a function URL, with its store in a database.
//!
//! The program is the function's runtime (`bootstrap`). An event of the function URL is a request to the collector. Any other
//! event, such as that of a schedule, does the maintenance and sends events to the webhook: Lambda freezes the environment between
//! invocations, so nothing runs in the background then.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use axum::response::IntoResponse;
use clap::Args;
use lambda_http::request::RequestContext;
use lambda_http::{Request, RequestExt};
use tokio::sync::Mutex;
use tower::ServiceExt;

use super::archive::S3Args;
use super::database::DatabaseArgs;
use super::profiles::ProfileArgs;
use super::push::WebhookArgs;
use super::serve_arguments::LogArgs;
use crate::clock::Clock;
use crate::http::App;
use crate::http::server::{OverTls, Peer};
use crate::keys::KeyRing;
use crate::keys::reload::{Follower, KeyFiles};
use crate::keys::sources::KeySources;
use crate::push::QueueStore;
use crate::push::metrics::WebhookMetrics;
use crate::push::webhook::{Webhook, WebhookSettings};
use crate::report::summaries::Summarizer;
use crate::store::KeyStore;
use crate::store::postgres::PostgresStore;
use crate::store::sqlite::Retention;
use crate::tuner::mode::Mode;
use crate::{prices, routes};

/// How long one invocation of the schedule computes summaries. What is left is computed by the next one.
const SUMMARIES_LIMIT: Duration = Duration::from_secs(20);

/// How long one invocation of the schedule searches for events and sends them. What is left is sent by the next one.
const WEBHOOK_LIMIT: Duration = Duration::from_secs(15);

/// The setting of the tuner, whose mode `off` is no problem here.
const TUNER_VARIABLE: &str = "TAILOR_TUNER";

/// Settings of `tailor serve` that do not work here: what is missing, and what to do in place of it.
const OTHER_SETTINGS: [(&str, &str, &str); 5] = [
    (
        "TAILOR_OTLP_ENDPOINT",
        "sends no metrics as OTLP: their counters are in the memory of each environment, which Lambda ends without notice",
        "send them with a `tailor serve` that receives the batches",
    ),
    (
        "TAILOR_ARCHIVE",
        "writes no archive of invocations: nothing runs between two requests that could upload it",
        "for an archive run `tailor serve`, on Fargate or an instance",
    ),
    (
        "TAILOR_TAGS",
        "has no tags of functions",
        "use `tailor functions --database URL --tags FILE`, or run `tailor serve` on Fargate or an instance",
    ),
    (
        "TAILOR_USAGE",
        "reads no file with usage",
        "use `tailor bill --database URL --usage FILE`, or run `tailor serve` on Fargate or an instance",
    ),
    (
        TUNER_VARIABLE,
        "does not run the tuner: its rounds take longer than a request",
        "run `tailor serve` with the same database, on Fargate or an instance",
    ),
];

/// Without it, the program does not run in Lambda.
const RUNTIME_VARIABLE: &str = "AWS_LAMBDA_RUNTIME_API";

#[derive(Debug, Args)]
pub(super) struct LambdaArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// The API keys, in the form of a key file, with `;` or a new line between two keys. Use digests (`sha256:`), because everyone
    /// who can read the function's configuration can read them: `sha256:DIGEST scopes=ingest; sha256:DIGEST scopes=read,admin`.
    #[arg(long, env = "TAILOR_API_KEYS", hide_env_values = true, value_name = "LINES")]
    api_keys: Option<String>,
    /// File with API keys, as for `tailor serve`.
    #[arg(long, env = "TAILOR_API_KEY_FILE", value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// File with Lambda's prices in place of the built-in ones, as for `tailor serve`.
    #[arg(long, value_name = "FILE", env = "TAILOR_PRICES")]
    prices: Option<PathBuf>,
    /// Days with one rollup per hour.
    #[arg(long, help_heading = "Data", env = "TAILOR_HOURLY_DAYS", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=400))]
    hourly_days: u64,
    /// Days with rollups. Older measurements are deleted.
    #[arg(long, help_heading = "Data", env = "TAILOR_DAILY_DAYS", default_value_t = 400, value_parser = clap::value_parser!(u64).range(2..=4000))]
    daily_days: u64,
    #[command(flatten)]
    profiles: ProfileArgs,
    #[command(flatten)]
    s3: S3Args,
    #[command(flatten)]
    webhook: WebhookArgs,
    #[command(flatten)]
    pub(super) log: LogArgs,
}

pub(super) fn run(args: &LambdaArgs) -> anyhow::Result<ExitCode> {
    if std::env::var_os(RUNTIME_VARIABLE).is_none() {
        bail!(
            "`tailor lambda` runs in a Lambda function only ({RUNTIME_VARIABLE} is not set): use `tailor serve` on a machine"
        );
    }
    refuse_other_settings()?;
    let webhook = args.webhook.settings()?;
    let Some(database) = args.database.database()? else {
        bail!(
            "a Lambda function needs a database, because its files are lost with its environment: set TAILOR_DATABASE"
        );
    };
    let retention = Retention { hourly_days: args.hourly_days, daily_days: args.daily_days };
    let store = PostgresStore::open_with(&database, Clock::system(), retention);
    let store = Arc::new(store.with_context(|| format!("cannot open the {database}"))?);
    let sources =
        KeySources { store: Some(Arc::clone(&store) as Arc<dyn KeyStore>), files: args.key_files() };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    let keys = runtime.block_on(Follower::start(sources))?;
    if keys.keys().get().is_empty() {
        bail!("there is no API key: create one with `tailor keys create --database`, or set TAILOR_API_KEYS");
    }
    let app = App::new(Arc::clone(&store) as Arc<dyn crate::store::Store>, KeyRing::default(), false);
    let prices = prices::load(args.prices.as_deref())?;
    let profiles = runtime.block_on(args.profiles.open(&args.s3));
    let mut app = App { prices, profiles, keys: keys.keys(), ..app };
    let webhook_metrics = WebhookMetrics::default();
    if webhook.is_some() {
        app.metrics.register(|registry| webhook_metrics.register(registry));
    }
    let app = Arc::new(app);
    let webhook = webhook.map(|settings| webhook_of(&app, settings, webhook_metrics)).transpose()?;
    tracing::info!("measurements in the {database}");
    runtime.block_on(answer(app, store, keys, webhook))?;
    Ok(ExitCode::SUCCESS)
}

/// Refuses settings of `tailor serve` that would have no effect.
fn refuse_other_settings() -> anyhow::Result<()> {
    for (name, missing, instead) in OTHER_SETTINGS {
        let value = std::env::var(name).unwrap_or_default();
        let is_off = name == TUNER_VARIABLE && value == Mode::Off.as_str();
        ensure!(value.is_empty() || is_off, "`tailor lambda` {missing}. Remove {name}, and {instead}");
    }
    Ok(())
}

impl LambdaArgs {
    fn key_files(&self) -> KeyFiles {
        KeyFiles { folder: None, operator_file: self.api_key_file.clone(), lines: self.api_keys.clone() }
    }
}

/// The webhook, whose queue is in the database.
fn webhook_of(app: &Arc<App>, settings: WebhookSettings, metrics: WebhookMetrics) -> anyhow::Result<Webhook> {
    let queue = QueueStore::Database(Arc::clone(&app.store), settings.tenant.clone());
    Webhook::new(Arc::clone(app), settings, queue, metrics)
}

/// Answers events until Lambda ends the environment.
async fn answer(
    app: Arc<App>,
    store: Arc<PostgresStore>,
    keys: Follower,
    webhook: Option<Webhook>,
) -> anyhow::Result<()> {
    let (keys, webhook) = (Arc::new(Mutex::new(keys)), Arc::new(Mutex::new(webhook)));
    let routes = routes::router(Arc::clone(&app));
    let service = tower::service_fn(move |request: Request| {
        let (routes, app, store) = (routes.clone(), Arc::clone(&app), Arc::clone(&store));
        let (keys, webhook) = (Arc::clone(&keys), Arc::clone(&webhook));
        async move {
            let source = match request.request_context_ref() {
                Some(RequestContext::ApiGatewayV2(context)) => context.http.source_ip.clone(),
                // A path in an event cannot lead here: only events that are no HTTP requests have this context.
                _ => {
                    keys.lock().await.save_uses().await;
                    let done = maintain(&app, &store).await?;
                    // After the summaries, which have the recommendations.
                    if let Some(webhook) = webhook.lock().await.as_mut() {
                        send_events(webhook).await;
                    }
                    return Ok::<_, lambda_http::Error>(done.into_response());
                }
            };
            // Nothing runs in the background. One request at a time is in an environment.
            keys.lock().await.check_if_due().await;
            let mut request = request.map(axum::body::Body::new);
            request.extensions_mut().insert(OverTls);
            let address = source.and_then(|address| address.parse::<IpAddr>().ok());
            if let Some(address) = address {
                request.extensions_mut().insert(Peer(SocketAddr::new(address, 0)));
            }
            match routes.oneshot(request).await {
                Ok(response) => Ok(response),
                Err(impossible) => match impossible {},
            }
        }
    });
    let ended = lambda_http::run(service).await;
    ended.map_err(|error| anyhow!("the runtime ended: {error}"))
}

/// Maintenance of the store, and summaries of functions that changed.
async fn maintain(app: &App, store: &PostgresStore) -> Result<&'static str, lambda_http::Error> {
    let start = Instant::now();
    store.maintain().await?;
    let summarizer = Summarizer {
        store: Arc::clone(&app.store),
        prices: app.prices.clone(),
        clock: app.clock.clone(),
        enforcements: Arc::clone(&app.enforcements),
        fleet_sums: Arc::clone(&app.fleet_sums),
    };
    let mut functions = 0;
    while start.elapsed() < SUMMARIES_LIMIT {
        match summarizer.step().await? {
            0 => break,
            number => functions += number,
        }
    }
    tracing::info!(functions, "maintenance and summaries are done");
    Ok("{}")
}

/// Searches for events and sends them. The maintenance is done in any case.
async fn send_events(webhook: &mut Webhook) {
    match tokio::time::timeout(WEBHOOK_LIMIT, webhook.run_once()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(%error, "cannot search for events of the webhook; trying again later")
        }
        Err(_) => {
            tracing::warn!("not all events were sent to the webhook in {WEBHOOK_LIMIT:?}; trying again later")
        }
    }
}
