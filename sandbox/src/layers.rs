//! The contents of `/opt`: layers merged in order. Files of later layers replace earlier ones.
//!
//! A layer is a folder, or a zip as uploaded to Lambda (with Unix modes in it; a file packed on Windows has
//! none and, as on Lambda, is then not executable).

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a layer cannot be used.
#[derive(Debug, Error)]
pub enum LayerError {
    #[error("cannot read layer {path}: it is neither a folder nor a zip file")]
    Missing { path: PathBuf },
    #[error("cannot copy layer {path}")]
    Copy { path: PathBuf, source: io::Error },
    #[error("cannot unpack layer {path}")]
    Unpack { path: PathBuf, source: Box<zip::result::ZipError> },
}

/// Fills `target` with all of `layers`. Previous contents are removed.
pub fn merge(layers: &[PathBuf], target: &Path) -> Result<(), LayerError> {
    if target.exists() {
        fs::remove_dir_all(target).map_err(|source| LayerError::Copy { path: target.to_owned(), source })?;
    }
    fs::create_dir_all(target).map_err(|source| LayerError::Copy { path: target.to_owned(), source })?;
    for layer in layers {
        if layer.is_dir() {
            copy(layer, target).map_err(|source| LayerError::Copy { path: layer.clone(), source })?;
        } else if layer.is_file() {
            unpack(layer, target)?;
        } else {
            return Err(LayerError::Missing { path: layer.clone() });
        }
    }
    Ok(())
}

/// Unpacks a zip with its Unix modes. Entries outside `target` are rejected.
pub fn unpack(archive: &Path, target: &Path) -> Result<(), LayerError> {
    let failed = |source| LayerError::Unpack { path: archive.to_owned(), source: Box::new(source) };
    let file = File::open(archive).map_err(|error| failed(error.into()))?;
    let mut archive = zip::ZipArchive::new(file).map_err(failed)?;
    archive.extract(target).map_err(failed)
}

/// Copies a folder's contents with modes and symbolic links.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy(&source, &target)?;
            continue;
        }
        if target.symlink_metadata().is_ok() {
            fs::remove_file(&target)?;
        }
        if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&source)?, &target)?;
        } else {
            fs::copy(&source, &target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn later_layers_win_and_modes_survive() {
        let dir = tempfile::tempdir().unwrap();
        let first = dir.path().join("first");
        fs::create_dir_all(first.join("extensions")).unwrap();
        fs::write(first.join("extensions/a"), "first").unwrap();
        fs::write(first.join("kept"), "kept").unwrap();
        let second = dir.path().join("second.zip");
        let mut zip = zip::ZipWriter::new(File::create(&second).unwrap());
        let options = zip::write::SimpleFileOptions::default().unix_permissions(0o755);
        zip.start_file("extensions/a", options).unwrap();
        zip.write_all(b"second").unwrap();
        zip.finish().unwrap();

        let target = dir.path().join("opt");
        merge(&[first, second], &target).unwrap();
        assert_eq!(fs::read_to_string(target.join("extensions/a")).unwrap(), "second");
        assert_eq!(fs::read_to_string(target.join("kept")).unwrap(), "kept");
        let mode = fs::metadata(target.join("extensions/a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
    }

    #[test]
    fn the_error_names_a_missing_layer() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("nothing");
        let error = merge(&[missing], &dir.path().join("opt")).unwrap_err();
        assert!(error.to_string().contains("nothing"));
    }
}
