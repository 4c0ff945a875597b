//! The layer's zips: `extensions/tailor-extension`, executable, and the licences; the same bytes from the same sources.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use sha2::{Digest, Sha256};
use tailor_test_kit::release::{self, Architecture};
use tailor_test_kit::workspace;
use zip::write::SimpleFileOptions;

#[cfg(test)]
mod check;
pub(crate) mod licenses;

/// zopfli's default effort. It takes a second and saves a twentieth of every download.
const COMPRESSION_LEVEL: i64 = 15;

/// Maximum size of the binary, bytes: its pages are read at every cold start.
const MAX_BINARY_BYTES: u64 = 2_500_000;

/// Maximum size of the zip, bytes: Lambda downloads it for new environments.
const MAX_ZIP_BYTES: u64 = 1_250_000;

/// Options of `cargo xtask layer`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Build for this architecture only, and fail when it cannot be built.
    #[arg(long)]
    architecture: Option<ArchitectureOption>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ArchitectureOption {
    #[value(name = "x86_64")]
    X86_64,
    Arm64,
}

/// Builds the zips and prints their paths and checksums.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let architectures = match options.architecture {
        Some(ArchitectureOption::X86_64) => vec![Architecture::X86_64],
        Some(ArchitectureOption::Arm64) => vec![Architecture::Arm64],
        None => {
            let mut available = vec![];
            for architecture in Architecture::ALL {
                match architecture.missing() {
                    None => available.push(architecture),
                    Some(missing) => {
                        println!(
                            "not built: the zip for {} (this machine does not have {missing})",
                            architecture.name()
                        );
                    }
                }
            }
            available
        }
    };
    ensure!(!architectures.is_empty(), "this machine cannot build the layer for either architecture");
    for architecture in architectures {
        let built = build(architecture)?;
        println!(
            "{}: {} KB, with a binary of {} KB",
            built.zip.display(),
            built.zip_bytes / 1_000,
            built.binary_bytes / 1_000
        );
        println!("sha256 {}", built.digest);
    }
    Ok(ExitCode::SUCCESS)
}

/// A zip as it is published, with its checksum.
struct Built {
    zip: PathBuf,
    zip_bytes: u64,
    binary_bytes: u64,
    digest: String,
}

/// Builds the zip for `architecture`, within the limits.
fn build(architecture: Architecture) -> Result<Built> {
    let binary = release::build(&["tailor-extension"], architecture)?.join("tailor-extension");
    let zip = workspace::target_folder()?
        .join("layer-zips")
        .join(format!("tailor-extension-{}.zip", architecture.name()));
    write(&binary, &zip)?;
    let bytes = fs::read(&zip)?;
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let name = zip.file_name().unwrap_or_default().to_string_lossy().into_owned();
    fs::write(zip.with_extension("zip.sha256"), format!("{digest}  {name}\n"))?;
    let built =
        Built { binary_bytes: fs::metadata(&binary)?.len(), zip_bytes: bytes.len() as u64, digest, zip };
    let sizes = [("binary", built.binary_bytes, MAX_BINARY_BYTES), ("zip", built.zip_bytes, MAX_ZIP_BYTES)];
    for (what, bytes, limit) in sizes {
        if bytes > limit {
            bail!("the {what} for {} has {bytes} bytes; its limit is {limit}", architecture.name());
        }
    }
    Ok(built)
}

/// Writes the zip: the extension, executable, and the licences. Lambda unpacks it to `/opt` and keeps the modes. The
/// time of each file is fixed, so that the same contents are the same bytes.
pub(crate) fn write(binary: &Path, zip: &Path) -> Result<()> {
    let parent = zip.parent().map_or_else(PathBuf::new, Path::to_owned);
    fs::create_dir_all(&parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let file = File::create(zip).with_context(|| format!("cannot write {}", zip.display()))?;
    let mut archive = zip::ZipWriter::new(file);
    // The default time is 1 January 1980, the zero of the zip format.
    let options = SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Deflated)
        .compression_level(Some(COMPRESSION_LEVEL))
        .last_modified_time(zip::DateTime::default())
        .unix_permissions(0o755);
    archive.start_file("extensions/tailor-extension", options)?;
    archive.write_all(&fs::read(binary).with_context(|| format!("cannot read {}", binary.display()))?)?;
    // Not under `extensions/`: Lambda starts every file there.
    let project = workspace::project()?;
    for (name, source) in [("LICENSE", "LICENSE"), ("THIRD-PARTY-LICENSES", licenses::LAYER_FILE)] {
        let text = fs::read(project.join(source)).with_context(|| format!("cannot read {source}"))?;
        archive.start_file(format!("licenses/tailor-extension/{name}"), options.unix_permissions(0o644))?;
        archive.write_all(&text)?;
    }
    archive.finish()?;
    Ok(())
}
