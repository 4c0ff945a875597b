//! AWS's clients with a changed endpoint: boto3 and the AWS CLI create, change, invoke and delete a function.

#![allow(clippy::unwrap_used, reason = "a failed assumption fails the test")]
#![expect(unreachable_pub, reason = "modules of one test program")]
#![allow(dead_code, reason = "helpers shared with the conformance tests")]

#[path = "../conformance/http.rs"]
mod http;
#[path = "../conformance/sandbox.rs"]
mod sandbox;

use std::path::Path;
use std::process::Command;

use sandbox::{Builder, IDLE_SCRIPT, Sandbox};

fn run(program: &str, arguments: &[&str], sandbox: &Sandbox) -> String {
    let output = Command::new(program)
        .args(arguments)
        .env("AWS_ENDPOINT_URL_LAMBDA", format!("http://{}", sandbox.address))
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("AWS_DEFAULT_REGION", "us-east-1")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_PAGER", "")
        .env("SANDBOX_DIRECTORY", sandbox.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?} failed:\n{text}\n{error}");
    text
}

/// Whether a client is installed. If not, the test is reported as skipped.
fn has(program: &str, arguments: &[&str], name: &str) -> bool {
    let found = Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success());
    if !found {
        sandbox::skip(&format!("{name}: needs {program} {}", arguments.join(" ")));
    }
    found
}

/// A sandbox with one other function.
fn start() -> Sandbox {
    Builder::new().function("other", "", IDLE_SCRIPT).arguments(&["--update-delay-ms", "50"]).start()
}

#[test]
fn boto3() {
    run_script("boto3", "life.py");
}

#[test]
fn boto3_response_stream() {
    run_script("boto3_response_stream", "stream.py");
}

/// Runs a script of this folder, which prints `done` at the end of a successful run.
fn run_script(test: &str, name: &str) {
    if !has("python3", &["-c", "import boto3"], test) {
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name);
    let sandbox = start();
    let text = run("python3", &[script.to_str().unwrap()], &sandbox);
    assert!(text.ends_with("done\n"), "{text}");
}

#[test]
fn aws_cli() {
    if !has("aws", &["--version"], "aws_cli") {
        return;
    }
    let sandbox = start();
    let zip = zip_of_bootstrap(sandbox.path());
    let file = format!("fileb://{}", zip.display());
    // Read as bytes, which both major versions of the CLI send unchanged.
    std::fs::write(sandbox.path().join("event"), r#"{"a":1}"#).unwrap();
    let event = format!("fileb://{}", sandbox.path().join("event").display());
    let out = sandbox.path().join("response").display().to_string();
    let aws = |arguments: &str| {
        let text = arguments.replace("{zip}", &file).replace("{out}", &out).replace("{event}", &event);
        let mut all = vec!["lambda"];
        all.extend(text.split(' '));
        all.extend(["--output", "json"]);
        run("aws", &all, &sandbox)
    };
    let role = "--role arn:aws:iam::123456789012:role/r";
    aws(&format!(
        "create-function --function-name f --runtime provided.al2023 --handler h {role} --zip-file {{zip}} --timeout 20"
    ));
    aws("wait function-active-v2 --function-name f");
    aws("invoke --function-name f --payload {event} {out}");
    assert_eq!(sandbox.read("response").unwrap(), "\"$LATEST 128\"");
    aws("update-function-configuration --function-name f --memory-size 256");
    aws("wait function-updated-v2 --function-name f");
    assert!(aws("publish-version --function-name f").contains("\"Version\": \"1\""));
    aws("create-alias --function-name f --name live --function-version 1");
    aws("invoke --function-name f:live {out}");
    assert_eq!(sandbox.read("response").unwrap(), "\"1 256\"");
    aws("delete-function --function-name f");
    assert!(!aws("list-functions").contains("\"FunctionName\": \"f\""));
}

/// A zip whose bootstrap responds with its version and memory size.
fn zip_of_bootstrap(folder: &Path) -> std::path::PathBuf {
    use std::io::Write;
    let path = folder.join("code.zip");
    let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    let options = zip::write::SimpleFileOptions::default().unix_permissions(0o755);
    zip.start_file("bootstrap", options).unwrap();
    zip.write_all(include_bytes!("bootstrap.sh")).unwrap();
    zip.finish().unwrap();
    path
}
