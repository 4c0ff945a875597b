//! The hash chain of the change log: each event of a function contains the digest of the one before.
//!
//! The chain has the order in which events were appended: a change that is rolled back after a later change has its last
//! events after those of the later change.
//!
//! An event that was altered, inserted or removed from the middle breaks the chain of its function. Events at the end
//! can be removed without a trace, unless the digest of the last event is kept elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::named::ListedNames;
use crate::store::{ChangeEvent, FunctionKey};

/// The member of an event's details that has the digests.
const MEMBER: &str = "chain";

/// Adds the digests to an event. `log` has the events of its function.
pub fn link(log: &[ChangeEvent], event: &mut ChangeEvent) {
    let same = || log.iter().filter(|earlier| earlier.function == event.function);
    let followed: BTreeSet<&str> = same().filter_map(previous_of).collect();
    let is_last =
        |earlier: &&ChangeEvent| digest_of(earlier).is_some_and(|sha256| !followed.contains(sha256.as_str()));
    let last = same().filter(is_last).max_by_key(|earlier| order(earlier));
    let previous = last.and_then(digest_of).unwrap_or_default();
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

/// The digest of the event before this one, as this one has it.
fn previous_of(event: &ChangeEvent) -> Option<&str> {
    event.detail.get(MEMBER)?.get("previous")?.as_str()
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
    hex::encode(Sha256::digest(text.to_string()))
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
    let names = ListedNames::of(log.iter().map(|event| &event.function));
    for of_function in events.chunk_by(|one, next| one.function == next.function) {
        verify_function(of_function, &names, &mut result);
    }
    result
}

/// Verifies the chain of one function. Each event must follow another one, and two must not follow the same one.
fn verify_function(events: &[&ChangeEvent], names: &ListedNames<'_>, result: &mut Verification) {
    let digests: BTreeSet<String> = events.iter().filter_map(|event| digest_of(event)).collect();
    let mut followed = BTreeSet::new();
    let mut has_digests = false;
    for event in events {
        let function = names.text(&event.function);
        let name = format!("{function} change {} step {}", event.change_id, event.step);
        let Some(stored) = digest_of(event) else {
            if has_digests {
                result.faults.push(format!("{name} has no digest"));
            } else {
                result.without_digest += 1;
            }
            continue;
        };
        has_digests = true;
        let previous = previous_of(event).unwrap_or_default();
        let is_known = previous.is_empty() || digests.contains(previous);
        if !followed.insert(previous) || !is_known {
            result
                .faults
                .push(format!("{name} does not follow the event before it: one was removed or inserted"));
        } else if digest(event, previous) != stored {
            result.faults.push(format!("{name} was altered"));
        } else {
            result.correct += 1;
        }
    }
    let last = digests.into_iter().find(|sha256| !followed.contains(sha256.as_str()));
    if let (Some(event), Some(last)) = (events.first(), last) {
        result.heads.insert(event.function.clone(), last);
    }
}
