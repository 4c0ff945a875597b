//! The environment's own view of the files of `/proc` that describe a machine as a whole, as a microVM has: a small
//! FUSE file system, which the supervisor serves from the counters of the environment's control group at the moment
//! of each read.
//!
//! It also covers `/dev/shm` of an own root file system: Lambda has no such folder, and the C library of Amazon Linux then
//! fails with `ENOSYS`, but those of other systems with `ENOENT`. So the folder does not exist for `stat`, and creating a
//! file in it fails with `ENOSYS`.

mod contents;
mod load;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context;
use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, Request, Session,
    SessionACL,
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde::{Deserialize, Serialize};

use crate::cgroup::{CounterFolders, Counters};
use contents::{Contents, ViewFile};
use load::Load;

/// The device of FUSE.
pub const DEVICE: &str = "/dev/fuse";

/// Where the C library makes named semaphores and shared memory.
pub(super) const SHARED_MEMORY: &str = "/dev/shm";

/// Names and kinds never change.
const CACHE_TIME: Duration = Duration::from_secs(86_400);

/// Inode of the folder `pressure`.
const PRESSURE_INODE: u64 = 2;

/// Inode of the folder `shm`.
const SHARED_MEMORY_INODE: u64 = 3;

/// Inodes of files begin here.
const FIRST_FILE_INODE: u64 = 4;

/// What the view is computed from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProcViewSetup {
    /// The environment's control group.
    pub counters: CounterFolders,
    /// CPUs that the environment sees.
    pub vcpus: u32,
    /// Memory size, bytes.
    pub memory_bytes: u64,
    /// An empty folder, where the file system is mounted until its files are bound into `/proc`.
    pub folder: PathBuf,
}

/// A view whose counters are open and that is not mounted yet.
pub(super) struct ProcView {
    contents: Contents,
    folder: PathBuf,
    load: Arc<Load>,
    frozen: Counters,
    device: OwnedFd,
}

impl ProcView {
    /// Opens the device and the counters, which must be done before the mounts change.
    pub(super) fn open(setup: &ProcViewSetup) -> anyhow::Result<ProcView> {
        let device = OpenOptions::new().read(true).write(true).open(DEVICE);
        let device = device.with_context(|| format!("cannot open {DEVICE}"))?.into();
        let load = Arc::new(Load::default());
        let counters = Counters::open(&setup.counters);
        Ok(ProcView {
            contents: Contents::new(counters, setup.vcpus, setup.memory_bytes, load.clone()),
            folder: setup.folder.clone(),
            load,
            frozen: Counters::open(&setup.counters),
            device,
        })
    }

    /// The folder outside an own root file system.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Covers the files of `/proc`, which must already be the environment's. The empty `folder` is used meanwhile.
    pub(super) fn mount(self, folder: &Path, has_own_root: bool) -> anyhow::Result<()> {
        let ProcView { contents, load, frozen, device, .. } = self;
        let files = contents.files();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("proc"), folder, Some("fuse.lambda-sandbox"), flags, Some(options.as_str()))
            .context("cannot mount the FUSE file system of /proc")?;
        let session =
            Session::from_fd(ViewFileSystem::new(contents), device, SessionACL::All, Config::default())
                .context("cannot start the FUSE file system of /proc")?;
        // The session's thread runs as long as this process.
        session.spawn().context("cannot serve the FUSE file system of /proc")?;
        for (name, _) in files {
            bind(&folder.join(name), &Path::new("/proc").join(name))?;
        }
        let pressure = Path::new("/proc/pressure");
        if pressure.is_dir() {
            // Without counters the folder is empty: the machine's pressure is not the environment's.
            bind(&folder.join("pressure"), pressure)?;
        }
        let shared_memory = Path::new(SHARED_MEMORY);
        if has_own_root {
            bind(&folder.join("shm"), shared_memory)?;
        }
        umount2(folder, MntFlags::MNT_DETACH).context("cannot detach the FUSE file system of /proc")?;
        thread::Builder::new().name("load".into()).spawn(move || {
            loop {
                thread::sleep(load::INTERVAL);
                // As in a microVM, no time passes in a frozen environment.
                if !frozen.is_frozen() {
                    load.advance(load::count_tasks());
                }
            }
        })?;
        Ok(())
    }
}

fn bind(source: &Path, target: &Path) -> anyhow::Result<()> {
    if !target.exists() {
        return Ok(());
    }
    let none: Option<&Path> = None;
    mount(Some(source), target, none, MsFlags::MS_BIND, none)
        .with_context(|| format!("cannot mount {} on {}", source.display(), target.display()))
}

/// Whether FUSE can be used by this process.
pub fn is_available() -> bool {
    fs::File::options().read(true).write(true).open(DEVICE).is_ok()
}

/// The folder `shm` is found so that it can be mounted, and does not exist afterwards.
fn cache_time(inode: INodeNo) -> Duration {
    if inode.0 == SHARED_MEMORY_INODE { Duration::ZERO } else { CACHE_TIME }
}

struct Node {
    parent: u64,
    name: &'static str,
    file: ViewFile,
}

struct ViewFileSystem {
    contents: Contents,
    /// The inode of each is its index, from [`FIRST_FILE_INODE`].
    nodes: Vec<Node>,
    next_handle: AtomicU64,
    /// What each open file showed when it was last read from its beginning: later parts must fit to it.
    texts: Mutex<HashMap<u64, String>>,
}

impl ViewFileSystem {
    fn new(contents: Contents) -> ViewFileSystem {
        let root = INodeNo::ROOT.0;
        let files = contents.files().into_iter().map(|(name, file)| Node { parent: root, name, file });
        let resources = contents.pressure_resources().into_iter();
        let pressure =
            resources.map(|name| Node { parent: PRESSURE_INODE, name, file: ViewFile::Pressure(name) });
        ViewFileSystem {
            nodes: files.chain(pressure).collect(),
            contents,
            next_handle: AtomicU64::new(1),
            texts: Mutex::default(),
        }
    }

    fn node(&self, inode: INodeNo) -> Option<&Node> {
        self.nodes.get(usize::try_from(inode.0.checked_sub(FIRST_FILE_INODE)?).ok()?)
    }

    /// Inodes and names in a folder.
    fn children(&self, folder: u64) -> Vec<(u64, &'static str)> {
        let mut children: Vec<_> = (FIRST_FILE_INODE..)
            .zip(&self.nodes)
            .filter(|(_, node)| node.parent == folder)
            .map(|(inode, node)| (inode, node.name))
            .collect();
        if folder == INodeNo::ROOT.0 {
            children.extend([(PRESSURE_INODE, "pressure"), (SHARED_MEMORY_INODE, "shm")]);
        }
        children
    }

    fn attributes(&self, inode: INodeNo) -> Option<FileAttr> {
        let is_folder = inode.0 < FIRST_FILE_INODE;
        if !is_folder {
            self.node(inode)?;
        }
        Some(FileAttr {
            ino: inode,
            // As in `/proc`: readers read until the end.
            size: 0,
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_folder { FileType::Directory } else { FileType::RegularFile },
            perm: if is_folder { 0o555 } else { 0o444 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 1024,
            flags: 0,
        })
    }
}

impl Filesystem for ViewFileSystem {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.children(parent.0).into_iter().find(|(_, known)| name == *known);
        match found.and_then(|(inode, _)| self.attributes(INodeNo(inode))) {
            Some(attributes) => reply.entry(&cache_time(attributes.ino), &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(inode).filter(|_| inode.0 != SHARED_MEMORY_INODE) {
            Some(attributes) => reply.attr(&CACHE_TIME, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    /// Every creation of a file comes here, after the default reply to `create`, which is `ENOSYS` too.
    fn mknod(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::ENOSYS);
    }

    fn open(&self, _: &Request, _: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if flags.acc_mode() != fuser::OpenAccMode::O_RDONLY {
            return reply.error(Errno::EACCES);
        }
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        // Direct: every read gets the values of its moment.
        reply.opened(FileHandle(handle), FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH);
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some(node) = self.node(inode) else { return reply.error(Errno::ENOENT) };
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        let text = texts.entry(handle.0).or_default();
        if offset == 0 {
            *text = self.contents.text(node.file);
        }
        let bytes = text.as_bytes();
        let begin = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let end = begin.saturating_add(size as usize).min(bytes.len());
        reply.data(&bytes[begin..end]);
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.texts.lock().unwrap_or_else(PoisonError::into_inner).remove(&handle.0);
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn readdir(&self, _: &Request, inode: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let own = [(inode.0, "."), (INodeNo::ROOT.0, "..")];
        let entries = own.into_iter().chain(self.children(inode.0));
        for (position, (child, name)) in (1_u64..).zip(entries).skip(usize::try_from(offset).unwrap_or(0)) {
            let kind = match self.node(INodeNo(child)) {
                Some(_) => FileType::RegularFile,
                None => FileType::Directory,
            };
            if reply.add(INodeNo(child), position, kind, name) {
                break;
            }
        }
        reply.ok();
    }
}
