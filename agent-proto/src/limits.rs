//! Limits of what the extension sends and the collector accepts. They limit the memory and the time that a hostile or
//! faulty sender can use.

/// Bytes of one batch; of a compressed one, after decompression. An extension sends a batch at 500 invocations by default
/// and at 1,000 at most (`TAILOR_FLUSH_ITEMS`), which at 64 bytes each is 64 KB.
pub const MAX_BATCH_BYTES: usize = 1 << 20;

/// Invocations in one batch.
pub const MAX_INVOCATIONS: usize = 10_000;

/// Bytes of any text field; Lambda's longest, a qualified ARN, has 170.
pub const MAX_TEXT_BYTES: usize = 512;

/// Bytes of an environment id.
pub const ENVIRONMENT_ID_BYTES: usize = 16;

/// The longest timeout of a function, milliseconds: 15 minutes, and 90 minutes on managed instances.
#[must_use]
pub const fn max_timeout_ms(is_managed_instances: bool) -> u64 {
    if is_managed_instances { 5_400_000 } else { 900_000 }
}

/// The longest time of anything in an invocation, microseconds: the timeout, and a minute for Init and extensions.
#[must_use]
pub const fn max_time_us(is_managed_instances: bool) -> u64 {
    (max_timeout_ms(is_managed_instances) + 60_000) * 1_000
}
