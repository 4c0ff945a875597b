//! The JSON API, version 1. The same reports as everywhere; see [`crate::report`] for the fields.
//!
//! `?format=` asks for the text forms of the command line, which is how `tailor summary --server` prints
//! exactly what it would print beside the data.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderValue, header};
use serde::{Deserialize, Serialize};

use tailor_sizing::advice::strategy::Strategy;
use tailor_sizing::telemetry::invocation::Outcome;
use tailor_sizing::units::Megabytes;

use crate::clock::now_us;
use crate::http::App;
use crate::http::access::ApiReader;
use crate::http::error::ApiError;
use crate::report::table::{self, DEFAULT_WIDTH, Format, Look};
use crate::report::units::path_segment;
use crate::report::{self, FunctionReport};
use crate::store::{FunctionKey, HOUR_US, Recent, Store, Tenant, Window};
use crate::tuner::change;

/// Hours shown when nothing else is asked for: a month.
pub const DEFAULT_HOURS: u64 = 30 * 24;

/// What a request for reports may say.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Wanted {
    /// Hours back from now; 30 days when absent.
    pub(crate) hours: Option<u64>,
    /// `cost`, `speed` or `balanced`; the last when absent.
    pub(crate) strategy: Option<String>,
    /// For `balanced`: 1 is all cost, 0 all speed.
    weight: Option<f64>,
    /// For a function whose name is not unique.
    region: Option<String>,
    /// For a function whose name is not unique.
    account: Option<String>,
    /// Anything but JSON.
    format: Option<Format>,
    /// Rows of a list.
    limit: Option<usize>,
    /// Characters in a line of a table.
    width: Option<usize>,
    /// Whether the table may be coloured.
    colour: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for Wanted {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let asked = Query::<Self>::from_request_parts(parts, state).await;
        asked.map(|Query(wanted)| wanted).map_err(|rejection| {
            let why = std::error::Error::source(&rejection)
                .map_or_else(|| rejection.body_text(), ToString::to_string);
            ApiError::bad_request(
                "query",
                format!("the address asks for something that cannot be read: {why}"),
            )
        })
    }
}

impl Wanted {
    /// The window asked for, to the end of time: clocks that run ahead are not hidden.
    #[must_use]
    pub fn window(&self) -> Window {
        last_hours(self.hours.unwrap_or(DEFAULT_HOURS))
    }

    /// The strategy asked for.
    ///
    /// # Errors
    /// 400 for a name that is none.
    pub fn strategy(&self) -> Result<Strategy, ApiError> {
        strategy(self.strategy.as_deref(), self.weight)
            .ok_or_else(|| ApiError::bad_request("strategy", STRATEGIES))
    }

    /// The same page with another window and strategy.
    pub(crate) fn link(&self, hours: u64, strategy: &str) -> String {
        let mut link = format!("?hours={hours}&strategy={}", path_segment(strategy));
        for (name, value) in [("region", &self.region), ("account", &self.account)] {
            if let Some(value) = value {
                link.push_str(&format!("&{name}={}", path_segment(value)));
            }
        }
        link
    }

    /// The page of a function, with this window and strategy.
    pub(crate) fn function_link(&self, key: &FunctionKey) -> String {
        let hours = self.hours.unwrap_or(DEFAULT_HOURS);
        let strategy = self.strategy.as_deref().unwrap_or("balanced");
        format!(
            "/functions/{}?hours={hours}&strategy={}&region={}&account={}",
            path_segment(&key.name),
            path_segment(strategy),
            path_segment(&key.region),
            path_segment(&key.account)
        )
    }

    fn look(&self) -> Look {
        Look { colour: self.colour, width: self.width.unwrap_or(DEFAULT_WIDTH).clamp(40, 1_000) }
    }

    fn names(&self, key: &FunctionKey) -> bool {
        self.region.as_ref().is_none_or(|region| *region == key.region)
            && self.account.as_ref().is_none_or(|account| *account == key.account)
    }
}

/// The window of the last hours.
#[must_use]
pub fn last_hours(hours: u64) -> Window {
    let from_us = now_us().saturating_sub(hours.saturating_mul(HOUR_US));
    Window { from_hour: from_us / HOUR_US, ..Window::ALL }
}

/// What a strategy may be called.
pub const STRATEGIES: &str =
    "a strategy is cost, speed, balanced or, for a service level, like p95=300 (milliseconds)";

/// The strategy of a name and a weight; the default of none.
#[must_use]
pub fn strategy(name: Option<&str>, weight: Option<f64>) -> Option<Strategy> {
    match name {
        Some("cost") => Some(Strategy::Cost),
        Some("speed") => Some(Strategy::Speed),
        Some("balanced") | None => {
            Some(weight.map_or_else(Strategy::default, |weight| Strategy::Balanced { weight }))
        }
        Some(objective) => slo(objective),
    }
}

/// `p95=300`: the cheapest size at which that part of all invocations takes at most so many milliseconds.
fn slo(objective: &str) -> Option<Strategy> {
    let (percentile, target_ms) = objective.strip_prefix('p')?.split_once('=')?;
    let (percentile, target_ms): (f64, f64) = (percentile.parse().ok()?, target_ms.parse().ok()?);
    let is_sane = (50.0..100.0).contains(&percentile) && target_ms > 0.0 && target_ms.is_finite();
    is_sane.then_some(Strategy::Slo { quantile: percentile / 100.0, target_ms })
}

/// `GET /v1/functions`.
pub async fn functions(
    State(app): State<Arc<App>>,
    ApiReader(tenant): ApiReader,
    wanted: Wanted,
) -> Result<Response, ApiError> {
    let strategy = wanted.strategy()?;
    let fleet = report::fleet(app.store.as_ref(), &tenant, wanted.window(), &app.prices, strategy).await?;
    let format = wanted.format.unwrap_or(Format::Json);
    Ok(text(format, table::fleet(&fleet, format, wanted.look())))
}

/// `GET /v1/functions/{name}`.
pub async fn function(
    State(app): State<Arc<App>>,
    ApiReader(tenant): ApiReader,
    Path(name): Path<String>,
    wanted: Wanted,
) -> Result<Response, ApiError> {
    let report = one_function(&app, &tenant, &name, &wanted).await?;
    let format = wanted.format.unwrap_or(Format::Json);
    Ok(text(format, table::function(&report, format, wanted.look())))
}

/// One invocation, for a closer look.
#[derive(Debug, Serialize)]
pub struct InvocationReport {
    /// Lambda's id of it.
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
    /// Whether it was the first of its environment.
    pub cold_start: bool,
    /// Duration, ms.
    pub duration_ms: f64,
    /// Billed time, ms.
    pub billed_ms: u64,
    /// Init of a cold start, ms.
    pub init_ms: f64,
    /// Highest memory of its processes, KiB; 0 when unknown.
    pub peak_kib: u64,
    /// CPU time, ms; `null` when not measured.
    pub busy_ms: Option<f64>,
    /// Time it wanted to run and had no CPU, ms; `null` when not measured.
    pub starved_ms: Option<f64>,
    /// Time with nothing to run, ms; `null` when not measured.
    pub idle_ms: Option<f64>,
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
            cold_start: invocation.cold_start,
            duration_ms: ms(invocation.duration_us),
            billed_ms: invocation.billed_ms,
            init_ms: ms(invocation.init_us),
            peak_kib: invocation.peak_kib,
            busy_ms: invocation.work.map(|work| ms(work.busy_us())),
            starved_ms: invocation.work.map(|work| ms(work.starved_us)),
            idle_ms: invocation.work.map(|work| ms(work.idle_us)),
        }
    }
}

/// `GET /v1/functions/{name}/invocations`: the most recent ones, newest first; `?limit=` up to 1,000.
pub async fn invocations(
    State(app): State<Arc<App>>,
    ApiReader(tenant): ApiReader,
    Path(name): Path<String>,
    wanted: Wanted,
) -> Result<Response, ApiError> {
    let key = find(app.store.as_ref(), &tenant, &name, &wanted).await?;
    let limit = wanted.limit.unwrap_or(100).min(1_000);
    let recent = recent_invocations(&app, &tenant, &key, limit).await?;
    Ok(text(Format::Json, table::json(&serde_json::json!({ "invocations": recent }))))
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
    wanted: Wanted,
) -> Result<Response, ApiError> {
    let changes = change::fold(app.store.changes(&tenant, None).await?);
    let format = wanted.format.unwrap_or(Format::Json);
    Ok(text(format, table::changes(&changes, format, wanted.look())))
}

/// `GET /readyz`: whether the store answers.
pub async fn ready(State(app): State<Arc<App>>) -> Result<&'static str, ApiError> {
    app.store.check().await?;
    Ok("ready\n")
}

/// The report of the one function of that name, region and account.
///
/// # Errors
/// 404 when there is none, 409 when there are several.
pub async fn one_function(
    app: &App,
    tenant: &Tenant,
    name: &str,
    wanted: &Wanted,
) -> Result<FunctionReport, ApiError> {
    let strategy = wanted.strategy()?;
    let key = find(app.store.as_ref(), tenant, name, wanted).await?;
    report::function(app.store.as_ref(), tenant, &key, wanted.window(), &app.prices, strategy)
        .await?
        .ok_or_else(|| ApiError::not_found(format!("nothing was measured of `{name}` in this window")))
}

async fn find(
    store: &dyn Store,
    tenant: &Tenant,
    name: &str,
    wanted: &Wanted,
) -> Result<FunctionKey, ApiError> {
    let mut keys = store.functions(tenant).await?;
    keys.retain(|key| key.name == name && wanted.names(key));
    match keys.len() {
        0 => Err(ApiError::not_found(format!("nothing was measured of `{name}`"))),
        1 => Ok(keys.remove(0)),
        several => Err(ApiError::new(
            http::StatusCode::CONFLICT,
            "ambiguous",
            format!("{several} functions are named `{name}`: add `region` or `account`"),
        )),
    }
}

fn text(format: Format, body: String) -> Response {
    let media_type = match format {
        Format::Json => "application/json",
        Format::Csv => "text/csv; charset=utf-8",
        Format::Table | Format::Markdown => "text/plain; charset=utf-8",
    };
    ([(header::CONTENT_TYPE, HeaderValue::from_static(media_type))], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_level_is_a_percentile_and_milliseconds() {
        let slo = |quantile, target_ms| Some(Strategy::Slo { quantile, target_ms });
        assert_eq!(strategy(Some("p95=300"), None), slo(0.95, 300.0));
        assert_eq!(strategy(Some("p50=0.5"), None), slo(0.5, 0.5));
        for nonsense in
            ["p95", "p95=", "p95=-1", "p95=inf", "p95=NaN", "p100=5", "p0=5", "q95=5", "pp=5", "=5", ""]
        {
            assert_eq!(strategy(Some(nonsense), None), None, "{nonsense}");
        }
    }
}
