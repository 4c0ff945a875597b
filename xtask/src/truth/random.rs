//! Random numbers for the order of measurements. The same seed gives the same order.

use tailor_test_kit::random::Random;

/// A sequence that depends on `text` and `number`.
pub(super) fn sequence_of(text: &str, number: u32) -> Random {
    let seed =
        text.bytes().fold(u64::from(number), |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
    Random::new(seed)
}
