//! Damaged rows: each is skipped, named and counted.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Maximum number of damaged rows that are named. Further ones are only counted, and may count again when they are read
/// again.
const MAX_NAMED: usize = 100;

/// Longest name of a damaged row, characters.
const MAX_NAME: usize = 200;

/// Characters of a digest in a name.
const DIGEST_CHARACTERS: usize = 16;

fn digest(text: &str) -> String {
    let mut digest = hex::encode(Sha256::digest(text.as_bytes()));
    digest.truncate(DIGEST_CHARACTERS);
    digest
}

/// The name of a row of its table and key. A long one is cut and ends with a digest, so that two rows have different names.
pub(super) fn row_name(table: &str, key: &[String]) -> String {
    let whole = format!("{table} {}", key.join(" "));
    let name: String = whole.chars().filter(|letter| !letter.is_control()).collect();
    if name.chars().count() <= MAX_NAME {
        return name;
    }
    let beginning: String = name.chars().take(MAX_NAME - DIGEST_CHARACTERS - 1).collect();
    format!("{beginning}#{}", digest(&whole))
}

/// The key of a row in the table `damaged`. Names can be equal where text is damaged; contents are not.
pub(super) fn isolated_name(name: &str, content: &str) -> String {
    format!("{name} #{}", digest(content))
}

/// The damaged rows that were found since the start of the program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// Number of damaged rows.
    pub rows: u64,
    /// The first of them: table and key.
    pub named: Vec<String>,
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Number of rows whose checksums were compared.
    pub rows: u64,
    /// Damaged rows by table and key.
    pub damaged_rows: Vec<String>,
    /// What is wrong with the structure of the file, for a store in one.
    pub structure: Vec<String>,
    /// Rows that were isolated before.
    pub isolated_rows: u64,
}

impl Findings {
    /// Whether nothing is damaged.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.damaged_rows.is_empty() && self.structure.is_empty()
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_cut_and_stay_different() {
        let key = |last: &str| ["function=".to_owned() + &"n".repeat(300), last.to_owned()];
        let names = [row_name("rollup", &key("hour=1")), row_name("rollup", &key("hour=2"))];
        assert_ne!(names[0], names[1]);
        assert!(names.iter().all(|name| name.chars().count() == MAX_NAME), "{names:?}");
        assert_eq!(row_name("ended", &["day=1".to_owned(), "a=\n".to_owned()]), "ended day=1 a=");
        assert_ne!(isolated_name("ended a=", "a=0a\n"), isolated_name("ended a=", "a=0d\n"));
    }
}
