//! Building with cargo what the stage starts, and where the results are.
//!
//! Tests call this themselves, so that a bare `cargo test` works; when all is built it takes a second.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::stage::Programs;

/// The cargo profile of what is shipped in the layer; the example handlers share its dependencies.
const LAYER_PROFILE: &str = "layer";

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

/// Builds the servers as a developer runs them, and what runs inside a function as it is shipped.
///
/// # Errors
/// When cargo fails; it has said why.
pub fn programs() -> Result<Programs> {
    cargo(&["build", "--quiet", "-p", "tailor-collector", "-p", "lambda-sandbox"])?;
    let shipped = shipped(&["tailor-extension", "demo-functions"])?;
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

/// Builds packages for the inside of an execution environment; returns the folder of the results.
///
/// Static musl where its standard library is installed: half the start and memory, and no libc to miss.
/// Elsewhere the machine's own target, said so.
///
/// # Errors
/// When cargo fails; it has said why.
pub fn shipped(packages: &[&str]) -> Result<PathBuf> {
    let musl = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let mut arguments = vec!["build", "--quiet", "--profile", LAYER_PROFILE];
    packages.iter().for_each(|package| arguments.extend(["-p", package]));
    let target = has_target(&musl);
    if target {
        arguments.extend(["--target", &musl]);
    } else {
        eprintln!(
            "note: {musl} is not installed (rustup target add {musl}): building for this machine's own libc"
        );
    }
    cargo(&arguments)?;
    let folder = target_folder()?;
    Ok(if target { folder.join(musl).join(LAYER_PROFILE) } else { folder.join(LAYER_PROFILE) })
}

/// Whether the standard library of `target` is installed, after trying to have it installed.
fn has_target(target: &str) -> bool {
    let installed = || {
        let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
        Command::new(rustc)
            .args(["--print", "target-libdir", "--target", target])
            .output()
            .is_ok_and(|output| Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir())
    };
    installed()
        || Command::new("rustup")
            .args(["target", "add", target])
            .output()
            .is_ok_and(|output| output.status.success())
            && installed()
}

/// Runs cargo in the project.
///
/// # Errors
/// When it cannot be started or fails.
pub fn cargo(arguments: &[&str]) -> Result<()> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(arguments).current_dir(project()?);
    // ring has C and assembly that need no libc; any C compiler of this machine will do.
    let variable = format!("CC_{}_unknown_linux_musl", std::env::consts::ARCH);
    if std::env::var_os(&variable).is_none() {
        command.env(variable, "cc");
    }
    let status = command.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("cargo {} failed", arguments.join(" "));
    }
    Ok(())
}
