//! Sends events to a webhook. An event is on disk before it is sent, and stays there until it is accepted or too old.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tailor_push::backoff;
use tailor_push::webhook::{Attempt, Outbox, Queued, Secrets, attempt, origin};
use tailor_sizing::pricing::money::PicoDollars;
use tokio::time::Instant;

use super::events::Finder;
use super::http::{Client, TlsFiles};
use super::metrics::WebhookMetrics;
use super::queue_store::QueueStore;
use super::{ProblemLog, random};
use crate::http::App;
use crate::store::{Lease, StoreError, Tenant};

/// Longest time of one request.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Pause between two readings of the queue.
const PAUSE: Duration = Duration::from_millis(500);

/// Pause while another collector sends.
const STANDBY_PAUSE: Duration = Duration::from_secs(3);

/// The form of the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum WebhookFormat {
    /// One JSON object for each event.
    #[default]
    Json,
    /// Messages for an incoming webhook of Slack.
    Slack,
}

/// Where events are sent, and which.
#[derive(Clone)]
pub struct WebhookSettings {
    /// The address.
    pub url: String,
    /// The file with the secrets that sign; only for Slack it may be absent.
    pub secret_file: Option<PathBuf>,
    /// The form of the messages.
    pub format: WebhookFormat,
    /// Savings in 30 days from which a recommendation is an event.
    pub min_saving: PicoDollars,
    /// Time between two searches for events.
    pub interval: Duration,
    /// The tenant.
    pub tenant: Tenant,
}

impl WebhookSettings {
    /// The secrets of the file, which is read again for each event; `None` without a file.
    ///
    /// # Errors
    /// The file cannot be read, or has no secrets.
    pub fn secrets(&self) -> anyhow::Result<Option<Secrets>> {
        let Some(file) = &self.secret_file else { return Ok(None) };
        let text = fs::read_to_string(file);
        let text =
            text.with_context(|| format!("cannot read the secret of the webhook in {}", file.display()))?;
        let secrets = Secrets::parse(&text);
        secrets
            .map(Some)
            .with_context(|| format!("cannot use the secret of the webhook in {}", file.display()))
    }
}

/// Finds and sends events.
pub struct Webhook {
    app: Arc<App>,
    settings: WebhookSettings,
    queue: QueueStore,
    client: Client,
    metrics: WebhookMetrics,
    /// Attempts in a row in which the receiver failed.
    failures: u32,
    logged: ProblemLog,
}

/// The queue while this collector sends.
struct Work {
    outbox: Outbox,
    /// Whether it has changes that are not on disk.
    is_changed: bool,
    next_search: Instant,
    not_before: Instant,
}

impl Webhook {
    /// A webhook whose queue is kept in a place.
    ///
    /// # Errors
    /// There is a secret that cannot be used.
    pub fn new(
        app: Arc<App>,
        settings: WebhookSettings,
        queue: QueueStore,
        metrics: WebhookMetrics,
    ) -> anyhow::Result<Self> {
        settings.secrets()?;
        let client = Client::new(&TlsFiles::default())?;
        Ok(Self { app, settings, queue, client, metrics, failures: 0, logged: ProblemLog::default() })
    }

    /// Sends until `stop` is ready. What waits is sent after the next start.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let mut work: Option<Work> = None;
        let mut pause = PAUSE;
        loop {
            tokio::select! {
                () = &mut stop => return,
                () = tokio::time::sleep(pause) => {}
            }
            // Of several collectors with one database, one sends; another continues with the same queue.
            match self.app.store.hold(Lease::Webhook).await {
                Ok(true) => pause = PAUSE,
                _ => {
                    (work, pause) = (None, STANDBY_PAUSE);
                    continue;
                }
            }
            if work.is_none() {
                work = self.begin().await;
            }
            match &mut work {
                Some(work) => self.step(work).await,
                None => pause = STANDBY_PAUSE,
            }
        }
    }

    /// Searches once and sends what is due, unless another collector does: for a program that only runs from time to time. What
    /// was not accepted is tried again by the next call.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn run_once(&mut self) -> Result<(), StoreError> {
        if self.app.store.hold(Lease::Webhook).await?
            && let Some(mut work) = self.begin().await
        {
            self.step(&mut work).await;
        }
        Ok(())
    }

    /// Reads the queue; `None` when it cannot be read.
    async fn begin(&mut self) -> Option<Work> {
        match self.queue.read().await {
            Ok(outbox) => {
                let now = Instant::now();
                Some(Work { outbox, is_changed: false, next_search: now, not_before: now })
            }
            Err(error) => {
                self.logged.log(format!("{error:#}"));
                None
            }
        }
    }

    /// Searches when it is time, and sends what is due.
    async fn step(&mut self, work: &mut Work) {
        if Instant::now() >= work.next_search {
            work.next_search = Instant::now() + self.settings.interval;
            self.search(work).await;
        }
        let now_us = self.app.clock.now_us();
        let expired = work.outbox.expire(now_us);
        self.metrics.dropped("expired", expired);
        work.is_changed |= expired > 0;
        if expired > 0 {
            tracing::warn!(
                "{expired} events for the webhook were dropped, because they were not accepted in a day"
            );
        }
        while self.save(work).await && Instant::now() >= work.not_before {
            let Some(event) = work.outbox.due(self.app.clock.now_us()).cloned() else { break };
            self.attempt(work, &event).await;
        }
        self.metrics.queued(work.outbox.len());
    }

    async fn search(&mut self, work: &mut Work) {
        let finder =
            Finder { app: &self.app, tenant: &self.settings.tenant, min_saving: self.settings.min_saving };
        // A search that fails has changed a copy only.
        let mut outbox = work.outbox.clone();
        match finder.find(&mut outbox).await {
            Ok(dropped) => {
                self.metrics.dropped("full", dropped);
                if dropped > 0 {
                    tracing::warn!("{dropped} events for the webhook were dropped, because too many wait");
                }
                work.is_changed |= outbox != work.outbox;
                work.outbox = outbox;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot search for events of the webhook; trying again later")
            }
        }
    }

    /// Writes the queue when it has changed. Returns whether it is on disk.
    async fn save(&mut self, work: &mut Work) -> bool {
        if work.is_changed {
            match self.queue.write(&mut work.outbox).await {
                Ok(()) => work.is_changed = false,
                Err(error) => self.logged.log(format!("cannot keep the queue of the webhook: {error:#}")),
            }
        }
        !work.is_changed
    }

    async fn attempt(&mut self, work: &mut Work, event: &Queued) {
        let result = match self.send(event).await {
            Ok((status, retry_after)) => {
                (attempt(Some(status), retry_after.as_deref()), format!("HTTP status {status}"))
            }
            Err(problem) => (attempt(None, None), problem),
        };
        let origin = origin(&self.settings.url).to_owned();
        self.metrics.attempted(result.0 == Attempt::Accepted);
        match result {
            (Attempt::Accepted, _) => {
                if std::mem::take(&mut self.failures) > 0 {
                    tracing::info!("events are sent to {origin} again");
                }
                self.logged.clear();
                work.outbox.accepted(&event.id);
                work.is_changed = true;
            }
            (Attempt::ReceiverFailed { after }, problem) => {
                self.failures = self.failures.saturating_add(1);
                work.not_before = Instant::now() + backoff::pause(self.failures, after, random());
                self.logged.log(format!("cannot send events to {origin}, trying again: {problem}"));
            }
            (Attempt::EventRejected, problem) => {
                work.outbox.rejected(&event.id, self.app.clock.now_us(), random());
                work.is_changed = true;
                self.logged
                    .log(format!("{origin} refused an event, trying again: {problem}. Check the address"));
            }
        }
    }

    /// Sends an event once. Returns the status and the `Retry-After` header.
    async fn send(&self, event: &Queued) -> Result<(u16, Option<String>), String> {
        let body = match self.settings.format {
            WebhookFormat::Json => &event.json,
            WebhookFormat::Slack => &event.slack,
        };
        let timestamp_s = self.app.clock.now_us() / 1_000_000;
        let mut headers = vec![
            ("content-type".to_owned(), "application/json".to_owned()),
            ("webhook-id".to_owned(), event.id.clone()),
            ("webhook-timestamp".to_owned(), timestamp_s.to_string()),
        ];
        if let Some(secrets) = self.settings.secrets().map_err(|error| format!("{error:#}"))? {
            headers.push(("webhook-signature".to_owned(), secrets.sign(&event.id, timestamp_s, body)));
        }
        let body = body.clone().into_bytes();
        let answer = self.client.post(&self.settings.url, headers, body, TIMEOUT).await?;
        Ok((answer.status, answer.retry_after))
    }
}
