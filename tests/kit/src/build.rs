//! Cargo builds of the programs that a deployment starts.
//!
//! Tests call these functions, so that `cargo test` works alone. When everything is built, a call takes a second.
//! `cargo xtask test` builds everything before the tests, and sets
//! [`PREBUILT_VARIABLE`](crate::PREBUILT_VARIABLE).

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::deployment::Programs;
use crate::release::build_for_host;
use crate::workspace::{cargo, is_prebuilt, target_folder};

/// Builds packages with the dev profile, unless they are prebuilt.
fn build_for_tests(packages: &[&str]) -> Result<()> {
    if is_prebuilt() {
        return Ok(());
    }
    let packages = packages.iter().flat_map(|package| ["-p", *package]);
    cargo(&["build", "--quiet"].into_iter().chain(packages).collect::<Vec<_>>())
}

/// Builds the sandbox with the dev profile. Returns the path of its program.
///
/// # Errors
/// When cargo fails. Its messages are on standard error.
pub fn sandbox() -> Result<PathBuf> {
    build_for_tests(&["lambda-sandbox"])?;
    Ok(target_folder()?.join("debug/lambda-sandbox"))
}

/// Builds the sandbox with the release profile, for measurements: it uses the same CPUs as the functions. Returns the path of its
/// program.
///
/// # Errors
/// When cargo fails. Its messages are on standard error.
pub fn release_sandbox() -> Result<PathBuf> {
    cargo(&["build", "--release", "--quiet", "-p", "lambda-sandbox"])?;
    Ok(target_folder()?.join("release/lambda-sandbox"))
}

/// Builds the collector and the sandbox with the dev profile, the extension and the handlers with the release settings.
///
/// # Errors
/// When cargo fails. Its messages are on standard error.
pub fn programs() -> Result<Programs> {
    build_for_tests(&["tailor-collector", "lambda-sandbox"])?;
    let (layer, handler) = layer_and_handler()?;
    let target = target_folder()?;
    Ok(Programs {
        collector: target.join("debug/tailor"),
        sandbox: target.join("debug/lambda-sandbox"),
        layer,
        handler,
    })
}

/// Builds the extension and the Rust handlers with the release settings. Returns the folder of the layer, and the handler.
///
/// # Errors
/// When cargo fails. Its messages are on standard error.
pub fn layer_and_handler() -> Result<(PathBuf, PathBuf)> {
    // Two builds: in one build, cargo would unify the handlers' dependency features with the extension's.
    let release = build_for_host(&["tailor-extension"])?;
    build_for_host(&["demo-functions"])?;
    let layer = target_folder()?.join("test-layer");
    if is_prebuilt() {
        return Ok((layer, release.join("handler")));
    }
    fs::create_dir_all(layer.join("extensions"))?;
    let installed = layer.join("extensions/tailor-extension");
    // Replaced atomically: another test may start the program at the same time.
    let new = layer.join(format!("tailor-extension-{}", std::process::id()));
    fs::copy(release.join("tailor-extension"), &new)?;
    fs::rename(&new, &installed)?;
    Ok((layer, release.join("handler")))
}
