//! `lambda-sandbox serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::control::{ControlPlane, Folders};
use crate::environment::Host;
use crate::fleet::{Fleet, FleetSettings};
use crate::host;
use crate::supervisor::Isolation;
use crate::trace::Trace;

/// How long environments may take to end; SHUTDOWN has two seconds, a running invocation may need more.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(15);

/// Settings of a sandbox.
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Address of the Lambda API; port 0 takes any free port.
    #[arg(long, default_value = "127.0.0.1:9321")]
    listen: SocketAddr,
    /// Folder for log files and running environments.
    #[arg(long, default_value = ".lambda-sandbox")]
    data: PathBuf,
    /// Folder with a function.toml, or of such folders; may be repeated.
    #[arg(long)]
    functions: Vec<PathBuf>,
    /// Layer (folder or zip) that every function gets; may be repeated.
    #[arg(long)]
    layer: Vec<PathBuf>,
    /// Write everything that happens to this file, one JSON object a line.
    #[arg(long)]
    trace: Option<PathBuf>,
    /// AWS region the functions believe to be in.
    #[arg(long, default_value = "us-east-1")]
    region: String,
    /// AWS account number the functions believe to be in.
    #[arg(long, default_value = "123456789012")]
    account: String,
    /// Seconds after which idle environments are shut down.
    #[arg(long, default_value_t = 600.0)]
    idle_timeout_s: f64,
    /// Milliseconds for which a change of a function stays InProgress.
    #[arg(long, default_value_t = 100)]
    update_delay_ms: u64,
    /// Concurrent invocations of all functions together.
    #[arg(long, default_value_t = 1000)]
    concurrency: u32,
    /// How environments are kept apart.
    #[arg(long, value_enum, default_value_t = IsolationChoice::Auto)]
    isolation: IsolationChoice,
    /// Leave CPU, memory and freezing to nobody, even where control groups work.
    #[arg(long)]
    no_limits: bool,
}

/// Values of `--isolation`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum IsolationChoice {
    /// The strongest that works.
    Auto,
    /// Mount and PID namespaces, as root.
    Namespaces,
    /// The same in an unprivileged user namespace.
    User,
    /// Plain processes.
    None,
}

impl Serve {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        // Caught from the start: a signal while functions are loaded must not leave anything behind.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let trace = match &self.trace {
            Some(path) => Trace::to_file(path)
                .with_context(|| format!("cannot write the trace file {}", path.display()))?,
            None => Trace::disabled(),
        };
        let isolation = match self.isolation {
            IsolationChoice::Auto => None,
            IsolationChoice::Namespaces => Some(Isolation::Namespaces),
            IsolationChoice::User => Some(Isolation::UserNamespaces),
            IsolationChoice::None => Some(Isolation::Processes),
        };
        let options = host::Options {
            data: self.data,
            account: self.account,
            trace,
            isolation,
            limits: !self.no_limits,
        };
        let host: Arc<Host> = Arc::new(host::prepare(options)?);
        host::say_what_is_off(&host);
        let settings = FleetSettings {
            idle_timeout: Duration::try_from_secs_f64(self.idle_timeout_s)?,
            account_concurrency: self.concurrency,
        };
        let fleet = Fleet::start(host.clone(), settings);
        let delay = Duration::from_millis(self.update_delay_ms);
        let plane = Arc::new(ControlPlane::new(fleet.clone(), &self.region, delay));
        let layers = self.layer.iter().map(|layer| layer.canonicalize().unwrap_or_else(|_| layer.clone()));
        let folders = Folders { layers: layers.collect() };
        for folder in &self.functions {
            let names = plane.load(&folders, folder)?;
            tracing::info!(folder = %folder.display(), functions = %names.join(" "), "functions loaded");
        }
        let listener = TcpListener::bind(self.listen)
            .await
            .with_context(|| format!("cannot listen on {}", self.listen))?;
        println!("lambda-sandbox ready on http://{}", listener.local_addr()?);
        let outcome = tokio::select! {
            served = plane.serve(listener) => served.context("the Lambda API stopped"),
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
        };
        tracing::info!("shutting down");
        let left = tokio::select! {
            left = fleet.shut_down(SHUTDOWN_PATIENCE) => left,
            // A second signal does not wait.
            _ = interrupt.recv() => 1,
        };
        if left > 0 {
            tracing::warn!(left, "environments did not end by themselves and are killed");
        }
        host::clean_up(&host);
        outcome
    }
}
