//! Exports metrics as OTLP. Nothing waits for it: the counters are added up in any case, and each export has their values.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use flate2::Compression;
use flate2::write::GzEncoder;
use tailor_push::backoff;
use tailor_push::otlp::{
    Exporter, FleetGauges, FunctionTotals, Outcome, Resource, Settings, Subject, Temporality, outcome,
    requests,
};
use tokio::time::Instant;

use super::http::{Client, TlsFiles};
use super::metrics::OtlpMetrics;
use super::{ProblemLog, random};
use crate::http::App;
use crate::http::metrics::snapshot::{self, FunctionSnapshot, Snapshot};
use crate::store::{FunctionKey, Tenant};

/// The file in the data folder with the id of this collector.
pub const ID_FILE: &str = "otlp-id";

/// Longest time of the last export, when the collector stops.
const LAST_EXPORT: Duration = Duration::from_secs(5);

/// Most counters that have ended and wait until they are exported.
const MAX_ENDED: usize = 1_000;

/// How long the base of a delta is kept after its counters have ended: they continue when the function is listed again soon.
const KEPT_BASES_US: u64 = 3_600 * 1_000_000;

/// Exports the metrics of all tenants.
pub struct OtlpExporter {
    app: Arc<App>,
    settings: Settings,
    exporter: Exporter,
    client: Client,
    metrics: OtlpMetrics,
    state: State,
}

#[derive(Default)]
struct State {
    /// Requests that were not accepted yet.
    pending: VecDeque<Vec<u8>>,
    /// Of deltas: what was put into requests, and when, microseconds since the Unix epoch.
    bases: BTreeMap<(Tenant, Option<FunctionKey>), (FunctionTotals, u64)>,
    /// Counters that have ended since the last accepted export.
    ended: Vec<(Tenant, FunctionSnapshot)>,
    /// Requests in a row that failed.
    failures: u32,
    logged: ProblemLog,
}

/// What to do after a request.
enum Next {
    Send,
    Pause(Duration),
}

impl OtlpExporter {
    /// An exporter with the id that is kept in the data folder.
    ///
    /// # Errors
    /// A certificate or the data folder cannot be used.
    pub fn new(
        app: Arc<App>,
        settings: Settings,
        folder: &Path,
        metrics: OtlpMetrics,
    ) -> anyhow::Result<Self> {
        let files = TlsFiles { authorities: settings.certificate.clone(), client: settings.client.clone() };
        let client = Client::new(&files)?;
        let exporter = Exporter {
            id: id_of(folder)?,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            temporality: settings.temporality,
        };
        snapshot::keep_ended(&app);
        Ok(Self { app, settings, exporter, client, metrics, state: State::default() })
    }

    /// Exports until `stop` is ready, and then once more.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        // Functions get counters of their own with the first report.
        for tenant in snapshot::tenants(&self.app) {
            let snapshot = snapshot::take(&self.app, &tenant).await;
            self.keep_ended(&tenant, snapshot.ended);
        }
        let mut tick = Instant::now() + self.settings.interval;
        let mut not_before = Instant::now();
        loop {
            // Cumulative sums of a new export have all of an old one. Deltas do not: the old one is sent first.
            let may_build = self.state.pending.is_empty() || self.is_cumulative();
            let retry = (!self.state.pending.is_empty()).then_some(not_before);
            let next = match retry {
                Some(retry) if may_build => retry.min(tick),
                Some(retry) => retry,
                None => tick,
            };
            tokio::select! {
                () = &mut stop => break,
                () = tokio::time::sleep_until(next) => {}
            }
            if may_build && Instant::now() >= tick {
                tick = next_tick(tick, self.settings.interval);
                self.build().await;
            }
            if Instant::now() >= not_before {
                let pause = self.send_pending(self.settings.timeout).await;
                not_before = Instant::now() + pause;
            }
        }
        self.export_last().await;
    }

    const fn is_cumulative(&self) -> bool {
        matches!(self.settings.temporality, Temporality::Cumulative)
    }

    async fn export_last(&mut self) {
        self.build().await;
        let timeout = self.settings.timeout.min(LAST_EXPORT);
        if tokio::time::timeout(LAST_EXPORT, self.send_pending(timeout)).await.is_err()
            || !self.state.pending.is_empty()
        {
            tracing::warn!("the last metrics were not sent to {}", self.settings.origin());
        }
    }

    /// Sends what waits, until a request fails. Returns the pause before the next one.
    async fn send_pending(&mut self, timeout: Duration) -> Duration {
        while let Some(body) = self.state.pending.front() {
            let body = body.clone();
            match self.send(body, timeout).await {
                Next::Send => drop(self.state.pending.pop_front()),
                Next::Pause(pause) => return pause,
            }
        }
        Duration::ZERO
    }

    async fn send(&mut self, body: Vec<u8>, timeout: Duration) -> Next {
        let mut headers = self.settings.headers.clone();
        headers.push(("content-type".to_owned(), "application/x-protobuf".to_owned()));
        if self.settings.is_compressed {
            headers.push(("content-encoding".to_owned(), "gzip".to_owned()));
        }
        let response = self.client.post(&self.settings.url, headers, body, timeout).await;
        let outcome = match response {
            Ok(response) => outcome(response.status, response.retry_after.as_deref(), &response.body),
            Err(message) => Outcome::Retry { after: None, message },
        };
        let origin = self.settings.origin().to_owned();
        match outcome {
            Outcome::Accepted { rejected, message } => {
                if std::mem::take(&mut self.state.failures) > 0 {
                    tracing::info!("metrics are sent to {origin} again");
                }
                self.metrics.accepted(rejected, self.app.clock.now_us());
                if rejected > 0 || !message.is_empty() {
                    self.state
                        .logged
                        .log(format!("{origin} did not accept {rejected} data points: {message}"));
                } else {
                    self.state.logged.clear();
                }
                self.state.ended.clear();
                Next::Send
            }
            Outcome::Retry { after, message } => {
                self.metrics.requested("failed");
                self.state.failures = self.state.failures.saturating_add(1);
                if self.state.failures == 1 {
                    tracing::warn!("cannot send metrics to {origin}, trying again: {message}");
                }
                Next::Pause(backoff::pause(self.state.failures, after, random()))
            }
            Outcome::Rejected { message } => {
                self.metrics.requested("refused");
                self.state.logged.log(format!(
                    "{origin} refused metrics, and they are not sent again: {message}. Check the address and the headers"
                ));
                self.state.ended.clear();
                Next::Send
            }
        }
    }

    fn keep_ended(&mut self, tenant: &Tenant, ended: Vec<FunctionSnapshot>) {
        self.state.ended.extend(ended.into_iter().map(|function| (tenant.clone(), function)));
        self.state.ended.truncate(MAX_ENDED);
    }

    /// Puts the present values into requests.
    async fn build(&mut self) {
        let mut fleets = vec![];
        for tenant in snapshot::tenants(&self.app) {
            let Snapshot { functions, ended, fleet } = snapshot::take(&self.app, &tenant).await;
            self.keep_ended(&tenant, ended);
            fleets.push((tenant, functions, fleet));
        }
        let now_us = self.app.clock.now_us();
        let ended = if self.is_cumulative() {
            // A counter that continues is in the request with its present value.
            self.state.ended.iter().filter(|ended| !is_continued(ended, &fleets)).cloned().collect()
        } else {
            // A delta is in a request that is sent until it is accepted.
            std::mem::take(&mut self.state.ended)
        };
        let mut resources = vec![];
        for (tenant, function) in &ended {
            resources.push(self.resource(tenant, function, now_us));
        }
        for (tenant, functions, fleet) in &fleets {
            for function in functions {
                resources.push(self.resource(tenant, function, now_us));
            }
            if let Some(fleet) = fleet {
                let (tenant, subject, fleet) = (tenant.0.as_str(), Subject::Fleet, Some(fleet));
                resources.push(Resource { tenant, subject, totals: None, gauges: None, fleet });
            }
        }
        // The bases of counters that count are those of now.
        self.state.bases.retain(|_, (_, at_us)| now_us.saturating_sub(*at_us) < KEPT_BASES_US);
        if self.is_cumulative() {
            self.state.pending.clear();
        }
        let is_compressed = self.settings.is_compressed;
        for body in requests(&self.exporter, &resources, now_us) {
            self.state.pending.push_back(if is_compressed { gzip(&body) } else { body });
        }
    }

    fn resource<'a>(
        &mut self,
        tenant: &'a Tenant,
        function: &'a FunctionSnapshot,
        now_us: u64,
    ) -> Resource<'a> {
        let totals = match self.settings.temporality {
            Temporality::Cumulative => function.totals.clone(),
            Temporality::Delta => self.delta(tenant, function, now_us),
        };
        let subject = match &function.function {
            None => Subject::Rest,
            Some(FunctionKey { account, region, name }) => Subject::Function { account, region, name },
        };
        Resource { tenant: &tenant.0, subject, totals: Some(totals), gauges: function.gauges, fleet: None }
    }

    /// What was counted since the request before.
    fn delta(&mut self, tenant: &Tenant, function: &FunctionSnapshot, now_us: u64) -> FunctionTotals {
        let key = (tenant.clone(), function.function.clone());
        let totals = &function.totals;
        let base = self.state.bases.insert(key, (totals.clone(), now_us));
        match base {
            Some((base, at_us)) if base.start_us == totals.start_us => totals.since(&base, at_us),
            // The counters have begun again.
            _ => totals.clone(),
        }
    }
}

/// The functions of each tenant, and what is known of the fleet.
type Fleets = [(Tenant, Vec<FunctionSnapshot>, Option<FleetGauges>)];

/// Whether a counter that had ended counts again since its function is listed again.
fn is_continued((tenant, ended): &(Tenant, FunctionSnapshot), fleets: &Fleets) -> bool {
    let same = |function: &FunctionSnapshot| {
        function.function == ended.function && function.totals.start_us == ended.totals.start_us
    };
    fleets.iter().any(|(of, functions, _)| of == tenant && functions.iter().any(same))
}

/// The time of the next export. Those that were missed are left out.
fn next_tick(tick: Instant, interval: Duration) -> Instant {
    (tick + interval).max(Instant::now())
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // A vector takes every write.
    let _ = encoder.write_all(body);
    encoder.finish().unwrap_or_default()
}

/// The id in the data folder. The first start creates it.
fn id_of(folder: &Path) -> anyhow::Result<String> {
    let path = folder.join(ID_FILE);
    if let Ok(id) = fs::read_to_string(&path)
        && !id.trim().is_empty()
    {
        return Ok(id.trim().to_owned());
    }
    let id = crate::random::hex::<16>()?;
    fs::write(&path, format!("{id}\n")).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(id)
}
