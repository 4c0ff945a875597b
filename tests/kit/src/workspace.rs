//! The folders of the workspace, and cargo commands that run in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::PREBUILT_VARIABLE;

/// The root folder of the workspace.
///
/// # Errors
/// When this crate is not in `tests/kit` of the workspace.
pub fn project() -> Result<PathBuf> {
    let manifest_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = manifest_folder.ancestors().nth(2);
    Ok(root.context("tailor-test-kit must be in tests/kit of the workspace")?.to_owned())
}

/// Cargo's target folder.
///
/// # Errors
/// When the current folder does not exist.
pub fn target_folder() -> Result<PathBuf> {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => Ok(std::path::absolute(folder)?),
        None => Ok(project()?.join("target")),
    }
}

/// Whether [`PREBUILT_VARIABLE`] is set and not empty.
pub(crate) fn is_prebuilt() -> bool {
    std::env::var_os(PREBUILT_VARIABLE).is_some_and(|value| !value.is_empty())
}

/// Runs cargo in the root folder of the workspace.
///
/// # Errors
/// When it cannot be started or fails.
pub fn cargo(arguments: &[&str]) -> Result<()> {
    run_cargo(cargo_command()?.args(arguments))
}

/// A cargo command that runs in the root folder of the workspace.
///
/// Cargo describes the package of this program in environment variables, which the command does not get: the build script of
/// `ring` reads them, so each program would compile `ring`, and all that depends on it, again.
///
/// # Errors
/// When this crate is not in `tests/kit` of the workspace.
pub fn cargo_command() -> Result<Command> {
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    command.current_dir(project()?);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    Ok(command)
}

/// Runs a cargo command and waits for it.
///
/// # Errors
/// When it cannot be started or fails.
pub fn run_cargo(command: &mut Command) -> Result<()> {
    let status = command.status().context("cannot start cargo")?;
    if !status.success() {
        let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
        bail!("cargo {} failed", arguments.join(" "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cargo_command_does_not_get_the_package_of_this_program() {
        let command = cargo_command().unwrap();
        let removed: Vec<_> = command.get_envs().filter(|(_, value)| value.is_none()).collect();
        for name in ["CARGO_PKG_NAME", "CARGO_PKG_VERSION_PRE", "CARGO_MANIFEST_DIR"] {
            assert!(std::env::var_os(name).is_some(), "cargo does not set {name}");
            assert!(removed.iter().any(|(variable, _)| *variable == name), "{name} is not removed");
        }
    }
}
