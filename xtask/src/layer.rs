//! The layer's zip: `extensions/tailor-extension`, executable, the same bytes from the same binary.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use tailor_e2e::build;
use zip::write::SimpleFileOptions;

/// zopfli's default effort: a second of ours for a twentieth of every download.
const COMPRESSION_LEVEL: i64 = 15;

/// Builds the zip and says where it is.
pub(crate) fn run() -> Result<ExitCode> {
    let binary = build::shipped(&["tailor-extension"])?.join("tailor-extension");
    let folder = build::target_folder()?.join("layer-zips");
    let path = folder.join(format!("tailor-extension-{}.zip", architecture()));
    write(&binary, &path)?;
    let bytes = fs::read(&path)?;
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    fs::write(path.with_extension("zip.sha256"), format!("{digest}  {name}\n"))?;
    println!(
        "{} ({} KB; binary {} KB)",
        path.display(),
        bytes.len() / 1_000,
        fs::metadata(&binary)?.len() / 1_000
    );
    println!("sha256 {digest}");
    Ok(ExitCode::SUCCESS)
}

/// Lambda's name of this machine's architecture.
fn architecture() -> &'static str {
    if std::env::consts::ARCH == "aarch64" { "arm64" } else { std::env::consts::ARCH }
}

/// Writes the zip with a fixed time and mode 0755, which Lambda keeps when it unpacks to `/opt`.
pub(crate) fn write(binary: &Path, zip: &Path) -> Result<()> {
    let parent = zip.parent().map_or_else(PathBuf::new, Path::to_owned);
    fs::create_dir_all(&parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let file = File::create(zip).with_context(|| format!("cannot write {}", zip.display()))?;
    let mut archive = zip::ZipWriter::new(file);
    // The zip format's own zero, 1 January 1980, is the default time.
    let options = SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Deflated)
        .compression_level(Some(COMPRESSION_LEVEL))
        .last_modified_time(zip::DateTime::default())
        .unix_permissions(0o755);
    archive.start_file("extensions/tailor-extension", options)?;
    archive.write_all(&fs::read(binary).with_context(|| format!("cannot read {}", binary.display()))?)?;
    archive.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_zip_is_reproducible_and_keeps_the_mode() {
        let folder = tempfile::tempdir().unwrap();
        let binary = folder.path().join("binary");
        fs::write(&binary, b"not really an executable").unwrap();
        let (one, two) = (folder.path().join("one.zip"), folder.path().join("two.zip"));
        write(&binary, &one).unwrap();
        write(&binary, &two).unwrap();
        assert_eq!(fs::read(&one).unwrap(), fs::read(&two).unwrap());
        let mut archive = zip::ZipArchive::new(File::open(&one).unwrap()).unwrap();
        assert_eq!(archive.len(), 1);
        let entry = archive.by_index(0).unwrap();
        assert_eq!(entry.name().unwrap(), "extensions/tailor-extension");
        assert_eq!(entry.unix_mode().unwrap() & 0o777, 0o755);
    }
}
