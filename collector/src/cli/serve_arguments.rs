//! The arguments of `tailor serve`, and how they are read together with its configuration file.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, FromArgMatches};

use super::Cli;
use super::archive::ArchiveArgs;
use super::config::{ConfigFile, Problem, Settings};
use super::database::DatabaseArgs;
use super::profiles::ProfileArgs;
use super::push::{OtlpArgs, WebhookArgs};
use super::tuner::TunerArgs;
use crate::http::DEFAULT_METRICS_FUNCTIONS;
use crate::http::client::ProxyNetwork;
use crate::logging::{LogFormat, LogLevel};

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Configuration file: YAML with one key per option of this command, such as `listen: 127.0.0.1:8080`. Environment variables
    /// replace its values, and arguments replace both.
    #[arg(long, env = "TAILOR_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Check the settings, keys, store, database, certificate, address and AWS credentials, print what was found, and exit. Nothing
    /// is changed, and no connection is accepted.
    #[arg(long)]
    pub(super) check: bool,
    /// Folder for all data. It is created when it does not exist.
    #[arg(long, env = "TAILOR_DATA", default_value = "tailor-data")]
    pub(super) data: PathBuf,
    #[command(flatten)]
    pub(super) database: DatabaseArgs,
    /// Address to listen on. For other addresses than loopback, use `--tls-cert`, or put a proxy with TLS in front.
    #[arg(long, env = "TAILOR_LISTEN", default_value = "127.0.0.1:8080")]
    pub(super) listen: SocketAddr,
    /// File with more keys, one per line: `KEY` or `TENANT KEY`, and then `scopes=`, `functions=`, `name=`, `expires=`.
    /// It is read again when it changes. Without any key, the first start creates two.
    #[arg(long, env = "TAILOR_API_KEY_FILE")]
    pub(super) api_key_file: Option<PathBuf>,
    /// More keys, in the form of a key file with `;` between two keys. Everyone who can read the settings can read them, so use
    /// digests: `sha256:DIGEST scopes=ingest; sha256:DIGEST scopes=read,admin`. The page then shows keys and does not change them.
    #[arg(long, env = "TAILOR_API_KEYS", hide_env_values = true, value_name = "LINES")]
    pub(super) api_keys: Option<String>,
    /// Allow everyone on this machine to read without a key. Only for a loopback address.
    #[arg(long)]
    pub(super) local_reads: bool,
    /// File with Lambda's prices in place of the built-in ones: AWS's price list of Lambda, or a table in the form of
    /// sizing/data/prices.json.
    #[arg(long, value_name = "FILE")]
    pub(super) prices: Option<PathBuf>,
    /// File with the tags of functions of the tenant `default`, for filters and groups: JSON such as
    /// `{"FUNCTION": {"team": "payments"}}`, or CSV with the header `function,team`. FUNCTION is a name or an ARN. It is read
    /// again when it changes.
    #[arg(long, value_name = "FILE", env = "TAILOR_TAGS")]
    pub(super) tags: Option<PathBuf>,
    /// File with usage that measurements do not show, for the full bill: JSON with an object for each function, see
    /// docs/bill.md. It is read for each bill.
    #[arg(long, value_name = "FILE", env = "TAILOR_USAGE")]
    pub(super) usage: Option<PathBuf>,
    /// Number of functions of each tenant that have their own metrics in `GET /metrics`: those with the highest cost. The others are added up.
    #[arg(long, value_name = "N", env = "TAILOR_METRICS_FUNCTIONS", default_value_t = DEFAULT_METRICS_FUNCTIONS,
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(0..=500))]
    pub(super) metrics_functions: usize,
    /// Address or network of a proxy whose `X-Forwarded-For` and `X-Forwarded-Proto` headers are used.
    #[arg(long, env = "TAILOR_TRUSTED_PROXY", value_delimiter = ',')]
    pub(super) trusted_proxy: Vec<ProxyNetwork>,
    #[command(flatten)]
    pub(super) connections: ConnectionArgs,
    /// Days with one rollup per hour.
    #[arg(long, help_heading = "Data", env = "TAILOR_HOURLY_DAYS", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=400))]
    pub(super) hourly_days: u64,
    /// Days with rollups. Older measurements are deleted.
    #[arg(long, help_heading = "Data", env = "TAILOR_DAILY_DAYS", default_value_t = 400, value_parser = clap::value_parser!(u64).range(2..=4000))]
    pub(super) daily_days: u64,
    #[command(flatten)]
    pub(super) log: LogArgs,
    #[command(flatten)]
    pub(super) archive: Box<ArchiveArgs>,
    #[command(flatten)]
    pub(super) profiles: ProfileArgs,
    #[command(flatten)]
    pub(super) otlp: OtlpArgs,
    #[command(flatten)]
    pub(super) webhook: WebhookArgs,
    #[command(flatten)]
    pub(super) tuner: TunerArgs,
    /// The values of all options, for comparison after a reload.
    #[arg(skip)]
    pub(super) settings: Settings,
    /// What cannot be used of the configuration file.
    #[arg(skip)]
    pub(super) problems: Vec<Problem>,
}

#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Log")]
pub(super) struct LogArgs {
    /// Lowest level that is logged.
    #[arg(long, env = "TAILOR_LOG_LEVEL", value_enum, default_value_t)]
    pub(super) log_level: LogLevel,
    /// How the lines of the log are written to standard error. In JSON they have no link to sign in.
    #[arg(long, env = "TAILOR_LOG_FORMAT", value_enum, default_value_t)]
    pub(super) log_format: LogFormat,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Connections")]
pub(super) struct ConnectionArgs {
    /// PEM file with the certificate of the collector, followed by those of its issuers. With it the collector serves HTTPS only.
    /// It and the key are read again when they change.
    #[arg(long, env = "TAILOR_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub(super) tls_cert: Option<PathBuf>,
    /// PEM file with the private key of the certificate.
    #[arg(long, env = "TAILOR_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub(super) tls_key: Option<PathBuf>,
    /// Maximum number of open connections. At the limit, the longest idle ones are closed.
    #[arg(long, env = "TAILOR_MAX_CONNECTIONS", default_value_t = 8_192, value_parser = clap::value_parser!(u32).range(16..=1_000_000))]
    pub(super) max_connections: u32,
    /// Maximum number of open connections of one client address; half of `--max-connections` when absent.
    #[arg(long, env = "TAILOR_MAX_CONNECTIONS_PER_ADDRESS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) max_connections_per_address: Option<u32>,
}

/// The arguments of `tailor serve` with the settings of a configuration file, and what cannot be used of the file.
pub(super) fn read(
    arguments: &[OsString],
    file: Option<&Path>,
) -> Result<(ServeArgs, Vec<Problem>), clap::Error> {
    let (mut command, mut problems) = (Cli::definition(), Vec::new());
    match file.map(ConfigFile::read) {
        None => {}
        Some(Err(problem)) => problems.push(problem),
        Some(Ok(file)) => {
            command = command.mut_subcommand("serve", |serve| {
                problems = file.problems(&serve);
                file.apply(serve)
            });
        }
    }
    let matches = command.try_get_matches_from_mut(arguments)?;
    let Some((_, matches)) = matches.subcommand() else {
        return Err(command.error(clap::error::ErrorKind::MissingSubcommand, "no command"));
    };
    let mut args = ServeArgs::from_arg_matches(matches)?;
    if let Some(serve) = command.find_subcommand("serve") {
        args.settings = Settings::of(serve, matches);
    }
    Ok((args, problems))
}
