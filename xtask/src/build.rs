//! Building with cargo, and where the results are.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The cargo profile of what is shipped in the layer; the example handlers share its dependencies.
const LAYER_PROFILE: &str = "layer";

/// The project's folder.
pub(crate) fn project() -> Result<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(own.parent().context("xtask lies in the project's folder")?.to_owned())
}

/// The folder cargo builds into.
pub(crate) fn target_folder() -> Result<PathBuf> {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => Ok(std::path::absolute(folder)?),
        None => Ok(project()?.join("target")),
    }
}

/// What the demo and the end-to-end tests start.
#[derive(Debug)]
pub(crate) struct Binaries {
    pub(crate) collector: PathBuf,
    pub(crate) sandbox: PathBuf,
    pub(crate) extension: PathBuf,
    pub(crate) handler: PathBuf,
}

/// Builds the servers as a developer runs them, and what runs inside a function as it is shipped.
pub(crate) fn all() -> Result<Binaries> {
    cargo(&["build", "-p", "tailor-collector", "-p", "lambda-sandbox"])?;
    let shipped = shipped(&["tailor-extension", "demo-functions"])?;
    let servers = target_folder()?.join("debug");
    Ok(Binaries {
        collector: servers.join("tailor"),
        sandbox: servers.join("lambda-sandbox"),
        extension: shipped.join("tailor-extension"),
        handler: shipped.join("handler"),
    })
}

/// Builds packages for the inside of an execution environment; returns the folder of the results.
///
/// Static musl where its standard library is installed: half the start and memory, and no libc to miss.
/// Elsewhere the machine's own target, said so.
pub(crate) fn shipped(packages: &[&str]) -> Result<PathBuf> {
    let musl = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let mut arguments = vec!["build", "--profile", LAYER_PROFILE];
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
pub(crate) fn cargo(arguments: &[&str]) -> Result<()> {
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
