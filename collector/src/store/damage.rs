//! Damaged rows: each is skipped, named and counted.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// Maximum number of damaged rows that are named. Further ones are only counted, and may count again when they are read
/// again.
const MAX_NAMED: usize = 100;

/// The damaged rows that were found since the start of the program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// Number of damaged rows.
    pub rows: u64,
    /// The first of them: table and key.
    pub named: Vec<String>,
}

/// Where readers and the writer report damaged rows.
#[derive(Debug, Clone, Default)]
pub(super) struct DamageLog(Arc<Mutex<Found>>);

#[derive(Debug, Default)]
struct Found {
    named: BTreeSet<String>,
    unnamed: u64,
}

impl DamageLog {
    /// Reports one row by table and key. A row that is read again is not counted again.
    pub(super) fn report(&self, row: String) {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if found.named.contains(&row) {
            return;
        }
        if found.named.len() < MAX_NAMED {
            tracing::error!(row, "a stored row is damaged and is skipped: run `tailor check --repair`");
            found.named.insert(row);
        } else {
            found.unnamed = found.unnamed.saturating_add(1);
        }
    }

    pub(super) fn damage(&self) -> Damage {
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Damage {
            rows: found.unnamed.saturating_add(found.named.len() as u64),
            named: found.named.iter().cloned().collect(),
        }
    }
}
