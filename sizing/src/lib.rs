//! What a Lambda invocation costs, and what it would cost at any other memory size.
//!
//! Pure functions and types: no I/O, no clock, no async, nothing of the other crates.
//!
//! Begin at [`advice`] and [`explain`]; bills are in [`bill`], the model in [`profile`], [`replay`], [`work`] and
//! [`predict`], and what all functions of a fleet have in common in [`enforcement`]. The README derives it with its figures.

pub mod advice;
pub mod bill;
pub mod choice;
pub mod cost_model;
pub mod curve;
pub mod doubt;
pub mod enforcement;
pub mod explain;
pub mod floor;
pub mod hints;
pub mod histogram;
pub mod interval;
pub mod invocation;
pub mod money;
pub mod plan;
pub mod predict;
pub mod price_list;
pub mod prices;
pub mod profile;
mod quantile;
pub mod replay;
pub mod rollup;
pub mod saved;
pub mod score;
mod study;
pub mod units;
pub mod work;
