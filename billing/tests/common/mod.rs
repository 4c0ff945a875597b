//! Python packages for tests, which are kept in the target folder.

#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

use tailor_test_kit::{skip, workspace};

/// Writes exports, with the packages that it needs.
pub(crate) const PYARROW: (&str, &[&str], &str) = ("billing-pyarrow", &["pyarrow==26.0.1"], "import pyarrow");

/// The FOCUS validator of the FinOps Foundation. It does not work with the newest version of a package that it needs.
pub(crate) const VALIDATOR: (&str, &[&str], &str) = (
    "billing-focus-validator",
    &["focus-validator==1.0.0", "multimethod==1.10", "setuptools==80.10.2", "pyyaml==6.0.3"],
    "import focus_validator.main",
);

pub(crate) fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

/// Python with packages; `None` when the test is skipped.
pub(crate) fn python((name, packages, check): (&str, &[&str], &str)) -> Option<Command> {
    let folder = workspace::target_folder().unwrap().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let runs = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    let python = || {
        let mut python = Command::new("python3");
        // The validator opens a file of its own by a relative path.
        python.env("PYTHONPATH", &folder).current_dir(&folder);
        python
    };
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--upgrade", "--target"]).arg(&folder).args(packages);
    let is_ready = || runs(python().args(["-c", check]));
    if !(is_ready() || runs(&mut pip) && is_ready()) {
        skip(&format!("needs python3 and {packages:?}"));
        return None;
    }
    Some(python())
}
