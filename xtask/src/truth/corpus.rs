//! The functions to measure, and the order in which they are measured.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tailor_sizing_eval::truth::{Description, Role};

/// One function of the corpus.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) language: String,
    pub(super) workload: String,
    /// JSON.
    pub(super) event: String,
    pub(super) kind: String,
    pub(super) role: Role,
    pub(super) real: bool,
}

#[derive(Deserialize)]
struct Corpus {
    functions: Vec<Function>,
}

/// The kinds of functions that may use more than one CPU at once.
const PARALLEL_KINDS: [&str; 7] =
    ["pool-parallel", "ended-threads", "collector", "compiler", "child-process", "fan-out", "web-adapter"];

impl Function {
    /// The CPUs that the function may use at the same time.
    pub(super) fn most_cpus(&self) -> f64 {
        if PARALLEL_KINDS.contains(&self.kind.as_str()) { f64::INFINITY } else { 1.0 }
    }

    pub(super) fn description(&self) -> Description {
        Description {
            language: self.language.clone(),
            kind: self.kind.clone(),
            role: self.role,
            real: self.real,
        }
    }

    /// The commands that it needs to be built and to run.
    fn commands(&self) -> &'static [&'static str] {
        match self.language.as_str() {
            "python" => &["python3"],
            "node" => &["node"],
            "java" => &["java", "javac"],
            "go" => &["go"],
            "ruby" => &["ruby"],
            "perl" => &["perl"],
            "php" => &["php"],
            _ => &[],
        }
    }

    /// The first of them that is not installed.
    pub(super) fn missing_command(&self) -> Option<&'static str> {
        let is_installed = |command: &&str| {
            Command::new("which").arg(command).output().is_ok_and(|found| found.status.success())
        };
        self.commands().iter().copied().find(|command| !is_installed(command))
    }
}

/// The functions of `corpus.toml` in `folder`: all, or those with these names.
pub(super) fn read(folder: &Path, names: &[String]) -> Result<Vec<Function>> {
    let path = folder.join("corpus.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let corpus: Corpus =
        toml::from_str(&text).with_context(|| format!("{} cannot be read", path.display()))?;
    let known: BTreeSet<&str> = corpus.functions.iter().map(|function| function.name.as_str()).collect();
    ensure!(known.len() == corpus.functions.len(), "two functions of {} have one name", path.display());
    for name in names {
        ensure!(known.contains(name.as_str()), "{} has no function `{name}`", path.display());
    }
    let is_selected = |function: &Function| names.is_empty() || names.contains(&function.name);
    Ok(balanced(corpus.functions.into_iter().filter(is_selected).collect()))
}

/// Orders the functions so that the first ones, however many, represent all roles, kinds, languages and sorts.
fn balanced(mut left: Vec<Function>) -> Vec<Function> {
    let properties = |function: &Function| {
        let sort = if function.real { "real" } else { "pure" };
        [
            format!("role {:?}", function.role),
            format!("kind {}", function.kind),
            format!("language {}", function.language),
            format!("sort {sort}"),
        ]
    };
    let mut totals: BTreeMap<String, f64> = BTreeMap::new();
    left.iter().flat_map(properties).for_each(|property| *totals.entry(property).or_default() += 1.0);
    let mut taken: BTreeMap<String, f64> = BTreeMap::new();
    let mut ordered = Vec::with_capacity(left.len());
    while !left.is_empty() {
        // The share of each property that is taken already: the function with the lowest sum is next.
        let share = |property: &String| {
            let of = |counts: &BTreeMap<String, f64>| counts.get(property).copied().unwrap_or_default();
            of(&taken) / of(&totals).max(1.0)
        };
        let sum = |function: &Function| properties(function).iter().map(share).sum::<f64>();
        let sums: Vec<f64> = left.iter().map(sum).collect();
        let next = (0..left.len()).min_by(|&a, &b| sums[a].total_cmp(&sums[b])).unwrap_or_default();
        let function = left.remove(next);
        properties(&function).into_iter().for_each(|property| *taken.entry(property).or_default() += 1.0);
        ordered.push(function);
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailor_test_kit::workspace::project;

    fn all() -> Vec<Function> {
        read(&project().unwrap().join("sizing/eval/functions"), &[]).unwrap()
    }

    fn count(functions: &[Function], is_counted: impl Fn(&Function) -> bool) -> usize {
        functions.iter().filter(|&function| is_counted(function)).count()
    }

    /// What the published figures assume of the corpus.
    #[test]
    fn the_corpus_separates_training_from_validation() {
        let all = all();
        assert!(count(&all, |one| one.role == Role::Train) >= 70);
        assert!(count(&all, |one| one.role == Role::Validation) >= 50);
        assert!(2 * count(&all, |one| one.real) >= all.len());
        let languages: BTreeSet<&str> = all.iter().map(|one| one.language.as_str()).collect();
        assert!(languages.len() >= 6, "{languages:?}");
        let only_in_validation = |property: fn(&Function) -> &str| {
            let of = |role| -> BTreeSet<&str> {
                all.iter().filter(|one| one.role == role).map(property).collect()
            };
            of(Role::Validation).difference(&of(Role::Train)).count()
        };
        assert_eq!(only_in_validation(|one| &one.kind), 2);
        assert_eq!(only_in_validation(|one| &one.language), 1);
        assert!(all.iter().all(|one| serde_json::from_str::<serde_json::Value>(&one.event).is_ok()));
    }

    #[test]
    fn the_first_functions_represent_all() {
        let all = all();
        let (first, part) = (&all[..40], 40.0 / all.len() as f64);
        for role in [Role::Train, Role::Validation] {
            let expected = part * count(&all, |one| one.role == role) as f64;
            assert!(
                (count(first, |one| one.role == role) as f64 - expected).abs() <= 0.3 * expected,
                "{role:?}"
            );
        }
        let kinds =
            |functions: &[Function]| functions.iter().map(|one| one.kind.clone()).collect::<BTreeSet<_>>();
        assert_eq!(kinds(first), kinds(&all));
    }
}
