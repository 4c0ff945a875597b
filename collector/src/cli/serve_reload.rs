//! What SIGHUP does to a running collector beside its keys and its certificate: it reads the configuration file again, uses what can
//! be changed while it runs, and logs what needs a restart.

use std::sync::Arc;

use tokio::signal::unix::Signal;

use super::serve_arguments::ServeArgs;
use super::{Cli, Command};
use crate::http::App;
use crate::logging;

/// Settings that are used at once.
const RELOADED: [&str; 4] = ["log-level", "tls-cert", "tls-key", "trusted-proxy"];

/// Waits for SIGHUP until `stopped` resolves.
pub(super) async fn follow(
    app: Arc<App>,
    mut args: ServeArgs,
    mut hangups: Signal,
    stopped: impl Future<Output = ()>,
) {
    tokio::pin!(stopped);
    loop {
        tokio::select! {
            () = &mut stopped => return,
            _ = hangups.recv() => {}
        }
        if args.config.is_some() {
            reload(&app, &mut args);
        }
    }
}

/// Uses the settings of the file. When it cannot be used, the present settings stay.
fn reload(app: &App, args: &mut ServeArgs) {
    let new = match Cli::from_arguments(std::env::args_os()).map(|cli| cli.command) {
        Ok(Command::Serve(new)) => new,
        Ok(_) => return,
        Err(error) => {
            let error = error.to_string();
            let error = error.trim_start_matches("error: ").trim_end();
            tracing::error!("cannot reload the configuration file: the present settings stay: {error}");
            return;
        }
    };
    let changed = args.settings.changed(&new.settings);
    let (now, later): (Vec<_>, Vec<_>) =
        changed.into_iter().partition(|name| RELOADED.contains(&name.as_str()));
    logging::set_level(new.log.log_level);
    app.trusted_proxies.replace(new.trusted_proxy.clone());
    match (&app.tls, new.tls_files()) {
        (Some(tls), Ok(Some(files))) => tls.set_files(files),
        (None, Ok(None)) => {}
        (_, Err(error)) => tracing::error!("{error}: the present certificate stays in use"),
        _ => tracing::warn!("to begin or to end TLS, restart the collector"),
    }
    for name in &later {
        tracing::warn!("the setting `{name}` has changed: restart the collector to use it");
    }
    tracing::info!("reloaded the configuration file: {} settings were changed", now.len());
    // What needs a restart is reported at each reload until then.
    args.log = new.log;
    args.trusted_proxy = new.trusted_proxy;
    args.settings.take(&new.settings, &RELOADED);
}
