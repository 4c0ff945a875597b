//! Bounds on what either side sends or accepts. Every one exists so that a hostile or broken peer costs a
//! bounded amount of memory and time.

/// Bytes of one batch, before compression. An extension ships at 1,000 invocations or fewer, which is
/// about 60 KB, so this leaves room for an order of magnitude.
pub const MAX_BATCH_BYTES: usize = 1 << 20;

/// Invocations in one batch.
pub const MAX_INVOCATIONS: usize = 10_000;

/// Bytes of any text field; Lambda's longest, a qualified ARN, has 170.
pub const MAX_TEXT_BYTES: usize = 512;

/// Bytes of an environment id.
pub const ENVIRONMENT_ID_BYTES: usize = 16;
