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
            logical_id: self.logical_id.clone(),
            ..Target::named(&self.function, Megabytes(self.memory))
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
        let patch = patch(&source, &[case.target()], &[]);
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
    patch(source, &[case.target()], &[])
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
            let files = patch(&case.source().1, &[case.target()], &[]).files;
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
    let reason = |targets: &[Target]| {
        let patch = patch(&source, targets, &[]);
        assert!(patch.files.is_empty());
        patch.unsure[0].reason.clone()
    };
    assert!(reason(&[target("prod-orders-worker", 1_024, 512)]).contains("deploy first"));
    let two = [target("prod-orders-worker", 2_048, 512), target("dev-orders-worker", 2_048, 1_024)];
    assert!(reason(&two).contains("several functions with different sizes"));
    let same = [target("prod-orders-worker", 2_048, 512), target("dev-orders-worker", 2_048, 512)];
    assert_eq!(patch(&source, &same, &[]).changed.len(), 2);
    // A file that cannot be parsed is not repaired.
    let broken = Source::of_file("template.yaml", &text.replace("Properties:", "Properties: {"));
    let patch = patch(&broken, &same, &[]);
    assert!(patch.files.is_empty() && patch.unreadable.len() == 1, "{patch:?}");
}

/// A function with the size that it has and the one that it is to have.
fn target(function: &str, deployed: u32, memory: u32) -> Target {
    Target { deployed: Some(Megabytes(deployed)), ..Target::named(function, Megabytes(memory)) }
}

/// `${Stage}-orders-worker` is the name of one function in each stage.
#[test]
fn a_setting_of_other_functions_is_not_changed() {
    let text = fs::read_to_string(data().join("sam/named.yaml")).unwrap();
    let source = Source::of_file("template.yaml", &text);
    let production = [target("prod-orders-worker", 2_048, 512)];
    let others = |dev_mb| {
        let development = target("dev-orders-worker", dev_mb, dev_mb);
        [development, target("prod-orders-api", 128, 128), target("mail", 256, 256)]
    };
    let kept = patch(&source, &production, &others(2_048));
    assert!(kept.files.is_empty(), "{}", kept.diff());
    let reason = &kept.unsure[0].reason;
    assert!(reason.contains("`prod-orders-worker` 512 MB, `dev-orders-worker` 2048 MB;"), "{reason}");
    // The others have the size already, or are of another definition.
    assert_eq!(patch(&source, &production, &others(512)).changed.len(), 1);

    // The same name in another region.
    let in_region = |region: &str, target: Target| Target { region: region.to_owned(), ..target };
    let [of_ireland] = production.map(|target| in_region("eu-west-1", target));
    let of_virginia = in_region("us-east-1", target("prod-orders-worker", 2_048, 2_048));
    let kept = patch(&source, &[of_ireland], &[of_virginia]);
    assert!(kept.files.is_empty() && kept.unsure[0].reason.contains("us-east-1) 2048 MB"), "{kept:?}");

    // The command has the other functions from the same advice.
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("template.yaml"), text).unwrap();
    let advice = folder.path().join("advice.json");
    let report = |name: &str, verdict: &str| {
        serde_json::json!({ "name": name, "memory_mb": 2_048, "advice": {
            "memory_mb": 512, "cost_change_percent": -50.0, "duration_change_percent": 0.0,
            "full": { "verdict": verdict } } })
    };
    let reports =
        [report("prod-orders-worker", "change"), report("dev-orders-worker", "too-little-evidence")];
    fs::write(&advice, serde_json::json!({ "functions": reports }).to_string()).unwrap();
    let (folder, advice) = (folder.path().to_str().unwrap(), advice.to_str().unwrap());
    for named in [&[] as &[&str], &["prod-orders-worker"]] {
        let arguments = ["changes", "patch", "--source", folder, "--advice", advice];
        let run = |more: &[&str]| tailor(&[&arguments[..], named, more].concat());
        let refused = run(&[]);
        assert_eq!(stdout(&refused), "", "{refused:?}");
        assert!(
            String::from_utf8_lossy(&refused.stderr).contains("`dev-orders-worker` 2048 MB"),
            "{refused:?}"
        );
        let both = run(&["--memory", "prod-orders-worker=512", "--memory", "dev-orders-worker=512"]);
        assert!(stdout(&both).contains("+      MemorySize: '512'"), "{both:?}");
    }
}

/// A template has one name and one stack of a function. Tags that equal those of another template change nothing about that.
#[test]
fn a_function_of_another_name_or_stack_is_not_this_definition() {
    let template = |name: &str| {
        format!(
            "Resources:\n  Api:\n    Type: AWS::Serverless::Function\n    Properties:\n{name}      MemorySize: 1024\n"
        )
    };
    let deployed = |function: &str, logical_id: Option<&str>, stack: Option<&str>| Target {
        logical_id: logical_id.map(str::to_owned),
        stack: stack.map(str::to_owned),
        ..target(function, 1_024, 512)
    };
    let files = |source: &Source, target: Target| patch(source, &[target], &[]).files.len();

    // The name that is set counts before the logical id.
    for name in ["      FunctionName: orders-api\n", "      FunctionName: !Sub \"${Stage}-api\"\n"] {
        let source = Source::of_file("template.yaml", &template(name));
        assert_eq!(files(&source, deployed("orders-api", Some("Api"), None)), 1, "{name}");
        assert_eq!(files(&source, deployed("users-Api-AbCdEf123456", Some("Api"), None)), 0, "{name}");
    }

    // A generated name begins with the stack, where that is known from the tags.
    let source = Source::of_file("template.yaml", &template(""));
    assert_eq!(files(&source, deployed("orders-Api-AbCdEf123456", None, Some("orders"))), 1);
    assert_eq!(files(&source, deployed("orders-Api-AbCdEf123456", None, Some("users"))), 0);
    assert_eq!(files(&source, deployed("orders-Api-AbCdEf123456", Some("Other"), None)), 0);

    // The configuration of SAM names the stack of the template.
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("template.yaml"), template("")).unwrap();
    let configuration = "version = 0.1\n[default.deploy.parameters]\nstack_name = \"orders\"\n";
    fs::write(folder.path().join("samconfig.toml"), configuration).unwrap();
    let source = Source::read(folder.path()).unwrap();
    for (function, logical_id, stack, changed) in [
        ("orders-Api-AbCdEf123456", None, None, 1),
        ("orders-prod-Api-AbCdEf123456", None, None, 1),
        ("users-Api-AbCdEf123456", None, None, 0),
        ("orders-Api-AbCdEf123456", Some("Api"), Some("orders"), 1),
        ("users-Api-AbCdEf123456", Some("Api"), Some("users"), 0),
    ] {
        assert_eq!(files(&source, deployed(function, logical_id, stack)), changed, "{function} {stack:?}");
    }
    let unsure = patch(&source, &[deployed("users-Api-AbCdEf123456", None, None)], &[]).unsure;
    assert!(unsure[0].reason.contains("another stack") && unsure[0].places.len() == 1, "{unsure:?}");
}
