//! Lambda's prices: the built-in table or a file of the user, and a warning for regions without a price.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::Context;

use tailor_sizing::pricing::prices::PriceTable;
use tailor_sizing::units::Architecture;

use crate::files::read_text;

/// Maximum number of regions that a warning is logged for. A client with a key can send any region name.
const MAX_WARNINGS: usize = 64;

/// Reads the prices from `file`, or returns the built-in table when there is none.
///
/// The file is AWS's price list of Lambda or a table in the form of `sizing/data/prices.json`. It replaces the built-in
/// table completely, so that one report never mixes prices of two dates. AWS's price list does not contain the free tier,
/// which is taken from the built-in table.
///
/// # Errors
/// When the file cannot be read or is not a price table. The error names the file.
pub fn load(file: Option<&Path>) -> anyhow::Result<PriceTable> {
    let built_in = PriceTable::embedded();
    let Some(file) = file else { return Ok(built_in) };
    let text = read_text(file).with_context(|| format!("cannot read the price file {}", file.display()))?;
    PriceTable::from_either(&text, built_in.free_tier()).with_context(|| {
        format!(
            "{} is neither AWS's price list of Lambda nor a table in the form of sizing/data/prices.json",
            file.display()
        )
    })
}

/// Logs each region and architecture without a price once.
#[derive(Default)]
pub struct MissingPrices {
    logged: Mutex<BTreeSet<(String, &'static str)>>,
}

impl MissingPrices {
    /// Logs a warning when `prices` has none for this region and architecture, and none was logged before.
    pub fn check(&self, prices: &PriceTable, region: &str, architecture: Architecture) {
        if prices.rates(region, architecture).is_err() && self.is_first(region, architecture) {
            tracing::warn!(
                region,
                "no {architecture} price is known for this region: costs and advice of its functions are left out; \
                 start the collector with --prices FILE (the prices in use are of {})",
                prices.compiled()
            );
        }
    }

    fn is_first(&self, region: &str, architecture: Architecture) -> bool {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        logged.len() < MAX_WARNINGS && logged.insert((region.to_owned(), architecture.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_region_and_architecture_is_logged_once_and_the_number_is_limited() {
        let missing = MissingPrices::default();
        assert!(missing.is_first("mars-north-1", Architecture::X86_64));
        assert!(!missing.is_first("mars-north-1", Architecture::X86_64));
        assert!(missing.is_first("mars-north-1", Architecture::Arm64));
        let logged = (0..1_000).filter(|n| missing.is_first(&format!("region-{n}"), Architecture::Arm64));
        assert_eq!(logged.count(), MAX_WARNINGS - 2);
    }
}
