//! CSV: exports of CloudWatch Logs Insights and of the log viewer.

use csv_core::{ReadRecordResult, Reader as CsvReader};

use super::{Buffer, Place, Scan};
use crate::problems::Problem;
use crate::row::{Field, Row, field};

/// Maximum size of one row, bytes. A log event has at most 1 MB.
const MAX_ROW_BYTES: usize = 2 << 20;

/// Maximum number of columns.
const MAX_COLUMNS: usize = 1_024;

/// Whether the first line of a text is the header of such a table.
pub(crate) fn is_header(line: &[u8]) -> bool {
    let Ok(line) = std::str::from_utf8(line) else { return false };
    let names: Vec<&str> = line.trim().split(',').map(|name| name.trim().trim_matches('"')).collect();
    let fields: Vec<Field> = names.iter().filter_map(|name| field(name)).collect();
    names.len() > 1 && (fields.contains(&Field::Message) || fields.contains(&Field::Billed))
        || matches!(names.as_slice(), ["@message" | "message"])
}

impl Scan<'_> {
    /// Reads a table to its end.
    pub(crate) fn table(&mut self, input: &mut Buffer<'_>, place: &Place) {
        let mut reader = CsvReader::new();
        let (mut row, mut ends) = (vec![0; MAX_ROW_BYTES], vec![0; MAX_COLUMNS]);
        let (mut length, mut columns) = (0, 0);
        let mut header: Option<Vec<Option<Field>>> = None;
        let mut is_too_large = false;
        loop {
            if input.bytes().is_empty() {
                input.fill();
            }
            let (result, read, written, ended) =
                reader.read_record(input.bytes(), &mut row[length..], &mut ends[columns..]);
            input.consume(read);
            length += written;
            columns += ended;
            match result {
                ReadRecordResult::InputEmpty => continue,
                ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {
                    // The rest of the row is read into the same memory and dropped.
                    is_too_large = true;
                    (length, columns) = (0, 0);
                    continue;
                }
                ReadRecordResult::Record => {}
                ReadRecordResult::End => return,
            }
            let cells = Cells { bytes: &row[..length], ends: &ends[..columns] };
            if is_too_large {
                self.problems.add(Problem::TooLarge, cells.bytes);
            } else if let Some(header) = &header {
                self.cells(&cells, header, place);
            } else {
                let name = |cell: &[u8]| std::str::from_utf8(cell).ok().and_then(field);
                header = Some(cells.iter().map(name).collect());
            }
            (length, columns, is_too_large) = (0, 0, false);
        }
    }

    fn cells(&mut self, cells: &Cells<'_>, header: &[Option<Field>], place: &Place) {
        if !self.is_candidate(cells.bytes) && !header.contains(&Some(Field::Billed)) {
            return;
        }
        let mut row = Row::default();
        for (cell, field) in cells.iter().zip(header) {
            let Some(field) = field else { continue };
            match std::str::from_utf8(cell) {
                Ok(cell) => row.set(*field, cell),
                Err(_) => {
                    self.problems.add(Problem::MalformedRow, cells.bytes);
                    return;
                }
            }
        }
        self.row(&row, place, cells.bytes);
    }
}

/// The cells of one row.
struct Cells<'a> {
    bytes: &'a [u8],
    ends: &'a [usize],
}

impl Cells<'_> {
    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        // The ends count from the start of the row.
        starts.zip(self.ends).map(|(start, end)| self.bytes.get(start..*end).unwrap_or_default())
    }
}
