//! The Lambda API of AWS, as far as functions are concerned: what SDKs, the CLI and deployment tools call.
//!
//! Requests need not be signed: signatures are accepted and ignored.

mod aliases;
pub mod catalog;
mod code;
mod concurrency;
mod direct;
pub mod error;
mod event_stream;
mod folder;
mod functions;
mod handle;
mod invoke;
pub mod model;
pub mod name;
mod stream;
mod tags;
mod throttle;
pub mod update;
pub mod versions;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::serve::ListenerExt;
use http::{StatusCode, Uri};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::fleet::{Fleet, Target};
use catalog::Catalog;
pub use direct::Done;
use error::AwsError;
pub use folder::{FolderError, Folders};
use model::{LATEST, Record};
use throttle::Throttle;

/// Larger than any allowed event, so that too large ones get Lambda's own answer.
const MAX_BODY_BYTES: usize = 80 * 1024 * 1024;

/// The control plane of one account in one region.
pub struct ControlPlane {
    fleet: Arc<Fleet>,
    region: String,
    catalog: Mutex<Catalog>,
    layers: OnceLock<Vec<PathBuf>>,
    throttle: Throttle,
}

impl ControlPlane {
    /// A control plane without functions. A change of a function stays `InProgress` for `update_delay`.
    /// `rate` limits requests a second to all operations but Invoke and GetFunction.
    pub fn new(fleet: Arc<Fleet>, region: &str, update_delay: Duration, rate: Option<f64>) -> ControlPlane {
        let catalog = Catalog::new(region, &fleet.host().account, update_delay);
        ControlPlane {
            fleet,
            region: region.to_owned(),
            catalog: Mutex::new(catalog),
            layers: OnceLock::new(),
            throttle: Throttle::new(rate),
        }
    }

    /// Layers of functions that are created over the API; those of [`Folders`] once something was loaded.
    fn layers(&self) -> &[PathBuf] {
        self.layers.get().map_or(&[], Vec::as_slice)
    }

    /// Adds every function found by `folders`; their names.
    pub fn load(&self, folders: &Folders, folder: &Path) -> Result<Vec<String>, FolderError> {
        let _ = self.layers.set(folders.layers.clone());
        let records = folders.load(folder, &self.region, &mut self.catalog())?;
        let mut names = Vec::new();
        for (record, provisioned) in records {
            names.push(record.name.clone());
            let (config, generation) = (record.latest.config.clone(), record.latest.generation);
            self.catalog().insert(record);
            if provisioned > 0 {
                let target = Target { config, generation, reserved_concurrency: None };
                self.fleet.provision(&target, provisioned).map_err(FolderError::Provision)?;
            }
        }
        Ok(names)
    }

    /// Serves the API until the future is dropped.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) -> std::io::Result<()> {
        let function = "/2015-03-31/functions/{name}";
        let router = Router::new()
            .route("/2015-03-31/functions", get(functions::list).post(code::create))
            .route("/2015-03-31/functions/", get(functions::list).post(code::create))
            .route(function, delete(versions::delete))
            .route(&format!("{function}/code"), put(code::update))
            .route(&format!("{function}/versions"), get(versions::list).post(versions::publish))
            .route(&format!("{function}/aliases"), get(aliases::list).post(aliases::create))
            .route(
                &format!("{function}/aliases/{{alias}}"),
                get(aliases::get).put(aliases::update).delete(aliases::delete),
            )
            .route(
                "/2017-10-31/functions/{name}/concurrency",
                put(concurrency::put_reserved).delete(concurrency::delete_reserved),
            )
            .route("/2019-09-30/functions/{name}/concurrency", get(concurrency::get_reserved))
            .route(
                "/2019-09-30/functions/{name}/provisioned-concurrency",
                get(concurrency::get_provisioned)
                    .put(concurrency::put_provisioned)
                    .delete(concurrency::delete_provisioned),
            )
            .route("/2016-08-19/account-settings", get(concurrency::account_settings))
            .route("/2016-08-19/account-settings/", get(concurrency::account_settings))
            .route(
                &format!("{function}/configuration"),
                get(functions::get_configuration).put(functions::update_configuration),
            )
            .route("/2017-03-31/tags/{arn}", get(tags::list).post(tags::tag).delete(tags::untag))
            .route_layer(middleware::from_fn_with_state(self.clone(), throttle))
            // Not under that limit.
            .route(function, get(functions::get))
            .route(&format!("{function}/invocations"), post(invoke::invoke))
            .route(
                "/2021-11-15/functions/{name}/response-streaming-invocations",
                post(stream::invoke_with_response_stream),
            )
            .merge(handle::routes())
            .fallback(unknown)
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
            .with_state(self);
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        axum::serve(listener, router).await
    }

    fn catalog(&self) -> MutexGuard<'_, Catalog> {
        self.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trace(&self, event: &str, configuration: &Value) {
        self.fleet.host().trace.event(event, configuration.clone());
    }

    /// Lets the environments of the previous configuration end once the new one is in force.
    fn retire_when_settled(&self, record: &Record) {
        let (name, generation) = (record.name.clone(), record.latest.generation);
        let fleet = self.fleet.clone();
        let until = record.pending.as_ref().map_or_else(Instant::now, |pending| pending.until);
        tokio::spawn(async move {
            tokio::time::sleep_until(until.into()).await;
            fleet.retire(&name, LATEST, generation);
        });
    }
}

async fn throttle(State(plane): State<Arc<ControlPlane>>, request: Request, next: Next) -> Response {
    if plane.throttle.admit(Instant::now()) {
        next.run(request).await
    } else {
        AwsError::throttled("CallerRateLimitExceeded").into_response()
    }
}

async fn unknown(uri: Uri) -> AwsError {
    let message = format!("{} is not an operation of this sandbox", uri.path());
    AwsError { status: StatusCode::NOT_FOUND, ..AwsError::service(message) }
}
