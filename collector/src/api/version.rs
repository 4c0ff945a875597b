//! `GET /version`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use crate::http::App;
use crate::http::auth::ApiReader;
use crate::store::Schema;
use crate::version::{COMMIT, VERSION};

/// The program, its store and its prices.
#[derive(Debug, Serialize)]
pub struct VersionReport {
    version: &'static str,
    commit: Option<&'static str>,
    store: &'static str,
    store_schema: i64,
    prices_of: String,
}

/// `GET /version`.
pub async fn serve(State(app): State<Arc<App>>, _reader: ApiReader) -> Json<VersionReport> {
    let Schema { store, version } = app.store.schema();
    Json(VersionReport {
        version: VERSION,
        commit: COMMIT,
        store,
        store_schema: version,
        prices_of: app.prices.compiled().to_owned(),
    })
}
