//! The collector: stores what the extensions send, shows reports, advises a memory size and, opt-in, applies it.
//!
//! [`ingest`] stores batches in the [`store`]. [`report`] computes reports from stored rollups. [`api`], [`web`] and [`cli`]
//! show them with [`render`]. [`import`] stores the invocations that logs show. [`tuner`] changes memory sizes, and
//! [`changes`] is the log of that. [`doctor`] checks what is around it. [`patch`] changes them in the source that deploys the
//! functions, and [`experiment`] measures a function at several sizes. [`reconcile`] compares AWS's bill with what was computed,
//! and [`export`] writes usage for other tools. [`routes`] joins the
//! handlers, and [`http`] serves them on one port.

// They end the program with a panic when a reader closed the pipe: `cli` writes with functions of its own.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod api;
pub mod archive;
pub mod cardinality;
mod causes;
pub mod changes;
pub mod cli;
pub mod clock;
pub mod doctor;
pub mod experiment;
pub mod export;
mod files;
pub mod http;
pub mod import;
pub mod ingest;
pub mod keys;
mod lambda_functions;
pub mod logging;
pub mod monthly;
pub mod patch;
pub mod prices;
pub mod profiles;
pub mod push;
pub mod query;
pub mod random;
pub mod recommendations;
pub mod reconcile;
pub mod render;
pub mod report;
pub mod routes;
pub mod s3;
pub mod store;
pub mod tags;
pub mod tuner;
pub mod version;
pub mod web;
