//! Rules of the house that a compiler does not hold.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};

use tailor_test_kit::workspace::project;

/// Longest file; longer ones hold more than one idea.
const MAX_LINES: usize = 520;

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_file_says_what_it_is_and_holds_one_idea() {
    let mut files = vec![];
    rust_files(&project().unwrap(), &mut files);
    assert!(files.len() > 50, "the project's files were not found");
    let generated = |path: &Path| path.ends_with("agent-proto/src/wire.rs");
    let is_test_module = |path: &Path| path.file_name().is_some_and(|name| name == "tests.rs");
    let mut broken = vec![];
    for path in files.iter().filter(|path| !generated(path)) {
        let text = fs::read_to_string(path).unwrap();
        if !text.starts_with("//!") && !is_test_module(path) {
            broken.push(format!("{} does not begin with a module comment", path.display()));
        }
        if text.lines().count() > MAX_LINES {
            broken.push(format!("{} has more than {MAX_LINES} lines", path.display()));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn crates_use_only_what_the_house_allows() {
    let allowed: [(&str, &[&str]); 5] = [
        ("sizing", &[]),
        ("agent-proto", &["tailor-sizing"]),
        ("extension", &["agent-proto", "tailor-sizing"]),
        ("collector", &["agent-proto", "tailor-sizing"]),
        ("sandbox", &[]),
    ];
    let ours = ["tailor-sizing", "agent-proto", "tailor-extension", "tailor-collector", "lambda-sandbox"];
    for (folder, allowed) in allowed {
        let manifest = fs::read_to_string(project().unwrap().join(folder).join("Cargo.toml")).unwrap();
        let used = manifest.split("[dev-dependencies]").next().unwrap();
        for name in ours.iter().filter(|name| !allowed.contains(name)) {
            let depends = used
                .lines()
                .any(|line| line.starts_with(&format!("{name}.")) || line.starts_with(&format!("{name} ")));
            assert!(!depends, "{folder} must not use {name}");
        }
    }
}

/// A promise whose test was renamed or removed is no longer held.
#[test]
fn the_specification_names_tests_that_exist() {
    let project = project().unwrap();
    let mut files = vec![];
    rust_files(&project, &mut files);
    let code: String = files.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let specification = fs::read_to_string(project.join("SPECIFICATION.md")).unwrap();
    let is_test_name = |name: &&str| name.contains('_') && !name.contains([' ', '/', '.']);
    let named: Vec<_> = specification.split('`').skip(1).step_by(2).filter(is_test_name).collect();
    assert!(named.len() > 30, "the specification's tests were not found");
    let missing: Vec<_> = named.iter().filter(|name| !code.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "no such tests: {missing:?}");
}
