//! A table with typed columns, written as CSV or Parquet.

use std::io::{self, Write};
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{Type, TypePtr};

use crate::{decimal, time};

/// Rows in one row group of a Parquet file.
const GROUP_ROWS: usize = 50_000;

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// A whole number.
    Whole,
    /// A decimal number. It is written exactly in CSV, and as a float in Parquet, as in AWS's exports.
    Decimal,
    /// A time, UTC: a timestamp of milliseconds in Parquet.
    Time,
}

/// A column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Whether values may be absent.
    pub is_nullable: bool,
}

/// One value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// No value.
    Null,
    /// A text.
    Text(String),
    /// A whole number.
    Whole(i64),
    /// A number of 10⁻¹².
    Decimal(i128),
    /// Seconds since the Unix epoch.
    Time(i64),
}

impl Value {
    /// A text; absent when it is empty.
    #[must_use]
    pub fn text(text: &str) -> Self {
        if text.is_empty() { Self::Null } else { Self::Text(text.to_owned()) }
    }

    fn to_csv(&self) -> String {
        match self {
            Self::Null => String::new(),
            Self::Text(text) => text.clone(),
            Self::Whole(number) => number.to_string(),
            Self::Decimal(pico) => decimal::format(*pico),
            Self::Time(at_s) => time::format(*at_s),
        }
    }
}

/// The encoding of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Comma-separated values with a header.
    Csv,
    /// Parquet, compressed with zstd.
    Parquet,
}

/// Writes rows to `output`. Every row has one value for each column.
///
/// # Errors
/// When `output` cannot be written, or a value does not have the type of its column.
pub fn write<W: Write + Send>(
    columns: &[Column],
    rows: impl Iterator<Item = Vec<Value>>,
    encoding: Encoding,
    output: W,
) -> io::Result<()> {
    match encoding {
        Encoding::Csv => write_csv(columns, rows, output),
        Encoding::Parquet => write_parquet(columns, rows, output),
    }
}

fn write_csv(
    columns: &[Column],
    rows: impl Iterator<Item = Vec<Value>>,
    output: impl Write,
) -> io::Result<()> {
    let mut writer = csv::Writer::from_writer(output);
    writer.write_record(columns.iter().map(|column| column.name)).map_err(io_error)?;
    for row in rows {
        writer.write_record(row.iter().map(Value::to_csv)).map_err(io_error)?;
    }
    writer.flush()
}

/// The cause why a row cannot be written. A closed pipe stays one.
fn io_error(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

fn schema(columns: &[Column]) -> parquet::errors::Result<TypePtr> {
    let mut fields = vec![];
    for column in columns {
        let (physical, logical) = match column.kind {
            Kind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
            Kind::Whole => (Physical::INT64, None),
            Kind::Decimal => (Physical::DOUBLE, None),
            Kind::Time => (Physical::INT64, Some(LogicalType::timestamp(true, TimeUnit::MILLIS))),
        };
        let repetition = if column.is_nullable { Repetition::OPTIONAL } else { Repetition::REQUIRED };
        let field = Type::primitive_type_builder(column.name, physical)
            .with_repetition(repetition)
            .with_logical_type(logical)
            .build()?;
        fields.push(Arc::new(field));
    }
    Ok(Arc::new(Type::group_type_builder("rows").with_fields(fields).build()?))
}

fn write_parquet<W: Write + Send>(
    columns: &[Column],
    rows: impl Iterator<Item = Vec<Value>>,
    output: W,
) -> io::Result<()> {
    let properties =
        WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let schema = schema(columns).map_err(io::Error::other)?;
    let mut writer =
        SerializedFileWriter::new(output, schema, Arc::new(properties)).map_err(io::Error::other)?;
    let mut rows = rows.peekable();
    while rows.peek().is_some() {
        let group: Vec<Vec<Value>> = rows.by_ref().take(GROUP_ROWS).collect();
        write_group(columns, &group, &mut writer).map_err(io::Error::other)?;
    }
    writer.close().map_err(io::Error::other)?;
    Ok(())
}

fn write_group<W: Write + Send>(
    columns: &[Column],
    rows: &[Vec<Value>],
    writer: &mut SerializedFileWriter<W>,
) -> parquet::errors::Result<()> {
    let mut group = writer.next_row_group()?;
    for (index, column) in columns.iter().enumerate() {
        let values = || rows.iter().map(move |row| row.get(index).unwrap_or(&Value::Null));
        let levels: Vec<i16> = values().map(|value| i16::from(*value != Value::Null)).collect();
        if !column.is_nullable && levels.contains(&0) {
            let message = format!("column {} has no value in a row", column.name);
            return Err(parquet::errors::ParquetError::General(message));
        }
        let levels = column.is_nullable.then_some(levels.as_slice());
        let Some(mut target) = group.next_column()? else { break };
        match column.kind {
            Kind::Text => {
                let texts: Vec<ByteArray> = values()
                    .filter_map(|value| match value {
                        Value::Text(text) => Some(ByteArray::from(text.as_str())),
                        _ => None,
                    })
                    .collect();
                target.typed::<ByteArrayType>().write_batch(&texts, levels, None)?;
            }
            Kind::Decimal => {
                let numbers: Vec<f64> = values()
                    .filter_map(|value| match value {
                        Value::Decimal(pico) => Some(decimal::to_float(*pico)),
                        _ => None,
                    })
                    .collect();
                target.typed::<DoubleType>().write_batch(&numbers, levels, None)?;
            }
            Kind::Whole | Kind::Time => {
                let numbers: Vec<i64> = values()
                    .filter_map(|value| match value {
                        Value::Whole(number) => Some(*number),
                        Value::Time(at_s) => Some(at_s.saturating_mul(1_000)),
                        _ => None,
                    })
                    .collect();
                target.typed::<Int64Type>().write_batch(&numbers, levels, None)?;
            }
        }
        target.close()?;
    }
    group.close()?;
    Ok(())
}
