//! Small `/proc` files that are held: one `pread` each time instead of an open, a read and a close.

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

/// Longest file that is read; `/proc/PID/status` has about 1,500 bytes.
const CAPACITY: usize = 4_096;

/// How many more files may be held, shared by all who hold some: descriptors are shared with the function,
/// which has 1,024.
#[derive(Debug, Clone)]
pub(super) struct Allowance(Rc<Cell<usize>>);

impl Allowance {
    /// `files` in all.
    pub(super) fn of(files: usize) -> Self {
        Self(Rc::new(Cell::new(files)))
    }

    pub(super) fn left(&self) -> usize {
        self.0.get()
    }
}

/// A file that is used again and again: held from its first use where the allowance lasts, opened each time where it
/// does not.
#[derive(Debug)]
struct Held {
    path: Box<str>,
    file: Option<File>,
    allowance: Allowance,
}

impl Held {
    fn of(path: String, allowance: &Allowance) -> Self {
        Self { path: path.into_boxed_str(), file: None, allowance: allowance.clone() }
    }

    fn use_with<T>(&mut self, options: &OpenOptions, action: impl FnOnce(&File) -> Option<T>) -> Option<T> {
        if let Some(file) = &self.file {
            return action(file);
        }
        let file = options.open(&*self.path).ok()?;
        let result = action(&file);
        let left = self.allowance.left();
        if left > 0 {
            self.allowance.0.set(left - 1);
            self.file = Some(file);
        }
        result
    }

    /// Lets others hold what they need more.
    fn release(&mut self) {
        if self.file.take().is_some() {
            self.allowance.0.set(self.allowance.left() + 1);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release();
    }
}

/// A file that is read again and again from its start.
#[derive(Debug)]
pub(super) struct View(Held);

impl View {
    /// A view of `path`, which need not be there.
    pub(super) fn of(path: String, allowance: &Allowance) -> Self {
        Self(Held::of(path, allowance))
    }

    /// Hands its content now to `parse`; `None` when it is not there, may not be read, or its process is gone.
    pub(super) fn read<T>(&mut self, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        #[cfg(test)]
        READS.set(READS.get() + 1);
        self.0.use_with(File::options().read(true), |file| read(file, parse))
    }

    /// Whether reading it is one `pread`.
    pub(super) const fn is_held(&self) -> bool {
        self.0.file.is_some()
    }

    /// Lets others be held.
    pub(super) fn release(&mut self) {
        self.0.release();
    }
}

/// A file that the same is written to again and again.
#[derive(Debug)]
pub(super) struct WritableFile(Held);

impl WritableFile {
    /// The file at `path`, which need not be there.
    pub(super) fn of(path: String, allowance: &Allowance) -> Self {
        Self(Held::of(path, allowance))
    }

    /// Writes `setting`; whether that was permitted.
    pub(super) fn write(&mut self, setting: &[u8]) -> bool {
        let write = |file: &File| file.write_all_at(setting, 0).ok();
        self.0.use_with(File::options().write(true), write).is_some()
    }
}

/// Reads a small file once.
pub(super) fn read_once<T>(path: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    read(&File::open(path).ok()?, parse)
}

/// Names in it may be of any bytes; numbers are what is wanted.
fn read<T>(file: &File, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    let mut buffer = [0u8; CAPACITY];
    let length = file.read_at(&mut buffer, 0).ok().filter(|&length| length > 0)?;
    parse(&String::from_utf8_lossy(&buffer[..length]))
}

#[cfg(test)]
thread_local! {
    /// Files of known processes this thread has read: what a reading costs, whatever else begins on the machine.
    pub(super) static READS: Cell<usize> = const { Cell::new(0) };
}
