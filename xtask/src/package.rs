//! `cargo xtask package`: the collector as one static program, with what its image and its Lambda function contain.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use tailor_test_kit::release::Architecture;
use tailor_test_kit::workspace;
use zip::write::SimpleFileOptions;

/// Where Debian, Fedora and Alpine have the public certificate authorities.
const AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// The name of the database's certificate authorities in the image and in the function.
const DATABASE_CA: &str = "database-ca.pem";

/// What Lambda starts.
const BOOTSTRAP: &str = "#!/bin/sh\nexec \"$LAMBDA_TASK_ROOT/tailor\" lambda\n";

/// Options of `cargo xtask package`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// PEM file with the certificate authorities of the database, such as the bundle that AWS publishes for RDS.
    #[arg(long, value_name = "FILE")]
    database_ca: Option<PathBuf>,
    /// Build without optimization, to try the packages.
    #[arg(long)]
    debug: bool,
}

/// Builds the program for this machine's architecture, and prints what was made.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let host = Architecture::host().context("Lambda does not have this machine's instruction set")?;
    let program = build(host, options.debug)?;
    let version = Command::new(&program).arg("--version").output().context("the program does not start")?;
    ensure!(version.status.success(), "the program does not start: {}", program.display());
    let folder = workspace::target_folder()?.join("package").join(host.name());
    // What an earlier run wrote and this one does not must not be in the image.
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(folder.join("data"))?;
    fs::create_dir_all(folder.join("certificates"))?;
    let project = workspace::project()?;
    copy(&program, &folder.join("tailor"))?;
    for name in ["LICENSE", "THIRD-PARTY-LICENSES"] {
        copy(&project.join(name), &folder.join(name))?;
    }
    let authorities = AUTHORITIES.iter().map(Path::new).find(|path| path.exists());
    let authorities =
        authorities.context("this machine has no certificate authorities (package ca-certificates)")?;
    copy(authorities, &folder.join("certificates/ca-certificates.crt"))?;
    if let Some(file) = &options.database_ca {
        copy(file, &folder.join("certificates").join(DATABASE_CA))?;
    }
    let zip = folder.with_file_name(format!("tailor-function-{}.zip", host.name()));
    write_function(&folder, &zip)?;
    println!("{}", String::from_utf8_lossy(&version.stdout).trim());
    println!("{}: for an image, with deploy/container/Dockerfile", folder.display());
    println!("{}: for a Lambda function ({} KB)", zip.display(), fs::metadata(&zip)?.len() / 1_000);
    Ok(ExitCode::SUCCESS)
}

/// Builds `tailor` with musl. Its C libraries need musl's headers, unlike those of the extension.
fn build(host: Architecture, debug: bool) -> Result<PathBuf> {
    if Command::new("musl-gcc").arg("--version").output().is_err() {
        bail!("this machine has no musl-gcc (Debian's package musl-tools)");
    }
    let target = format!("{}-unknown-linux-musl", host.rust_name());
    let mut command = workspace::cargo_command()?;
    command.args(["build", "--quiet", "--locked", "-p", "tailor-collector", "--target", &target]);
    if !debug {
        command.arg("--release");
    }
    workspace::run_cargo(&mut command)?;
    let profile = if debug { "debug" } else { "release" };
    Ok(workspace::target_folder()?.join(target).join(profile).join("tailor"))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// Writes the code of the Lambda function. The time of each file is fixed, so that the same contents are the same bytes.
fn write_function(folder: &Path, zip: &Path) -> Result<()> {
    let file = File::create(zip).with_context(|| format!("cannot write {}", zip.display()))?;
    let mut archive = zip::ZipWriter::new(file);
    let options = SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Deflated)
        .last_modified_time(zip::DateTime::default());
    let program = options.unix_permissions(0o755);
    let other = options.unix_permissions(0o644);
    archive.start_file("bootstrap", program)?;
    archive.write_all(BOOTSTRAP.as_bytes())?;
    archive.start_file("tailor", program)?;
    archive.write_all(&fs::read(folder.join("tailor"))?)?;
    for name in ["LICENSE", "THIRD-PARTY-LICENSES"] {
        archive.start_file(format!("licenses/{name}"), other)?;
        archive.write_all(&fs::read(folder.join(name))?)?;
    }
    let database_ca = folder.join("certificates").join(DATABASE_CA);
    if database_ca.exists() {
        archive.start_file(DATABASE_CA, other)?;
        archive.write_all(&fs::read(database_ca)?)?;
    }
    archive.finish()?;
    Ok(())
}
