//! Held views of small `/proc` files: one `pread` each time instead of an open, a read and a close.

use std::cell::Cell;
use std::fs::File;
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

/// A file that is read again and again from its start: held where the allowance lasts, opened each time where
/// it does not.
#[derive(Debug)]
pub(super) struct View {
    path: Box<str>,
    held: Option<File>,
    allowance: Allowance,
}

impl View {
    /// A view of `path`, which need not be there.
    pub(super) fn of(path: String, allowance: &Allowance) -> Self {
        let left = allowance.0.get();
        let held = if left > 0 { File::open(&path).ok() } else { None };
        if held.is_some() {
            allowance.0.set(left - 1);
        }
        Self { path: path.into_boxed_str(), held, allowance: allowance.clone() }
    }

    /// Hands its content now to `parse`; `None` when it is not there, may not be read, or its process is gone.
    pub(super) fn read<T>(&self, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        match &self.held {
            Some(file) => read(file, parse),
            None => read_once(&self.path, parse),
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if self.held.is_some() {
            self.allowance.0.set(self.allowance.0.get() + 1);
        }
    }
}

/// Reads a small file once.
pub(super) fn read_once<T>(path: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    read(&File::open(path).ok()?, parse)
}

fn read<T>(file: &File, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    let mut buffer = [0u8; CAPACITY];
    let length = file.read_at(&mut buffer, 0).ok().filter(|&length| length > 0)?;
    parse(std::str::from_utf8(&buffer[..length]).ok()?)
}
