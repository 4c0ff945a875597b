//! The hash chain of the change log: each event of a function holds the digest of the one before.
//!
//! An event that was altered, inserted or removed from the middle breaks the chain of its function. Events at the end
//! can be removed without a trace, unless the digest of the last event is kept elsewhere.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::store::{ChangeEvent, FunctionKey};

/// The member of an event's details that has the digests.
const MEMBER: &str = "chain";

/// Adds the digests to an event. `log` has the events of its function.
pub fn link(log: &[ChangeEvent], event: &mut ChangeEvent) {
    let same = log.iter().filter(|earlier| earlier.function == event.function);
    let previous = same.max_by_key(|earlier| order(earlier)).and_then(digest_of).unwrap_or_default();
    link_to(&previous, event);
}

/// Adds the digests to an event that follows the event with the digest `previous`; empty for the first one.
pub fn link_to(previous: &str, event: &mut ChangeEvent) {
    let sha256 = digest(event, previous);
    if let Value::Object(detail) = &mut event.detail {
        detail.insert(MEMBER.to_owned(), json!({ "previous": previous, "sha256": sha256 }));
    }
}

/// The digest in an event.
#[must_use]
pub fn digest_of(event: &ChangeEvent) -> Option<String> {
    event.detail.get(MEMBER)?.get("sha256")?.as_str().map(str::to_owned)
}

fn order(event: &ChangeEvent) -> (&str, u64) {
    (&event.change_id, event.step)
}

fn digest(event: &ChangeEvent, previous: &str) -> String {
    let mut detail = event.detail.clone();
    if let Value::Object(members) = &mut detail {
        members.remove(MEMBER);
    }
    let text =
        json!([previous, event.function, event.change_id, event.step, event.at_us, event.kind, detail]);
    let mut hex = String::new();
    for byte in Sha256::digest(text.to_string()) {
        hex.push_str(&format!("{byte:02x}"));
    }
    hex
}

/// The result of a verification.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verification {
    /// Events with a correct digest.
    pub correct: u64,
    /// Events of versions without digests, at the start of a function's log.
    pub without_digest: u64,
    /// What is wrong, one sentence each.
    pub faults: Vec<String>,
    /// The digest of each function's last event.
    pub heads: BTreeMap<FunctionKey, String>,
}

/// Verifies the chains of all functions in `log`.
#[must_use]
pub fn verify(log: &[ChangeEvent]) -> Verification {
    let mut events: Vec<&ChangeEvent> = log.iter().collect();
    events.sort_by_key(|event| (&event.function, order(event)));
    let mut result = Verification::default();
    for event in events {
        let head = result.heads.get(&event.function).cloned();
        let name = format!("{} change {} step {}", event.function.name, event.change_id, event.step);
        let Some(stored) = digest_of(event) else {
            match head {
                None => result.without_digest += 1,
                Some(_) => result.faults.push(format!("{name} has no digest")),
            }
            continue;
        };
        let previous = head.unwrap_or_default();
        let claimed = event.detail.pointer("/chain/previous").and_then(Value::as_str).unwrap_or_default();
        if claimed != previous {
            result
                .faults
                .push(format!("{name} does not follow the event before it: one was removed or inserted"));
        } else if digest(event, claimed) != stored {
            result.faults.push(format!("{name} was altered"));
        } else {
            result.correct += 1;
        }
        result.heads.insert(event.function.clone(), stored);
    }
    result
}
