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

    #[cfg(test)]
    pub(super) fn left(&self) -> usize {
        self.0.get()
    }
}

/// A file that is used again and again: held where the allowance lasts, opened each time where it does not.
#[derive(Debug)]
struct Held {
    path: Box<str>,
    file: Option<File>,
    allowance: Allowance,
}

impl Held {
    fn of(path: String, options: &OpenOptions, allowance: &Allowance) -> Self {
        let left = allowance.0.get();
        let file = if left > 0 { options.open(&path).ok() } else { None };
        if file.is_some() {
            allowance.0.set(left - 1);
        }
        Self { path: path.into_boxed_str(), file, allowance: allowance.clone() }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.file.is_some() {
            self.allowance.0.set(self.allowance.0.get() + 1);
        }
    }
}

/// A file that is read again and again from its start.
#[derive(Debug)]
pub(super) struct View(Held);

impl View {
    /// A view of `path`, which need not be there.
    pub(super) fn of(path: String, allowance: &Allowance) -> Self {
        Self(Held::of(path, File::options().read(true), allowance))
    }

    /// Hands its content now to `parse`; `None` when it is not there, may not be read, or its process is gone.
    pub(super) fn read<T>(&self, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        match &self.0.file {
            Some(file) => read(file, parse),
            None => read_once(&self.0.path, parse),
        }
    }
}

/// A file that the same is written to again and again.
#[derive(Debug)]
pub(super) struct Knob(Held);

impl Knob {
    /// The knob at `path`, which need not be there.
    pub(super) fn of(path: String, allowance: &Allowance) -> Self {
        Self(Held::of(path, File::options().write(true), allowance))
    }

    /// Writes `setting`; whether that was permitted.
    pub(super) fn turn(&self, setting: &[u8]) -> bool {
        let write = |file: &File| file.write_all_at(setting, 0);
        let written = match &self.0.file {
            Some(file) => write(file),
            None => File::options().write(true).open(&*self.0.path).and_then(|file| write(&file)),
        };
        written.is_ok()
    }
}

/// Reads a small file once. Names in it may be of any bytes; numbers are what is wanted.
pub(super) fn read_once<T>(path: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    read(&File::open(path).ok()?, parse)
}

fn read<T>(file: &File, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    let mut buffer = [0u8; CAPACITY];
    let length = file.read_at(&mut buffer, 0).ok().filter(|&length| length > 0)?;
    parse(&String::from_utf8_lossy(&buffer[..length]))
}
