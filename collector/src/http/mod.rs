//! The HTTP server: the shared state of its handlers. [`server`] has the accept loop.

use std::path::PathBuf;
use std::sync::Arc;

use tailor_sizing::pricing::prices::PriceTable;

use self::error::ApiError;
use crate::cardinality::Cardinality;
use crate::changes::refusal_counts::RefusalCounts;
use crate::clock::Clock;
use crate::keys::KeyRing;
use crate::keys::reload::CurrentKeys;
use crate::prices::MissingPrices;
use crate::profiles::Profiles;
use crate::query::Query;
use crate::recommendations::Recommendations;
use crate::reconcile::LastReconciliations;
use crate::report;
use crate::report::bill::BillBasis;
use crate::report::bill::usage::UsageTable;
use crate::store::{Store, Tenant};
use crate::tags::CurrentTags;
use crate::tuner::latest_round::LatestRound;
use crate::tuner::requests::RequestStore;

pub mod auth;
pub mod body;
pub mod client;
pub mod conditional;
pub mod connections;
pub mod error;
pub mod extract;
pub mod latency;
pub mod memory_budget;
pub mod metrics;
pub mod server;
pub mod sessions;
mod stream;
pub mod tls;
pub mod unknown_keys;

pub use server::run;

/// Functions with metrics of their own, unless the operator sets another number.
pub const DEFAULT_METRICS_FUNCTIONS: usize = 20;

/// The shared state of the handlers.
pub struct App {
    /// The store of measurements.
    pub store: Arc<dyn Store>,
    /// The API keys.
    pub keys: Arc<CurrentKeys>,
    /// Whether local reads need no key. Only for a listener on a loopback address.
    pub local_reads: bool,
    /// Lambda's prices.
    pub prices: PriceTable,
    /// The regions without a price that were logged.
    pub missing_prices: MissingPrices,
    /// Proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` headers are used.
    pub trusted_proxies: client::TrustedProxies,
    /// The collector's certificate; `None` without TLS of its own.
    pub tls: Option<Arc<tls::CurrentTls>>,
    /// Where the API keys come from, for the page that changes them; `None` when they cannot be changed.
    pub key_sources: Option<crate::keys::sources::KeySources>,
    /// Unknown keys by address.
    pub unknown_keys: unknown_keys::UnknownKeys,
    /// The functions and series that have sent batches today.
    pub cardinality: Cardinality,
    /// Browser sessions.
    pub sessions: sessions::Sessions,
    /// The memory budget of requests and responses.
    pub memory: memory_budget::MemoryBudget,
    /// The open connections.
    pub connections: Arc<connections::Connections>,
    /// The clock.
    pub clock: Clock,
    /// The collector's own metrics.
    pub metrics: metrics::Metrics,
    /// What was inferred of large fleets.
    pub enforcements: Arc<report::EnforcementCache>,
    /// The sums over large fleets for time series.
    pub fleet_sums: Arc<report::FleetSumsCache>,
    /// Functions with metrics of their own; the others are added up.
    pub metrics_functions: usize,
    /// What the guard-rails of the tuner refused.
    pub refusals: Arc<RefusalCounts>,
    /// The tags of functions.
    pub tags: Arc<CurrentTags>,
    /// What other tools recommend.
    pub recommendations: Option<Recommendations>,
    /// The file with usage that measurements do not show. It is read for each bill.
    pub usage_file: Option<PathBuf>,
    /// The data folder, for what imports have counted.
    pub data_folder: Option<PathBuf>,
    /// The tuner of this collector, as pages see it.
    pub tuner: Option<TunerView>,
    /// The last comparison of AWS's bill with the store.
    pub reconciliations: Option<LastReconciliations>,
    /// The profiles of functions; `None` when they are not stored.
    pub profiles: Option<Arc<Profiles>>,
}

/// What pages show of the tuner, and where they leave requests to it.
#[derive(Debug, Clone)]
pub struct TunerView {
    /// The tenant whose functions are tuned.
    pub tenant: Tenant,
    /// What the latest round decided.
    pub latest_round: Arc<LatestRound>,
    /// Where requests to the tuner are kept.
    pub requests: RequestStore,
}

impl App {
    /// The state for a store, with the built-in prices and the system clock.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, keys: KeyRing, local_reads: bool) -> Self {
        let clock = Clock::system();
        let metrics = metrics::Metrics::of(store.as_ref());
        Self {
            store,
            keys: Arc::new(keys.into()),
            local_reads,
            prices: PriceTable::embedded(),
            missing_prices: MissingPrices::default(),
            trusted_proxies: client::TrustedProxies::default(),
            tls: None,
            key_sources: None,
            unknown_keys: unknown_keys::UnknownKeys::default(),
            cardinality: Cardinality::default(),
            sessions: sessions::Sessions::new(clock.clone()),
            memory: memory_budget::MemoryBudget::default(),
            connections: Arc::default(),
            clock,
            metrics,
            enforcements: Arc::default(),
            fleet_sums: Arc::default(),
            metrics_functions: DEFAULT_METRICS_FUNCTIONS,
            refusals: Arc::default(),
            tags: Arc::default(),
            recommendations: None,
            usage_file: None,
            data_folder: None,
            tuner: None,
            reconciliations: None,
            profiles: None,
        }
    }
}

impl App {
    /// What a bill depends on besides measurements and prices.
    ///
    /// # Errors
    /// 503 when the usage file cannot be read.
    pub(crate) async fn bill_basis(&self, query: &Query) -> Result<BillBasis, ApiError> {
        let usage = match self.usage_file.clone() {
            None => UsageTable::default(),
            Some(file) => {
                let read = tokio::task::spawn_blocking(move || UsageTable::read(&file)).await;
                let read = read.map_err(anyhow::Error::from).and_then(|read| Ok(read?));
                read.map_err(|error| ApiError::unavailable("usage", error.to_string()))?
            }
        };
        Ok(BillBasis { usage, terms: query.terms(), imports: self.data_folder.clone() })
    }

    /// The report that a tenant requests with `query`.
    ///
    /// # Errors
    /// 400 when the strategy is not known.
    pub(crate) fn report_request<'a>(
        &'a self,
        tenant: &'a Tenant,
        query: &Query,
    ) -> Result<report::Request<'a>, ApiError> {
        let now_us = self.clock.now_us();
        Ok(report::Request {
            store: self.store.as_ref(),
            tenant,
            window: query.window(now_us),
            prices: &self.prices,
            strategy: query.strategy()?,
            now_us,
            enforcements: Some(&self.enforcements),
            fleet_sums: Some(&self.fleet_sums),
            tags: Some(&self.tags),
            computes_all: false,
        })
    }
}
