//! The active experiment of `tailor tune`: a function is invoked at several memory sizes and the results are compared.
//!
//! [`input`] has Power Tuning's input and [`outcome`] its output. [`run`] publishes one version per size, invokes the
//! versions, and stops when the choice is settled ([`statistics`]). [`state`] is the durable record from which everything
//! that was made can be removed, also by another process.

pub mod aws;
pub mod input;
pub mod invocation;
pub mod outcome;
pub mod picture;
pub mod plan;
pub mod run;
pub mod s3;
pub mod state;
pub mod statistics;
pub mod visualization;
