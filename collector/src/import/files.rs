//! The files of an import: folders are searched, in order of names.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use tailor_logs::{Origin, Problem, Problems};

/// Maximum depth of folders.
const MAX_DEPTH: u32 = 64;

/// One file.
#[derive(Debug, Clone)]
pub struct Input {
    /// Where it is.
    pub path: PathBuf,
    /// Its size, bytes.
    pub bytes: u64,
    /// When it was last changed, microseconds since the Unix epoch.
    pub changed_us: u64,
}

/// The files at `path`: itself, or all files in the folder. What cannot be read is counted.
pub fn find(path: &Path, problems: &mut Problems) -> Vec<Input> {
    let mut found = vec![];
    search(path, 0, &mut found, problems);
    found
}

fn search(path: &Path, depth: u32, found: &mut Vec<Input>, problems: &mut Problems) {
    let unreadable = |problems: &mut Problems, error: &io::Error| {
        problems.add(Problem::UnreadableFile, format!("{}: {error}", path.display()).as_bytes());
    };
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => return unreadable(problems, &error),
    };
    if !metadata.is_dir() {
        let changed = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        found.push(Input {
            path: path.to_owned(),
            bytes: metadata.len(),
            changed_us: changed.map_or(0, |at| u64::try_from(at.as_micros()).unwrap_or(0)),
        });
        return;
    }
    if depth >= MAX_DEPTH {
        return unreadable(problems, &io::Error::other("too many folders inside each other"));
    }
    match fs::read_dir(path) {
        Ok(entries) => {
            let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
            paths.sort_unstable();
            for path in paths {
                search(&path, depth + 1, found, problems);
            }
        }
        Err(error) => unreadable(problems, &error),
    }
}

/// Opens a file.
///
/// # Errors
/// When it cannot be opened.
pub fn open(input: &Input) -> io::Result<impl Read + use<>> {
    File::open(&input.path)
}

/// What a path and the arguments state about the function. An argument is used where neither the path nor a wrapper names it.
#[must_use]
pub fn origin(path: &str, arguments: &Origin) -> Origin {
    let mut origin = Origin::default();
    origin.set_path(path);
    complete(origin, arguments)
}

/// An origin with the arguments for what it does not name.
#[must_use]
pub fn complete(mut origin: Origin, arguments: &Origin) -> Origin {
    for (own, argument) in [
        (&mut origin.account, &arguments.account),
        (&mut origin.region, &arguments.region),
        (&mut origin.function, &arguments.function),
        (&mut origin.version, &arguments.version),
    ] {
        if own.is_empty() {
            own.clone_from(argument);
        }
    }
    origin
}
