//! `tailor keys`: creates, lists and revokes API keys.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::arguments::Colour;
use super::database::DatabaseArgs;
use super::runtime::block_on;
use super::{show, streams};
use crate::keys::sources::NewKey;
use crate::keys::{FunctionPattern, Key, KeyEntry, Scope, SecretDigest, file};
use crate::query::Format;
use crate::render::listing::Listing;
use crate::render::output::{Field, Rows, write};
use crate::render::units;
use crate::store::Tenant;

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Create a key and print it. Only its digest is stored.
    Create(CreateArgs),
    /// List the keys, with the time of last use that the collector wrote (once a minute).
    List(ListArgs),
    /// Revoke a key. Its sessions end, too.
    Revoke {
        /// The data folder.
        #[arg(long, env = "TAILOR_DATA", default_value = "tailor-data")]
        data: PathBuf,
        /// Id, prefix of an id (4 characters or more), or name of the key.
        key: String,
        #[command(flatten)]
        database: DatabaseArgs,
    },
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// The data folder.
    #[arg(long, env = "TAILOR_DATA", default_value = "tailor-data")]
    data: PathBuf,
    /// Name of the key, for people.
    #[arg(long, value_parser = file::parse_name)]
    name: Option<String>,
    /// Whose invocations are sent and read with it.
    #[arg(long, default_value = "default", value_parser = tenant)]
    tenant: String,
    /// What it permits: `ingest` sends batches, `read` reads the tenant's reports, `admin` reads the collector's metrics, sends tags, and
    /// manages keys and sessions on the page.
    #[arg(long, value_delimiter = ',', default_value = "ingest")]
    scopes: Vec<Scope>,
    /// Functions whose batches it may send, such as `checkout-*,auth`; all when absent.
    #[arg(long, value_delimiter = ',', value_parser = function_pattern)]
    functions: Vec<FunctionPattern>,
    /// Date from which it is refused, `YYYY-MM-DD` (UTC).
    #[arg(long, value_parser = file::parse_date)]
    expires: Option<u64>,
    #[command(flatten)]
    database: DatabaseArgs,
}

/// Which keys are listed.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// The data folder.
    #[arg(long, env = "TAILOR_DATA", default_value = "tailor-data")]
    data: PathBuf,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Only keys whose names contain this text.
    #[arg(long)]
    name: Option<String>,
    /// Only keys of this tenant.
    #[arg(long)]
    tenant: Option<String>,
    /// Only keys with this scope.
    #[arg(long)]
    scope: Option<Scope>,
    /// Order of the keys.
    #[arg(long, value_enum, default_value_t)]
    sort: KeySort,
    /// Reverse the order.
    #[arg(long)]
    reverse: bool,
    #[command(flatten)]
    database: DatabaseArgs,
}

/// What keys are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum KeySort {
    /// Time of creation; the oldest first.
    #[default]
    Created,
    /// Name.
    Name,
    /// Time of expiry; the next one first.
    Expires,
    /// Time of last use; keys that were never used first.
    LastUsed,
}

pub(super) fn tenant(text: &str) -> Result<String, String> {
    let valid = !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control());
    valid.then(|| text.to_owned()).ok_or_else(|| "the name of a tenant has no spaces".to_owned())
}

fn function_pattern(text: &str) -> Result<FunctionPattern, String> {
    let mut patterns = file::parse_functions(text)?;
    patterns.pop().ok_or_else(|| "the pattern is empty".to_owned())
}

pub(super) fn run(command: KeysCommand) -> anyhow::Result<ExitCode> {
    match command {
        KeysCommand::Create(args) => {
            let new = NewKey {
                name: args.name.unwrap_or_default(),
                tenant: Tenant(args.tenant),
                scopes: args.scopes,
                functions: args.functions,
                expires_at_s: args.expires,
            };
            create(&args.data, &args.database, new)
        }
        KeysCommand::List(args) => list(&args),
        KeysCommand::Revoke { data, database, key } => {
            let sources = database.keys(&data, false)?;
            let key = block_on(sources.revoke(&key))??;
            show::print((format!("revoked {} {}\n", key.id(), key.name), false))
        }
    }
}

/// Creates a key with the scopes of a key of earlier versions.
pub(super) fn create_without_scopes(
    folder: &Path,
    database: &DatabaseArgs,
    tenant: String,
) -> anyhow::Result<ExitCode> {
    // The digest is not that of the new key: only the scopes are used.
    let Key { tenant, scopes, .. } = Key::without_scopes(SecretDigest::of(""), Tenant(tenant));
    let new = NewKey { name: String::new(), tenant, scopes, functions: Vec::new(), expires_at_s: None };
    create(folder, database, new)
}

fn create(folder: &Path, database: &DatabaseArgs, new: NewKey) -> anyhow::Result<ExitCode> {
    // Whatever it creates is for its user only.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let sources = database.keys(folder, true)?;
    streams::output(&format!("{}\n", block_on(sources.create(new))??))?;
    streams::note("only its digest is kept: store the key now; running collectors accept it within seconds");
    Ok(ExitCode::SUCCESS)
}

/// A key as `tailor keys list` shows it.
#[derive(Debug, Serialize)]
struct ListedKey {
    id: String,
    name: String,
    tenant: String,
    scopes: Vec<&'static str>,
    /// Patterns of functions; all when empty.
    functions: Vec<String>,
    created_at_s: Option<u64>,
    expires_at_s: Option<u64>,
    last_used_at_s: Option<u64>,
}

impl From<&KeyEntry> for ListedKey {
    fn from(entry: &KeyEntry) -> Self {
        let key = &entry.key;
        Self {
            id: key.id(),
            name: key.name.clone(),
            tenant: key.tenant.0.clone(),
            scopes: key.scopes.iter().map(|scope| scope.name()).collect(),
            functions: key.functions.iter().map(|pattern| pattern.0.clone()).collect(),
            created_at_s: key.created_at_s,
            expires_at_s: key.expires_at_s,
            last_used_at_s: Some(entry.last_used_s()).filter(|at_s| *at_s > 0),
        }
    }
}

impl ListedKey {
    fn for_people(&self) -> [String; 8] {
        [
            self.id.clone(),
            self.name.clone(),
            self.tenant.clone(),
            self.scopes.join(","),
            if self.functions.is_empty() { "all".to_owned() } else { self.functions.join(",") },
            instant(self.created_at_s, "unknown"),
            instant(self.expires_at_s, "never"),
            instant(self.last_used_at_s, "never"),
        ]
    }

    fn exact(&self) -> [Field; 8] {
        [
            Field::from(&self.id),
            Field::from(&self.name),
            Field::from(&self.tenant),
            Field::from(self.scopes.join(" ")),
            Field::from(self.functions.join(" ")),
            Field::number(self.created_at_s),
            Field::number(self.expires_at_s),
            Field::number(self.last_used_at_s),
        ]
    }
}

fn list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    const HEADER: [&str; 8] =
        ["ID", "NAME", "TENANT", "SCOPES", "FUNCTIONS", "CREATED", "EXPIRES", "LAST USED"];
    const EXACT: [&str; 8] =
        ["id", "name", "tenant", "scopes", "functions", "created_at_s", "expires_at_s", "last_used_at_s"];
    let ring = block_on(args.database.keys(&args.data, false)?.revocable())??;
    let is_listed = |key: &Key| {
        args.name.as_ref().is_none_or(|part| key.name.to_lowercase().contains(&part.to_lowercase()))
            && args.tenant.as_ref().is_none_or(|tenant| *tenant == key.tenant.0)
            && args.scope.is_none_or(|scope| key.permits(scope))
    };
    let mut keys: Vec<ListedKey> =
        ring.entries().filter(|entry| is_listed(&entry.key)).map(|entry| entry.as_ref().into()).collect();
    keys.sort_by(|a, b| (a.created_at_s, &a.id).cmp(&(b.created_at_s, &b.id)));
    match args.sort {
        KeySort::Created => {}
        KeySort::Name => keys.sort_by(|a, b| a.name.cmp(&b.name)),
        KeySort::Expires => keys.sort_by_key(|key| key.expires_at_s.unwrap_or(u64::MAX)),
        KeySort::LastUsed => keys.sort_by_key(|key| key.last_used_at_s),
    }
    if args.reverse {
        keys.reverse();
    }
    let listing = Listing {
        columns: Rows::new(&HEADER, keys.iter().map(ListedKey::for_people)),
        exact: Rows::new(&EXACT, keys.iter().map(ListedKey::exact)),
        value: serde_json::json!({ "keys": keys }),
        notes: if keys.is_empty() { "no keys\n".to_owned() } else { String::new() },
    };
    show::print((write(&listing, args.format, show::style_with(Colour::Auto)), false))
}

fn instant(at_s: Option<u64>, absent: &str) -> String {
    at_s.map_or_else(|| absent.to_owned(), |at_s| units::instant(at_s.saturating_mul(1_000_000)))
}
