//! The Lambda API of AWS, as far as functions are concerned: what SDKs, the CLI and deployment tools call.
//!
//! Requests need not be signed: signatures are accepted and ignored.

pub mod catalog;
pub mod error;
mod folder;
mod functions;
mod invoke;
pub mod model;
pub mod name;
mod tags;
pub mod update;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use http::{StatusCode, Uri};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::fleet::Fleet;
use catalog::Catalog;
use error::AwsError;
pub use folder::{FolderError, Folders};
use model::{LATEST, Record};

/// Larger than any allowed event, so that too large ones get Lambda's own answer.
const MAX_BODY_BYTES: usize = 80 * 1024 * 1024;

/// The control plane of one account in one region.
pub struct ControlPlane {
    fleet: Arc<Fleet>,
    region: String,
    catalog: Mutex<Catalog>,
}

impl ControlPlane {
    /// A control plane without functions. A change of a function stays `InProgress` for `update_delay`.
    pub fn new(fleet: Arc<Fleet>, region: &str, update_delay: Duration) -> ControlPlane {
        let catalog = Catalog::new(region, &fleet.host().account, update_delay);
        ControlPlane { fleet, region: region.to_owned(), catalog: Mutex::new(catalog) }
    }

    /// Adds every function found by `folders`; their names.
    pub fn load(&self, folders: &Folders, folder: &Path) -> Result<Vec<String>, FolderError> {
        let records = folders.load(folder, &self.region, &mut self.catalog())?;
        let names = records.iter().map(|record| record.name.clone()).collect();
        let mut catalog = self.catalog();
        records.into_iter().for_each(|record| catalog.insert(record));
        Ok(names)
    }

    /// Serves the API until the future is dropped.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) -> std::io::Result<()> {
        let function = "/2015-03-31/functions/{name}";
        let router = Router::new()
            .route("/2015-03-31/functions", get(functions::list))
            .route("/2015-03-31/functions/", get(functions::list))
            .route(function, get(functions::get))
            .route(
                &format!("{function}/configuration"),
                get(functions::get_configuration).put(functions::update_configuration),
            )
            .route(&format!("{function}/invocations"), post(invoke::invoke))
            .route("/2017-03-31/tags/{arn}", get(tags::list).post(tags::tag).delete(tags::untag))
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

async fn unknown(uri: Uri) -> AwsError {
    let message = format!("{} is not an operation of this sandbox", uri.path());
    AwsError { status: StatusCode::NOT_FOUND, ..AwsError::service(message) }
}
