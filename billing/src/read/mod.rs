//! Reads the rows of Lambda from exports: CUR 2.0, legacy CUR, FOCUS 1.0 and FOCUS 1.2, in CSV and Parquet.
//!
//! The format and the compression are recognized by content. Files stream: memory does not grow with their size. What cannot
//! be read is counted with an example of each kind, and the rest is read.

use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, Entry};
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use crate::row::BillRow;

mod cells;
mod columns;
mod csv;
mod parquet;
mod problems;

pub use columns::ExportFormat;
pub use problems::{Problem, Problems};

/// Maximum depth of folders.
const MAX_DEPTH: u32 = 64;

/// Rows whose digests are kept, to count a row once that several files have: 24 bytes each.
const MAX_DIGESTS: usize = 4_000_000;

/// How a Parquet file begins.
const PARQUET_MAGIC: &[u8] = b"PAR1";

/// How gzip data begins.
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];

/// How zstd data begins.
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Files that were read.
    pub files: u64,
    /// Rows of all services.
    pub rows: u64,
    /// Rows of Lambda.
    pub lambda_rows: u64,
    /// Rows of Lambda that an earlier file has, and that were not counted again.
    pub repeated_rows: u64,
    /// Formats that were found, by name.
    pub formats: Vec<ExportFormat>,
}

/// Reads files of exports.
#[derive(Debug, Default)]
pub struct Export {
    /// What could not be read.
    pub problems: Problems,
    /// What was read.
    pub counts: Counts,
    /// Hashes of rows with the number of their file.
    digests: HashMap<u64, u64>,
    is_last: bool,
}

impl Export {
    /// Reads files, and all files of exports in folders, and passes each row of Lambda to `on_row`. A row that an earlier file of
    /// the same call has is not passed on again.
    pub fn read(&mut self, paths: &[impl AsRef<Path>], on_row: &mut dyn FnMut(BillRow)) {
        let files = self.files(paths);
        self.digests.clear();
        for (index, file) in files.iter().enumerate() {
            self.read_file(&file.display().to_string(), File::open(file), index + 1 == files.len(), on_row);
        }
    }

    /// The files at `paths`, in order of names. In folders, files of other types are left out, such as manifests.
    pub fn files(&mut self, paths: &[impl AsRef<Path>]) -> Vec<PathBuf> {
        paths.iter().flat_map(|path| self.find(path.as_ref(), 0)).collect()
    }

    /// Reads one of several files, and passes each row of Lambda to `on_row`, without those that an earlier file has. `is_last`:
    /// no file follows that could repeat its rows. `name` is that in examples of problems.
    pub fn read_file(
        &mut self,
        name: &str,
        file: io::Result<File>,
        is_last: bool,
        on_row: &mut dyn FnMut(BillRow),
    ) {
        self.is_last = is_last;
        if let Err(error) = file.and_then(|file| self.file(name, file, on_row)) {
            self.problems.add(Problem::UnreadableFile, || format!("{name}: {error}"));
        }
    }

    fn find(&mut self, path: &Path, depth: u32) -> Vec<PathBuf> {
        let entries = match fs::metadata(path) {
            Ok(metadata) if !metadata.is_dir() => return vec![path.to_owned()],
            Ok(_) if depth >= MAX_DEPTH => Err(io::Error::other("too many folders inside each other")),
            Ok(_) => fs::read_dir(path),
            Err(error) => Err(error),
        };
        let entries = match entries {
            Ok(entries) => entries,
            Err(error) => {
                self.problems.add(Problem::UnreadableFile, || format!("{}: {error}", path.display()));
                return vec![];
            }
        };
        let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort_unstable();
        let mut files = vec![];
        for path in paths {
            if path.is_dir() {
                files.extend(self.find(&path, depth + 1));
            } else if has_name_of_export(&path) {
                files.push(path);
            }
        }
        files
    }

    fn file(&mut self, name: &str, mut file: File, on_row: &mut dyn FnMut(BillRow)) -> io::Result<()> {
        let mut start = [0; 4];
        let length = read_start(&mut file, &mut start)?;
        let start = &start[..length];
        if start == PARQUET_MAGIC {
            file.rewind()?;
            return self.with_sink(name, on_row, |sink| parquet::read(file, sink));
        }
        self.text(name, start, file, on_row)
    }

    /// Reads CSV, compressed or not, from memory.
    ///
    /// # Errors
    /// When the data ends early or a row is too long.
    pub fn read_text(&mut self, text: &[u8], on_row: &mut dyn FnMut(BillRow)) -> io::Result<()> {
        let (start, rest) = text.split_at(text.len().min(4));
        self.is_last = true;
        self.text("input", start, rest, on_row)
    }

    fn text(
        &mut self,
        name: &str,
        start: &[u8],
        rest: impl Read,
        on_row: &mut dyn FnMut(BillRow),
    ) -> io::Result<()> {
        let input = start.chain(rest);
        self.with_sink(name, on_row, |sink| {
            if start.starts_with(GZIP_MAGIC) {
                csv::read(MultiGzDecoder::new(BufReader::new(input)), sink)
            } else if start == ZSTD_MAGIC {
                csv::read(zstd::Decoder::new(input)?, sink)
            } else {
                csv::read(input, sink)
            }
        })
    }

    /// Reads one input. Rows that an earlier one had are not passed on.
    fn with_sink(
        &mut self,
        name: &str,
        on_row: &mut dyn FnMut(BillRow),
        read: impl FnOnce(&mut Sink<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let index = self.counts.files;
        self.counts.files += 1;
        let Self { problems, counts, digests, is_last } = self;
        let mut take = |row: BillRow, counts: &mut Counts| {
            counts.lambda_rows += 1;
            if is_repeated(digests, &row, index, *is_last) { counts.repeated_rows += 1 } else { on_row(row) }
        };
        read(&mut Sink { name, problems, counts, take: &mut take })
    }
}

/// Where rows and problems of one file go.
struct Sink<'a> {
    name: &'a str,
    problems: &'a mut Problems,
    counts: &'a mut Counts,
    take: &'a mut dyn FnMut(BillRow, &mut Counts),
}

impl Sink<'_> {
    fn problem(&mut self, kind: Problem, row: u64, example: &str) {
        let name = self.name;
        self.problems.add(kind, || format!("{name}, row {row}: {example}"));
    }

    fn format(&mut self, format: ExportFormat) {
        if !self.counts.formats.contains(&format) {
            self.counts.formats.push(format);
        }
    }
}

/// Whether a file in a folder can have rows of an export: manifests and others have other endings.
#[must_use]
pub fn has_name_of_export(path: &Path) -> bool {
    path.extension().is_some_and(|extension| {
        ["csv", "parquet", "gz", "zst"].iter().any(|known| extension.eq_ignore_ascii_case(known))
    })
}

fn read_start(file: &mut File, start: &mut [u8; 4]) -> io::Result<usize> {
    let mut length = 0;
    while length < start.len() {
        match file.read(&mut start[length..])? {
            0 => break,
            read => length += read,
        }
    }
    Ok(length)
}

/// Whether another file had the same row. One file may have two equal rows.
fn is_repeated(digests: &mut HashMap<u64, u64>, row: &BillRow, file: u64, is_last: bool) -> bool {
    if is_last && digests.is_empty() {
        return false;
    }
    let mut hasher = DefaultHasher::new();
    (&row.account, &row.region, &row.resource, row.charge, row.from_s, row.until_s).hash(&mut hasher);
    (row.what.meter, row.what.tier, row.what.is_free, row.what.is_provisioned).hash(&mut hasher);
    (row.quantity_pico, row.cost, row.list_cost).hash(&mut hasher);
    let is_full = is_last || digests.len() >= MAX_DIGESTS;
    match digests.entry(hasher.finish()) {
        Entry::Occupied(first) => *first.get() != file,
        Entry::Vacant(place) => {
            if !is_full {
                place.insert(file);
            }
            false
        }
    }
}
