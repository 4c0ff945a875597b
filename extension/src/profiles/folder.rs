//! The folder in which a function leaves complete profiles.
//!
//! What is in it is not trusted. The folder and the files are opened without following links, and only regular files of our
//! own user with one name are used. Everything else is ignored, and never deleted.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::geteuid;

/// Where a function leaves its profiles.
pub(crate) const FOLDER: &str = "/tmp/tailor";

/// The most entries of the folder that are examined. Incomplete profiles are among them.
pub(crate) const MAX_ENTRIES: usize = 256;

/// The longest name of a profile.
const MAX_NAME: usize = 100;

/// The ends of the names of profiles. The collector has the format of each.
const ENDS: [&str; 7] = [".pprof", ".pb.gz", ".cprofile", ".prof", ".pstats", ".jfr", ".cpuprofile"];

/// A complete profile in the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its file name.
    pub(crate) name: String,
    /// Its size.
    pub(crate) bytes: u64,
    /// When it got its name, microseconds since the Unix epoch.
    pub(crate) completed_at_us: u64,
    /// Which file it was: inode, and times of the last change in nanoseconds.
    identity: (u64, i64, i64),
}

/// Whether a complete profile can have this name. A name that begins with a dot is not complete.
fn is_profile(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_name = !name.starts_with('.') && name.len() <= MAX_NAME && name.bytes().all(is_allowed);
    is_name && ENDS.iter().any(|end| name.ends_with(end))
}

/// The open folder. A file in it has the path of the open folder, so that the folder cannot be replaced meanwhile.
struct Folder(File);

impl Folder {
    fn open(folder: &Path) -> io::Result<Self> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
        OpenOptions::new().read(true).custom_flags(flags.bits()).open(folder).map(Self)
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.0.as_raw_fd()))
    }

    /// Opens a file and describes it; `None` when it is not a profile.
    fn profile(&self, name: String) -> Option<(File, Found)> {
        if !is_profile(&name) {
            return None;
        }
        // Without `O_NONBLOCK`, opening a FIFO waits for a writer.
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(self.path(&name)).ok()?;
        let metadata = file.metadata().ok()?;
        let is_ours = metadata.is_file() && metadata.nlink() == 1 && metadata.uid() == geteuid().as_raw();
        let at_us = metadata.ctime().saturating_mul(1_000_000).saturating_add(metadata.ctime_nsec() / 1_000);
        let nanoseconds = |s: i64, ns: i64| s.saturating_mul(1_000_000_000).saturating_add(ns);
        let found = Found {
            name,
            bytes: metadata.len(),
            completed_at_us: u64::try_from(at_us).unwrap_or_default(),
            identity: (
                metadata.ino(),
                nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
                nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
            ),
        };
        is_ours.then_some((file, found))
    }
}

/// The complete profiles in `folder`, the oldest first. A missing folder is an empty one.
pub(crate) fn scan(folder: &Path) -> Vec<Found> {
    let Ok(folder) = Folder::open(folder) else { return vec![] };
    let Ok(entries) = fs::read_dir(folder.path("")) else { return vec![] };
    let names = entries.flatten().take(MAX_ENTRIES).filter_map(|entry| entry.file_name().into_string().ok());
    let mut found: Vec<Found> = vec![];
    for (_, one) in names.filter_map(|name| folder.profile(name)) {
        let place = found.partition_point(|other| other.completed_at_us <= one.completed_at_us);
        found.insert(place, one);
    }
    found
}

/// Opens a profile; `None` when it is no longer the same file with the same content.
pub(crate) fn open(folder: &Path, profile: &Found) -> Option<File> {
    let (file, found) = Folder::open(folder).ok()?.profile(profile.name.clone())?;
    (found == *profile).then_some(file)
}

/// Deletes a profile, if it is still the same file.
pub(crate) fn delete(folder: &Path, profile: &Found) -> bool {
    let Ok(open) = Folder::open(folder) else { return false };
    let is_same = open.profile(profile.name.clone()).is_some_and(|(_, found)| found == *profile);
    is_same && fs::remove_file(open.path(&profile.name)).is_ok()
}
