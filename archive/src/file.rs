//! Writes rows as a Parquet file.

use std::sync::Arc;

use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::{ColumnPath, TypePtr};

use crate::columns::{Column, Kind, Value, all};
use crate::row::Row;

/// Rows in a row group. The values of one column of a row group are in memory while they are written.
pub const ROW_GROUP_ROWS: usize = 65_536;

/// Level of zstd: above it, the files become only slightly smaller.
const LEVEL: i32 = 6;

/// Why a file cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The Parquet library failed.
    #[error("cannot use a Parquet file: {0}")]
    Parquet(ParquetError),
    /// The file does not have the columns of the archive.
    #[error("the file has no column `{0}`: it is not a file of the archive")]
    Column(&'static str),
}

// The message has the cause, which is therefore not a source: it would be shown twice.
impl From<ParquetError> for ArchiveError {
    fn from(error: ParquetError) -> Self {
        Self::Parquet(error)
    }
}

/// Writes one file into memory.
pub struct FileWriter {
    columns: Vec<Column>,
    writer: SerializedFileWriter<Vec<u8>>,
}

impl FileWriter {
    /// Starts a file.
    ///
    /// # Errors
    /// [`ArchiveError::Parquet`] when the library refuses the schema.
    pub fn start() -> Result<Self, ArchiveError> {
        let columns: Vec<_> = all().collect();
        let properties = Arc::new(properties(&columns)?);
        let writer = SerializedFileWriter::new(Vec::new(), schema(&columns)?, properties)?;
        Ok(Self { columns, writer })
    }

    /// Writes one row group, sorted by function and time. The rows should be at most [`ROW_GROUP_ROWS`].
    ///
    /// # Errors
    /// [`ArchiveError::Parquet`] when the library fails.
    pub fn write(&mut self, rows: &mut [Row<'_>]) -> Result<(), ArchiveError> {
        if rows.is_empty() {
            return Ok(());
        }
        rows.sort_by_key(|row| {
            let (environment, invocation) = (&row.header.environment, row.invocation);
            (
                &environment.function,
                &environment.region,
                &environment.version,
                environment.memory,
                invocation.started_at_us,
                invocation.request_id,
                environment.id,
                row.header.sequence,
            )
        });
        let mut group = self.writer.next_row_group()?;
        for column in &self.columns {
            let mut writer = group.next_column()?.ok_or(ArchiveError::Column(column.name))?;
            write_column(&mut writer, column, rows)?;
            writer.close()?;
        }
        group.close()?;
        Ok(())
    }

    /// The bytes of the complete file.
    ///
    /// # Errors
    /// [`ArchiveError::Parquet`] when the library fails.
    pub fn finish(self) -> Result<Vec<u8>, ArchiveError> {
        Ok(self.writer.into_inner()?)
    }
}

fn write_column(
    writer: &mut SerializedColumnWriter<'_>,
    column: &Column,
    rows: &[Row<'_>],
) -> Result<(), ArchiveError> {
    let mut levels: Option<Vec<i16>> = None;
    match (writer.untyped(), column.value) {
        (ColumnWriter::ByteArrayColumnWriter(writer), Value::Text(get)) => {
            let values: Vec<_> = rows.iter().map(|row| ByteArray::from(get(row).into_bytes())).collect();
            writer.write_batch(&values, None, None)?;
        }
        (ColumnWriter::BoolColumnWriter(writer), Value::Boolean(get)) => {
            let values: Vec<_> = rows.iter().map(get).collect();
            writer.write_batch(&values, None, None)?;
        }
        (ColumnWriter::Int64ColumnWriter(writer), value) => {
            let values: Vec<Option<i64>> = rows.iter().map(|row| number(value, row)).collect();
            if column.is_optional {
                levels = Some(values.iter().map(|value| i16::from(value.is_some())).collect());
            }
            let values: Vec<i64> = values.into_iter().flatten().collect();
            writer.write_batch(&values, levels.as_deref(), None)?;
        }
        _ => return Err(ArchiveError::Column(column.name)),
    }
    Ok(())
}

fn number(value: Value, row: &Row<'_>) -> Option<i64> {
    let limited = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    match value {
        Value::Integer(get) => get(row),
        Value::Timestamp(get) => Some(limited(get(row))),
        Value::Counter(index) => row.invocation.work.map(|work| limited(work.counters()[index])),
        Value::Text(_) | Value::Boolean(_) => None,
    }
}

/// The schema of the files.
fn schema(columns: &[Column]) -> Result<TypePtr, ArchiveError> {
    let fields: String = columns.iter().map(field).collect();
    Ok(Arc::new(parse_message_type(&format!("message invocation {{ {fields}}}"))?))
}

fn field(column: &Column) -> String {
    let repetition = if column.is_optional { "OPTIONAL" } else { "REQUIRED" };
    let (physical, logical) = match column.kind() {
        Kind::Text => ("BYTE_ARRAY", " (STRING)"),
        Kind::Integer => ("INT64", ""),
        Kind::Boolean => ("BOOLEAN", ""),
        Kind::Timestamp => ("INT64", " (TIMESTAMP(MICROS,true))"),
    };
    format!("{repetition} {physical} {}{logical}; ", column.name)
}

fn properties(columns: &[Column]) -> Result<WriterProperties, ArchiveError> {
    let mut builder = WriterProperties::builder()
        .set_created_by("lambda-tailor".to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(LEVEL)?))
        // Files have at most a few row groups: queries use the statistics of these, and pages need none.
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true);
    for column in columns {
        let path = ColumnPath::from(column.name);
        builder = builder.set_column_dictionary_enabled(path.clone(), column.has_dictionary);
        if !column.has_dictionary && matches!(column.kind(), Kind::Integer | Kind::Timestamp) {
            builder = builder.set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
        }
    }
    Ok(builder.build())
}
