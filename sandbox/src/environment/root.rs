//! What the root file system of an environment is made of, when the sandbox runs as root.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Platform;
use super::provision::ProvisionError;
use super::slots::Slot;
use crate::config::FunctionConfig;
use crate::network;
use crate::supervisor::loop_device;
use crate::supervisor::root::{RootSetup, User};

/// As on Lambda: the user of all processes of an environment.
const USER_NAME: &str = "sbx_user1051";

/// The user number of the first environment, as on Lambda. The next environments have others, so that the limit on
/// processes counts one environment.
const FIRST_UID: u32 = 993;

/// Distance between user numbers: the machine's own users are smaller.
const UID_STEP: u32 = 100_000;

/// As on Lambda.
const GID: u32 = 990;

/// The program that makes the file system of `/tmp`.
const MKFS_PLACES: [&str; 3] = ["/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4", "/usr/bin/mkfs.ext4"];

/// Files in `/tmp`: few enough that the table of a small file system is small.
const INODES: u32 = 65_536;

/// Size of one entry of the table.
const INODE_BYTES: u64 = 256;

const MEBIBYTE: u64 = 1024 * 1024;

/// Whether `/tmp` can have a size limit.
pub(crate) fn can_limit_tmp() -> bool {
    mkfs().is_some() && Path::new(loop_device::CONTROL).exists()
}

fn mkfs() -> Option<&'static Path> {
    MKFS_PLACES.into_iter().map(Path::new).find(|path| path.is_file())
}

/// Prepares the files that the root of one environment needs, in its folder `directory`.
pub(super) fn prepare(
    platform: &Platform,
    function: &FunctionConfig,
    slot: &Slot,
    layers: &Path,
    directory: &Path,
    hosts: &Path,
) -> Result<RootSetup, ProvisionError> {
    check_readable(function)?;
    let user = User { uid: FIRST_UID + slot.number * UID_STEP, gid: GID };
    let at = |name: &str| directory.join(name);
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ProvisionError::Folder { path, source }
    };
    let folder = at("root");
    fs::create_dir_all(&folder).map_err(failed(&folder))?;
    let mut etc = vec![("hosts".to_owned(), hosts.to_owned())];
    let lines = [
        ("passwd", format!("{USER_NAME}:x:{}:{GID}::/home/{USER_NAME}:/sbin/nologin\n", user.uid)),
        ("group", format!("{USER_NAME}:x:{GID}:\n")),
    ];
    for (name, line) in lines {
        let path = at(name);
        let machine = fs::read_to_string(Path::new("/etc").join(name)).unwrap_or_default();
        // First: of several entries with one number the first is found.
        fs::write(&path, line + &machine).map_err(failed(&path))?;
        etc.push((name.to_owned(), path));
    }
    if platform.own_network {
        let path = at("resolv.conf");
        fs::write(&path, network::resolver_file()).map_err(failed(&path))?;
        etc.push(("resolv.conf".to_owned(), path));
    }
    Ok(RootSetup {
        folder,
        user,
        code: function.code.clone(),
        layers: layers.to_owned(),
        tmp_image: tmp_image(&at("tmp.image"), function.ephemeral_storage_mb, user),
        tmp_folder: at("tmp"),
        etc,
        installations: platform.interpreters.installations(),
        programs: platform.interpreters.programs(),
        shared: platform.shared_folders.clone(),
    })
}

/// Code that only the current user can read would fail with an error of the runtime that does not show the cause.
fn check_readable(function: &FunctionConfig) -> Result<(), ProvisionError> {
    let mode = |path: &Path| fs::metadata(path).map(|metadata| metadata.mode());
    let bootstrap = function.code.join("bootstrap");
    for (path, needed) in [(&function.code, 0o005), (&bootstrap, 0o004)] {
        if mode(path).is_ok_and(|mode| mode & needed != needed) {
            return Err(ProvisionError::NotReadable { path: path.clone() });
        }
    }
    Ok(())
}

/// An image of an empty file system of `size_mb`; `None` if this machine cannot make one.
fn tmp_image(path: &Path, size_mb: u32, user: User) -> Option<PathBuf> {
    if !can_limit_tmp() {
        return None;
    }
    match make_image(path, size_mb, user) {
        Ok(()) => Some(path.to_owned()),
        Err(error) => {
            tracing::warn!(%error, "cannot make the file system of /tmp; its size is not limited");
            None
        }
    }
}

fn make_image(path: &Path, size_mb: u32, user: User) -> io::Result<()> {
    let content = u64::from(size_mb) * MEBIBYTE;
    // What the file system needs for itself is not part of the size: inodes, two bitmaps and a descriptor for every 128 MB,
    // and the blocks that the kernel keeps for its own use, a fiftieth and at most 16 MB.
    let groups = content / (128 * MEBIBYTE) + 2;
    let tables = u64::from(INODES) * INODE_BYTES + groups * MEBIBYTE / 4 + (content / 40).min(17 * MEBIBYTE);
    File::create(path)?.set_len(content + tables)?;
    let owner = format!("lazy_itable_init=1,nodiscard,root_owner={}:{}", user.uid, user.gid);
    let program = mkfs().ok_or(io::ErrorKind::NotFound)?;
    let output = Command::new(program)
        .args(["-q", "-F", "-m", "0", "-O", "^has_journal,^resize_inode", "-N", &INODES.to_string(), "-E"])
        .arg(owner)
        .arg(path)
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        Ok(())
    } else {
        Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
    }
}
