//! Exports in CSV.

use std::borrow::Cow;
use std::cell::Cell as StdCell;
use std::io::{self, Read};
use std::rc::Rc;

use csv::{ByteRecord, ReaderBuilder};

use super::cells::{Cell, Cells};
use super::columns::Layout;
use super::{Problem, Sink};

/// Maximum size of one row, bytes. A row without the end of a quoted text would otherwise be as large as the file.
const MAX_ROW_BYTES: u64 = 16 << 20;

/// A reader that fails when a row is too long.
struct Limited<R> {
    inner: R,
    /// Bytes that were read since the last row ended.
    since_row: Rc<StdCell<u64>>,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.since_row.get() > MAX_ROW_BYTES {
            return Err(io::Error::other("a row is longer than 16 MiB: a quoted text has no end"));
        }
        let read = self.inner.read(buffer)?;
        self.since_row.set(self.since_row.get() + read as u64);
        Ok(read)
    }
}

pub(super) fn read(input: impl Read, sink: &mut Sink<'_>) -> io::Result<()> {
    let since_row = Rc::new(StdCell::new(0));
    let limited = Limited { inner: input, since_row: Rc::clone(&since_row) };
    let mut reader = ReaderBuilder::new().flexible(true).has_headers(false).from_reader(limited);
    let mut record = ByteRecord::new();
    if !read_record(&mut reader, &mut record)? {
        sink.problem(Problem::UnknownFormat, 0, "the file is empty");
        return Ok(());
    }
    let headers: Vec<Cow<'_, str>> = record.iter().map(String::from_utf8_lossy).collect();
    let Some(layout) = Layout::of(headers.iter().map(AsRef::as_ref)) else {
        let first: Vec<&str> = headers.iter().take(5).map(AsRef::as_ref).collect();
        sink.problem(Problem::UnknownFormat, 1, &format!("the first columns are {}", first.join(", ")));
        return Ok(());
    };
    sink.format(layout.format);
    let needed_columns = headers.len();
    let mut row = 1;
    loop {
        since_row.set(0);
        if !read_record(&mut reader, &mut record)? {
            return Ok(());
        }
        row += 1;
        if record.len() != needed_columns {
            let example = format!("{} columns in place of {needed_columns}", record.len());
            sink.counts.rows += 1;
            sink.problem(Problem::MalformedRow, row, &example);
            continue;
        }
        let mut cells = Cells::default();
        for (cell, position) in cells.0.iter_mut().zip(layout.positions) {
            let value = position.and_then(|at| record.get(at)).filter(|value| !value.is_empty());
            *cell = value.map(|value| Cell::Text(String::from_utf8_lossy(value)));
        }
        cells.finish(layout.format, row, sink);
    }
}

fn read_record<R: Read>(reader: &mut csv::Reader<R>, record: &mut ByteRecord) -> io::Result<bool> {
    reader.read_byte_record(record).map_err(io::Error::other)
}
