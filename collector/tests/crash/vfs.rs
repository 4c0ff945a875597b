//! A layer between SQLite and the file system: it records what is written, and returns errors at a chosen operation.
//!
//! It is registered as the default of the process, so the store needs no change. It forwards every operation to SQLite's
//! own layer (`unix`), also for folders that are not watched.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};

use rusqlite::ffi;

/// What happened in a watched folder, in order.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// A file was opened, and created when it did not exist. `syncs_folder`: its first sync also syncs the folder.
    Open {
        file: String,
        syncs_folder: bool,
    },
    Write {
        file: String,
        offset: u64,
        bytes: Vec<u8>,
    },
    Truncate {
        file: String,
        size: u64,
    },
    Sync {
        file: String,
    },
    Delete {
        file: String,
        syncs_folder: bool,
    },
    /// The file with the store's id, which is not written by SQLite, is complete.
    Id(String),
    /// A request was acknowledged.
    Mark(usize),
}

impl Event {
    /// Whether a power failure just before it is a point of the campaign.
    pub(crate) fn is_point(&self) -> bool {
        !matches!(self, Self::Open { .. } | Self::Id(_) | Self::Mark(_))
    }

    pub(crate) fn name(&self) -> String {
        match self {
            Self::Write { file, offset, bytes } => {
                format!("write of {} bytes at {offset} of {file}", bytes.len())
            }
            Self::Truncate { file, size } => format!("truncation of {file} to {size}"),
            Self::Sync { file } => format!("sync of {file}"),
            other => format!("{other:?}"),
        }
    }
}

/// An error that operations return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The operation fails with an I/O error.
    Io,
    /// No space is left: writes that extend a file fail, after half of their bytes.
    Full,
}

/// Which syncs reach the file system. All but `All` are faults of the layer itself, which the campaign must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Syncs {
    All,
    None,
    NoneOfLog,
    NoneOfDatabase,
}

impl Syncs {
    fn includes(self, file: &str) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::NoneOfLog => !file.ends_with("-wal"),
            Self::NoneOfDatabase => file.ends_with("-wal"),
        }
    }
}

struct State {
    /// Where the store's id will be.
    id_path: Option<PathBuf>,
    events: Option<Vec<Event>>,
    syncs: Syncs,
    /// Whether `syncs` applies: from the first start's end on.
    is_faulty: bool,
    /// Number of writes, truncations and syncs so far.
    operations: u64,
    fault: Option<(Fault, std::ops::Range<u64>)>,
}

/// A folder whose files are watched.
pub(crate) struct Watched {
    path: PathBuf,
    state: Mutex<State>,
}

static FOLDERS: Mutex<BTreeMap<PathBuf, Arc<Watched>>> = Mutex::new(BTreeMap::new());

impl Watched {
    /// Watches a folder until [`Self::stop`].
    pub(crate) fn new(path: &Path, records: bool, syncs: Syncs) -> Arc<Self> {
        static REGISTERED: Once = Once::new();
        REGISTERED.call_once(register);
        let events = records.then(Vec::new);
        let id_path = Some(path.join("store-id"));
        let state =
            Mutex::new(State { id_path, events, syncs, is_faulty: false, operations: 0, fault: None });
        let watched = Arc::new(Self { path: path.canonicalize().unwrap(), state });
        FOLDERS.lock().unwrap().insert(watched.path.clone(), Arc::clone(&watched));
        watched
    }

    pub(crate) fn stop(&self) {
        FOLDERS.lock().unwrap().remove(&self.path);
    }

    pub(crate) fn take_events(&self) -> Vec<Event> {
        self.state().events.take().unwrap_or_default()
    }

    pub(crate) fn mark(&self, number: usize) {
        self.state().record(|| Event::Mark(number));
    }

    /// Writes, truncations and syncs so far.
    pub(crate) fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Makes the operations with these numbers fail.
    pub(crate) fn fail(&self, fault: Fault, operations: std::ops::Range<u64>) {
        self.state().fault = Some((fault, operations));
    }

    /// From now on, syncs that do not belong to the chosen ones do nothing.
    pub(crate) fn leave_out_syncs(&self) {
        self.state().is_faulty = true;
    }

    pub(crate) fn end_faults(&self) {
        self.state().fault = None;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn record(&mut self, event: impl FnOnce() -> Event) {
        if let Some(events) = &mut self.events {
            let id = self.id_path.as_ref().and_then(|path| std::fs::read_to_string(path).ok());
            if let Some(id) = id.filter(|id| id.ends_with('\n')) {
                events.push(Event::Id(id));
                self.id_path = None;
            }
            events.push(event());
        }
    }

    /// Counts an operation; returns its fault.
    fn next(&mut self) -> Option<Fault> {
        let number = self.operations;
        self.operations += 1;
        self.fault_at(number)
    }

    fn fault_at(&self, number: u64) -> Option<Fault> {
        self.fault.as_ref().filter(|(_, range)| range.contains(&number)).map(|(fault, _)| *fault)
    }
}

/// An open file: SQLite sees `base`. The file of the layer below follows it in memory.
#[repr(C)]
struct File {
    base: ffi::sqlite3_file,
    /// From `Box::into_raw`; null when the folder is not watched.
    watch: *mut Watch,
}

struct Watch {
    folder: Arc<Watched>,
    name: String,
}

const OWN_BYTES: usize = size_of::<File>();

/// The layer below.
fn below() -> *mut ffi::sqlite3_vfs {
    // SAFETY: the name is a C string; SQLite has its own layer from `sqlite3_initialize` on.
    unsafe { ffi::sqlite3_vfs_find(c"unix".as_ptr()) }
}

/// # Safety
/// `file` was opened by [`open`].
unsafe fn inner(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    // SAFETY: `szOsFile` has space for both.
    unsafe { file.cast::<u8>().add(OWN_BYTES).cast() }
}

/// # Safety
/// `file` was opened by [`open`] and is not closed.
unsafe fn watch<'a>(file: *mut ffi::sqlite3_file) -> Option<&'a Watch> {
    // SAFETY: `open` initialized it, and `close` frees it.
    unsafe { (*file.cast::<File>()).watch.as_ref() }
}

/// Calls a method of the layer below.
macro_rules! forward {
    ($file:expr, $method:ident $(, $argument:expr)*) => {{
        let file = inner($file);
        match (*(*file).pMethods).$method {
            Some(method) => method(file $(, $argument)*),
            None => unreachable!("SQLite's own layer has all methods"),
        }
    }};
}

/// Methods that only forward.
macro_rules! forwarding {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty = $method:ident;)*) => {$(
        unsafe extern "C" fn $name(file: *mut ffi::sqlite3_file $(, $argument: $type)*) -> $result {
            // SAFETY: SQLite calls it for an open file, with arguments for this method.
            unsafe { forward!(file, $method $(, $argument)*) }
        }
    )*};
}

forwarding! {
    read(to: *mut c_void, count: c_int, offset: i64) -> c_int = xRead;
    file_size(size: *mut i64) -> c_int = xFileSize;
    lock(level: c_int) -> c_int = xLock;
    unlock(level: c_int) -> c_int = xUnlock;
    check_reserved_lock(result: *mut c_int) -> c_int = xCheckReservedLock;
    file_control(operation: c_int, argument: *mut c_void) -> c_int = xFileControl;
    sector_size() -> c_int = xSectorSize;
    device_characteristics() -> c_int = xDeviceCharacteristics;
    shm_lock(offset: c_int, count: c_int, flags: c_int) -> c_int = xShmLock;
    shm_barrier() -> () = xShmBarrier;
    shm_unmap(deletes: c_int) -> c_int = xShmUnmap;
    fetch(offset: i64, count: c_int, to: *mut *mut c_void) -> c_int = xFetch;
    unfetch(offset: i64, page: *mut c_void) -> c_int = xUnfetch;
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: as above; SQLite does not use the file afterwards.
    unsafe {
        let own = file.cast::<File>();
        if !(*own).watch.is_null() {
            drop(Box::from_raw((*own).watch));
            (*own).watch = null_mut();
        }
        forward!(file, xClose)
    }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    count: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: as above; `from` has `count` bytes. The state stays locked, so that the order of events is that of the writes.
    unsafe {
        let Some(watch) = watch(file) else { return forward!(file, xWrite, from, count, offset) };
        let mut state = watch.folder.state();
        match state.next() {
            Some(Fault::Io) => return ffi::SQLITE_IOERR_WRITE,
            Some(Fault::Full) => {
                let mut size = 0;
                let known = forward!(file, xFileSize, &raw mut size);
                if known != ffi::SQLITE_OK || offset + i64::from(count) > size {
                    forward!(file, xWrite, from, count / 2, offset);
                    return ffi::SQLITE_FULL;
                }
            }
            None => {}
        }
        state.record(|| Event::Write {
            file: watch.name.clone(),
            offset: u64::try_from(offset).unwrap(),
            bytes: std::slice::from_raw_parts(from.cast::<u8>(), usize::try_from(count).unwrap()).to_vec(),
        });
        forward!(file, xWrite, from, count, offset)
    }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    // SAFETY: as above.
    unsafe {
        if let Some(watch) = watch(file) {
            let mut state = watch.folder.state();
            if state.next() == Some(Fault::Io) {
                return ffi::SQLITE_IOERR_TRUNCATE;
            }
            let size = u64::try_from(size).unwrap();
            state.record(|| Event::Truncate { file: watch.name.clone(), size });
        }
        forward!(file, xTruncate, size)
    }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: as above.
    unsafe {
        let Some(watch) = watch(file) else { return forward!(file, xSync, flags) };
        let mut state = watch.folder.state();
        if state.next() == Some(Fault::Io) {
            return ffi::SQLITE_IOERR_FSYNC;
        }
        if !state.is_faulty || state.syncs.includes(&watch.name) {
            state.record(|| Event::Sync { file: watch.name.clone() });
        }
        // The recorded events decide what is on disk, so the real disk need not do the work.
        ffi::SQLITE_OK
    }
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    bytes: c_int,
    extends: c_int,
    to: *mut *mut c_void,
) -> c_int {
    // SAFETY: as above.
    unsafe {
        if extends != 0
            && let Some(watch) = watch(file)
        {
            let state = watch.folder.state();
            // The file of shared memory is not written through this layer.
            if state.fault_at(state.operations) == Some(Fault::Full) {
                return ffi::SQLITE_IOERR_SHMSIZE;
            }
        }
        forward!(file, xShmMap, region, bytes, extends, to)
    }
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 3,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: Some(fetch),
    xUnfetch: Some(unfetch),
};

/// The watched folder and the name of a file.
///
/// # Safety
/// `path` is null or a C string.
unsafe fn watched(path: *const c_char) -> Option<(Arc<Watched>, String)> {
    if path.is_null() {
        return None;
    }
    // SAFETY: see above.
    let path = Path::new(unsafe { CStr::from_ptr(path) }.to_str().ok()?);
    let folder = FOLDERS.lock().unwrap_or_else(PoisonError::into_inner).get(path.parent()?).cloned()?;
    Some((folder, path.file_name()?.to_str()?.to_owned()))
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    path: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    const SYNCS_FOLDER: c_int =
        ffi::SQLITE_OPEN_SUPER_JOURNAL | ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_WAL;
    let below = below();
    // SAFETY: `file` has `szOsFile` bytes; `path` is null for a temporary file.
    unsafe {
        let own = file.cast::<File>();
        (*own).watch = null_mut();
        (*own).base.pMethods = std::ptr::null();
        let watched = watched(path);
        let creates = flags & ffi::SQLITE_OPEN_CREATE != 0;
        if let Some((folder, name)) = &watched {
            let syncs_folder = creates && flags & SYNCS_FOLDER != 0;
            folder.state().record(|| Event::Open { file: name.clone(), syncs_folder });
        }
        let Some(open_below) = (*below).xOpen else { return ffi::SQLITE_ERROR };
        let result = open_below(below, path, inner(file), flags, out_flags);
        if result == ffi::SQLITE_OK {
            (*own).base.pMethods = &raw const METHODS;
            if let Some((folder, name)) = watched {
                (*own).watch = Box::into_raw(Box::new(Watch { folder, name }));
            }
        }
        result
    }
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, path: *const c_char, syncs_folder: c_int) -> c_int {
    let below = below();
    // SAFETY: as above.
    unsafe {
        if let Some((folder, file)) = watched(path) {
            folder.state().record(|| Event::Delete { file, syncs_folder: syncs_folder != 0 });
        }
        (*below).xDelete.map_or(ffi::SQLITE_ERROR, |delete| delete(below, path, syncs_folder))
    }
}

unsafe extern "C" fn access(
    _: *mut ffi::sqlite3_vfs,
    path: *const c_char,
    flags: c_int,
    result: *mut c_int,
) -> c_int {
    let below = below();
    // SAFETY: as above.
    unsafe { (*below).xAccess.map_or(ffi::SQLITE_ERROR, |access| access(below, path, flags, result)) }
}

unsafe extern "C" fn full_pathname(
    _: *mut ffi::sqlite3_vfs,
    path: *const c_char,
    count: c_int,
    to: *mut c_char,
) -> c_int {
    let below = below();
    // SAFETY: as above.
    unsafe { (*below).xFullPathname.map_or(ffi::SQLITE_ERROR, |full| full(below, path, count, to)) }
}

fn register() {
    // The layer exists as long as the process. The methods that are not replaced do not use their first argument.
    let below = below();
    assert!(!below.is_null());
    // SAFETY: it is a plain structure, which stays valid.
    let mut layer = unsafe { *below };
    layer.szOsFile += c_int::try_from(OWN_BYTES).unwrap();
    layer.pNext = null_mut();
    layer.zName = c"recording".as_ptr();
    layer.xOpen = Some(open);
    layer.xDelete = Some(delete);
    layer.xAccess = Some(access);
    layer.xFullPathname = Some(full_pathname);
    // SAFETY: it is never freed. It becomes the default.
    let registered = unsafe { ffi::sqlite3_vfs_register(Box::into_raw(Box::new(layer)), 1) };
    assert_eq!(registered, ffi::SQLITE_OK);
}
