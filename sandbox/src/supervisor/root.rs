//! The environment's own root file system, as on Lambda: read-only but for `/tmp`, with the machine's programs and
//! libraries, and without the machine's other files.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{chdir, pivot_root};
use serde::{Deserialize, Serialize};

use super::loop_device;

/// Folders of the machine with programs and libraries.
const SYSTEM_FOLDERS: [&str; 9] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/nix"];

/// Empty folders that programs expect, and mount points.
const EMPTY_FOLDERS: [&str; 16] = [
    "/proc",
    "/sys",
    "/dev",
    "/tmp",
    "/opt",
    "/run",
    "/mnt",
    "/home",
    "/root",
    "/var/task",
    "/var/runtime",
    "/var/lang/bin",
    "/var/tmp",
    "/var/log",
    "/var/cache",
    "/var/lib",
];

/// Character devices: name, major and minor number. Lambda has no `/dev/shm`.
const DEVICES: [(&str, u64, u64); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const DEVICE_LINKS: [(&str, &str); 4] =
    [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")];

/// Where the files of `/proc` are mounted before they are bound.
pub(super) const VIEW_FOLDER: &str = "/mnt";

/// An unprivileged user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User number, of which no other running environment of this sandbox has the same.
    pub uid: u32,
    /// Group number.
    pub gid: u32,
}

/// What the root file system of an environment is made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RootSetup {
    /// An empty folder, where it is assembled.
    pub folder: PathBuf,
    /// Who owns `/tmp`.
    pub user: User,
    /// The code, at `/var/task`.
    pub code: PathBuf,
    /// The merged layers, at `/opt`.
    pub layers: PathBuf,
    /// An image of a file system for `/tmp`.
    pub tmp_image: Option<PathBuf>,
    /// A folder for `/tmp` when there is no image or it cannot be mounted. Its size is not limited.
    pub tmp_folder: PathBuf,
    /// Files that replace those of the machine in `/etc`: name and source.
    pub etc: Vec<(String, PathBuf)>,
    /// Folders that are visible at their own path, read-only: installations of language runtimes.
    pub installations: Vec<PathBuf>,
    /// Links in `/var/lang/bin`: name and program.
    pub programs: Vec<(String, PathBuf)>,
    /// Folders that the environment may read and write, at their own path.
    pub shared: Vec<PathBuf>,
}

/// Assembles the root and moves this process, which must have its own mount namespace, into it. The root stays
/// writable until [`seal`].
pub(super) fn enter(setup: &RootSetup, has_view: bool) -> anyhow::Result<()> {
    let root = setup.folder.as_path();
    let inside = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    mount(Some("root"), root, Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=755,size=16m"))
        .context("cannot mount the root file system")?;
    for folder in EMPTY_FOLDERS {
        make_folder(&inside(Path::new(folder)))?;
    }
    for folder in SYSTEM_FOLDERS {
        let source = Path::new(folder);
        let Ok(kind) = source.symlink_metadata() else { continue };
        let target = inside(source);
        if kind.is_symlink() {
            symlink(fs::read_link(source)?, &target)?;
        } else if kind.is_dir() {
            make_folder(&target)?;
            bind(source, &target, true)?;
        }
    }
    for (name, source) in &setup.etc {
        replace_file(source, &Path::new("/etc").join(name), root)?;
    }
    for installation in &setup.installations {
        let is_visible = SYSTEM_FOLDERS.iter().any(|folder| installation.starts_with(folder));
        if installation.is_dir() && !is_visible {
            let target = inside(installation);
            make_folder(&target)?;
            bind(installation, &target, true)?;
        }
    }
    for (name, program) in &setup.programs {
        symlink(program, inside(Path::new("/var/lang/bin")).join(name))?;
    }
    bind(&setup.code, &inside(Path::new("/var/task")), true)?;
    bind(&setup.layers, &inside(Path::new("/opt")), true)?;
    mount_tmp(setup, &inside(Path::new("/tmp")))?;
    for folder in &setup.shared {
        let target = inside(folder);
        make_folder(&target)?;
        bind(folder, &target, false)?;
    }
    make_devices(&inside(Path::new("/dev")), has_view)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let none: Option<&str> = None;
    mount(Some("proc"), &inside(Path::new("/proc")), Some("proc"), flags, none)
        .context("cannot mount /proc")?;
    // Without the mounts in it: on Lambda /sys/fs/cgroup is empty too.
    bind(Path::new("/sys"), &inside(Path::new("/sys")), true)?;
    chdir(root)?;
    pivot_root(".", ".").context("cannot change the root file system")?;
    umount2(".", MntFlags::MNT_DETACH).context("cannot detach the machine's root file system")?;
    Ok(chdir("/")?)
}

/// Makes the root read-only.
pub(super) fn seal() -> anyhow::Result<()> {
    let none: Option<&str> = None;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID;
    mount(none, "/", none, flags, none).context("cannot make the root file system read-only")?;
    mount(none, "/dev", none, flags, none).context("cannot make /dev read-only")
}

fn make_folder(path: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))
}

fn bind(source: &Path, target: &Path, read_only: bool) -> anyhow::Result<()> {
    let none: Option<&Path> = None;
    let explain = || format!("cannot mount {} on {}", source.display(), target.display());
    // Shared folders with the mounts in them. Others without: a mount in them could be written to.
    let depth = if read_only { MsFlags::empty() } else { MsFlags::MS_REC };
    mount(Some(source), target, none, MsFlags::MS_BIND | depth, none).with_context(explain)?;
    if read_only {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID;
        mount(none, target, none, flags, none).with_context(explain)?;
    }
    Ok(())
}

/// Covers the file `path` of the machine. If it is a link out of `/etc`, as `resolv.conf` often is, the file is created
/// where the link leads.
fn replace_file(source: &Path, path: &Path, root: &Path) -> anyhow::Result<()> {
    let real = match fs::read_link(path) {
        Ok(link) => path.parent().unwrap_or(path).join(link),
        Err(_) if path.exists() => path.to_owned(),
        // A read-only folder cannot get a file that the machine does not have.
        Err(_) => return Ok(()),
    };
    let mut target = root.to_owned();
    for part in real.components().skip(1) {
        match part {
            std::path::Component::ParentDir => drop(target.pop()),
            part => target.push(part),
        }
    }
    if !target.exists() {
        target.parent().map_or(Ok(()), make_folder)?;
        File::create(&target).with_context(|| format!("cannot create {}", target.display()))?;
    }
    bind(source, &target, true)
}

/// `/tmp` is a file system of its own, so that it has its own size and its own error when it is full.
fn mount_tmp(setup: &RootSetup, target: &Path) -> anyhow::Result<()> {
    let none: Option<&str> = None;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    if let Some(image) = &setup.tmp_image {
        let mounted = loop_device::attach(image).and_then(|device| {
            mount(Some(&device.path), target, Some("ext4"), flags, none)
                .with_context(|| format!("cannot mount {} as /tmp", device.path.display()))
        });
        match mounted {
            Ok(()) => {
                let _ = fs::remove_dir(target.join("lost+found"));
                return Ok(fs::set_permissions(target, fs::Permissions::from_mode(0o700))?);
            }
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "the size of /tmp is not limited");
            }
        }
    }
    bind(&setup.tmp_folder, target, false)?;
    fs::set_permissions(target, fs::Permissions::from_mode(0o700))?;
    Ok(chown(target, Some(setup.user.uid), Some(setup.user.gid))?)
}

fn make_devices(folder: &Path, has_view: bool) -> anyhow::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some("dev"), folder, Some("tmpfs"), flags, Some("mode=755,size=64k"))
        .context("cannot mount /dev")?;
    for (name, major, minor) in DEVICES {
        let path = folder.join(name);
        mknod(&path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(major, minor))
            .with_context(|| format!("cannot create /dev/{name}"))?;
        // The umask applies to `mknod`.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
    }
    // Only a mount point for the view of `/proc`, which covers it.
    if has_view {
        make_folder(&folder.join("shm"))?;
    }
    for (name, target) in DEVICE_LINKS {
        symlink(target, folder.join(name))?;
    }
    Ok(())
}
