//! Completion in shells. The shell starts `tailor`, which completes commands, options, values, and names of functions of
//! the data folder.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::ValueEnum;
use clap_complete::CompleteEnv;
use clap_complete::engine::CompletionCandidate;
use clap_complete::env::Shells;

use super::{Cli, show};
use crate::render::text::is_invisible;
use crate::store::sqlite::SqliteStore;
use crate::store::{Store as _, Tenant};

/// The variable with which the shell requests completions.
const VARIABLE: &str = "TAILOR_COMPLETE";

/// Maximum number of names that are read.
const MAX_NAMES: usize = 20_000;

/// A shell whose completion is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Shell {
    /// Bash.
    Bash,
    /// Zsh.
    Zsh,
    /// Fish.
    Fish,
}

/// Answers a shell that requests completions, and ends the process. Otherwise it does nothing.
pub(super) fn answer() {
    CompleteEnv::with_factory(Cli::definition).var(VARIABLE).complete();
}

/// Prints the script that registers the completion.
pub(super) fn print(shell: Shell) -> anyhow::Result<ExitCode> {
    let name = match shell {
        Shell::Bash => "bash",
        Shell::Zsh => "zsh",
        Shell::Fish => "fish",
    };
    let mut script = Vec::new();
    let shells = Shells::builtins();
    let completer = shells.completer(name).context("the shell is not known")?;
    completer.write_registration(VARIABLE, "tailor", "tailor", "tailor", &mut script)?;
    let script = String::from_utf8(script).context("the script is not text")?;
    show::print((script, false))
}

/// The functions of the data folder whose names begin with `begin`. Errors give no names: a shell has no place for them.
pub(super) fn function_names(begin: &OsStr) -> Vec<CompletionCandidate> {
    let Some(begin) = begin.to_str() else { return Vec::new() };
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let data = option(&arguments, "--data").or_else(|| std::env::var_os("TAILOR_DATA"));
    let tenant = option(&arguments, "--tenant").and_then(|tenant| tenant.into_string().ok());
    let folder = PathBuf::from(data.unwrap_or_else(|| "tailor-data".into()));
    let Ok(store) = SqliteStore::open_to_read(&folder) else { return Vec::new() };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Vec::new();
    };
    let tenant = tenant.map_or_else(Tenant::default, Tenant);
    let keys = runtime.block_on(store.functions(&tenant, None, MAX_NAMES)).unwrap_or_default();
    let mut names: Vec<String> = keys.into_iter().map(|key| key.name).collect();
    names.dedup();
    names.retain(|name| name.starts_with(begin) && !name.contains(is_invisible));
    names.into_iter().map(CompletionCandidate::new).collect()
}

/// The value of an option of the command line that is being completed.
fn option(arguments: &[OsString], name: &str) -> Option<OsString> {
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == name {
            return rest.next().cloned();
        }
        let value = argument.to_str().and_then(|argument| argument.strip_prefix(name)?.strip_prefix('='));
        if let Some(value) = value {
            return Some(value.into());
        }
    }
    None
}
