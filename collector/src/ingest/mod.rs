//! `POST /v1/batches`: a 200 means that the batch is on disk.
//!
//! The order of the steps keeps the cost of unauthenticated clients low: check the key, check the headers,
//! read the body with a size limit, a timeout and memory from a budget, reserve memory to process it, decode, check the
//! values, summarize, store. A batch may be sent again without effect on the totals. Clients may retry only after 408, 425,
//! 429 and any 5xx: the collector answers 429 and 503, and a server before it also the others.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use agent_proto::CONTENT_TYPE;
use agent_proto::batch::{Batch, encode_ack};
use agent_proto::limits::MAX_BATCH_BYTES;

use crate::cardinality::TooMany;
use crate::http::App;
use crate::http::body::{BodyLimit, declared_size, receive};
use crate::http::error::ApiError;
use crate::http::memory_budget::processing_kib;
use crate::http::metrics::AuthFailure;
use crate::http::metrics::counters::Counters;
use crate::keys::Scope;
use crate::store::{FunctionKey, NewBatch, SeriesKey, StoreError, Tenant};

mod body;
mod values;

use body::Encoding;

/// Limits of the body of a request. An environment that is frozen while it sends loses its connection, and
/// sends again after the thaw.
const BODY_LIMIT: BodyLimit = BodyLimit { bytes: MAX_BATCH_BYTES, timeout: Duration::from_secs(15) };

/// Maximum number of hours in one batch, because each hour is a row. Environments live for a shorter time, so more
/// hours mean a wrong clock.
const MAX_HOURS: usize = 400;

/// 2014-11-01, microseconds since the Unix epoch: Lambda did not exist before.
const EARLIEST_US: u64 = 1_414_800_000_000_000;

/// How far an environment's clock may be ahead of the collector's until its times are corrected in the stored batch,
/// microseconds.
const MAX_CLOCK_AHEAD_US: u64 = 600_000_000;

/// Handles one request.
pub async fn post_batch(State(app): State<Arc<App>>, request: Request) -> Response {
    let result = accept(&app, request).await;
    match result {
        Ok(sequence) => {
            ([(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE))], encode_ack(sequence))
                .into_response()
        }
        Err(error) => {
            app.metrics.rejected(error.status());
            error.into_response()
        }
    }
}

async fn accept(app: &App, request: Request) -> Result<u64, ApiError> {
    let entry = app.authenticate_key(request.headers(), request.extensions(), Scope::Ingest).await?;
    let encoding = check_headers(request.headers())?;
    if declared_size(request.headers())?.is_some_and(|declared| declared > MAX_BATCH_BYTES) {
        return Err(ApiError::too_large());
    }
    let received = receive(app, request, BODY_LIMIT).await?;
    // A plain body has its final size. A compressed body may grow to the limit.
    let expected = match encoding {
        Encoding::Identity => received.bytes.len(),
        Encoding::Gzip | Encoding::Zstd => MAX_BATCH_BYTES,
    };
    let mut permit = app.memory.process(expected).await?;
    let bytes = body::decompress(encoding, received.bytes.clone())?;
    drop(received);
    // Most batches are much smaller than the limit: release the rest of the reserved memory.
    drop(permit.split(permit.num_permits().saturating_sub(processing_kib(bytes.len()))));
    let batch = Batch::decode(&bytes)?;
    let function = &batch.header.environment.function;
    if !entry.key.permits_function(function) {
        app.metrics.auth_failed(AuthFailure::Function);
        return Err(ApiError::function_not_permitted(&entry.key, function));
    }
    let now_us = app.clock.now_us();
    values::check(&batch, now_us)?;
    let tenant = &entry.key.tenant;
    app.cardinality.count(tenant, &SeriesKey::of(&batch.header.environment), now_us)?;
    let counters = Counters::of(&batch);
    let new_batch = summarize(entry.key.tenant.clone(), batch, bytes, now_us)?;
    let sequence = new_batch.header.sequence;
    let environment = new_batch.header.environment.clone();
    let receipt = app.store.append(new_batch).await?;
    app.metrics.accepted(receipt, tenant, &FunctionKey::of(&environment), counters);
    app.missing_prices.check(&app.prices, &environment.region, environment.architecture);
    // An environment sends a batch only after the previous one is acknowledged or given up. So no batch with a
    // lower sequence arrives later.
    Ok(sequence)
}

fn check_headers(headers: &HeaderMap) -> Result<Encoding, ApiError> {
    let essence = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(|value| value.split(';').next().unwrap_or_default().trim());
    if !essence.is_some_and(|essence| essence.eq_ignore_ascii_case(CONTENT_TYPE)) {
        let message = format!("the content type of a batch must be `{CONTENT_TYPE}`");
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", message));
    }
    Encoding::of(headers.get(header::CONTENT_ENCODING))
}

/// Computes everything that is stored of a batch, outside the writer thread.
fn summarize(
    tenant: Tenant,
    mut batch: Batch,
    mut body: Bytes,
    received_at_us: u64,
) -> Result<NewBatch, ApiError> {
    let possible_us = EARLIEST_US..=received_at_us.saturating_add(MAX_CLOCK_AHEAD_US);
    let is_wrong =
        batch.invocations.iter().any(|invocation| !possible_us.contains(&invocation.started_at_us));
    // A time before Lambda existed is not known. With a clock that is ahead, the invocation's memory size would stay the
    // latest one until that time.
    for invocation in &mut batch.invocations {
        if !(EARLIEST_US..=received_at_us).contains(&invocation.started_at_us) {
            invocation.started_at_us = received_at_us;
        }
    }
    if is_wrong {
        body = batch.encode()?.into();
    }
    let Batch { header, invocations } = batch;
    let mut new_batch = NewBatch::new(tenant, header, &invocations, body, received_at_us);
    let NewBatch { header, rollups, .. } = &mut new_batch;
    if let (Some(interval), Some((_, last))) = (&header.interval, rollups.last_mut()) {
        // An interval is minutes long. It counts in the hour in which its last invocation started.
        let durations = invocations.iter().map(|invocation| invocation.duration_us);
        last.utilization.record(interval, durations.fold(0, u64::saturating_add));
    }
    if rollups.len() > MAX_HOURS {
        let message = format!("the invocations of one batch are in more than {MAX_HOURS} hours");
        return Err(ApiError::bad_request("time", message));
    }
    Ok(new_batch)
}

impl From<agent_proto::batch::BatchError> for ApiError {
    fn from(error: agent_proto::batch::BatchError) -> Self {
        match error {
            agent_proto::batch::BatchError::TooLarge(_) => Self::too_large(),
            other => Self::bad_request("batch", other.to_string()),
        }
    }
}

impl From<TooMany> for ApiError {
    fn from(error: TooMany) -> Self {
        Self::bad_request("too_many", error.to_string())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::Full(_) => "disk_full",
            StoreError::Stopping => "stopping",
            _ => "store",
        };
        Self::unavailable(code, error.to_string())
    }
}
