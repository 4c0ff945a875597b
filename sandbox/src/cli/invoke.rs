//! `lambda-sandbox invoke`: invokes one function without a server.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use clap::Args;

use super::common::{Common, Pace};
use crate::fleet::FleetSettings;

/// Arguments of `invoke`.
#[derive(Debug, Args)]
pub(super) struct Invoke {
    /// Folder with a function.toml.
    function: PathBuf,
    /// The event, as JSON; `@FILE` reads it from a file.
    #[arg(default_value = "{}")]
    payload: String,
    /// Number of invocations, one after the other.
    #[arg(long, default_value_t = 1)]
    count: u32,
    /// Memory size in MB in place of the function's.
    #[arg(long)]
    memory_mb: Option<u32>,
    #[command(flatten)]
    common: Common,
}

/// The event: itself, or the contents of a file.
pub(super) fn payload(text: &str) -> anyhow::Result<Bytes> {
    let text = match text.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?,
        None => text.to_owned(),
    };
    serde_json::from_str::<serde::de::IgnoredAny>(&text).context("the event is not JSON")?;
    Ok(text.into())
}

/// Changes take effect immediately, and idle environments are kept while a command runs.
pub(super) fn pace() -> Pace {
    let fleet = FleetSettings { idle_timeout: Duration::from_secs(3600), ..FleetSettings::default() };
    Pace { fleet, update_delay: Duration::ZERO, control_rate: None }
}

impl Invoke {
    /// Responses go to standard output, logs to standard error. The exit code is 1 if the function failed.
    pub(super) async fn run(self) -> anyhow::Result<i32> {
        let payload = payload(&self.payload)?;
        let sandbox = self.common.start(pace())?;
        let outcome = async {
            let name = sandbox.load_one(&self.function)?;
            let mut failed = false;
            for _ in 0..self.count {
                let done = sandbox.plane.invoke_directly(&name, self.memory_mb, payload.clone()).await?;
                println!("{}", String::from_utf8_lossy(&done.result.payload));
                eprint!("{}", done.completion.log_tail);
                failed |= done.result.is_error();
            }
            Ok(i32::from(failed))
        };
        let outcome = tokio::select! {
            outcome = outcome => outcome,
            _ = tokio::signal::ctrl_c() => Ok(130),
        };
        let logs = sandbox.log_lengths();
        sandbox.stop(tokio::signal::ctrl_c()).await;
        // What was written after the last invocation, in Shutdown above all.
        eprint!("{}", logs.appended());
        outcome
    }
}
