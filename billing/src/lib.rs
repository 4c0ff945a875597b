//! Billing data of AWS: reads cost and usage exports, and writes measured usage in the same form.
//!
//! - [`read`]: rows of Lambda in exports of CUR 2.0 and of FOCUS 1.0 and 1.2, in CSV and Parquet.
//! - [`bill`]: their sums per function, period and meter.
//! - [`compare`]: the difference between a bill and what was measured, with its reasons.
//! - [`meter`]: what a row is charged for.
//! - [`focus`]: FOCUS 1.2 rows in CSV and Parquet.
//! - [`infracost`]: usage files of Infracost.
//! - [`table`]: any table in CSV and Parquet.
//!
//! Nothing here depends on the collector or its store.

pub mod arn;
pub mod bill;
pub mod compare;
pub mod decimal;
pub mod focus;
pub mod infracost;
pub mod meter;
pub mod read;
pub mod regions;
pub mod row;
pub mod table;
pub mod time;

pub use arn::Function;
pub use meter::{Meter, MeterKind};
pub use read::{Export, ExportFormat, Problem, Problems};
pub use row::{BillRow, Charge};
