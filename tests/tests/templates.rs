//! Tests of the scripts that attach the layer to a function and detach it. A fake `aws` command reads its responses from files.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue has failed")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tailor_test_kit::skip;
use tailor_test_kit::workspace::project;

const KEY: &str = "a \"secret\" key";
const NEW: &str = "arn:aws:lambda:eu-west-1:111122223333:layer:tailor-extension-arm64:8";
const OLD: &str = "arn:aws:lambda:eu-west-1:111122223333:layer:tailor-extension-arm64:7";
const OTHER: &str = "arn:aws:lambda:eu-west-1:111122223333:layer:other";

/// The fake `aws`. It prints the file named after the operation, and fails when there is no such file. It records its
/// arguments, and the contents and the access mode of the update file.
const AWS: &str = r#"#!/usr/bin/env bash
echo "$*" >>calls
for argument; do
    case $argument in file://*) cat "${argument#file://}" >sent; stat -c %a "${argument#file://}" >mode ;; esac
done
cat "answers/$2"
"#;

/// Writes a zip with the structure of the layer's. The extension in it is only the beginning of an ELF header.
const ZIP: &str = "import sys, zipfile
with zipfile.ZipFile('layer.zip', 'w') as file:
    file.writestr('extensions/tailor-extension', b'\\x7fELF' + bytes(14) + bytes([int(sys.argv[1]), 0]))
import base64, hashlib
print(base64.b64encode(hashlib.sha256(open('layer.zip', 'rb').read()).digest()).decode())";

fn output(command: &mut Command) -> Option<Output> {
    command.stdin(Stdio::null()).output().ok().filter(|output| output.status.success())
}

/// Whether the programs that the script needs are installed. Otherwise the test is skipped.
fn can_run() -> bool {
    let missing = ["bash", "python3"]
        .into_iter()
        .find(|program| output(Command::new(program).args(["-c", "exit"])).is_none());
    if let Some(missing) = missing {
        skip(&format!("needs {missing}"));
    }
    missing.is_none()
}

/// Result of a run of the script.
struct Outcome {
    succeeded: bool,
    /// Standard output and standard error.
    log: String,
    /// Called operations, in order.
    calls: Vec<String>,
    /// The update request.
    sent: Option<Value>,
}

/// Runs the script with the key to attach an arm64 layer to `function`. `published` is whether the layer version already exists, and
/// `update_is_rejected` whether Lambda rejects the update.
fn attach(function: &Value, published: bool, update_is_rejected: bool) -> Outcome {
    attach_with(("TAILOR_API_KEY", KEY), function, published, update_is_rejected)
}

/// As [`attach`], with this variable for the key.
fn attach_with(key: (&str, &str), function: &Value, published: bool, update_is_rejected: bool) -> Outcome {
    let arguments = ["attach.sh", "layer.zip", "shop", "https://collector"];
    run(&arguments, key, function, published, update_is_rejected)
}

/// Runs a script of `layer/cli` with its arguments.
fn run(
    arguments: &[&str],
    key: (&str, &str),
    function: &Value,
    published: bool,
    update_is_rejected: bool,
) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["answers", "bin", "tmp"] {
        fs::create_dir(at(name)).unwrap();
    }
    fs::write(at("bin/aws"), AWS).unwrap();
    fs::set_permissions(at("bin/aws"), fs::Permissions::from_mode(0o755)).unwrap();
    let arm64 = "183";
    let zip = output(Command::new("python3").args(["-c", ZIP, arm64]).current_dir(&folder)).unwrap();
    fs::write(at("answers/get-function-configuration"), function.to_string()).unwrap();
    fs::write(at("answers/publish-layer-version"), format!("{NEW}\n")).unwrap();
    if published {
        fs::write(at("answers/list-layer-versions"), format!("{NEW}\n")).unwrap();
        fs::write(at("answers/get-layer-version-by-arn"), zip.stdout).unwrap();
    }
    if !update_is_rejected {
        fs::write(at("answers/update-function-configuration"), "shop\tInProgress\n").unwrap();
    }

    let path = format!("{}:{}", at("bin").display(), std::env::var("PATH").unwrap());
    let output = Command::new(project().unwrap().join("layer/cli").join(arguments[0]))
        .args(&arguments[1..])
        .env("PATH", path)
        .env("TMPDIR", at("tmp"))
        .env_remove("TAILOR_API_KEY")
        .env_remove("TAILOR_API_KEY_SECRET")
        .env(key.0, key.1)
        .current_dir(&folder)
        .output()
        .unwrap();

    let calls = fs::read_to_string(at("calls")).unwrap();
    assert!(
        !calls.contains("secret"),
        "arguments are visible to every user and must not contain the key: {calls}"
    );
    let remaining = fs::read_dir(at("tmp")).unwrap().count();
    assert_eq!(remaining, 0, "files with secrets are removed");
    if let Ok(mode) = fs::read_to_string(at("mode")) {
        assert_eq!(mode.trim(), "600", "only the owner may read the update");
    }
    let log = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    let sent = fs::read(at("sent")).ok().map(|sent| serde_json::from_slice(&sent).unwrap());
    let operation = |call: &str| call.split(' ').nth(1).unwrap().to_owned();
    Outcome { succeeded: output.status.success(), log, calls: calls.lines().map(operation).collect(), sent }
}

fn function(layers: &[&str], environment: &Value) -> Value {
    let layers: Vec<_> = layers.iter().map(|arn| json!({ "Arn": arn, "CodeSize": 1 })).collect();
    json!({ "FunctionName": "shop", "FunctionArn": "arn:shop", "RevisionId": "as-read", "PackageType": "Zip",
            "Architectures": ["arm64"], "Layers": layers, "Environment": environment })
}

/// Replaces a field of the function, or removes it when `value` is `None`.
fn with_field(mut function: Value, field: &str, value: Option<Value>) -> Value {
    let fields = function.as_object_mut().unwrap();
    fields.remove(field);
    fields.extend(value.map(|value| (field.to_owned(), value)));
    function
}

#[test]
fn attaching_keeps_layers_and_variables() {
    if !can_run() {
        return;
    }
    let (one, two) = (format!("{OTHER}:1"), format!("{OTHER}-tailor-extension-arm64:2"));
    let existing = json!({ "Variables": { "NAME": "it's \"quoted\" and ü", "TAILOR_API_KEY": "old" } });
    let added = json!({ "TAILOR_ENDPOINT": "https://collector", "TAILOR_API_KEY": KEY });
    let mut all = added.clone();
    all["NAME"] = existing["Variables"]["NAME"].clone();
    let attached = function(&[&one, OLD, &two], &existing);
    let update = |layers: &[&str], variables: &Value| {
        Some(json!({ "FunctionName": "arn:shop", "RevisionId": "as-read", "Layers": layers,
                     "Environment": { "Variables": variables } }))
    };

    // An older version is replaced at its position. A layer whose name only ends with the same text is kept.
    let outcome = attach(&attached, false, false);
    assert!(outcome.succeeded, "{}", outcome.log);
    assert!(outcome.calls.iter().any(|call| call == "publish-layer-version"));
    assert_eq!(outcome.sent, update(&[&one, NEW, &two], &all));

    // A layer version that exists is not published again.
    let outcome = attach(&with_field(attached.clone(), "Layers", None), true, false);
    assert!(
        outcome.succeeded && !outcome.calls.iter().any(|call| call == "publish-layer-version"),
        "{}",
        outcome.log
    );
    assert_eq!(outcome.sent, update(&[NEW], &all));

    // A function without variables is accepted; it differs from a function whose variables cannot be read.
    let outcome = attach(&with_field(attached.clone(), "Environment", None), true, false);
    assert_eq!(outcome.sent, update(&[&one, NEW, &two], &added), "{}", outcome.log);

    // A secret replaces the key, and the other way round.
    let secret = ("TAILOR_API_KEY_SECRET", "arn:aws:secretsmanager:eu-west-1:111122223333:secret:tailor");
    let outcome = attach_with(secret, &attached, true, false);
    let mut with_secret = all.clone();
    with_secret.as_object_mut().unwrap().remove("TAILOR_API_KEY");
    with_secret[secret.0] = secret.1.into();
    assert_eq!(outcome.sent, update(&[&one, NEW, &two], &with_secret), "{}", outcome.log);
    assert!(outcome.log.contains("secretsmanager:GetSecretValue on arn:"), "{}", outcome.log);
    let outcome = attach(&function(&[&one, NEW, &two], &json!({ "Variables": with_secret })), true, false);
    assert_eq!(outcome.sent, update(&[&one, NEW, &two], &all), "{}", outcome.log);

    // The script fails when Lambda rejects the update.
    assert!(!attach(&attached, true, true).succeeded);

    // A second run changes nothing.
    let outcome = attach(&function(&[&one, NEW], &json!({ "Variables": all })), true, false);
    assert!(outcome.succeeded && outcome.log.contains("already"), "{}", outcome.log);
    assert_eq!(
        outcome.calls,
        ["get-function-configuration", "list-layer-versions", "get-layer-version-by-arn"]
    );
}

#[test]
fn attaching_rejects_changes_that_break_the_function() {
    if !can_run() {
        return;
    }
    let good = function(&[OLD], &json!({ "Variables": { "NAME": "value" } }));
    let hidden = json!({ "Error": { "ErrorCode": "AccessDeniedException", "Message": "may not decrypt" } });
    let five: Vec<_> = (1..=5).map(|number| json!({ "Arn": format!("{OTHER}{number}:1") })).collect();
    let rejected = [
        ("Environment", hidden, "would be lost: may not decrypt"),
        ("Architectures", json!(["x86_64"]), "shop is x86_64, layer.zip is arm64"),
        ("PackageType", json!("Image"), "takes no layers"),
        ("Layers", json!(five), "five layers"),
    ];
    for (field, value, why) in rejected {
        let outcome = attach(&with_field(good.clone(), field, Some(value)), false, false);
        assert!(!outcome.succeeded && outcome.log.contains(why), "{field}: {}", outcome.log);
        assert_eq!(outcome.calls, ["get-function-configuration"], "{field}: nothing else is called");
    }
}

#[test]
fn detaching_keeps_other_layers_and_variables() {
    if !can_run() {
        return;
    }
    let detach = |function: &Value, update_is_rejected: bool| {
        run(&["detach.sh", "shop"], ("TAILOR_API_KEY", KEY), function, false, update_is_rejected)
    };
    let one = format!("{OTHER}:1");
    let variables = json!({ "NAME": "it's \"quoted\" and ü", "TAILOR_ENDPOINT": "https://collector",
                            "TAILOR_API_KEY": KEY, "TAILOR_PEAK": "sampled" });
    let attached = function(&[&one, OLD], &json!({ "Variables": variables }));
    let outcome = detach(&attached, false);
    assert!(outcome.succeeded, "{}", outcome.log);
    let expected = json!({ "FunctionName": "arn:shop", "RevisionId": "as-read", "Layers": [one],
                           "Environment": { "Variables": { "NAME": variables["NAME"] } } });
    assert_eq!(outcome.sent, Some(expected));
    assert!(!detach(&attached, true).succeeded, "Lambda rejects the update");

    let without = function(&[&one], &json!({ "Variables": { "NAME": "value" } }));
    let outcome = detach(&without, false);
    assert!(outcome.succeeded && outcome.log.contains("neither"), "{}", outcome.log);
    assert_eq!(outcome.calls, ["get-function-configuration"]);

    let hidden = json!({ "Error": { "ErrorCode": "AccessDeniedException", "Message": "may not decrypt" } });
    let outcome = detach(&with_field(attached, "Environment", Some(hidden)), false);
    assert!(!outcome.succeeded && outcome.log.contains("would be lost: may not decrypt"), "{}", outcome.log);
    assert_eq!(outcome.calls, ["get-function-configuration"]);
}

/// Every template that attaches the layer sets the endpoint and the API key, and names the permission for a key in a
/// secret.
#[test]
fn every_template_sets_the_same_variables() {
    let layer = project().unwrap().join("layer");
    let readme = fs::read_to_string(layer.join("README.md")).unwrap();
    let named: Vec<_> = readme.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()).collect();
    assert!(named.len() > 7, "the table of templates was not found");
    for template in named {
        let text = fs::read_to_string(layer.join(Path::new(template))).unwrap();
        let texts =
            ["TAILOR_ENDPOINT", "TAILOR_API_KEY", "TAILOR_API_KEY_SECRET", "secretsmanager:GetSecretValue"];
        let contained = texts.map(|expected| text.contains(expected));
        assert_eq!(contained, [!template.starts_with("publish/"); 4], "{template}");
    }
}
