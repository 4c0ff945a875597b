//! Limits of what the extension sends and the collector accepts. They limit the memory and the time that a hostile or
//! faulty sender can use.

/// Bytes of one batch; of a compressed one, after decompression. An extension sends a batch at 500 invocations by default
/// and at 3,000 at most (`TAILOR_FLUSH_ITEMS`), which at 64 bytes each is 192 KB.
pub const MAX_BATCH_BYTES: usize = 1 << 20;

/// Invocations in one batch.
pub const MAX_INVOCATIONS: usize = 10_000;

/// Bytes of any text field; Lambda's longest, a qualified ARN, has 170.
pub const MAX_TEXT_BYTES: usize = 512;

/// Bytes of an environment id.
pub const ENVIRONMENT_ID_BYTES: usize = 16;
