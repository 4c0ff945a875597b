//! Limits how many functions and series a tenant can create in a day. A key that sends batches can invent names, and each
//! series needs space on disk for as long as it is kept.
//!
//! The counts are in memory: they start again with each day (UTC) and with the collector.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use crate::clock::DAY_US;
use crate::store::{FunctionKey, SeriesKey, Tenant};

/// Functions of one tenant that send within a day.
const MAX_FUNCTIONS: usize = 50_000;

/// Series of one function within a day: versions, memory sizes and architectures.
const MAX_SERIES: usize = 200;

/// Why a series is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    /// The tenant has too many functions.
    #[error("the tenant has sent batches of more than {MAX_FUNCTIONS} functions today")]
    Functions,
    /// The function has too many series.
    #[error(
        "the function has more than {MAX_SERIES} combinations of version, memory size and architecture today"
    )]
    Series,
}

/// The functions and series that have sent batches today.
#[derive(Default)]
pub struct Cardinality {
    // Hashes with random keys, so that no sender can choose names with the same hash.
    hasher: RandomState,
    // A std mutex is enough: it is locked only for a lookup.
    today: Mutex<Today>,
}

#[derive(Default)]
struct Today {
    day: u64,
    functions: HashMap<Tenant, HashMap<u64, HashSet<u64>>>,
}

impl Cardinality {
    /// Counts a series of a tenant at `now_us`, microseconds since the Unix epoch.
    ///
    /// # Errors
    /// [`TooMany`] when it is a new one and the limit is reached.
    pub fn count(&self, tenant: &Tenant, series: &SeriesKey, now_us: u64) -> Result<(), TooMany> {
        let FunctionKey { account, region, name } = &series.function;
        let function = self.hasher.hash_one((account, region, name));
        let series = self.hasher.hash_one((&series.version, series.memory.0, series.architecture.as_str()));
        let mut today = self.today.lock().unwrap_or_else(PoisonError::into_inner);
        if today.day != now_us / DAY_US {
            *today = Today { day: now_us / DAY_US, functions: HashMap::new() };
        }
        if !today.functions.contains_key(tenant) {
            today.functions.insert(tenant.clone(), HashMap::new());
        }
        let Some(functions) = today.functions.get_mut(tenant) else { return Ok(()) };
        if functions.len() >= MAX_FUNCTIONS && !functions.contains_key(&function) {
            return Err(TooMany::Functions);
        }
        let known = functions.entry(function).or_default();
        if known.len() >= MAX_SERIES && !known.contains(&series) {
            return Err(TooMany::Series);
        }
        known.insert(series);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailor_sizing::units::{Architecture, Megabytes};

    fn series(function: &str, version: usize) -> SeriesKey {
        SeriesKey {
            function: FunctionKey {
                account: String::new(),
                region: "eu-west-1".to_owned(),
                name: function.to_owned(),
            },
            version: version.to_string(),
            memory: Megabytes(128),
            architecture: Architecture::X86_64,
        }
    }

    #[test]
    fn known_functions_and_series_are_accepted_at_the_limit() {
        let cardinality = Cardinality::default();
        let tenant = Tenant::default();
        let count =
            |function: &str, version, now_us| cardinality.count(&tenant, &series(function, version), now_us);
        for version in 0..MAX_SERIES {
            assert_eq!(count("a", version, 0), Ok(()));
        }
        assert_eq!(count("a", MAX_SERIES, 0), Err(TooMany::Series));
        assert_eq!(count("a", 0, 0), Ok(()));
        for function in 1..MAX_FUNCTIONS {
            assert_eq!(count(&function.to_string(), 0, 0), Ok(()));
        }
        assert_eq!(count("another", 0, 0), Err(TooMany::Functions));
        assert_eq!(count("a", 1, 0), Ok(()));
        let other = Tenant("other".to_owned());
        assert_eq!(cardinality.count(&other, &series("another", 0), 0), Ok(()));
        assert_eq!(count("another", 0, DAY_US), Ok(()), "the next day");
    }
}
