//! Measures the accuracy of the predictions of `tailor-sizing`: scores on measured functions, and the data sets.
//!
//! [`dataset`] and [`truth`] read and write measurements, [`throttled`] reads the data set of the same name, and [`score`] compares
//! predictions with measurements. [`curves`] and [`throttling`] do so with published measurements of real AWS Lambda
//! functions. The examples `evaluate`, `calibrate` and `curves` print the results.

pub mod curves;
pub mod dataset;
pub mod kind;
pub mod paired;
pub mod role;
pub mod score;
pub mod throttled;
pub mod throttling;
pub mod truth;
