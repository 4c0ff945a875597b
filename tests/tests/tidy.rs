//! Checks of source rules that the compiler does not enforce.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue has failed")]

mod tidy {
    pub(crate) mod cycles;
}

use std::fs;
use std::path::{Path, PathBuf};

use tailor_test_kit::workspace::project;
use tidy::cycles::{cycles, imports};

/// Longest file, lines. A longer file must be split.
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
fn every_file_has_a_module_comment_and_a_limited_length() {
    let mut files = vec![];
    rust_files(&project().unwrap(), &mut files);
    assert!(files.len() > 50, "the workspace's files were not found");
    let generated = |path: &Path| path.ends_with("agent-proto/src/wire.rs");
    let is_test_module = |path: &Path| path.file_name().is_some_and(|name| name == "tests.rs");
    let mut violations = vec![];
    for path in files.iter().filter(|path| !generated(path)) {
        let text = fs::read_to_string(path).unwrap();
        if !text.starts_with("//!") && !is_test_module(path) {
            violations.push(format!("{} does not begin with a module comment", path.display()));
        }
        if text.lines().count() > MAX_LINES {
            violations.push(format!("{} has more than {MAX_LINES} lines", path.display()));
        }
    }
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

/// `cargo xtask test` does not run rustdoc, which takes long for each crate.
#[test]
fn documentation_has_no_tests() {
    let mut files = vec![];
    rust_files(&project().unwrap(), &mut files);
    let has_test = |path: &&PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        let mut lines = text.lines().map(str::trim_start);
        lines.any(|line| (line.starts_with("///") || line.starts_with("//!")) && line.contains("```"))
    };
    let found: Vec<_> = files.iter().filter(has_test).collect();
    assert!(found.is_empty(), "write a test in place of the code in the documentation of {found:?}");
}

#[test]
fn crates_have_only_allowed_dependencies() {
    let allowed: [(&str, &[&str]); 9] = [
        ("sizing", &[]),
        ("logs", &["tailor-sizing"]),
        ("billing", &["tailor-sizing"]),
        ("push", &["tailor-sizing"]),
        ("agent-proto", &["tailor-sizing"]),
        ("archive", &["agent-proto", "tailor-sizing"]),
        ("extension", &["agent-proto", "tailor-sizing"]),
        (
            "collector",
            &[
                "agent-proto",
                "tailor-archive",
                "tailor-billing",
                "tailor-logs",
                "tailor-push",
                "tailor-sizing",
            ],
        ),
        ("sandbox", &[]),
    ];
    let ours = [
        "tailor-sizing",
        "tailor-logs",
        "tailor-archive",
        "tailor-push",
        "tailor-billing",
        "agent-proto",
        "tailor-extension",
        "tailor-collector",
        "lambda-sandbox",
    ];
    for (folder, allowed) in allowed {
        let manifest = fs::read_to_string(project().unwrap().join(folder).join("Cargo.toml")).unwrap();
        let dependencies = manifest.split("[dev-dependencies]").next().unwrap();
        for name in ours.iter().filter(|name| !allowed.contains(name)) {
            let depends = dependencies
                .lines()
                .any(|line| line.starts_with(&format!("{name}.")) || line.starts_with(&format!("{name} ")));
            assert!(!depends, "{folder} must not depend on {name}");
        }
    }
}

/// A requirement is not tested when its test was renamed or removed.
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

/// Folders of the workspace that contain a crate with sources in `src`.
fn source_folders(folder: &Path, found: &mut Vec<PathBuf>) {
    if folder.join("Cargo.toml").exists() && folder.join("src").is_dir() {
        found.push(folder.join("src"));
    }
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && name != "src" && !name.starts_with('.') {
            source_folders(&path, found);
        }
    }
}

#[test]
fn top_level_modules_have_no_import_cycles() {
    let project = project().unwrap();
    let mut folders = vec![];
    source_folders(&project, &mut folders);
    assert!(folders.len() >= 8, "the workspace's crates were not found: {folders:?}");
    let mut import_count = 0;
    let mut found = vec![];
    for folder in &folders {
        let imports = imports(folder);
        import_count += imports.values().map(std::collections::BTreeSet::len).sum::<usize>();
        let name = folder.strip_prefix(&project).unwrap().display();
        found.extend(cycles(&imports).into_iter().map(|cycle| format!("{name}: {cycle}")));
    }
    assert!(import_count > 50, "imports were not found: {import_count}");
    assert!(found.is_empty(), "import cycles:\n{}", found.join("\n"));
}

/// Writes a crate's sources, and returns its imports as `module -> imported modules` and its cycles.
fn check_sample(files: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    for (path, source) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, source).unwrap();
    }
    let imports = imports(folder.path());
    let lines = imports.iter().map(|(name, imported)| {
        let imported: Vec<_> = imported.iter().map(String::as_str).collect();
        format!("{name} -> {}", imported.join(" "))
    });
    (lines.collect(), cycles(&imports))
}

#[test]
fn the_cycle_check_finds_each_form_of_import() {
    let (imports, cycles) = check_sample(&[
        ("lib.rs", "mod a; mod b; mod c; mod d; use a::X;"),
        ("a.rs", "use crate::{b::{Y, c}, d::Z};"),
        ("b/mod.rs", "mod inner; fn f(x: &'static str) -> crate::c::Type { \"crate::d::X\" }"),
        ("b/inner.rs", "use super::f; mod deep { use super::super::super::d; } use super::super::c;"),
        ("c.rs", "mod inner { use super::a; use super::super::a::X; }"),
        (
            "d.rs",
            "// use crate::a;\n#[cfg(test)] use crate::a::{X};\n#[cfg(test)] mod tests { use crate::a; }",
        ),
    ]);
    assert_eq!(imports, ["a -> b d", "b -> c d", "c -> a", "d -> "]);
    assert_eq!(cycles, ["a -> b -> c -> a"]);
}

#[test]
fn the_cycle_check_accepts_modules_without_a_cycle() {
    let (imports, cycles) = check_sample(&[
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "use crate::b::X; use super::b; const C: char = '\"'; const D: &str = r#\"\"\"#;"),
        ("b.rs", "#[cfg(test)] mod check; use self::inner::X; mod inner { use super::a; }"),
        ("b/check.rs", "use crate::a;"),
    ]);
    assert_eq!(imports, ["a -> b", "b -> "]);
    assert_eq!(cycles, [""; 0]);
}

#[test]
fn the_recipes_name_files_that_exist() {
    let project = project().unwrap();
    let contributing = fs::read_to_string(project.join("CONTRIBUTING.md")).unwrap();
    let named =
        contributing.split('`').skip(1).step_by(2).filter(|name| name.contains('/') && !name.contains(' '));
    let named: Vec<_> = named.collect();
    assert!(named.len() > 20, "the file names were not found");
    let missing: Vec<_> = named.into_iter().filter(|name| !project.join(name).exists()).collect();
    assert!(missing.is_empty(), "no such files: {missing:?}");
}

/// Every check uses the pinned compiler, so no older one is known to work.
#[test]
fn the_pinned_compiler_is_the_oldest_supported_one() {
    let value = |file: &str, key: &str| {
        let text = fs::read_to_string(project().unwrap().join(file)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{key} = \""))).unwrap();
        line.trim_end_matches('"').to_owned()
    };
    let (pinned, oldest) = (value("rust-toolchain.toml", "channel"), value("Cargo.toml", "rust-version"));
    assert_eq!(pinned, format!("{oldest}.0"));
}

/// A short glossary is easier to use: at most 30 terms for all, and ten for each area.
#[test]
fn the_glossary_has_at_most_30_terms() {
    let glossary = fs::read_to_string(project().unwrap().join("docs/glossary.md")).unwrap();
    let count = |part: &str| part.lines().filter(|line| line.starts_with("| **")).count();
    let mut parts = glossary.split("\n## ");
    let common = count(parts.next().unwrap());
    assert!((10..=30).contains(&common), "{common} terms");
    for part in parts {
        assert!((1..=10).contains(&count(part)), "{} terms: {}", count(part), part.lines().next().unwrap());
    }
}
