//! The keys of a data folder.

use super::{Finding, Level};
use crate::keys::{KeyEntry, KeyRing, Scope};

const DAY_S: u64 = 86_400;

/// A key that expires within so many days is named.
const EXPIRES_SOON_DAYS: u64 = 14;

/// A key that was not used for so many days is named.
const UNUSED_DAYS: u64 = 90;

/// A new key may be unused for so many days.
const NEW_DAYS: u64 = 7;

/// Keys that expired, expire soon, or are not used, at `now_s` (seconds since the Unix epoch).
#[must_use]
pub fn keys(ring: &KeyRing, now_s: u64) -> Vec<Finding> {
    let mut entries: Vec<_> = ring.entries().collect();
    entries.sort_by_key(|entry| (entry.key.created_at_s, entry.key.id()));
    let mut findings: Vec<Finding> = entries.iter().filter_map(|entry| of_key(entry, now_s)).collect();
    let valid = |scope| entries.iter().any(|entry| entry.key.permits(scope) && !entry.key.has_expired(now_s));
    if entries.is_empty() {
        findings.push(Finding::new(
            Level::Info,
            "keys",
            "all keys",
            "the data folder has no keys",
            "start `tailor serve` once, or create one with `tailor keys create`",
        ));
    } else if !valid(Scope::Ingest) {
        findings.push(Finding::new(
            Level::Error,
            "keys",
            "all keys",
            "no valid key may send batches",
            "create one with `tailor keys create --scopes ingest`, unless --api-key-file has one",
        ));
    } else if findings.is_empty() {
        findings.push(Finding::ok("keys", "all keys", format!("{} keys, none is due", entries.len())));
    }
    findings
}

fn of_key(entry: &KeyEntry, now_s: u64) -> Option<Finding> {
    let key = &entry.key;
    let subject = if key.name.is_empty() { key.id() } else { format!("{} ({})", key.name, key.id()) };
    let days_until = key.expires_at_s.map(|expires| expires.saturating_sub(now_s) / DAY_S);
    if key.has_expired(now_s) {
        return Some(Finding::new(
            Level::Warning,
            "keys",
            subject,
            "the key has expired, and is refused",
            "revoke it with `tailor keys revoke`, and replace it where it is used",
        ));
    }
    if let Some(days) = days_until.filter(|days| *days < EXPIRES_SOON_DAYS) {
        return Some(Finding::new(
            Level::Warning,
            "keys",
            subject,
            format!("the key expires in {days} days"),
            "create another with `tailor keys create`, and replace it where it is used",
        ));
    }
    let used_s = entry.last_used_s();
    let created_s = key.created_at_s.unwrap_or(0);
    let (since_s, limit_days, what) = match used_s {
        0 => (created_s, NEW_DAYS, "the key was never used"),
        used_s => (used_s, UNUSED_DAYS, "the key was not used for a long time"),
    };
    let days = now_s.saturating_sub(since_s) / DAY_S;
    // The age of a key of an earlier version is not known.
    (since_s > 0 && days >= limit_days).then(|| {
        let finding = format!("{what} ({days} days)");
        Finding::new(
            Level::Info,
            "keys",
            subject,
            finding,
            "revoke it with `tailor keys revoke` if it is not needed",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{Key, SecretDigest};
    use crate::store::Tenant;

    #[test]
    fn keys_that_expire_or_are_not_used_are_found() {
        let now_s = 1_000 * DAY_S;
        let mut ring = KeyRing::default();
        for (name, created_days, expires_days, used_days) in [
            ("expired", 900, Some(999), 998),
            ("soon", 900, Some(1_005), 999),
            ("unused", 900, None, 0),
            ("old", 100, None, 800),
            ("new", 998, None, 0),
            ("used", 900, Some(2_000), 999),
        ] {
            let mut key = Key::without_scopes(SecretDigest::of(name), Tenant::default());
            key.name = name.to_owned();
            key.created_at_s = Some(created_days * DAY_S);
            key.expires_at_s = expires_days.map(|days| days * DAY_S);
            ring.insert(key);
            ring.find(name).unwrap().used(used_days * DAY_S);
        }
        let found = keys(&ring, now_s);
        let mut names: Vec<_> =
            found.iter().map(|finding| (finding.subject.split(' ').next().unwrap(), finding.level)).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                ("expired", Level::Warning),
                ("old", Level::Info),
                ("soon", Level::Warning),
                ("unused", Level::Info)
            ]
        );
        assert_eq!(keys(&KeyRing::default(), now_s)[0].level, Level::Info);
    }
}
