//! `tailor keys`: creates, lists and revokes API keys.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use comfy_table::Table;
use comfy_table::presets::NOTHING;

use crate::keys::store::{self, NewKey};
use crate::keys::{FunctionPattern, Key, KeyEntry, Scope, SecretDigest, file};
use crate::render::units;
use crate::store::Tenant;

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Create a key and print it. Only its digest is stored.
    Create(CreateArgs),
    /// List the keys, with the time of last use that the collector wrote (once a minute).
    List {
        /// The data folder.
        #[arg(long, env = "TAILOR_DATA", default_value = "tailor-data")]
        data: PathBuf,
    },
    /// Revoke a key. Its sessions end, too.
    Revoke {
        /// The data folder.
        #[arg(long, env = "TAILOR_DATA", default_value = "tailor-data")]
        data: PathBuf,
        /// Id, begin of an id (4 characters or more), or name of the key.
        key: String,
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
            create(&args.data, new)
        }
        KeysCommand::List { data } => list(&data),
        KeysCommand::Revoke { data, key } => {
            let key = store::revoke(&data, &key)?;
            println!("revoked {} {}", key.id(), key.name);
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Creates a key with the scopes of a key of earlier versions.
pub(super) fn create_without_scopes(folder: &Path, tenant: String) -> anyhow::Result<ExitCode> {
    // The digest is not that of the new key: only the scopes are used.
    let Key { tenant, scopes, .. } = Key::without_scopes(SecretDigest::of(""), Tenant(tenant));
    create(folder, NewKey { name: String::new(), tenant, scopes, functions: Vec::new(), expires_at_s: None })
}

fn create(folder: &Path, new: NewKey) -> anyhow::Result<ExitCode> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    println!("{}", store::create(folder, new)?);
    eprintln!("only its digest is kept: store the key now; a running collector accepts it within seconds");
    Ok(ExitCode::SUCCESS)
}

fn list(folder: &Path) -> anyhow::Result<ExitCode> {
    let ring = store::load(folder)?;
    let mut entries: Vec<&KeyEntry> = ring.entries().map(AsRef::as_ref).collect();
    entries.sort_by_key(|entry| (entry.key.created_at_s, entry.key.id()));
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["ID", "NAME", "TENANT", "SCOPES", "FUNCTIONS", "CREATED", "EXPIRES", "LAST USED"]);
    for entry in entries {
        let key = &entry.key;
        let functions: Vec<_> = key.functions.iter().map(|pattern| pattern.0.as_str()).collect();
        let scopes: Vec<_> = key.scopes.iter().map(|scope| scope.name()).collect();
        table.add_row([
            key.id(),
            key.name.clone(),
            key.tenant.0.clone(),
            scopes.join(","),
            if functions.is_empty() { "all".to_owned() } else { functions.join(",") },
            instant(key.created_at_s, "unknown"),
            instant(key.expires_at_s, "never"),
            instant(Some(entry.last_used_s()).filter(|at_s| *at_s > 0), "never"),
        ]);
    }
    println!("{}", table.trim_fmt());
    Ok(ExitCode::SUCCESS)
}

fn instant(at_s: Option<u64>, absent: &str) -> String {
    at_s.map_or_else(|| absent.to_owned(), |at_s| units::instant(at_s.saturating_mul(1_000_000)))
}
