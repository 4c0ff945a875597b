//! What a disk contains after a power failure: everything that was synced, and any part of what was written since.

use std::collections::BTreeMap;
use std::path::Path;

use tailor_test_kit::random::Random;

use crate::vfs::Event;

/// Smallest part of a write that reaches the disk as a whole, bytes.
const SECTOR: usize = 512;

/// What happens to writes that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsynced {
    /// None reached the disk.
    Lost,
    /// All reached the disk, as when only the process ends.
    Kept,
    /// Each sector reached the disk or not, in any order; the file may have its new size all the same.
    Torn { seed: u64 },
}

#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate(usize),
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*offset..end].copy_from_slice(bytes);
            }
            Self::Truncate(size) => content.resize(*size, 0),
        }
    }

    fn apply_torn(&self, content: &mut Vec<u8>, random: &mut Random) {
        let Self::Write { offset, bytes } = self else {
            if random.below(2) == 0 {
                self.apply(content);
            }
            return;
        };
        let mut start = *offset;
        while start < offset + bytes.len() {
            let end = (start / SECTOR + 1) * SECTOR;
            let end = end.min(offset + bytes.len());
            match random.below(5) {
                0 | 1 => {}
                // The size is on disk, and the content is not.
                2 if content.len() < end => content.resize(end, 0),
                _ => Self::Write { offset: start, bytes: bytes[start - offset..end - offset].to_vec() }
                    .apply(content),
            }
            start = end;
        }
    }
}

#[derive(Debug, Default, Clone)]
struct File {
    synced: Vec<u8>,
    unsynced: Vec<Change>,
    /// Whether its first sync also syncs the folder.
    syncs_folder: bool,
}

/// The names of the folder: which file each refers to.
type Names = BTreeMap<String, usize>;

/// The disk while the workload runs.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    files: Vec<File>,
    names: Names,
    synced_names: Names,
    /// The changes of the names since the folder was synced.
    unsynced_names: Vec<(String, Option<usize>)>,
}

impl Disk {
    /// Applies the next event.
    pub(crate) fn apply(&mut self, event: &Event) {
        match event {
            Event::Open { file, syncs_folder } => {
                let number = match self.names.get(file) {
                    Some(number) => *number,
                    None => {
                        self.files.push(File::default());
                        self.rename(file, Some(self.files.len() - 1));
                        self.files.len() - 1
                    }
                };
                self.files[number].syncs_folder |= syncs_folder;
            }
            Event::Write { file, offset, bytes } => {
                let offset = usize::try_from(*offset).unwrap();
                self.file(file).unsynced.push(Change::Write { offset, bytes: bytes.clone() });
            }
            Event::Truncate { file, size } => {
                let size = usize::try_from(*size).unwrap();
                self.file(file).unsynced.push(Change::Truncate(size));
            }
            Event::Sync { file } => {
                let file = self.file(file);
                for change in std::mem::take(&mut file.unsynced) {
                    change.apply(&mut file.synced);
                }
                if std::mem::take(&mut file.syncs_folder) {
                    self.sync_folder();
                }
            }
            Event::Delete { file, syncs_folder } => {
                if self.names.contains_key(file) {
                    self.rename(file, None);
                }
                if *syncs_folder {
                    self.sync_folder();
                }
            }
            Event::Id(_) | Event::Mark(_) => {}
        }
    }

    fn file(&mut self, name: &str) -> &mut File {
        let number = self.names[name];
        &mut self.files[number]
    }

    fn rename(&mut self, name: &str, number: Option<usize>) {
        set(&mut self.names, name, number);
        self.unsynced_names.push((name.to_owned(), number));
    }

    fn sync_folder(&mut self) {
        for (name, number) in std::mem::take(&mut self.unsynced_names) {
            set(&mut self.synced_names, &name, number);
        }
    }

    /// Writes what the disk would contain after a power failure now.
    pub(crate) fn write_to(&self, folder: &Path, unsynced: Unsynced) {
        let mut random = Random::new(match unsynced {
            Unsynced::Torn { seed } => seed,
            Unsynced::Lost | Unsynced::Kept => 0,
        });
        // File systems keep the order in which names change.
        let kept = match unsynced {
            Unsynced::Lost => 0,
            Unsynced::Kept => self.unsynced_names.len(),
            Unsynced::Torn { .. } => {
                usize::try_from(random.below(self.unsynced_names.len() as u64 + 1)).unwrap()
            }
        };
        let mut names = self.synced_names.clone();
        for (name, number) in &self.unsynced_names[..kept] {
            set(&mut names, name, *number);
        }
        for (name, number) in names {
            let file = &self.files[number];
            let mut content = file.synced.clone();
            for change in &file.unsynced {
                match unsynced {
                    Unsynced::Lost => {}
                    Unsynced::Kept => change.apply(&mut content),
                    Unsynced::Torn { .. } => change.apply_torn(&mut content, &mut random),
                }
            }
            std::fs::write(folder.join(name), content).unwrap();
        }
    }
}

fn set(names: &mut Names, name: &str, number: Option<usize>) {
    match number {
        Some(number) => drop(names.insert(name.to_owned(), number)),
        None => drop(names.remove(name)),
    }
}
