//! Small `/proc` files that stay open: one `pread` each time instead of an open, a read and a close.

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

/// The longest file that is read, in bytes; `/proc/PID/status` has about 1,500.
const CAPACITY: usize = 4_096;

/// How many more files may stay open. The clones share one count. The extension shares 1,024 descriptors with the
/// function.
#[derive(Debug, Clone)]
pub(super) struct DescriptorBudget(Rc<Cell<usize>>);

impl DescriptorBudget {
    /// `files` in all.
    pub(super) fn of(files: usize) -> Self {
        Self(Rc::new(Cell::new(files)))
    }

    pub(super) fn left(&self) -> usize {
        self.0.get()
    }
}

/// A file that is used repeatedly. It stays open after the first use if the descriptor budget allows it, and is opened
/// each time if not.
#[derive(Debug)]
struct KeptFile {
    path: Box<str>,
    file: Option<File>,
    descriptor_budget: DescriptorBudget,
}

impl KeptFile {
    fn of(path: String, descriptor_budget: &DescriptorBudget) -> Self {
        Self { path: path.into_boxed_str(), file: None, descriptor_budget: descriptor_budget.clone() }
    }

    fn use_with<T>(&mut self, options: &OpenOptions, action: impl FnOnce(&File) -> Option<T>) -> Option<T> {
        if let Some(file) = &self.file {
            return action(file);
        }
        let file = options.open(&*self.path).ok()?;
        let result = action(&file);
        let left = self.descriptor_budget.left();
        if left > 0 {
            self.descriptor_budget.0.set(left - 1);
            self.file = Some(file);
        }
        result
    }

    /// Closes the file, so that another one may stay open.
    fn release(&mut self) {
        if self.file.take().is_some() {
            self.descriptor_budget.0.set(self.descriptor_budget.left() + 1);
        }
    }
}

impl Drop for KeptFile {
    fn drop(&mut self) {
        self.release();
    }
}

/// A file that is read repeatedly from its start.
#[derive(Debug)]
pub(super) struct ReadableFile(KeptFile);

impl ReadableFile {
    /// The file at `path`, which need not exist.
    pub(super) fn of(path: String, descriptor_budget: &DescriptorBudget) -> Self {
        Self(KeptFile::of(path, descriptor_budget))
    }

    /// Passes its content to `parse`; `None` when it does not exist, may not be read, or its process ended.
    pub(super) fn read<T>(&mut self, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        #[cfg(test)]
        READS.set(READS.get() + 1);
        self.0.use_with(File::options().read(true), |file| read(file, parse))
    }

    /// Whether it is open, so that reading it is one `pread`.
    pub(super) const fn is_open(&self) -> bool {
        self.0.file.is_some()
    }

    /// Closes the file, so that another one may stay open.
    pub(super) fn release(&mut self) {
        self.0.release();
    }
}

/// A file that is written repeatedly.
#[derive(Debug)]
pub(super) struct WritableFile(KeptFile);

impl WritableFile {
    /// The file at `path`, which need not exist.
    pub(super) fn of(path: String, descriptor_budget: &DescriptorBudget) -> Self {
        Self(KeptFile::of(path, descriptor_budget))
    }

    /// Writes `value`; `false` when that is not permitted.
    pub(super) fn write(&mut self, value: &[u8]) -> bool {
        let write = |file: &File| file.write_all_at(value, 0).ok();
        self.0.use_with(File::options().write(true), write).is_some()
    }
}

/// How many files that are not open may still be opened in one reading or sample.
#[derive(Debug)]
pub(super) struct ReadBudget(usize);

impl ReadBudget {
    /// Opening a file costs ten times as much as reading an open one.
    const MAX_OPENED: usize = 16;

    /// The budget of one reading.
    pub(super) const fn new() -> Self {
        Self(Self::MAX_OPENED)
    }

    /// Takes one file from the budget; `false` when nothing is left.
    pub(super) fn take(&mut self) -> bool {
        let left = self.0.checked_sub(1);
        self.0 = left.unwrap_or_default();
        left.is_some()
    }
}

/// Reads a small file once.
pub(super) fn read_once<T>(path: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    read(&File::open(path).ok()?, parse)
}

/// Names in the file may have any bytes. Only the numbers are used.
fn read<T>(file: &File, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    let mut buffer = [0u8; CAPACITY];
    let length = file.read_at(&mut buffer, 0).ok().filter(|&length| length > 0)?;
    parse(&String::from_utf8_lossy(&buffer[..length]))
}

#[cfg(test)]
thread_local! {
    /// The files that this thread has read: the cost of a reading, independent of other processes.
    pub(super) static READS: Cell<usize> = const { Cell::new(0) };
}
