//! Exports in Parquet.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parquet::data_type::Decimal;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use parquet::schema::types::Type;

use super::Problem;
use super::Sink;
use super::cells::{Cell, Cells};
use super::columns::Layout;
use crate::{decimal, time};

/// Decimals of [`decimal::PICO`].
const PICO_DECIMALS: i32 = 12;

pub(super) fn read(file: File, sink: &mut Sink<'_>) -> io::Result<()> {
    // The library can panic on damaged files.
    catch_unwind(AssertUnwindSafe(|| read_rows(file, sink)))
        .unwrap_or_else(|_| Err(io::Error::other("the file is damaged")))
}

fn read_rows(file: File, sink: &mut Sink<'_>) -> io::Result<()> {
    let reader = SerializedFileReader::new(file).map_err(io::Error::other)?;
    let schema = reader.metadata().file_metadata().schema_descr().root_schema();
    let fields = schema.get_fields();
    let Some(layout) = Layout::of(fields.iter().map(|field| field.name())) else {
        let first: Vec<&str> = fields.iter().take(5).map(|field| field.name()).collect();
        sink.problem(Problem::UnknownFormat, 0, &format!("the first columns are {}", first.join(", ")));
        return Ok(());
    };
    sink.format(layout.format);
    // Only the needed columns are decoded, in the order of the file.
    let mut positions: Vec<usize> = layout.positions.into_iter().flatten().collect();
    positions.sort_unstable();
    positions.dedup();
    let mut selected = layout;
    for position in selected.positions.iter_mut().flatten() {
        *position = positions.binary_search(position).unwrap_or(0);
    }
    let columns = positions.iter().map(|at| Arc::clone(&fields[*at])).collect();
    let projection = Type::group_type_builder(schema.name()).with_fields(columns).build();
    let projection = projection.map_err(io::Error::other)?;
    let mut number = 0;
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group).map_err(io::Error::other)?;
        let rows =
            RowIter::from_row_group(Some(projection.clone()), group.as_ref()).map_err(io::Error::other)?;
        for row in rows {
            number += 1;
            // After an error the rest of the row group cannot be read.
            let row = row.map_err(io::Error::other)?;
            cells(&row, &selected).finish(selected.format, number, sink);
        }
    }
    Ok(())
}

fn cells<'a>(row: &'a Row, layout: &Layout) -> Cells<'a> {
    let values: Vec<&Field> = row.get_column_iter().map(|(_, field)| field).collect();
    let mut cells = Cells::default();
    for (cell, position) in cells.0.iter_mut().zip(layout.positions) {
        *cell = position.and_then(|at| values.get(at)).and_then(|field| cell_of(field));
    }
    cells
}

fn cell_of(field: &Field) -> Option<Cell<'_>> {
    let integer = |number: i128| Cell::Pico(number.saturating_mul(decimal::PICO));
    Some(match field {
        Field::Null => return None,
        Field::Str(text) => Cell::Text(Cow::Borrowed(text)),
        Field::Bytes(bytes) => Cell::Text(String::from_utf8_lossy(bytes.data())),
        Field::Float(number) => Cell::Text(Cow::Owned(format!("{number:e}"))),
        Field::Double(number) => Cell::Float(*number),
        Field::Decimal(number) => Cell::Pico(pico_of(number)?),
        Field::Byte(number) => integer((*number).into()),
        Field::Short(number) => integer((*number).into()),
        Field::Int(number) => integer((*number).into()),
        Field::Long(number) => integer((*number).into()),
        Field::UByte(number) => integer((*number).into()),
        Field::UShort(number) => integer((*number).into()),
        Field::UInt(number) => integer((*number).into()),
        Field::ULong(number) => integer((*number).into()),
        Field::Date(days) => Cell::Time(i64::from(*days) * time::DAY_S),
        Field::TimestampMillis(at) => Cell::Time(at.div_euclid(1_000)),
        Field::TimestampMicros(at) => Cell::Time(at.div_euclid(1_000_000)),
        other => Cell::Text(Cow::Owned(other.to_string())),
    })
}

/// A decimal of any scale, rounded half away from zero; `None` when it is too large.
fn pico_of(number: &Decimal) -> Option<i128> {
    let bytes = number.data();
    let fill = if bytes.first().is_some_and(|byte| *byte >= 0x80) { 0xff } else { 0 };
    let extra = bytes.len().saturating_sub(16);
    if bytes[..extra].iter().any(|byte| *byte != fill) {
        return None;
    }
    let mut wide = [fill; 16];
    let kept = &bytes[extra..];
    wide[16 - kept.len()..].copy_from_slice(kept);
    let unscaled = i128::from_be_bytes(wide);
    let shift = PICO_DECIMALS - number.scale();
    let power = 10_i128.checked_pow(shift.unsigned_abs())?;
    if shift >= 0 {
        return unscaled.checked_mul(power);
    }
    let half = if unscaled < 0 { -(power / 2) } else { power / 2 };
    Some(unscaled.checked_add(half)? / power)
}
