//! `POST /v1/batches`: a 200 means that the batch is on disk.
//!
//! In this order, so that a stranger costs next to nothing: the key, the headers, room in the memory
//! budget, the body under limits and a deadline, decoding, summing up, the store. Sending the same batch
//! again is harmless. Only 429, 502, 503 and 504 may be sent again; every other refusal stays one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use agent_proto::CONTENT_TYPE;
use agent_proto::batch::{Batch, encode_ack};
use agent_proto::limits::MAX_BATCH_BYTES;
use tailor_sizing::telemetry::rollup::Rollup;

use crate::http::App;
use crate::http::error::ApiError;
use crate::http::memory_budget::reserved_kib;
use crate::store::{HOUR_US, NewBatch, Receipt, StoreError, Tenant};

mod body;

use body::Encoding;

/// How long a body may take to arrive. An environment that is frozen while it sends loses its connection
/// and sends again when it thaws.
const BODY_DEADLINE: Duration = Duration::from_secs(15);

/// Hours one batch may spread over. An environment lives for less; more is a broken clock, and each hour
/// is a row.
const MAX_HOURS: usize = 400;

/// How far an environment's clock may be ahead of ours.
const CLOCK_SLACK_US: u64 = 600_000_000;

/// Handles one request.
pub async fn post_batch(State(app): State<Arc<App>>, request: Request) -> Response {
    let result = accept(&app, request).await;
    match result {
        Ok((sequence, receipt, invocations)) => {
            app.metrics.accepted(receipt, invocations);
            ([(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE))], encode_ack(sequence))
                .into_response()
        }
        Err(error) => {
            app.metrics.refused(error.status());
            error.into_response()
        }
    }
}

async fn accept(app: &App, request: Request) -> Result<(u64, Receipt, u64), ApiError> {
    let (parts, body) = request.into_parts();
    let tenant = app.authenticate_bearer(&parts.headers)?;
    let encoding = check_headers(&parts.headers)?;
    let announced = announced_length(&parts.headers)?;
    // A plain body is no larger than announced; any other may grow to the limit.
    let expected = match encoding {
        Encoding::Identity => announced.unwrap_or(MAX_BATCH_BYTES),
        Encoding::Gzip | Encoding::Zstd => MAX_BATCH_BYTES,
    };
    let mut room = app.batch_memory.reserve(expected).await?;
    let bytes = read_body(body).await?;
    let bytes = body::decompress(encoding, bytes)?;
    // Most batches are far smaller than they might have been: the rest is for others.
    drop(room.split(room.num_permits().saturating_sub(reserved_kib(bytes.len()))));
    let batch = Batch::decode(&bytes)?;
    let delivery = sum_up(tenant, batch, bytes, app.clock.now_us())?;
    let (sequence, invocations) = (delivery.header.sequence, delivery.invocations);
    let receipt = app.store.append(delivery).await?;
    // The environment sends its next batch only when it is done with the one before, so what is on disk
    // up to here is all there will be.
    Ok((sequence, receipt, invocations))
}

fn check_headers(headers: &HeaderMap) -> Result<Encoding, ApiError> {
    let essence = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(|value| value.split(';').next().unwrap_or_default().trim());
    if !essence.is_some_and(|essence| essence.eq_ignore_ascii_case(CONTENT_TYPE)) {
        let message = format!("a batch has `Content-Type: {CONTENT_TYPE}`");
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", message));
    }
    Encoding::of(headers.get(header::CONTENT_ENCODING))
}

fn announced_length(headers: &HeaderMap) -> Result<Option<usize>, ApiError> {
    let Some(length) = headers.get(header::CONTENT_LENGTH) else { return Ok(None) };
    match length.to_str().ok().and_then(|text| text.parse().ok()) {
        Some(length) if length <= MAX_BATCH_BYTES => Ok(Some(length)),
        _ => Err(ApiError::too_large()),
    }
}

async fn read_body(body: Body) -> Result<Bytes, ApiError> {
    let reading = axum::body::to_bytes(body, MAX_BATCH_BYTES);
    let late = || ApiError::unavailable("body_timeout", "the body did not arrive in time: send again");
    let read = tokio::time::timeout(BODY_DEADLINE, reading).await.map_err(|_| late())?;
    read.map_err(|error| {
        let mut source: Option<&dyn std::error::Error> = Some(&error);
        while let Some(cause) = source {
            if cause.is::<http_body_util::LengthLimitError>() {
                return ApiError::too_large();
            }
            source = cause.source();
        }
        // The sender is gone, so hardly anybody reads this.
        ApiError::unavailable("body_cut", "the body ended early: send again")
    })
}

/// Everything of a batch that is stored, computed outside the one thread that writes.
fn sum_up(tenant: Tenant, mut batch: Batch, body: Bytes, received_at_us: u64) -> Result<NewBatch, ApiError> {
    // A clock that runs ahead would make its size the latest for as long as it is ahead.
    let latest_us = received_at_us.saturating_add(CLOCK_SLACK_US);
    for invocation in batch.invocations.iter_mut().filter(|invocation| invocation.started_at_us > latest_us) {
        invocation.started_at_us = received_at_us;
    }
    let names = [
        &batch.header.environment.account,
        &batch.header.environment.region,
        &batch.header.environment.function,
    ];
    let others = [&batch.header.environment.version, &batch.header.environment.runtime];
    if names.into_iter().chain(others).any(|text| text.chars().any(char::is_control)) {
        return Err(ApiError::bad_request("name", "a name of the environment has control characters"));
    }
    let mut rollups: BTreeMap<u64, Rollup> = BTreeMap::new();
    for invocation in &batch.invocations {
        rollups.entry(invocation.started_at_us / HOUR_US).or_default().record(invocation);
    }
    if rollups.len() > MAX_HOURS {
        let message = format!("the invocations of one batch spread over more than {MAX_HOURS} hours");
        return Err(ApiError::bad_request("time", message));
    }
    let last_at_us = batch.invocations.iter().map(|invocation| invocation.started_at_us).max();
    Ok(NewBatch {
        tenant,
        received_at_us,
        rollups: rollups.into_iter().collect(),
        last_at_us: last_at_us.unwrap_or(received_at_us),
        invocations: batch.invocations.len() as u64,
        body,
        header: batch.header,
    })
}

impl From<agent_proto::batch::BatchError> for ApiError {
    fn from(error: agent_proto::batch::BatchError) -> Self {
        match error {
            agent_proto::batch::BatchError::TooLarge(_) => Self::too_large(),
            other => Self::bad_request("batch", other.to_string()),
        }
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
