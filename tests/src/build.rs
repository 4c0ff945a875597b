//! Building with cargo what the stage starts, and where the results are.
//!
//! Tests call this themselves, so that a bare `cargo test` works; when all is built it takes a second.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shipped::build_for_here;
use crate::stage::Programs;

/// The project's folder.
///
/// # Errors
/// When this crate was taken out of it.
pub fn project() -> Result<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(own.parent().context("this crate lies in the project's folder")?.to_owned())
}

/// The folder cargo builds into.
///
/// # Errors
/// When the working folder is gone.
pub fn target_folder() -> Result<PathBuf> {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => Ok(std::path::absolute(folder)?),
        None => Ok(project()?.join("target")),
    }
}

/// Builds the sandbox as a developer runs it; the path of its program.
///
/// # Errors
/// When cargo fails; it has said why.
pub fn sandbox() -> Result<PathBuf> {
    cargo(&["build", "--quiet", "-p", "lambda-sandbox"])?;
    Ok(target_folder()?.join("debug/lambda-sandbox"))
}

/// Builds the servers as a developer runs them, and what runs inside a function as it is shipped.
///
/// # Errors
/// When cargo fails; it has said why.
pub fn programs() -> Result<Programs> {
    cargo(&["build", "--quiet", "-p", "tailor-collector", "-p", "lambda-sandbox"])?;
    // Two builds: in one, cargo would give the extension the features that the handlers ask of its dependencies.
    let shipped = build_for_here(&["tailor-extension"])?;
    build_for_here(&["demo-functions"])?;
    let target = target_folder()?;
    let layer = target.join("stage-layer");
    fs::create_dir_all(layer.join("extensions"))?;
    let installed = layer.join("extensions/tailor-extension");
    // Replaced in one step: another test may be starting it just now.
    let fresh = layer.join(format!("tailor-extension-{}", std::process::id()));
    fs::copy(shipped.join("tailor-extension"), &fresh)?;
    fs::rename(&fresh, &installed)?;
    Ok(Programs {
        collector: target.join("debug/tailor"),
        sandbox: target.join("debug/lambda-sandbox"),
        layer,
        handler: shipped.join("handler"),
    })
}

/// Runs cargo in the project.
///
/// # Errors
/// When it cannot be started or fails.
pub fn cargo(arguments: &[&str]) -> Result<()> {
    run_cargo(cargo_command()?.args(arguments))
}

pub(crate) fn cargo_command() -> Result<Command> {
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    command.current_dir(project()?);
    Ok(command)
}

pub(crate) fn run_cargo(command: &mut Command) -> Result<()> {
    let status = command.status().context("cannot start cargo")?;
    if !status.success() {
        let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
        bail!("cargo {} failed", arguments.join(" "));
    }
    Ok(())
}
