//! Memory sizes, architectures, and the CPU share of a memory size.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Memory size with exactly one vCPU, in MB (AWS Lambda developer guide, "Configure function memory").
pub const MB_PER_VCPU: u32 = 1_769;

/// A function's memory size in Lambda's MB (1,024 KB each).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Megabytes(pub u32);

impl Megabytes {
    /// Smallest size Lambda offers.
    pub const MIN: Self = Self(128);
    /// Largest size Lambda offers to ordinary functions.
    pub const MAX: Self = Self(10_240);

    /// The CPU share of this size, in vCPU: `memory_mb / 1769`, and at most the visible vCPUs.
    #[must_use]
    pub fn share(self) -> f64 {
        (f64::from(self.0) / f64::from(MB_PER_VCPU)).min(f64::from(self.visible_vcpus()))
    }

    /// How many vCPUs the function can see at this size (measured steps: rwnx/lambda-cpuinfo).
    #[must_use]
    pub const fn visible_vcpus(self) -> u32 {
        match self.0 {
            0..=3_008 => 2,
            3_009..=5_307 => 3,
            5_308..=7_076 => 4,
            7_077..=8_845 => 5,
            _ => 6,
        }
    }

    /// This size in KiB.
    #[must_use]
    pub const fn kib(self) -> u64 {
        self.0 as u64 * 1_024
    }
}

impl fmt::Display for Megabytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MB", self.0)
    }
}

/// The nearest integer. Zero for NaN and negative numbers, [`u64::MAX`] for numbers above it.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "float to integer casts saturate"
)]
pub const fn round_to_u64(number: f64) -> u64 {
    number.round() as u64
}

/// Instruction set of a function. It determines the price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Architecture {
    /// Intel and AMD.
    #[serde(rename = "x86_64")]
    X86_64,
    /// Graviton.
    #[serde(rename = "arm64")]
    Arm64,
}

impl Architecture {
    /// Name in the Lambda API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "arm64",
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The architecture is neither `x86_64` nor `arm64`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown architecture `{0}`: Lambda has `x86_64` and `arm64`")]
pub struct UnknownArchitecture(pub String);

impl FromStr for Architecture {
    type Err = UnknownArchitecture;
    /// Accepts Lambda's names and the kernel's (`aarch64`).
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "x86_64" => Ok(Self::X86_64),
            "arm64" | "aarch64" => Ok(Self::Arm64),
            other => Err(UnknownArchitecture(other.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_follows_the_law_and_stops_at_the_visible_vcpus() {
        assert!((Megabytes(1_769).share() - 1.0).abs() < 1e-12);
        assert!((Megabytes(128).share() - 0.0724).abs() < 1e-4);
        assert!((Megabytes(10_240).share() - 5.788).abs() < 1e-3);
        assert!(Megabytes(3_008).share() < 2.0);
    }

    #[test]
    fn numbers_are_rounded_to_the_nearest_integer_in_range() {
        for (number, expected) in
            [(1.5, 2), (1.49, 1), (-0.6, 0), (f64::NAN, 0), (1e30, u64::MAX), (f64::INFINITY, u64::MAX)]
        {
            assert_eq!(round_to_u64(number), expected, "{number}");
        }
    }
}
