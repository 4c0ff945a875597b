//! Small files: those of the data folder, and those that people write.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// U+FEFF in UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Replaces a file in one step, so that a reader, also after a crash, sees the old or the new content. It is on disk afterwards,
/// and only its owner may read it.
///
/// # Errors
/// When the new content cannot be written.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    replace_with_mode(path, text, 0o600)
}

/// [`replace`] with an access mode, of which the process's umask removes bits.
///
/// # Errors
/// When the new content cannot be written.
pub(crate) fn replace_with_mode(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(mode).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(path.parent().unwrap_or_else(|| Path::new(".")))?.sync_all()
}

/// Why a file of a data folder cannot be used, and what to do where the user is another one than that of the collector.
pub(crate) fn cause(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!(
                "{error}: run the command as the user of the collector, such as `sudo -u tailor tailor ...`"
            )
        }
        _ => error.to_string(),
    }
}

/// Reads a text that a person wrote. The byte order mark, with which some editors begin a file, is not part of it.
///
/// # Errors
/// It cannot be read, or is not UTF-8.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    let mut bytes = fs::read(path)?;
    if bytes.starts_with(BYTE_ORDER_MARK) {
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    String::from_utf8(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8: save it in this encoding"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_permission_names_what_to_do() {
        let [denied, absent] =
            [io::ErrorKind::PermissionDenied, io::ErrorKind::NotFound].map(io::Error::from);
        assert!(cause(&denied).contains("as the user of the collector"));
        assert_eq!(cause(&absent), absent.to_string());
    }

    #[test]
    fn the_byte_order_mark_is_not_part_of_a_text_and_other_encodings_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tags.json");
        fs::write(&path, "\u{feff}{}").unwrap();
        assert_eq!(read_text(&path).unwrap(), "{}");
        // UTF-16, as the redirection of PowerShell writes it.
        fs::write(&path, b"\xff\xfe{\0}\0").unwrap();
        assert!(read_text(&path).unwrap_err().to_string().contains("not UTF-8"));
    }
}
