//! Slows down and logs clients that send unknown keys.
//!
//! A client with a known key is never delayed, also when others behind the same address send unknown keys. The sign-in form, which
//! people use, rejects an address after some unknown keys for the rest of the minute.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The time in which unknown keys are counted.
const INTERVAL: Duration = Duration::from_secs(60);

/// Unknown keys of one address in an interval before responses are delayed.
const FREE: u32 = 10;

/// The delay of a response to an unknown key.
const DELAY: Duration = Duration::from_secs(2);

/// Maximum number of addresses that are counted.
const MAX_ADDRESSES: usize = 4_096;

/// Counts unknown keys by address.
#[derive(Default)]
pub struct UnknownKeys {
    // A std mutex is enough: it is locked only to count.
    addresses: Mutex<HashMap<IpAddr, Count>>,
}

struct Count {
    number: u32,
    since: Instant,
}

impl UnknownKeys {
    /// Counts an unknown key. Returns how long to delay the response.
    pub(super) fn failed(&self, address: IpAddr) -> Duration {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if addresses.len() >= MAX_ADDRESSES && !addresses.contains_key(&address) {
            addresses.retain(|_, count| count.since.elapsed() < INTERVAL);
            if addresses.len() >= MAX_ADDRESSES {
                // There are too many addresses: one that is not counted is delayed.
                return DELAY;
            }
        }
        let count = addresses.entry(address).or_insert_with(|| Count { number: 0, since: Instant::now() });
        if count.since.elapsed() >= INTERVAL {
            if count.number > FREE {
                tracing::warn!(%address, number = count.number, "unknown API keys in one minute");
            }
            *count = Count { number: 0, since: Instant::now() };
        }
        count.number = count.number.saturating_add(1);
        if count.number == FREE + 1 {
            tracing::warn!(%address, "more than {FREE} unknown API keys in one minute: responses are delayed");
        }
        if count.number > FREE { DELAY } else { Duration::ZERO }
    }

    /// Whether an address has sent too many unknown keys to sign in now.
    pub(super) fn is_rejected(&self, address: IpAddr) -> bool {
        let addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        addresses.get(&address).is_some_and(|count| count.number > FREE && count.since.elapsed() < INTERVAL)
    }
}
