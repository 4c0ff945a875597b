//! The JSON API, version 1. The same reports as everywhere; see [`crate::report`] for the fields.
//!
//! `?format=` selects the text formats of the command line, so that `tailor functions --server` prints the same text as for a
//! data folder.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde::Serialize;

use tailor_sizing::telemetry::invocation::{Initialization, Outcome};
use tailor_sizing::units::Megabytes;

use crate::changes;
use crate::changes::selection::ChangeSelection;
use crate::http::App;
use crate::http::auth::ApiReader;
use crate::http::error::ApiError;
use crate::http::extract::FunctionName;
use crate::query::{self, Format, ListQuery, Query, named};
use crate::render::changes::Changes;
use crate::render::json::json;
use crate::render::output::write;
use crate::render::table::FunctionsOfOneName;
use crate::report::threads::ThreadClasses;
use crate::report::{self, FunctionReport};
use crate::store::{FunctionKey, Recent, Store, Tenant};

pub mod bill;
pub mod openapi;
pub mod placement;
pub mod profiles;
pub mod reconciliation;
pub mod series;
pub mod tags;
pub mod version;

/// `GET /v1/functions`.
pub async fn functions(
    State(app): State<Arc<App>>,
    ApiReader(tenant): ApiReader,
    query: Query,
) -> Result<Response, ApiError> {
    let fleet = report::fleet(&app.report_request(&tenant, &query)?, &list(&query)?).await?;
    let format = query.format.unwrap_or(Format::Json);
    Ok(list_text(format, write(&fleet, format, query.style()), fleet.functions.is_empty()))
}

/// The list that a query selects.
///
/// # Errors
/// 400 when a parameter is not valid.
pub fn list(query: &Query) -> Result<ListQuery, ApiError> {
    check_cursor(query.list())
}

/// The functions that a query selects, in the default order.
pub(crate) fn filters(query: &Query) -> Result<ListQuery, ApiError> {
    check_cursor(query.filters())
}

fn check_cursor(list: Result<ListQuery, String>) -> Result<ListQuery, ApiError> {
    let list = list.map_err(|cause| ApiError::bad_request("query", cause))?;
    if list.cursor.as_deref().is_some_and(|cursor| !report::list::is_cursor(cursor)) {
        let message = "`cursor` is the field `next` of the page before";
        return Err(ApiError::bad_request("query", message));
    }
    Ok(list)
}

/// `GET /v1/functions/{name}`.
pub async fn function(
    State(app): State<Arc<App>>,
    ApiReader(tenant): ApiReader,
    FunctionName(name): FunctionName,
    query: Query,
) -> Result<Response, ApiError> {
    let report = one_function(&app, &tenant, &name, &query).await?;
    let format = query.format.unwrap_or(Format::Json);
    Ok(text(format, write(&FunctionsOfOneName(&[report]), format, query.style())))
}

/// One invocation.
#[derive(Debug, Serialize)]
pub struct InvocationReport {
    /// The request id.
    pub request_id: String,
    /// When it began, microseconds since the epoch.
    pub started_at_us: u64,
    /// The environment it ran in.
    pub environment: String,
    /// Memory size it ran with.
    #[serde(rename = "memory_mb")]
    pub memory: Megabytes,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether its caller waited for an environment.
    pub cold_start: bool,
    /// How its environment was initialized, see docs/initialization.md.
    pub initialization: Initialization,
    /// Duration, ms.
    pub duration_ms: f64,
    /// Billed time, ms.
    pub billed_ms: u64,
    /// Init that belongs to it, ms; part of the duration when it ran inside the invocation.
    pub init_ms: f64,
    /// Highest memory of its processes, KiB; 0 when unknown.
    pub peak_kib: u64,
    /// The platform's `maxMemoryUsedMB`: the highest memory of the environment until then, MB; `null` when unknown.
    pub max_memory_used_mb: Option<u32>,
    /// CPU time, ms; `null` when not measured.
    pub busy_ms: Option<f64>,
    /// Time it was ready to run and had no CPU, ms; `null` when not measured.
    pub starved_ms: Option<f64>,
    /// Time with nothing to run, ms; `null` when not measured.
    pub idle_ms: Option<f64>,
    /// CPU time of the environment that no known process accounts for, ms, since the last comparison; `null` when not
    /// measured.
    pub unaccounted_ms: Option<f64>,
    /// What the threads did, by class; `null` when not measured.
    pub thread_classes: Option<ThreadClasses>,
    /// Time in which a thread of the environment waited for a CPU, ms; 0 where the kernel does not show it, `null` when not
    /// measured.
    pub cpu_pressure_ms: Option<f64>,
    /// Periods of the CPU quota; 0 where the kernel does not show them, `null` when not measured.
    pub quota_periods: Option<u64>,
    /// Those that were throttled.
    pub throttled_periods: Option<u64>,
    /// Duration of the handler alone, ms; `null` when the platform did not report it.
    pub runtime_ms: Option<f64>,
    /// Time of extensions after the runtime answered, ms; `null` when the platform did not report both durations.
    pub post_runtime_ms: Option<f64>,
    /// Duration of a SnapStart restore, ms; `null` when there was none.
    pub restore_ms: Option<f64>,
    /// Size of the response, bytes.
    pub produced_bytes: u64,
    /// Resident memory of its processes at the start, KiB; `null` when not measured.
    pub start_kib: Option<u64>,
    /// Highest number of threads; `null` when not measured.
    pub threads: Option<u32>,
    /// Highest number of open file descriptors; `null` when not measured.
    pub descriptors: Option<u32>,
    /// `/tmp` in use at the end, KiB; `null` when it was empty or not measured.
    pub tmp_used_kib: Option<u64>,
    /// TCP connections opened; `null` when not measured.
    pub connections_opened: Option<u64>,
    /// Bytes received from the network; `null` when not measured.
    pub network_received_bytes: Option<u64>,
    /// Bytes sent to the network; `null` when not measured.
    pub network_sent_bytes: Option<u64>,
    /// Bytes read from storage; `null` when not measured.
    pub disk_read_bytes: Option<u64>,
    /// Bytes written to storage; `null` when not measured.
    pub disk_written_bytes: Option<u64>,
    /// Page faults served from memory; `null` when not measured.
    pub minor_faults: Option<u64>,
    /// Context switches forced on a thread; `null` when not measured.
    pub involuntary_switches: Option<u64>,
}

impl From<Recent> for InvocationReport {
    fn from(Recent { environment, memory, invocation }: Recent) -> Self {
        let ms = |us: u64| us as f64 / 1_000.0;
        Self {
            request_id: invocation.request_id.to_string(),
            started_at_us: invocation.started_at_us,
            environment: environment.to_string(),
            memory,
            outcome: invocation.outcome,
            cold_start: invocation.is_cold_start(),
            initialization: invocation.initialization,
            duration_ms: ms(invocation.duration_us),
            billed_ms: invocation.billed_ms,
            init_ms: ms(invocation.init_us),
            peak_kib: invocation.peak_kib,
            max_memory_used_mb: (invocation.max_memory_used_mb > 0).then_some(invocation.max_memory_used_mb),
            busy_ms: invocation.work.map(|work| ms(work.busy_us())),
            starved_ms: invocation.work.map(|work| ms(work.starved_us)),
            idle_ms: invocation.work.map(|work| ms(work.idle_us)),
            unaccounted_ms: invocation.work.map(|work| ms(work.unaccounted_us)),
            thread_classes: invocation.work.and_then(|work| ThreadClasses::of(&work, 1)),
            cpu_pressure_ms: invocation.work.map(|work| ms(work.pressure_us)),
            quota_periods: invocation.work.map(|work| work.quota_periods),
            throttled_periods: invocation.work.map(|work| work.throttled_periods),
            runtime_ms: (invocation.runtime_us > 0).then(|| ms(invocation.runtime_us)),
            post_runtime_ms: invocation.has_post_runtime_time().then(|| ms(invocation.post_runtime_us())),
            restore_ms: (invocation.restore_us > 0).then(|| ms(invocation.restore_us)),
            produced_bytes: invocation.produced_bytes,
            start_kib: (invocation.start_kib > 0).then_some(invocation.start_kib),
            threads: (invocation.threads > 0).then_some(invocation.threads),
            descriptors: (invocation.descriptors > 0).then_some(invocation.descriptors),
            tmp_used_kib: (invocation.tmp_used_kib > 0).then_some(invocation.tmp_used_kib),
            connections_opened: invocation.work.map(|work| work.sockets_opened),
            network_received_bytes: invocation.work.map(|work| work.network_rx_bytes),
            network_sent_bytes: invocation.work.map(|work| work.network_tx_bytes),
            disk_read_bytes: invocation.work.map(|work| work.disk_read_bytes),
            disk_written_bytes: invocation.work.map(|work| work.disk_written_bytes),
            minor_faults: invocation.work.map(|work| work.minor_faults),
            involuntary_switches: invocation.work.map(|work| work.involuntary_switches),
        }
    }
}

/// `GET /v1/functions/{name}/invocations`: the most recent ones, newest first; `?limit=` up to 1,000.
pub async fn invocations(
    State(app): State<Arc<App>>,
    ApiReader(tenant): ApiReader,
    FunctionName(name): FunctionName,
    query: Query,
) -> Result<Response, ApiError> {
    let key = find(app.store.as_ref(), &tenant, &name, &query).await?;
    let limit = query.limit.unwrap_or(100);
    let recent = recent_invocations(&app, &tenant, &key, limit).await?;
    Ok(text(Format::Json, json(&serde_json::json!({ "invocations": recent }), query.style())))
}

/// The most recent invocations of a function, newest first.
///
/// # Errors
/// 503 when the store cannot be read.
pub async fn recent_invocations(
    app: &App,
    tenant: &Tenant,
    key: &FunctionKey,
    limit: usize,
) -> Result<Vec<InvocationReport>, ApiError> {
    let recent = app.store.recent(tenant, key, limit).await?;
    Ok(recent.into_iter().map(InvocationReport::from).collect())
}

/// `GET /v1/changes`.
pub async fn changes(
    State(app): State<Arc<App>>,
    ApiReader(tenant): ApiReader,
    query: Query,
) -> Result<Response, ApiError> {
    let selection = change_selection(&app, &query)?;
    let changes = selection.of(changes::fold(app.store.changes(&tenant, None).await?));
    let format = query.format.unwrap_or(Format::Json);
    Ok(text(format, write(&Changes(&changes), format, query.style())))
}

/// The changes that a query selects; all without `hours` and `since`.
fn change_selection(app: &App, query: &Query) -> Result<ChangeSelection, ApiError> {
    let bad = |cause: String| ApiError::bad_request("query", cause);
    let filter = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let state = filter(&query.state).map(|state| {
        let unknown = || bad(format!("`state={state}` is not a state of a change"));
        named::<changes::State>(&state).ok_or_else(unknown)
    });
    Ok(ChangeSelection {
        name: filter(&query.name),
        account: filter(&query.account),
        region: filter(&query.region),
        state: state.transpose()?,
        since_us: query.hours.map_or(0, |hours| query::last_hours(app.clock.now_us(), hours).from_us()),
        sort: query.sort().map_err(bad)?,
        is_reversed: query.reverse,
        limit: query.limit,
    })
}

/// How long the readiness check may take.
const READY_TIMEOUT: Duration = Duration::from_millis(100);

/// `GET /readyz`: whether the next batch can be stored. It does not wait for reports.
///
/// # Errors
/// 503 with the cause: the disk is full, the files were deleted or replaced, the last write failed, or no answer in time.
pub async fn ready(State(app): State<Arc<App>>) -> Result<String, ApiError> {
    let checked = tokio::time::timeout(READY_TIMEOUT, app.store.check()).await;
    checked.map_err(|_| ApiError::unavailable("store", "the store did not answer within 100 ms"))??;
    let damaged = app.store.damage().rows;
    Ok(if damaged == 0 {
        "ready\n".to_owned()
    } else {
        format!("ready; {damaged} stored rows are damaged and are skipped\n")
    })
}

/// The report on a function, which has none when it was not measured in the window.
fn in_window<T>(report: Option<T>, name: &str) -> Result<T, ApiError> {
    report.ok_or_else(|| ApiError::not_found(format!("no measurements of `{name}` in this window")))
}

/// The report of the one function of that name, region and account.
///
/// # Errors
/// 404 when there is none, 409 when there are several.
pub async fn one_function(
    app: &App,
    tenant: &Tenant,
    name: &str,
    query: &Query,
) -> Result<FunctionReport, ApiError> {
    let request = app.report_request(tenant, query)?;
    let key = find(app.store.as_ref(), tenant, name, query).await?;
    let report = report::function(&request, &key).await?;
    let mut report = in_window(report, name)?;
    if let Some(recommendations) = app.recommendations.clone() {
        let tenant = tenant.clone();
        let read = tokio::task::spawn_blocking(move || recommendations.for_function(&tenant, &key));
        match read.await.map_err(anyhow::Error::from).flatten() {
            Ok(others) => report.other_recommendations = others,
            // The report is complete without them.
            Err(error) => tracing::warn!("cannot show the recommendations of other tools: {error:#}"),
        }
    }
    profiles::add_to(app, tenant, &mut report).await;
    Ok(report)
}

async fn find(
    store: &dyn Store,
    tenant: &Tenant,
    name: &str,
    query: &Query,
) -> Result<FunctionKey, ApiError> {
    let mut keys = store.functions(tenant, Some(name), usize::MAX).await?;
    keys.retain(|key| query.names(key));
    match keys.len() {
        0 => Err(ApiError::not_found(format!("no measurements of `{name}`"))),
        1 => Ok(keys.remove(0)),
        several => Err(ApiError::new(
            http::StatusCode::CONFLICT,
            "ambiguous",
            format!("{several} functions are named `{name}`: add `region` or `account`"),
        )),
    }
}

/// The header of a list without entries, which only some formats show.
pub const EMPTY_HEADER: &str = "tailor-empty";

/// The text of a list.
fn list_text(format: Format, body: String, is_empty: bool) -> Response {
    let mut response = text(format, body);
    if is_empty {
        response.headers_mut().insert(EMPTY_HEADER, HeaderValue::from_static("true"));
    }
    response
}

fn text(format: Format, body: String) -> Response {
    let media_type = match format {
        Format::Json => "application/json",
        Format::Yaml => "application/yaml",
        Format::Csv => "text/csv; charset=utf-8",
        Format::Table | Format::Markdown => "text/plain; charset=utf-8",
    };
    ([(header::CONTENT_TYPE, HeaderValue::from_static(media_type))], body).into_response()
}
