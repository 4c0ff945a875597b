//! Experiments of `tailor tune` on a real function in the sandbox.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tailor_collector::experiment::{outcome, visualization};
use tailor_test_kit::s3::S3Server;
use tailor_test_kit::{build, skip, workspace};

const SIZES: &str = "128,256,512,1024,1536,3008";

/// A process that is killed at the end of its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A sandbox with the function `waits`, which runs the Python text in its event.
struct Sandbox {
    _process: Running,
    url: String,
    folder: tempfile::TempDir,
}

impl Sandbox {
    /// `None`, with a reported skip, without Python.
    fn start() -> Option<Self> {
        let has_python =
            Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success());
        if !has_python {
            skip("needs python3");
            return None;
        }
        let binary = build::sandbox().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let function = folder.path().join("functions/waits");
        std::fs::create_dir_all(&function).unwrap();
        let bootstrap =
            std::fs::read_to_string(workspace::project().unwrap().join("tests/functions/exec/bootstrap.py"));
        std::fs::write(function.join("bootstrap"), format!("#!/usr/bin/env python3\n{}", bootstrap.unwrap()))
            .unwrap();
        std::fs::set_permissions(function.join("bootstrap"), std::fs::Permissions::from_mode(0o755)).unwrap();
        let text = "name = \"waits\"\nruntime = \"provided.al2023\"\nmemory_mb = 640\ntimeout_s = 20\n\
                    description = \"before\"\nlog_format = \"JSON\"\n";
        std::fs::write(function.join("function.toml"), text).unwrap();
        let mut child = Command::new(binary)
            .args(["serve", "--listen", "127.0.0.1:0", "--region", "eu-west-1", "--account", "123456789012"])
            .arg("--data")
            .arg(folder.path().join("sandbox"))
            .arg("--functions")
            .arg(folder.path().join("functions"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().rsplit(' ').next().unwrap().to_owned();
        assert!(url.starts_with("http://"), "{line}");
        Some(Self { _process: Running(child), url, folder })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `tailor tune` with these arguments.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tailor"));
        command
            .arg("tune")
            .args(arguments)
            .arg("--state")
            .arg(self.path("state.json"))
            .env("AWS_ENDPOINT_URL_LAMBDA", &self.url)
            .env("AWS_ACCESS_KEY_ID", "any")
            .env("AWS_SECRET_ACCESS_KEY", "any")
            .env("AWS_REGION", "eu-west-1")
            .stdin(Stdio::null());
        command
    }

    /// `tailor tune` with a payload that takes `seconds`.
    fn tune(&self, seconds: f64, more: &[&str]) -> Command {
        let payload = waiting(seconds);
        let arguments = ["waits", "--yes", "--power-values", SIZES, "--payload", &payload];
        self.command(&[&arguments[..], more].concat())
    }

    /// `tailor tune` that sets the alias `live` to the best of two sizes.
    fn optimize(&self, seconds: f64) -> Command {
        let payload = waiting(seconds);
        let arguments = ["waits", "--yes", "--power-values", "128,256", "--num", "5", "--payload", &payload];
        let alias = ["--auto-optimize", "--auto-optimize-alias", "live"];
        self.command(&[&arguments[..], &alias[..]].concat())
    }

    fn get(&self, path: &str) -> Value {
        let url = format!("{}/2015-03-31/functions/waits/{path}", self.url);
        ureq::get(url).call().unwrap().body_mut().read_json().unwrap()
    }

    fn post(&self, path: &str, body: &Value) {
        let url = format!("{}/2015-03-31/functions/waits/{path}", self.url);
        assert_eq!(ureq::post(url).send(body.to_string()).unwrap().status(), 201);
    }

    /// Changes the function or its alias, and waits until the function can be changed again.
    fn put(&self, path: &str, body: &Value) {
        let url = format!("{}/2015-03-31/functions/waits/{path}", self.url);
        assert_eq!(ureq::put(url).send(body.to_string()).unwrap().status(), 200);
        wait_for("the update", &|| self.get("configuration")["LastUpdateStatus"] == "Successful");
    }

    fn versions(&self) -> Vec<String> {
        let list = self.get("versions")["Versions"].as_array().unwrap().clone();
        list.iter().map(|version| version["Version"].as_str().unwrap().to_owned()).collect()
    }

    /// The function is as it was, and nothing is left.
    fn assert_restored(&self) {
        let configuration = self.get("configuration");
        assert_eq!(
            (&configuration["MemorySize"], &configuration["Description"]),
            (&json!(640), &json!("before"))
        );
        assert_eq!(self.versions(), ["$LATEST"]);
        assert!(!self.path("state.json").exists());
    }
}

/// An event that takes so many seconds.
fn waiting(seconds: f64) -> String {
    json!({ "exec": format!("import time; time.sleep({seconds})") }).to_string()
}

fn wait_for(what: &str, ready: &dyn Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !ready() {
        assert!(Instant::now() < deadline, "timeout while waiting for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a command that fails writes to standard error.
fn failure(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn output(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn result(command: &mut Command) -> Value {
    serde_json::from_slice(&output(command).stdout).unwrap()
}

/// The advice for a function that waits: the same duration at every size.
fn advice(file: &Path, duration_ms: f64) -> String {
    let prediction = json!({ "mean_ms": duration_ms });
    let point = |mb: u32| {
        let pico = (f64::from(mb) * duration_ms * 16_667.0).round();
        json!({ "memory_mb": mb, "mean": prediction, "p95": prediction, "cost_per_million": pico * 1_000.0 })
    };
    let report = json!({ "name": "waits", "memory_mb": 640, "advice": {
        "memory_mb": 128, "cost_change_percent": -80.0, "duration_change_percent": 0.0,
        "full": { "verdict": "change", "curve": [point(128), point(640), point(3_008)] } } });
    std::fs::write(file, report.to_string().replace(".0,", ",").replace(".0}", "}")).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn fewer_invocations_give_the_same_choice() {
    let Some(sandbox) = Sandbox::start() else { return };
    let picture = sandbox.path("picture.svg");
    let all = result(
        sandbox
            .tune(0.1, &["--num", "10", "--exhaustive", "--picture", picture.to_str().unwrap()])
            .arg("--lambda-endpoint")
            .arg(&sandbox.url),
    );
    sandbox.assert_restored();
    assert_eq!((&all["power"], &all["invocations"]), (&json!(128), &json!(60)), "{all}");
    let stats = outcome::read(&all.to_string()).unwrap();
    assert_eq!(stats.len(), 6);
    let link = visualization::read(all["stateMachine"]["visualization"].as_str().unwrap()).unwrap();
    for (decoded, stat) in link.iter().zip(&stats) {
        assert_eq!(decoded.value, stat.value);
        assert!((decoded.average_duration - stat.average_duration).abs() < 0.01);
    }
    assert!(std::fs::read_to_string(picture).unwrap().contains("1536 MB"));
    let cost: f64 = all["stateMachine"]["lambdaCost"].as_f64().unwrap();
    assert!(cost > stats.iter().map(|stat| stat.average_price).sum::<f64>() * 9.0, "{all}");

    let adaptive = result(&mut sandbox.tune(0.05, &["--num", "10"]));
    assert_eq!(adaptive["power"], 128);
    assert!(adaptive["invocations"].as_u64().unwrap() < 60, "{adaptive}");
    sandbox.assert_restored();

    // With a prediction a third is enough. A prediction that is wrong is noticed.
    let predicted = advice(&sandbox.path("advice.json"), 51.0);
    let few = result(&mut sandbox.tune(0.05, &["--num", "10", "--advice", &predicted]));
    assert_eq!(few["power"], 128, "{few}");
    assert!(few["invocations"].as_u64().unwrap() <= 20, "{few}");
    let wrong = advice(&sandbox.path("advice.json"), 5.0);
    let all = result(&mut sandbox.tune(0.05, &["--num", "10", "--advice", &wrong]));
    assert_eq!((all["stats"].as_array().unwrap().len(), &all["power"]), (6, &json!(128)), "{all}");
    sandbox.assert_restored();
}

#[test]
fn power_tunings_inputs_are_used() {
    let Some(sandbox) = Sandbox::start() else { return };
    // Every invocation in a new environment, at the same time; with the versioned ARN of a function.
    let published = ureq::post(format!("{}/2015-03-31/functions/waits/versions", sandbox.url)).send("{}");
    assert_eq!(published.unwrap().status(), 201);
    let input = sandbox.path("input.json");
    let events = json!([{ "payload": { "exec": "import time; time.sleep(0.01)" }, "weight": 4 },
                        { "payload": { "exec": "raise KeyError('busy')" }, "weight": 1 }]);
    let text = json!({ "lambdaARN": "arn:aws:lambda:eu-west-1:123456789012:function:waits:1", "num": 5,
        "powerValues": [512, 1024], "payload": events, "onlyColdStarts": true, "parallelInvocation": true,
        "strategy": "balanced", "balancedWeight": 1, "allowedExceptions": ["KeyError"], "autoOptimize": true,
        "autoOptimizeAlias": "tuned", "postProcessorARN": "waits" });
    std::fs::write(&input, text.to_string()).unwrap();
    let run = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tailor"));
        command
            .arg("tune")
            .arg("--input")
            .arg(&input)
            .arg("--state")
            .arg(sandbox.path("state.json"))
            .args(more);
        command.env("AWS_ENDPOINT_URL_LAMBDA", &sandbox.url).env("AWS_REGION", "eu-west-1");
        command.env("AWS_ACCESS_KEY_ID", "any").env("AWS_SECRET_ACCESS_KEY", "any").stdin(Stdio::null());
        command
    };
    let unconfirmed = run(&[]).output().unwrap();
    let shown = String::from_utf8_lossy(&unconfirmed.stderr);
    assert!(shown.contains("add `--yes`"), "{shown}");
    assert!(shown.contains("invocations of `$LATEST`") && shown.contains("run at that size"), "{shown}");
    assert_eq!(sandbox.versions(), ["$LATEST", "1"], "nothing is made before the cost is confirmed");
    output(&mut run(&["--dry-run", "--payload", "{}"]));

    // The event of the pre-processor is an error, which ends the experiment. Nothing is left of it.
    let failed = run(&["--yes", "--pre-processor", "waits"]).output().unwrap();
    assert!(String::from_utf8_lossy(&failed.stderr).contains("the pre-processor failed"), "{failed:?}");
    assert_eq!(sandbox.versions(), ["$LATEST", "1"]);

    // The post-processor gets the error as its event, in which there is nothing to run.
    let found = result(&mut run(&["--yes"]));
    assert_eq!((&found["power"], &found["invocations"]), (&json!(512), &json!(10)), "{found}");
    // Init is in the duration once: an interpreter starts in more than the 10 ms of the handler.
    assert!(found["duration"].as_f64().unwrap() > 15.0, "{found}");
    assert_eq!(sandbox.get("configuration")["MemorySize"], 512);
    assert_eq!(sandbox.get("configuration")["Description"], "before");
    let versions = sandbox.versions();
    assert_eq!(versions.len(), 3, "the version of the alias stays: {versions:?}");
    assert_eq!(sandbox.get("aliases/tuned")["FunctionVersion"], versions[2].as_str());
}

#[test]
fn the_event_can_be_an_object_of_s3() {
    let Some(sandbox) = Sandbox::start() else { return };
    let server = match S3Server::start(&sandbox.path("s3")) {
        Ok(server) => server,
        Err(error) => return skip(&format!("needs an S3 server: {error:#}")),
    };
    server.create_bucket("events").unwrap();
    let event = json!({ "exec": "raise KeyError('the event in S3')" }).to_string();
    ureq::put(server.files_url("events/of%20tests/a$+b%C3%A9.json")).send(event).unwrap();
    let dry_run = |object: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tailor"));
        command.args(["tune", "waits", "--dry-run", "--payload-s3", object, "--state"]);
        command.arg(sandbox.path("state.json")).env("AWS_ENDPOINT_URL_LAMBDA", &sandbox.url);
        command.envs(server.environment()).env("AWS_REGION", "eu-west-1");
        String::from_utf8(command.output().unwrap().stderr).unwrap()
    };
    let failed = dry_run("s3://events/of tests/a$+bé.json");
    assert!(failed.contains("the function failed") && failed.contains("the event in S3"), "{failed}");
    let missing = dry_run("s3://events/missing.json");
    assert!(missing.contains("s3://events/missing.json: the object does not exist"), "{missing}");
    let no_key = dry_run("s3://events");
    assert!(no_key.contains("use s3://BUCKET/KEY"), "{no_key}");
}

#[test]
fn an_interrupted_experiment_is_cleaned_up() {
    let Some(sandbox) = Sandbox::start() else { return };
    let start = || {
        let mut command = sandbox.tune(0.3, &["--num", "50", "--exhaustive"]);
        Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    };
    // Killed before the first version, while versions are made, and while they are invoked.
    for versions in [1, 3, 7] {
        let mut run = start();
        wait_for("the experiment", &|| {
            sandbox.path("state.json").exists() && sandbox.versions().len() >= versions
        });
        run.0.kill().unwrap();
        run.0.wait().unwrap();
        let refused = sandbox.tune(0.3, &["--num", "5"]).output().unwrap();
        assert!(String::from_utf8_lossy(&refused.stderr).contains("--cleanup"), "{refused:?}");
        // The record has the account, although the argument does not.
        let record = std::fs::read_to_string(sandbox.path("state.json")).unwrap();
        let made = sandbox.versions();
        std::fs::write(sandbox.path("state.json"), record.replace("123456789012", "999999999999")).unwrap();
        let refused = failure(&mut sandbox.tune(0.3, &["--cleanup"]));
        assert!(refused.contains("in the account 123456789012"), "{refused}");
        assert_eq!(sandbox.versions(), made);
        std::fs::write(sandbox.path("state.json"), record).unwrap();
        output(&mut sandbox.tune(0.3, &["--cleanup"]));
        sandbox.assert_restored();
    }
    // Ctrl-C cleans up before the process ends.
    let mut run = start();
    wait_for("the versions", &|| sandbox.versions().len() >= 7);
    let pid = run.0.id().to_string();
    output(Command::new("kill").args(["-INT", &pid]));
    assert_eq!(run.0.wait().unwrap().code(), Some(1));
    sandbox.assert_restored();
}

#[test]
fn a_function_of_another_account_is_not_changed() {
    let Some(sandbox) = Sandbox::start() else { return };
    let run = |function: &str, more: &[&str]| sandbox.command(&[&[function][..], more].concat());
    for other in ["arn:aws:lambda:eu-west-1:999999999999:function:waits", "999999999999:function:waits"] {
        for more in [&["--yes"][..], &["--dry-run"]] {
            let refused = failure(&mut run(other, more));
            assert!(refused.contains("in the account 123456789012"), "{refused}");
        }
    }
    sandbox.assert_restored();
    // With its own account, in each form.
    for own in ["arn:aws:lambda:eu-west-1:123456789012:function:waits", "123456789012:function:waits:$LATEST"]
    {
        output(&mut run(own, &["--dry-run"]));
    }
}

#[test]
fn an_alias_gets_only_what_it_serves_at_another_size() {
    let Some(sandbox) = Sandbox::start() else { return };
    sandbox.post("versions", &json!({}));
    sandbox.post("aliases", &json!({ "Name": "live", "FunctionVersion": "1", "Description": "production" }));
    sandbox.put("configuration", &json!({ "Timeout": 21 }));
    sandbox.post("versions", &json!({}));
    let versions = sandbox.versions();
    assert_eq!(versions, ["$LATEST", "1", "2"]);
    let refused = |part: &str| {
        let error = failure(&mut sandbox.optimize(0.05));
        assert!(error.contains(part), "{error}");
        assert_eq!(sandbox.versions(), versions, "{part}");
        assert_eq!(sandbox.get("configuration")["MemorySize"], 640, "{part}");
        assert_eq!(sandbox.get("aliases/live")["FunctionVersion"], "1", "{part}");
    };
    let set_alias = |body: Value| sandbox.put("aliases/live", &body);
    let weights = |weights: Value| json!({ "RoutingConfig": { "AdditionalVersionWeights": weights } });
    // Settings that are not released.
    refused("would release what is not released");
    set_alias(weights(json!({ "2": 0.1 })));
    refused("has weights");
    set_alias(weights(json!({})));
    sandbox.put("configuration", &json!({ "Timeout": 20 }));
    set_alias(json!({ "Description": "[tailor change=1 stable=1 canary=2]" }));
    refused("the mark of an unfinished change");
    set_alias(json!({ "Description": "production" }));

    // What others change while it is measured stays. The result is shown.
    let measured_while = |change: &dyn Fn()| {
        let mut command = sandbox.optimize(0.3);
        let running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_for("the versions", &|| {
            let made = sandbox.versions().len() == versions.len() + 2;
            made && sandbox.get("configuration")["Description"] == "before"
        });
        wait_for("the restored size", &|| {
            let configuration = sandbox.get("configuration");
            configuration["MemorySize"] == 640 && configuration["LastUpdateStatus"] == "Successful"
        });
        change();
        let output = running.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let result: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(result["power"], 128);
        assert_eq!(sandbox.versions(), versions);
        assert_eq!(sandbox.get("configuration")["MemorySize"], 640);
        String::from_utf8(output.stderr).unwrap()
    };
    let error = measured_while(&|| set_alias(json!({ "Description": "changed by others" })));
    assert!(error.contains("alias `live` was changed in the meantime"), "{error}");
    assert_eq!(sandbox.get("aliases/live")["Description"], "changed by others");
    let error = measured_while(&|| sandbox.put("configuration", &json!({ "Timeout": 22 })));
    assert!(error.contains("the code or the settings of the function changed"), "{error}");
    sandbox.put("configuration", &json!({ "Timeout": 20 }));

    result(&mut sandbox.optimize(0.05));
    let alias = sandbox.get("aliases/live");
    assert_eq!(alias["FunctionVersion"], sandbox.versions()[3].as_str());
    assert_eq!(alias["Description"], "changed by others");
    assert_eq!(sandbox.get("configuration")["MemorySize"], 128);
}
