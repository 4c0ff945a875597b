//! Patches of templates and programs, of every style that the documentation of each tool shows.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde::Deserialize;
use tailor_collector::patch::{Patch, Source, Target, patch};
use tailor_sizing::units::Megabytes;
use tailor_test_kit::{python, skip, workspace};

/// One function in one file, and what its patch does.
#[derive(Debug, Deserialize)]
struct Case {
    file: String,
    function: String,
    memory: u32,
    logical_id: Option<String>,
    /// The line with the setting after the patch.
    after: Option<String>,
    /// A part of the reason why there is no patch.
    unsure: Option<String>,
}

impl Case {
    fn target(&self) -> Target {
        Target {
            function: self.function.clone(),
            deployed: None,
            memory: Megabytes(self.memory),
            logical_id: self.logical_id.clone(),
        }
    }

    /// The folder with the file and what belongs to it: the files of one service of Serverless, else one file.
    fn source(&self) -> (PathBuf, Source) {
        let folder = data().join(&self.file).parent().unwrap().to_owned();
        if self.file.starts_with("serverless/included/") {
            let folder = data().join("serverless/included");
            return (folder.clone(), Source::read(&folder).unwrap());
        }
        let name = self.file.rsplit('/').next().unwrap();
        let text = fs::read_to_string(data().join(&self.file)).unwrap();
        (folder, Source::of_file(name, &text))
    }
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/patch")
}

fn cases() -> Vec<Case> {
    serde_json::from_slice(&fs::read(data().join("cases.json")).unwrap()).unwrap()
}

/// Copies a folder's files.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// What is different in the middle of two texts.
fn difference<'a>(before: &'a str, after: &'a str) -> (&'a str, &'a str) {
    let start = before.bytes().zip(after.bytes()).take_while(|(a, b)| a == b).count();
    let rest = before.len().min(after.len()) - start;
    let end = before.bytes().rev().zip(after.bytes().rev()).take_while(|(a, b)| a == b).count().min(rest);
    (&before[start..before.len() - end], &after[start..after.len() - end])
}

/// Applies the diff with `patch` to the files before it, and compares with the files that are written.
fn assert_diff_applies(patch: &Patch) {
    let folder = tempfile::tempdir().unwrap();
    for file in &patch.files {
        let path = folder.path().join(&file.file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, &file.before).unwrap();
    }
    fs::write(folder.path().join("memory.diff"), patch.diff()).unwrap();
    let arguments = ["-p1", "--binary", "--fuzz=0", "--silent", "-i", "memory.diff"];
    let output = Command::new("patch").args(arguments).current_dir(&folder).output().unwrap();
    assert!(output.status.success(), "{output:?}\n{}", patch.diff());
    for file in &patch.files {
        assert_eq!(fs::read_to_string(folder.path().join(&file.file)).unwrap(), file.after);
    }
}

#[test]
fn each_style_is_patched_or_listed_with_the_reason() {
    let cases = cases();
    let files: std::collections::BTreeSet<_> = cases.iter().map(|case| &case.file).collect();
    assert!(files.len() >= 40, "{} files", files.len());
    for case in &cases {
        let (_, source) = case.source();
        let patch = patch(&source, &[case.target()]);
        assert!(patch.unreadable.is_empty(), "{}: {:?}", case.file, patch.unreadable);
        if let Some(reason) = &case.unsure {
            assert!(patch.files.is_empty(), "{case:?}\n{}", patch.diff());
            let unsure = patch.unsure.first().unwrap();
            assert!(unsure.reason.contains(reason), "{case:?}: {}", unsure.reason);
            assert!(!unsure.places.is_empty(), "{case:?}");
            continue;
        }
        assert!(patch.unsure.is_empty(), "{case:?}: {:?}", patch.unsure);
        let [file] = &patch.files[..] else { panic!("{case:?}: {patch:?}") };
        let expected = case.after.as_ref().unwrap();
        let added: Vec<_> =
            file.after.lines().filter(|line| !file.before.lines().any(|old| old == *line)).collect();
        assert!(added.contains(&expected.as_str()), "{case:?}: {added:?}");
        // Every other byte is unchanged: only digits and a unit may be replaced.
        let (removed, _) = difference(&file.before, &file.after);
        assert!(removed.chars().all(|c| c.is_ascii_digit() || "_ MGB".contains(c)), "{case:?}: {removed}");
        assert_diff_applies(&patch);
        // The same again gives no diff.
        let written = Source::of_file(&file.file, &file.after);
        if !case.file.starts_with("serverless/included/") {
            let again = patch_of(&written, case);
            assert_eq!((again.diff().as_str(), again.unchanged.len()), ("", 1), "{case:?}");
        }
    }
}

fn patch_of(source: &Source, case: &Case) -> Patch {
    patch(source, &[case.target()])
}

#[test]
fn all_functions_of_a_folder_are_patched_at_once() {
    // The files that can be in one program; the others define the same functions again.
    let folder = tempfile::tempdir().unwrap();
    for part in ["sam", "serverless", "terraform", "pulumi"] {
        copy(&data().join(part), &folder.path().join(part));
    }
    let advice: BTreeMap<&str, u32> =
        [("primer", 256), ("users-api-prod-create", 640), ("shop-mail", 2_048)].into();
    copy(&data().join("cloudformation"), &folder.path().join("cloudformation"));
    let source = folder.path().to_str().unwrap();
    let sizes: Vec<_> = advice.iter().map(|(name, mb)| format!("{name}={mb}")).collect();
    let mut arguments = vec!["changes", "patch", "--source", source];
    arguments.extend(sizes.iter().flat_map(|size| ["--memory", size.as_str()]));
    let run = |more: &[&str]| tailor(&[&arguments[..], more].concat());
    let diff = run(&[]);
    assert!(diff.status.success(), "{diff:?}");
    assert_eq!(stdout(&diff).matches("\n+++ b/").count(), 3, "{diff:?}");

    let comment = stdout(&run(&["--comment", "markdown"]));
    assert!(comment.starts_with("<!-- lambda-tailor:memory-sizes -->\n"), "{comment}");
    assert!(comment.contains("| primer | 128 → **256** |"), "{comment}");
    let json: serde_json::Value = serde_json::from_slice(&run(&["--format", "json"]).stdout).unwrap();
    assert_eq!(json["diff"].as_str().unwrap(), stdout(&diff));

    let before = fs::read(folder.path().join("sam/hello.yaml")).unwrap();
    assert_eq!(stdout(&run(&["--write"])).lines().count(), 3);
    assert_eq!(
        fs::read(folder.path().join("sam/hello.yaml")).unwrap(),
        before,
        "other files are not written"
    );
    assert_eq!(stdout(&run(&[])), "", "the patched folder has no diff");

    // A file that a failed command left is not an advice without changes.
    let advice = folder.path().join("advice.json");
    fs::write(&advice, "").unwrap();
    let empty = tailor(&["changes", "patch", "--source", source, "--advice", advice.to_str().unwrap()]);
    assert_eq!(empty.status.code(), Some(1), "{empty:?}");
    assert!(String::from_utf8_lossy(&empty.stderr).contains("is empty"), "{empty:?}");
}

fn tailor(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tailor"))
        .args(arguments)
        .env("TAILOR_DATA", "/nowhere/at/all")
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Python packages with the parsers.
const PACKAGES: [&str; 2] = ["pyyaml==6.0.3", "python-hcl2==7.3.1"];

/// The parsers of other projects read the same before and after a patch, except for one memory size.
#[test]
fn other_parsers_read_the_patched_files() {
    let packages = match python::install("patch-parsers", &PACKAGES) {
        Ok(packages) => packages,
        Err(error) => return skip(&format!("needs python3 and {PACKAGES:?}: {error:#}")),
    };
    let folder = workspace::target_folder().unwrap().join("patch-parsers");
    fs::create_dir_all(&folder).unwrap();
    let runs = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    let compiler = folder.join("node_modules/typescript");
    let mut npm = Command::new("npm");
    npm.args(["install", "--silent", "--no-save", "--prefix"]).arg(&folder).arg("typescript@5.9.3");
    if !compiler.exists() && !runs(&mut npm) {
        skip("needs node and the package `typescript`");
        return;
    }
    let files: Vec<_> = cases()
        .iter()
        .filter(|case| case.after.is_some())
        .flat_map(|case| {
            let files = patch(&case.source().1, &[case.target()]).files;
            files.into_iter().map(|file| {
                serde_json::json!({
                    "path": case.file, "before": file.before, "after": file.after, "memory": case.memory
                })
            })
        })
        .collect();
    let mut check = Command::new("python3");
    check.env("PYTHONPATH", &packages).arg(data().join("check.py")).arg(&compiler);
    let mut check =
        check.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    check.stdin.take().unwrap().write_all(&serde_json::to_vec(&files).unwrap()).unwrap();
    let output = check.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(stdout(&output).trim(), files.len().to_string());
}

/// The source differs from what is deployed, or one setting is for two functions: neither is patched.
#[test]
fn what_contradicts_is_not_patched() {
    let text = fs::read_to_string(data().join("sam/named.yaml")).unwrap();
    let source = Source::of_file("template.yaml", &text);
    let target = |function: &str, deployed, memory| Target {
        function: function.to_owned(),
        deployed: Some(Megabytes(deployed)),
        memory: Megabytes(memory),
        logical_id: None,
    };
    let reason = |targets: &[Target]| {
        let patch = patch(&source, targets);
        assert!(patch.files.is_empty());
        patch.unsure[0].reason.clone()
    };
    assert!(reason(&[target("prod-orders-worker", 1_024, 512)]).contains("deploy first"));
    let two = [target("prod-orders-worker", 2_048, 512), target("dev-orders-worker", 2_048, 1_024)];
    assert!(reason(&two).contains("several functions with different sizes"));
    let same = [target("prod-orders-worker", 2_048, 512), target("dev-orders-worker", 2_048, 512)];
    assert_eq!(patch(&source, &same).changed.len(), 2);
    // A file that cannot be parsed is not repaired.
    let broken = Source::of_file("template.yaml", &text.replace("Properties:", "Properties: {"));
    let patch = patch(&broken, &same);
    assert!(patch.files.is_empty() && patch.unreadable.len() == 1, "{patch:?}");
}
