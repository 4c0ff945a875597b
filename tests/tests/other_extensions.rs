//! Other extensions of the same function work beside this one.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue has failed")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tailor_test_kit::deployment::{Deployment, Plan};
use tailor_test_kit::functions::{EXAMPLES, Language};
use tailor_test_kit::{build, skip, workspace};

const INVOCATIONS: u64 = 10;

/// A layer with the extension `file` of `tests/extensions`.
fn layer(folder: &Path, file: &str) {
    fs::create_dir_all(folder.join("extensions")).unwrap();
    let source = workspace::project().unwrap().join("tests/extensions").join(file);
    let installed = folder.join("extensions").join(file);
    fs::copy(source, &installed).unwrap();
    fs::set_permissions(&installed, fs::Permissions::from_mode(0o755)).unwrap();
}

/// AWS's telemetry samples in Python and Node.js listen on port 4243. Both extensions receive every record.
#[test]
fn the_telemetry_samples_of_aws_run_beside_this_extension() {
    // One after the other: both have the same port.
    for (file, language) in [("telemetry.py", Language::Python), ("telemetry.js", Language::Node)] {
        if let Some(missing) = language.missing_command() {
            skip(&format!("needs {missing}"));
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let other = folder.path().join("other-layer");
        layer(&other, file);
        let (programs, project) = (build::programs().unwrap(), workspace::project().unwrap());
        let function = EXAMPLES.iter().find(|example| example.workload == "io").unwrap();
        let deployed = folder.path().join("deployed");
        let mut deployment = Deployment::start(&Plan {
            other_layers: &[other],
            ..Plan::new(programs, &project, &deployed, std::slice::from_ref(function))
        })
        .unwrap();
        for _ in 0..INVOCATIONS {
            let response = deployment.lambda.invoke(function.name, r#"{"requests":1,"delay_ms":1}"#).unwrap();
            assert_eq!(response.function_error, None, "{file}: {}", response.payload);
        }
        deployment.stop_sandbox().unwrap();
        let summary = deployment.summary().unwrap()["functions"][0].clone();
        assert_eq!((&summary["invocations"], &summary["errors"]), (&INVOCATIONS.into(), &0.into()), "{file}");
        let logs = deployment.trace().unwrap();
        let logs: Vec<_> =
            logs.iter().filter(|line| line["type"] == "extension").map(ToString::to_string).collect();
        let starts = format!(r#"\"platform.start\":{INVOCATIONS}"#);
        assert!(logs.iter().any(|line| line.replace(' ', "").contains(&starts)), "{file}: {logs:?}");
    }
}
