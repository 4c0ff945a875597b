//! The wire format between the extension and the collector.
//!
//! [`wire`] is generated from `proto/tailor.v1.proto`; [`batch`] and [`rollup`] convert to and from the
//! types of `tailor-sizing` without loss, and reject what exceeds the [`limits`]. No I/O.

pub mod batch;
pub mod limits;
pub mod rollup;
/// Generated from `proto/tailor.v1.proto` by `cargo run -p agent-proto-codegen`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "the code is generated")]
#[rustfmt::skip]
pub mod wire;

/// Media type of a batch and of its acknowledgement.
pub const CONTENT_TYPE: &str = "application/x-protobuf";

/// Path a batch is posted to.
pub const BATCHES_PATH: &str = "/v1/batches";
