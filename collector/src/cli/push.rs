//! The options of `tailor serve` for metrics as OTLP and for the webhook.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use tailor_push::otlp::{Given, Settings, Temporality};
use tailor_push::webhook::origin;
use tailor_sizing::pricing::money::PicoDollars;

use super::keys;
use crate::http::App;
use crate::push::QueueStore;
use crate::push::metrics::{OtlpMetrics, WebhookMetrics};
use crate::push::otlp::OtlpExporter;
use crate::push::webhook::{Webhook, WebhookFormat, WebhookSettings};
use crate::store::Tenant;

#[derive(Debug, Args)]
#[command(next_help_heading = "OTLP")]
pub(super) struct OtlpArgs {
    /// Address of a receiver of OTLP over HTTP, such as `http://localhost:4318`, to which the metrics of all functions are sent.
    /// The standard variables `OTEL_EXPORTER_OTLP_*` are used, too. See docs/otlp.md.
    #[arg(long, env = "TAILOR_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// Headers of the requests: `NAME=VALUE,NAME=VALUE`, with percent-encoded values.
    #[arg(long, env = "TAILOR_OTLP_HEADERS", hide_env_values = true, value_name = "HEADERS")]
    otlp_headers: Option<String>,
    /// Seconds after which metrics are sent again; 60 when absent.
    #[arg(long, env = "TAILOR_OTLP_INTERVAL", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3_600))]
    otlp_interval: Option<u64>,
}

impl OtlpArgs {
    /// The settings; `None` when metrics are not sent.
    ///
    /// # Errors
    /// An option or a variable cannot be used.
    pub(super) fn settings(&self) -> anyhow::Result<Option<Settings>> {
        let given = Given {
            endpoint: self.otlp_endpoint.clone(),
            headers: self.otlp_headers.clone().filter(|headers| !headers.is_empty()),
            interval_s: self.otlp_interval,
        };
        Ok(Settings::of(&given, |name| std::env::var(name).ok())?)
    }
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Webhook")]
pub(super) struct WebhookArgs {
    /// Address to which events are sent: new recommendations, losses, changes and rollbacks of the tuner, freezes. See
    /// docs/notifications.md.
    #[arg(long, env = "TAILOR_WEBHOOK", hide_env_values = true, value_name = "URL")]
    webhook: Option<String>,
    /// File with the secret that signs the events: `whsec_` and 24 to 64 bytes as Base64. Several lines sign with several
    /// secrets. It is read again for each event.
    #[arg(long, env = "TAILOR_WEBHOOK_SECRET_FILE", value_name = "FILE")]
    webhook_secret_file: Option<PathBuf>,
    /// Form of the messages. Slack's need no secret.
    #[arg(long, env = "TAILOR_WEBHOOK_FORMAT", value_enum, default_value_t)]
    webhook_format: WebhookFormat,
    /// Saving in 30 days from which a recommendation is an event, dollars.
    #[arg(long, env = "TAILOR_WEBHOOK_MIN_SAVING", value_name = "DOLLARS", default_value = "1", value_parser = dollars)]
    webhook_min_saving: PicoDollars,
    /// Seconds between two searches for events.
    #[arg(long, env = "TAILOR_WEBHOOK_INTERVAL", value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    webhook_interval: u64,
    /// Tenant whose events are sent.
    #[arg(long, env = "TAILOR_WEBHOOK_TENANT", default_value = Tenant::DEFAULT_NAME, value_parser = keys::tenant)]
    webhook_tenant: String,
}

/// Whole micro-dollars, without a float.
fn dollars(text: &str) -> Result<PicoDollars, String> {
    const DECIMALS: usize = 6;
    let invalid = || format!("`{text}` is not an amount such as 0.50, with at most {DECIMALS} decimals");
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let digits = format!("{whole}{decimals:0<DECIMALS$}");
    let is_valid =
        !whole.is_empty() && decimals.len() <= DECIMALS && digits.bytes().all(|b| b.is_ascii_digit());
    let micro: u64 = digits.parse().ok().filter(|_| is_valid).ok_or_else(invalid)?;
    Ok(PicoDollars(i128::from(micro) * 1_000_000))
}

impl WebhookArgs {
    /// The settings; `None` without an address.
    ///
    /// # Errors
    /// The address or the secret cannot be used.
    pub(super) fn settings(&self) -> anyhow::Result<Option<WebhookSettings>> {
        let url = self.webhook.as_deref().map(str::trim).filter(|url| !url.is_empty());
        let Some(url) = url else {
            ensure!(self.webhook_secret_file.is_none(), "--webhook-secret-file needs --webhook, the address");
            return Ok(None);
        };
        let parsed: Option<http::Uri> = url.parse().ok();
        let is_valid = parsed.is_some_and(|url| {
            url.host().is_some_and(|host| !host.is_empty())
                && matches!(url.scheme_str(), Some("http" | "https"))
        });
        ensure!(is_valid, "--webhook is not an address such as https://example.com/hook");
        ensure!(
            self.webhook_secret_file.is_some() || self.webhook_format == WebhookFormat::Slack,
            "--webhook needs --webhook-secret-file, so that the receiver can verify events: `echo whsec_$(openssl rand \
             -base64 32)` makes a secret"
        );
        let settings = WebhookSettings {
            url: url.to_owned(),
            secret_file: self.webhook_secret_file.clone(),
            format: self.webhook_format,
            min_saving: self.webhook_min_saving,
            interval: Duration::from_secs(self.webhook_interval),
            tenant: Tenant(self.webhook_tenant.clone()),
        };
        settings.secrets()?;
        Ok(Some(settings))
    }

    /// The file with the secret.
    pub(super) fn secret_file(&self) -> Option<&Path> {
        self.webhook_secret_file.as_deref()
    }
}

/// What is sent to others, with its metrics.
pub(super) struct Push {
    otlp: Option<(Settings, OtlpMetrics)>,
    webhook: Option<(WebhookSettings, WebhookMetrics)>,
}

impl Push {
    /// Reads the settings.
    ///
    /// # Errors
    /// A setting cannot be used.
    pub(super) fn of(otlp: &OtlpArgs, webhook: &WebhookArgs) -> anyhow::Result<Self> {
        Ok(Self {
            otlp: otlp.settings()?.map(|settings| (settings, OtlpMetrics::default())),
            webhook: webhook.settings()?.map(|settings| (settings, WebhookMetrics::default())),
        })
    }

    /// Registers the metrics of what is used.
    pub(super) fn register(&self, app: &mut App) {
        if let Some((_, metrics)) = &self.otlp {
            app.metrics.register(|registry| metrics.register(registry));
        }
        if let Some((_, metrics)) = &self.webhook {
            app.metrics.register(|registry| metrics.register(registry));
        }
    }

    /// The exporter of metrics, if there is one.
    ///
    /// # Errors
    /// A certificate or the data folder cannot be used.
    pub(super) fn exporter(&self, app: &Arc<App>, folder: &Path) -> anyhow::Result<Option<OtlpExporter>> {
        let Some((settings, metrics)) = &self.otlp else { return Ok(None) };
        let temporality = match settings.temporality {
            Temporality::Cumulative => "cumulative",
            Temporality::Delta => "delta",
        };
        let seconds = settings.interval.as_secs_f64();
        let exporter = OtlpExporter::new(Arc::clone(app), settings.clone(), folder, metrics.clone());
        let exporter = exporter.context("cannot send metrics as OTLP")?;
        tracing::info!("{temporality} metrics are sent as OTLP to {} every {seconds} s", settings.origin());
        Ok(Some(exporter))
    }

    /// The webhook, if there is one.
    ///
    /// # Errors
    /// The secret cannot be used.
    pub(super) fn webhook(
        &self,
        app: &Arc<App>,
        folder: &Path,
        has_database: bool,
    ) -> anyhow::Result<Option<Webhook>> {
        let Some((settings, metrics)) = &self.webhook else { return Ok(None) };
        let queue = if has_database {
            QueueStore::Database(Arc::clone(&app.store), settings.tenant.clone())
        } else {
            QueueStore::in_folder(folder)
        };
        tracing::info!("events are sent to {}", origin(&settings.url));
        Webhook::new(Arc::clone(app), settings.clone(), queue, metrics.clone()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact() {
        let amount = |text| dollars(text).ok().map(|amount| amount.0);
        assert_eq!(amount("0"), Some(0));
        assert_eq!(amount("1"), Some(1_000_000_000_000));
        assert_eq!(amount("12.050001"), Some(12_050_001_000_000));
        for wrong in ["", ".5", "-1", "1e3", "1.0000001", "1.2.3", "99999999999999999999", "1,5"] {
            assert_eq!(amount(wrong), None, "{wrong}");
        }
    }
}
