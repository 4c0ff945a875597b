//! `lambda-sandbox serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::common::{Common, Pace};
use crate::fleet::FleetSettings;

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Address of the Lambda API; port 0 takes any free port.
    #[arg(long, default_value = "127.0.0.1:9321")]
    listen: SocketAddr,
    /// Folder with a function.toml, or folder of such folders; may be repeated.
    #[arg(long)]
    functions: Vec<PathBuf>,
    /// Shut down environments that are idle for this many seconds.
    #[arg(long, default_value_t = 600.0)]
    idle_timeout_s: f64,
    /// Time in milliseconds for which a change of a function is InProgress.
    #[arg(long, default_value_t = 100)]
    update_delay_ms: u64,
    /// Maximum concurrent invocations of all functions together.
    #[arg(long, default_value_t = 1000)]
    concurrency: u32,
    /// Maximum requests per second to all operations except Invoke and GetFunction. Lambda allows 15; no limit by
    /// default.
    #[arg(long)]
    control_rate: Option<f64>,
    #[command(flatten)]
    common: Common,
}

impl Serve {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        // Handled from the start: a signal while functions are loaded must also clean up.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let fleet = FleetSettings {
            idle_timeout: Duration::try_from_secs_f64(self.idle_timeout_s)?,
            account_concurrency: self.concurrency,
        };
        let update_delay = Duration::from_millis(self.update_delay_ms);
        let sandbox = self.common.start(Pace { fleet, update_delay, control_rate: self.control_rate })?;
        for folder in &self.functions {
            sandbox.load(folder)?;
        }
        let listener = TcpListener::bind(self.listen)
            .await
            .with_context(|| format!("cannot listen on {}", self.listen))?;
        println!("lambda-sandbox ready on http://{}", listener.local_addr()?);
        let outcome = tokio::select! {
            served = sandbox.plane.clone().serve(listener) => served.context("the Lambda API stopped"),
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
        };
        tracing::info!("shutting down");
        sandbox.stop(interrupt.recv()).await;
        outcome
    }
}
