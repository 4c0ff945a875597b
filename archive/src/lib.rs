//! The archive of single invocations: the columns, the Parquet files, and the names of the objects.
//!
//! It has no connections and no files: it makes bytes from invocations, and reads them again to verify them. The same
//! invocations and prices give the same bytes, so that an upload can be repeated.

mod columns;
mod ddl;
mod file;
mod name;
mod row;
mod totals;

pub use columns::{Column, Kind, all as columns};
pub use ddl::{athena, partition_range};
pub use file::{ArchiveError, FileWriter, ROW_GROUP_ROWS};
pub use name::{DAY_US, Partition, object_name, parse_day, text_of_day};
pub use row::Row;
pub use totals::{Totals, read_totals};
