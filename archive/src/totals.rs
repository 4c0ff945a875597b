//! Reads the totals of a file, to verify it.

use bytes::Bytes;
use parquet::column::reader::ColumnReader;
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};

use crate::file::ArchiveError;

/// Values in one read.
const READ_ROWS: usize = 8_192;

/// What one or more files contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Number of rows.
    pub invocations: u64,
    /// Sum of the billed time, milliseconds.
    pub billed_ms: u64,
}

impl Totals {
    /// Adds those of other files.
    pub fn add(&mut self, other: Self) {
        self.invocations = self.invocations.saturating_add(other.invocations);
        self.billed_ms = self.billed_ms.saturating_add(other.billed_ms);
    }
}

/// Reads all rows of a file.
///
/// # Errors
/// [`ArchiveError`] when the bytes are not a complete file of the archive. No bytes cause a panic.
pub fn read_totals(bytes: Bytes) -> Result<Totals, ArchiveError> {
    let reader = SerializedFileReader::new(bytes)?;
    let columns = reader.metadata().file_metadata().schema_descr().columns();
    let billed = columns.iter().position(|column| column.name() == "billed_ms");
    let billed = billed.ok_or(ArchiveError::Column("billed_ms"))?;
    let mut totals = Totals::default();
    for group in 0..reader.num_row_groups() {
        totals.add(of_group(reader.get_row_group(group)?.as_ref(), billed)?);
    }
    Ok(totals)
}

fn of_group(group: &dyn RowGroupReader, billed: usize) -> Result<Totals, ArchiveError> {
    let ColumnReader::Int64ColumnReader(mut column) = group.get_column_reader(billed)? else {
        return Err(ArchiveError::Column("billed_ms"));
    };
    let mut totals = Totals::default();
    let mut values = Vec::with_capacity(READ_ROWS);
    loop {
        values.clear();
        let (rows, ..) = column.read_records(READ_ROWS, None, None, &mut values)?;
        if rows == 0 {
            return Ok(totals);
        }
        let billed_ms = values.iter().map(|value| value.unsigned_abs()).sum();
        totals.add(Totals { invocations: rows as u64, billed_ms });
    }
}
