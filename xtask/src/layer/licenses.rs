//! The licences of the packages that are linked into the layer and into the binaries: one text file for each.
//!
//! The list comes from cargo's resolved dependencies of the shipped crates, the texts from the packages' own sources.
//! The files are committed, so that a review shows a changed licence; `--check` fails when one is out of date.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tailor_test_kit::workspace::project;

/// The file that is put into the layer's zips.
pub(crate) const LAYER_FILE: &str = "layer/THIRD-PARTY-LICENSES";

/// Each file, and the crates whose binaries it is shipped with.
const FILES: [(&str, &[&str]); 2] = [
    (LAYER_FILE, &["tailor-extension"]),
    ("THIRD-PARTY-LICENSES", &["tailor-extension", "tailor-collector", "lambda-sandbox"]),
];

/// How the names of licence files begin.
const LICENCE_FILES: [&str; 6] = ["LICENSE", "LICENCE", "COPYING", "UNLICENSE", "NOTICE", "COPYRIGHT"];

/// The systems that binaries are published for.
const TARGETS: [&str; 2] = ["x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl"];

const INTRODUCTION: &str = "Third-party licenses\n\n\
    The programs that this file is shipped with contain these packages, under these licenses.\n\
    Written by `cargo xtask licenses`; do not edit.\n";

/// Options of `cargo xtask licenses`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Write nothing; fail when a file is out of date.
    #[arg(long)]
    check: bool,
}

/// Writes the files, or checks that they are current.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    for (file, shipped) in FILES {
        let path = project()?.join(file);
        let text = text(shipped)?;
        if !options.check {
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        } else if fs::read_to_string(&path).unwrap_or_default() != text {
            bail!("{file} is out of date: run `cargo xtask licenses` and commit the result");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A package that is linked into a shipped binary.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: String,
    licence: String,
    folder: PathBuf,
}

/// The whole file for these crates.
fn text(shipped: &[&str]) -> Result<String> {
    let mut packages = BTreeSet::new();
    for target in TARGETS {
        packages.extend(shipped_packages(&metadata(target)?, shipped)?);
    }
    // Many packages have the same text, but for spaces and line ends: it is printed once, with their names.
    let mut texts: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
    let mut list = String::new();
    for package in &packages {
        let name = format!("{} {}", package.name, package.version);
        writeln!(list, "{name}: {}", package.licence)?;
        for text in licence_texts(package)? {
            let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
            texts.entry(words).or_insert_with(|| (text, BTreeSet::new())).1.insert(name.clone());
        }
    }
    let mut texts: Vec<_> = texts.into_values().collect();
    texts.sort_by(|one, other| one.1.cmp(&other.1).then_with(|| one.0.cmp(&other.0)));
    let mut whole = format!("{INTRODUCTION}\n{list}");
    for (text, names) in texts {
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        write!(whole, "\n{}\n{names}\n\n{}\n", "-".repeat(80), text.trim())?;
    }
    Ok(whole)
}

fn metadata(target: &str) -> Result<Value> {
    let output = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
        .args(["metadata", "--format-version", "1", "--filter-platform", target])
        .current_dir(project()?)
        .output()
        .context("cannot start cargo")?;
    ensure!(output.status.success(), "cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Third-party packages on a path of normal dependencies from a shipped crate. Procedural macros and what only they
/// use run at compile time and are left out.
fn shipped_packages(metadata: &Value, shipped: &[&str]) -> Result<BTreeSet<Package>> {
    let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let by_id: BTreeMap<String, Value> =
        items(&metadata["packages"]).into_iter().map(|package| (string(&package["id"]), package)).collect();
    let nodes: BTreeMap<String, Value> =
        items(&metadata["resolve"]["nodes"]).into_iter().map(|node| (string(&node["id"]), node)).collect();
    let is_macro = |package: &Value| {
        items(&package["targets"])
            .iter()
            .any(|target| items(&target["kind"]).iter().any(|kind| kind == "proc-macro"))
    };
    let is_normal =
        |dependency: &Value| items(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());

    let mut open: Vec<String> = by_id
        .iter()
        .filter(|(_, package)| shipped.iter().any(|name| package["name"] == *name))
        .map(|(id, _)| id.clone())
        .collect();
    ensure!(open.len() == shipped.len(), "cargo metadata lacks a shipped crate");
    let (mut visited, mut found) = (BTreeSet::new(), BTreeSet::new());
    while let Some(id) = open.pop() {
        let package = by_id.get(&id).with_context(|| format!("cargo metadata lacks {id}"))?;
        if is_macro(package) || !visited.insert(id.clone()) {
            continue;
        }
        if !package["source"].is_null() {
            let manifest = PathBuf::from(string(&package["manifest_path"]));
            found.insert(Package {
                name: string(&package["name"]),
                version: string(&package["version"]),
                licence: string(&package["license"]),
                folder: manifest.parent().map(Path::to_owned).unwrap_or_default(),
            });
        }
        let dependencies = nodes.get(&id).map(|node| items(&node["deps"])).unwrap_or_default();
        open.extend(dependencies.iter().filter(|one| is_normal(one)).map(|one| string(&one["pkg"])));
    }
    Ok(found)
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The licence files of a package. Where it ships none, its licence is named in the list, and the texts of the licences
/// stand in the file for other packages.
fn licence_texts(package: &Package) -> Result<Vec<String>> {
    let mut names = vec![];
    for entry in fs::read_dir(&package.folder).with_context(|| format!("no sources of {}", package.name))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().to_uppercase();
        if entry.file_type()?.is_file() && LICENCE_FILES.iter().any(|start| name.starts_with(start)) {
            names.push(entry.path());
        }
    }
    names.sort();
    // Of a choice that includes Apache-2.0, Apache-2.0 is taken: the project's own licence, whose text is shipped once.
    let apache =
        names.iter().filter(|path| path.to_string_lossy().to_uppercase().ends_with("APACHE")).cloned();
    let apache: Vec<_> = apache.collect();
    let is_choice = package.licence.contains(" OR ") || package.licence.contains('/');
    if is_choice && !package.licence.contains(" AND ") && !apache.is_empty() {
        let notices = names.iter().filter(|path| path.to_string_lossy().to_uppercase().contains("NOTICE"));
        names = apache.iter().chain(notices).cloned().collect();
    }
    names
        .iter()
        .map(|path| fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display())))
        .collect()
}
