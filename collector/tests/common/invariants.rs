//! The invariants I1 to I11 of the tuner, checked at each of its writes and at the end of a change.

use tailor_collector::changes::{self, Change, State, Write};
use tailor_collector::store::ChangeEvent;

use lambda_sandbox::control::catalog::record::{Alias, Record};

use super::{World, basis_points};

/// The parts of a function of which the last writer is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Field {
    Memory,
    Version,
    Weights,
    Description,
}

/// The parts of a function, and whether each differs.
pub(super) fn differences(before: &Record, after: &Record) -> [(Field, bool); 4] {
    let alias = |record: &Record| record.aliases.get("live").cloned();
    let (old, new) = (alias(before), alias(after));
    let differ = |part: fn(&Alias) -> String| old.as_ref().map(part) != new.as_ref().map(part);
    [
        (Field::Memory, before.latest.config.memory_mb != after.latest.config.memory_mb),
        (Field::Version, differ(|alias| alias.version.clone())),
        (Field::Weights, differ(|alias| format!("{:?}", alias.additional))),
        (Field::Description, differ(|alias| alias.description.clone())),
    ]
}

impl World {
    /// Before a write of the tuner.
    pub(super) fn check_before(&mut self, name: &str, write: &Write) {
        let open: Vec<Change> = changes::fold(self.log.clone())
            .into_iter()
            .filter(|change| change.function.name == name && change.state.is_open())
            .collect();
        if open.len() != 1 {
            self.violations.push(format!("I3: {} open changes at {write:?}", open.len()));
            return;
        }
        let change = &open[0];
        if change.pending.as_ref() != Some(write) {
            self.violations.push(format!("I4: {write:?} is not the intent on disk {:?}", change.pending));
        }
        let now = self.instant();
        let record = self.catalog.record(name, now).unwrap().clone();
        if !record.tags.get("tailor:tune").is_some_and(|value| value.starts_with("apply")) {
            self.violations.push(format!("I8: {write:?} without the tag"));
        }
        match write {
            Write::SetMemory { memory_mb, .. } => {
                if *memory_mb != change.from.0 && !(128..=3_008).contains(memory_mb) {
                    self.violations.push(format!("I5: {memory_mb} MB"));
                }
            }
            Write::SetAlias { version, additional, revision_id, .. } => {
                let main = &record.aliases["live"];
                let code = |version: &str| record.version(version).map(|it| it.code_sha256.clone());
                let served = code(&main.version);
                // A weight that others set stays as it is.
                let present =
                    main.additional.clone().map(|(version, weight)| (version, basis_points(weight)));
                // Lambda refuses a write that names an earlier revision, and a version that was deleted in the meantime.
                let is_refused = *revision_id != main.revision_id;
                let new = additional.as_ref().filter(|_| !is_refused && *additional != present);
                let others = new.iter().map(|(version, _)| version.as_str());
                for version in others.chain([version.as_str()]).filter(|_| !is_refused) {
                    let same = additional.is_none() && *version == main.version;
                    if !same && code(version).is_some_and(|own| Some(own) != served) {
                        self.violations.push(format!(
                            "I10: version {version} has other code than version {}",
                            main.version
                        ));
                    }
                }
                if new.is_some_and(|(_, weight)| *weight > change.weight) {
                    self.violations.push(format!("I2: weight {additional:?} above {}", change.weight));
                }
            }
            Write::DeleteVersion { version } => {
                if !self.ours.contains(&(name.to_owned(), version.clone())) {
                    self.violations
                        .push(format!("version {version} was deleted, and the tuner did not publish it"));
                }
            }
            Write::Publish { .. } => {}
        }
    }

    /// I11: a change that is logged as rolled back has its previous size for all invocations, as the function was last read.
    pub(super) fn check_end(&mut self, event: &ChangeEvent) {
        let rolled_back = [State::RolledBack, State::Quarantined, State::Frozen];
        if rolled_back.iter().all(|state| state.code() != event.kind) {
            return;
        }
        let changes = changes::fold(self.log.clone());
        let change = changes.iter().find(|it| (&it.function, &it.id) == (&event.function, &event.change_id));
        let (change, served) = (change.unwrap(), &self.served[&event.function.name]);
        if served.first() != Some(&change.from.0) || served.contains(&change.to.0) {
            let state = &event.kind;
            self.violations.push(format!("I11: {state}, but {served:?} MB are served, not {}", change.from));
        }
    }

    /// After a write of the tuner, with the function as it was before.
    pub(super) fn check_after(&mut self, name: &str, write: &Write, before: &Record) {
        let now = self.instant();
        let after = self.catalog.record(name, now).unwrap().clone();
        for (field, changed) in differences(before, &after) {
            if changed && self.foreign.contains_key(&(name.to_owned(), field)) {
                self.violations.push(format!("I9: {write:?} overwrites {field:?}, which others set"));
            }
        }
        for alias in after.aliases.values() {
            let versions = alias.additional.iter().map(|(version, _)| version).chain([&alias.version]);
            for version in versions {
                if after.version(version).is_none() {
                    self.violations.push(format!("I1: version {version} of the alias does not exist"));
                }
            }
        }
        if let Write::Publish { .. } = write {
            for version in after.versions.keys().filter(|version| !before.versions.contains_key(version)) {
                self.ours.insert((name.to_owned(), version.to_string()));
                let published = &after.versions[version];
                let served = before.version(&before.aliases["live"].version);
                let is_released = served.is_none_or(|served| {
                    (&served.code_sha256, served.config.timeout)
                        == (&published.code_sha256, published.config.timeout)
                });
                if !is_released {
                    self.violations.push(format!(
                        "I10: version {version} publishes code or settings that are not released"
                    ));
                }
            }
        }
    }
}
