//! Meters: what a row of the bill is charged for.

use std::fmt;

use serde::{Deserialize, Serialize};
use tailor_sizing::units::Architecture;

/// The kind of a meter, with the unit of its quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MeterKind {
    /// Memory × billed time of invocations, on demand and on provisioned capacity, GB-seconds.
    Compute,
    /// Requests.
    Requests,
    /// Provisioned capacity, used or not, GB-seconds.
    ProvisionedConcurrency,
    /// `/tmp` above 512 MB, GB-seconds.
    EphemeralStorage,
    /// Cached snapshots of SnapStart, GB-seconds.
    SnapStartCache,
    /// Restored snapshots of SnapStart, GB.
    SnapStartRestore,
    /// Streamed responses, GB.
    ResponseStreaming,
    /// Operations of durable functions, their storage and its retention.
    DurableFunctions,
    /// Management of managed instances, instance hours.
    ManagedInstances,
    /// Data transfer, GB.
    DataTransfer,
    /// Any other usage of Lambda.
    Other,
}

impl MeterKind {
    /// Its stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Compute => "compute",
            Self::Requests => "requests",
            Self::ProvisionedConcurrency => "provisioned-concurrency",
            Self::EphemeralStorage => "ephemeral-storage",
            Self::SnapStartCache => "snap-start-cache",
            Self::SnapStartRestore => "snap-start-restore",
            Self::ResponseStreaming => "response-streaming",
            Self::DurableFunctions => "durable-functions",
            Self::ManagedInstances => "managed-instances",
            Self::DataTransfer => "data-transfer",
            Self::Other => "other",
        }
    }

    /// Whether its quantity can be computed from measured invocations.
    #[must_use]
    pub const fn is_measured(self) -> bool {
        matches!(self, Self::Compute | Self::Requests | Self::EphemeralStorage)
    }
}

/// A meter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Meter {
    /// Its kind.
    pub kind: MeterKind,
    /// The instruction set, where the price depends on it and the row has it.
    pub architecture: Option<Architecture>,
}

/// Its code, such as `compute-arm64`.
impl fmt::Display for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.code())?;
        match self.architecture {
            Some(architecture) => write!(f, "-{architecture}"),
            None => Ok(()),
        }
    }
}

/// What a row is charged for, and at which price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recognized {
    /// The meter.
    pub meter: Meter,
    /// The volume tier of compute, from 1.
    pub tier: Option<u8>,
    /// Whether the free tier covers it.
    pub is_free: bool,
    /// Whether it is compute on provisioned capacity, which has its own price.
    pub is_provisioned: bool,
}

/// Recognizes the meter of a row by its usage type and its description. Either may be empty.
///
/// A usage type is a name such as `EUC1-Lambda-GB-Second-ARM`; without a region prefix it belongs to us-east-1. A description
/// is a text such as `AWS Lambda - Total Compute for ARM - US West (Oregon)-Tier-1`.
#[must_use]
pub fn recognize(usage_type: &str, description: &str) -> Recognized {
    let usage = usage_type.to_ascii_lowercase();
    let text = description.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| usage.contains(word));
    let mentions = |words: &[&str]| usage.is_empty() && words.iter().any(|word| text.contains(word));
    let is_provisioned = has(&["provisioned-gb-second"]) || mentions(&["(provisioned)"]);
    let kind = if has(&["managed-instances", "managedinstances"]) || mentions(&["managed instances"]) {
        MeterKind::ManagedInstances
    } else if has(&["durable"]) || mentions(&["durable"]) {
        MeterKind::DurableFunctions
    } else if has(&["snapstart"]) || mentions(&["snapstart"]) {
        if has(&["restor"]) || mentions(&["restor"]) {
            MeterKind::SnapStartRestore
        } else {
            MeterKind::SnapStartCache
        }
    } else if is_provisioned {
        MeterKind::Compute
    } else if has(&["provisioned-concurrency"]) || mentions(&["provisioned concurrency"]) {
        MeterKind::ProvisionedConcurrency
    } else if has(&["storage-gb-second"]) || mentions(&["ephemeral storage"]) {
        MeterKind::EphemeralStorage
    } else if has(&["lambda-gb-second"]) || mentions(&["total compute", "compute free tier"]) {
        MeterKind::Compute
    } else if has(&["streaming"]) || mentions(&["streaming"]) {
        MeterKind::ResponseStreaming
    } else if has(&["datatransfer", "-bytes"]) || mentions(&["data transfer"]) {
        MeterKind::DataTransfer
    } else if has(&["request"]) || mentions(&["requests"]) {
        MeterKind::Requests
    } else {
        MeterKind::Other
    };
    // The free tier counts both architectures together.
    let is_global = usage.starts_with("global-");
    let is_arm =
        has(&["-arm"]) || text.contains("for arm") || text.contains("arm64") || text.contains("(arm");
    let architecture = match kind {
        MeterKind::Compute if is_global && !is_arm => None,
        MeterKind::Compute | MeterKind::ProvisionedConcurrency => {
            Some(if is_arm { Architecture::Arm64 } else { Architecture::X86_64 })
        }
        _ => None,
    };
    Recognized {
        meter: Meter { kind, architecture },
        tier: tier(&text),
        is_free: is_global
            || text.contains("free tier -")
            || text.contains("under the monthly global free tier"),
        is_provisioned,
    }
}

/// The number after the last `tier-`.
fn tier(description: &str) -> Option<u8> {
    let rest = &description[description.rfind("tier-")? + 5..];
    let digits = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_types_and_descriptions_are_recognized() {
        let code = |usage: &str, text: &str| recognize(usage, text).meter.to_string();
        // Usage types of AWS's price list.
        for (usage, expected) in [
            ("Lambda-GB-Second", "compute-x86_64"),
            ("EUC1-Lambda-GB-Second-ARM", "compute-arm64"),
            ("USW2-Lambda-Provisioned-GB-Second", "compute-x86_64"),
            ("USW2-Lambda-Provisioned-Concurrency-ARM", "provisioned-concurrency-arm64"),
            ("Request", "requests"),
            ("APN1-Request-ARM", "requests"),
            ("Lambda-Storage-GB-Second-ARM", "ephemeral-storage"),
            ("Global-Request", "requests"),
            ("Global-Lambda-GB-Second", "compute"),
            ("Lambda-SnapStart-Cached-GB-Second", "snap-start-cache"),
            ("Lambda-SnapStart-Restored-GB", "snap-start-restore"),
            ("Lambda-Managed-Instances-m8g.large-Management-Hours", "managed-instances"),
            ("USW2-USW1-AWS-Out-Bytes", "data-transfer"),
            ("DataTransfer-Out-Bytes", "data-transfer"),
            ("Lambda-Streaming-Response-Processed-Bytes", "response-streaming"),
            ("Something-New", "other"),
        ] {
            assert_eq!(code(usage, "any text"), expected, "{usage}");
        }
        for (text, expected) in [
            ("AWS Lambda - Total Compute - US West (Oregon)-Tier-1", "compute-x86_64"),
            ("AWS Lambda - Total Compute for ARM - EU (Ireland)-Tier-2", "compute-arm64"),
            ("AWS Lambda - Total Compute (Provisioned) - US West (Oregon)", "compute-x86_64"),
            ("AWS Lambda - Total Requests - US East (Ohio)", "requests"),
            ("AWS Lambda - Provisioned Concurrency - US East (Ohio)", "provisioned-concurrency-x86_64"),
            ("AWS Lambda - Ephemeral Storage - US East (N. Virginia)", "ephemeral-storage"),
            (
                "$0.02 per GB - US West (Oregon) data transfer to US West (Northern California)",
                "data-transfer",
            ),
            ("", "other"),
        ] {
            assert_eq!(code("", text), expected, "{text}");
        }
        let second =
            recognize("Lambda-GB-Second", "AWS Lambda - Total Compute - US East (Northern Virginia)-Tier-2");
        assert_eq!((second.tier, second.is_free, second.is_provisioned), (Some(2), false, false));
        let free = "AWS Lambda - Compute Free Tier - 400,000 GB-Seconds - US East (Northern Virginia)";
        assert!(recognize("Lambda-GB-Second", free).is_free);
        assert!(recognize("USW2-Lambda-Provisioned-GB-Second", "").is_provisioned);
    }
}
