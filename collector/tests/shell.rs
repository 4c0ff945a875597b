//! Completion in real shells, and the manual pages, checked by mandoc.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::Collector;
use common::fleet::{KINDS, batch};
use tailor_collector::clock::now_us;
use tailor_test_kit::skip;

/// The binary, in a folder that a shell finds it in.
fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_tailor"))
}

fn has(name: &str) -> bool {
    let found =
        Command::new("sh").args(["-c", &format!("command -v {name}")]).output().unwrap().status.success();
    if !found {
        skip(&format!("needs {name}"));
    }
    found
}

/// Runs a script with the path of the binary's folder first in `PATH`.
fn run(shell: &str, script: &str, data: &Path) -> Output {
    let path = format!("{}:{}", program().parent().unwrap().display(), std::env::var("PATH").unwrap());
    Command::new(shell).args(["-c", script]).env("PATH", path).env("TAILOR_DATA", data).output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn shells_complete_commands_options_and_functions() {
    let collector = Collector::start();
    for (kind, id) in KINDS.iter().zip(1..) {
        assert_eq!(collector.post_batch(&batch(kind, id, 1, 3, now_us()).encode().unwrap()).status, 200);
    }
    let data = collector.folder.path();

    // What bash itself does for the words of a line.
    let bash = |words: &str| {
        let script = format!(
            "source <(tailor completions bash); COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}}-1)); \
             COMP_TYPE=9; f=$(complete -p tailor | sed 's/.*-F \\([^ ]*\\).*/\\1/'); \
             $f tailor \"${{COMP_WORDS[COMP_CWORD]}}\" \"\"; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        text(&run("bash", &script, data))
    };
    if has("bash") {
        let commands = bash("tailor fun");
        let mut commands: Vec<&str> = commands.lines().map(str::trim).collect();
        commands.sort_unstable();
        assert_eq!(commands, ["function", "functions"]);
        assert_eq!(bash("tailor function thumb").trim(), "thumbnails");
        assert_eq!(bash("tailor series auth").trim(), "auth");
        assert!(bash("tailor functions --fail").contains("--fail-on"));
        assert!(bash("tailor functions --format y").contains("yaml"));
        let elsewhere = tempfile::tempdir().unwrap();
        let here = format!("tailor function --data {} thumb", data.display());
        let script_data = run("true", "", elsewhere.path());
        assert!(script_data.status.success());
        assert_eq!(bash(&here).trim(), "thumbnails");
    }
    if has("fish") {
        let script = "tailor completions fish | source; complete -C 'tailor function thumb'";
        assert!(text(&run("fish", script, data)).contains("thumbnails"));
    }
    if has("zsh") {
        let folder = tempfile::tempdir().unwrap();
        let script =
            format!("tailor completions zsh > {0}/_tailor && zsh -n {0}/_tailor", folder.path().display());
        text(&run("zsh", &script, data));
    }
}

/// Names that no shell should see, and data that cannot be read, give no completion and no error.
#[test]
fn completion_without_a_store_is_silent() {
    let output = Command::new(program())
        .args(["--", "tailor", "function", "a"])
        .env("TAILOR_COMPLETE", "fish")
        .env("TAILOR_DATA", "/nowhere/at/all")
        .output()
        .unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn manual_pages_have_no_faults() {
    let folder = tempfile::tempdir().unwrap();
    let written = Command::new(program()).arg("man").arg(folder.path()).output().unwrap();
    assert!(written.status.success(), "{written:?}");
    let mut pages: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.sort();
    let names: Vec<_> = pages.iter().map(|page| page.file_name().unwrap().to_str().unwrap()).collect();
    for expected in ["tailor.1", "tailor-functions.1", "tailor-changes-plan.1", "tailor-top.1"] {
        assert!(names.contains(&expected), "{names:?}");
    }
    if has("mandoc") {
        let checked = Command::new("mandoc").args(["-Tlint", "-Wwarning"]).args(&pages).output().unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    }
}
