//! A sandbox with functions behind the alias `live`, collectors with a tuner, and traffic.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tailor_test_kit::deployment::Programs;
use tailor_test_kit::process::{Server, as_seen_by_functions, free_address};
use tailor_test_kit::{build, python, workspace};

use super::recorder::Recorder;

/// Longer than everything that a test waits for, also on a busy machine.
const DEADLINE: Duration = Duration::from_secs(240);

/// The key of functions and collectors. It need not be secret: everything ends with the test.
const KEY: &str = "local-test-key-7d05c1e2a94b8f36";

/// The clocks of the tuner are shortened by its settings. Its rules and tests are the same.
const SETTINGS: &[&str] = &[
    "--tuner-interval=1",
    "--tuner-evidence=100",
    "--tuner-evidence-days=0",
    "--tuner-evidence-environments=1",
    "--tuner-canary-steps=20=10,80=60",
    "--tuner-canary-minutes=0",
    "--tuner-comparison=100",
    "--tuner-soak-hours=0",
    "--tuner-min-saving=0",
    "--tuner-after-deployment=0",
    "--tuner-max-open-spend=100",
    "--tuner-max-requests=1000",
];

/// One function: each invocation runs the next of its events, which are Python text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) memory_mb: u32,
    pub(crate) strategy: &'static str,
    pub(crate) events: &'static [&'static str],
    /// Senders. Each has at most one invocation at a time.
    pub(crate) senders: usize,
}

/// The latest change of a function.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) id: String,
    pub(crate) from_mb: u64,
    pub(crate) to_mb: u64,
    pub(crate) states: Vec<String>,
    pub(crate) reason: String,
    /// Measured invocations of the new size.
    pub(crate) measured: u64,
    /// Measured invocations of the previous size in the time of the canary, or before the change.
    pub(crate) measured_before: u64,
}

impl Change {
    fn of(change: &Value) -> Self {
        let number = |pointer: &str| change.pointer(pointer).and_then(Value::as_u64);
        Self {
            id: text(&change["id"]),
            from_mb: number("/from_mb").unwrap(),
            to_mb: number("/to_mb").unwrap(),
            states: change["steps"].as_array().unwrap().iter().map(|step| text(&step["state"])).collect(),
            reason: text(&change["reason"]),
            measured: number("/after/invocations").unwrap_or(0),
            measured_before: number("/baseline/invocations")
                .or_else(|| number("/intent/before/invocations"))
                .unwrap_or(0),
        }
    }
}

/// What the alias `live` serves.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) version: String,
    pub(crate) memory_mb: u64,
    /// Number of versions with a weight.
    pub(crate) weights: usize,
    pub(crate) description: String,
}

/// Traffic of one function. It ends when this is dropped.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    senders: Vec<JoinHandle<()>>,
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.senders.drain(..).for_each(|sender| sender.join().unwrap_or(()));
    }
}

pub(crate) struct Stage {
    programs: Programs,
    folder: tempfile::TempDir,
    lambda: String,
    /// The address to which the functions send.
    collector: String,
    /// The address of the collector that was started last.
    last: String,
    /// Arguments of commands that read the store.
    place: Vec<String>,
    collectors: Vec<Option<Server>>,
    recorder: Recorder,
    started: Instant,
    _sandbox: Server,
}

fn get(url: &str) -> Value {
    ureq::get(url).call().unwrap().body_mut().read_json().unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Stage {
    /// Starts the sandbox. The alias `live` of each function has its version 1.
    pub(crate) fn start(functions: &[Function]) -> Self {
        let programs = build::programs().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::write(root.join("api-key"), KEY).unwrap();
        fs::set_permissions(root.join("api-key"), fs::Permissions::from_mode(0o600)).unwrap();
        write_prices(&root.join("prices.json"));
        // The functions need the address of a collector before one runs, and it stays when another one takes over.
        let (collector, lambda) = (free_address().unwrap().to_string(), free_address().unwrap().to_string());
        for function in functions {
            write_function(&root.join("functions").join(function.name), function, &collector);
        }
        let mut command = Command::new(&programs.sandbox);
        command
            .args(["serve", "--listen", &lambda, "--region", "eu-west-1"])
            .args(["--account", "123456789012", "--update-delay-ms", "20"])
            .arg("--layer")
            .arg(&programs.layer)
            .arg("--data")
            .arg(root.join("sandbox"))
            .arg("--functions")
            .arg(root.join("functions"));
        let ready = || TcpStream::connect(&lambda).is_ok();
        let sandbox = Server::start(&mut command, &root.join("sandbox.log"), ready).unwrap();
        let stage = Self {
            programs,
            lambda: format!("http://{lambda}/2015-03-31/functions"),
            last: collector.clone(),
            collector,
            place: vec!["--data".to_owned(), root.join("first").to_str().unwrap().to_owned()],
            collectors: Vec::new(),
            recorder: Recorder::start(&format!("http://{lambda}")),
            folder,
            started: Instant::now(),
            _sandbox: sandbox,
        };
        for function in functions {
            let name = function.name;
            stage.call("POST", &format!("{name}/versions"), &json!({}));
            stage.call("POST", &format!("{name}/aliases"), &json!({"Name": "live", "FunctionVersion": "1"}));
        }
        stage
    }

    /// Starts a collector with its own folder. While another one has the address of the functions, it uses a free one.
    pub(crate) fn start_collector(&mut self, name: &str, arguments: &[&str]) {
        let folder = self.folder.path().join(name);
        let has_address = self.collectors.iter().any(Option::is_some);
        let listen = if has_address { free_address().unwrap().to_string() } else { self.collector.clone() };
        let lambda = format!("http://{}", self.recorder.address);
        let mut command = Command::new(&self.programs.collector);
        command
            .args(["serve", "--listen", &listen, "--local-reads"])
            .arg("--data")
            .arg(&folder)
            .arg("--api-key-file")
            .arg(self.folder.path().join("api-key"))
            .arg("--prices")
            .arg(self.folder.path().join("prices.json"))
            .args(SETTINGS)
            .args(arguments)
            .args(Some("--tuner=apply").filter(|_| !arguments.contains(&"--tuner=off")))
            .envs([("AWS_ENDPOINT_URL_LAMBDA", lambda.as_str()), ("AWS_REGION", "eu-west-1")])
            .envs([("AWS_ACCESS_KEY_ID", "any"), ("AWS_SECRET_ACCESS_KEY", "any")]);
        let ready = || ureq::get(format!("http://{listen}/readyz")).call().is_ok();
        let log = self.folder.path().join(format!("{name}.log"));
        self.collectors.push(Some(Server::start(&mut command, &log, ready).unwrap()));
        self.last = listen;
        if arguments.contains(&"--database") {
            self.place = vec!["--data".to_owned(), folder.to_str().unwrap().to_owned()];
            self.place.extend(arguments.iter().map(ToString::to_string));
        }
    }

    /// Kills a collector with SIGKILL.
    pub(crate) fn kill_collector(&mut self, index: usize) {
        self.collectors[index].take().unwrap().kill().unwrap();
    }

    /// The last collector gets what the functions send, as behind a load balancer.
    pub(crate) fn use_last_collector(&self) {
        let last = self.last.clone();
        let listener = std::net::TcpListener::bind(&self.collector).unwrap();
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(&last) else { continue };
                for (from, to) in [(&connection, &server), (&server, &connection)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(std::net::Shutdown::Write);
                    });
                }
            }
        });
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let request = ureq::http::Request::builder().method(method).uri(format!("{}/{path}", self.lambda));
        let mut response = ureq::run(request.body(body.to_string()).unwrap()).unwrap();
        response.body_mut().read_json().unwrap()
    }

    /// Invokes the alias until the result is dropped.
    pub(crate) fn send(&self, function: &Function) -> Traffic {
        let stop = Arc::new(AtomicBool::new(false));
        let url = format!("{}/{}/invocations?Qualifier=live", self.lambda, function.name);
        let senders = (0..function.senders).map(|sender| {
            let (stop, url, events) = (Arc::clone(&stop), url.clone(), function.events);
            std::thread::spawn(move || {
                for index in sender.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let event = json!({ "exec": events[index % events.len()] }).to_string();
                    // A failed invocation is a response, too.
                    let _ = ureq::post(&url).send(event);
                }
            })
        });
        Traffic { senders: senders.collect(), stop }
    }

    /// Publishes another configuration, as a deployment does. Returns the version.
    pub(crate) fn deploy(&self, name: &str) -> String {
        let configuration = json!({ "Description": "a release", "Timeout": 29 });
        self.call("PUT", &format!("{name}/configuration"), &configuration);
        self.wait("the deployment", || {
            let configuration = get(&format!("{}/{name}/configuration", self.lambda));
            (configuration["LastUpdateStatus"] == "Successful").then_some(())
        });
        let version = text(&self.call("POST", &format!("{name}/versions"), &json!({}))["Version"]);
        let alias =
            json!({ "FunctionVersion": version, "RoutingConfig": { "AdditionalVersionWeights": {} } });
        self.call("PUT", &format!("{name}/aliases/live"), &alias);
        version
    }

    pub(crate) fn serving(&self, name: &str) -> Serving {
        let alias = get(&format!("{}/{name}/aliases/live", self.lambda));
        let version = text(&alias["FunctionVersion"]);
        let configuration = get(&format!("{}/{name}/configuration?Qualifier={version}", self.lambda));
        let weights = alias["RoutingConfig"]["AdditionalVersionWeights"].as_object();
        Serving {
            version,
            memory_mb: configuration["MemorySize"].as_u64().unwrap(),
            weights: weights.map_or(0, serde_json::Map::len),
            description: text(&alias["Description"]),
        }
    }

    pub(crate) fn versions(&self, name: &str) -> Vec<String> {
        let list = get(&format!("{}/{name}/versions", self.lambda));
        list["Versions"].as_array().unwrap().iter().map(|version| text(&version["Version"])).collect()
    }

    /// Runs `tailor` with the data folder or the database of the latest collector.
    pub(crate) fn tailor(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(&self.programs.collector);
        command.args(arguments);
        command.args(&self.place);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// The data folder of the first collector.
    pub(crate) fn data(&self) -> &str {
        &self.place[1]
    }

    /// The report of a function.
    pub(crate) fn report(&self, name: &str) -> Value {
        get(&format!("http://{}/v1/functions/{name}", self.collector))
    }

    /// The page of a function.
    pub(crate) fn page(&self, name: &str) -> String {
        let url = format!("http://{}/functions/{name}", self.collector);
        ureq::get(&url).call().unwrap().body_mut().read_to_string().unwrap()
    }

    /// Waits until so many invocations of a function are stored.
    pub(crate) fn wait_for_invocations(&self, name: &str, count: u64) {
        self.wait("invocations", || {
            let mut response =
                ureq::get(format!("http://{}/v1/functions/{name}", self.collector)).call().ok()?;
            let report: Value = response.body_mut().read_json().ok()?;
            (report["invocations"].as_u64()? >= count).then_some(())
        });
    }

    /// Waits until the curve of a function has measurements at all these sizes.
    pub(crate) fn wait_for_sizes(&self, name: &str, sizes: &[u64]) {
        self.wait("measurements at all sizes", || {
            let report = self.report(name);
            let measured = report["sizes"].as_array()?.iter().filter_map(|size| size["memory_mb"].as_u64());
            let measured: Vec<u64> = measured.collect();
            sizes.iter().all(|size| measured.contains(size)).then_some(())
        });
    }

    /// The result of `tailor tune` with ten invocations at each size.
    pub(crate) fn tune(&self, name: &str, event: &str, more: &[&str]) -> Value {
        let mut command = Command::new(&self.programs.collector);
        command
            .args(["tune", name, "--yes", "--num", "10"])
            .args(["--payload", &json!({ "exec": event }).to_string(), "--state"])
            .arg(self.folder.path().join("state.json"))
            .args(more)
            .envs([("AWS_ENDPOINT_URL_LAMBDA", self.lambda.trim_end_matches("/2015-03-31/functions"))])
            .envs([
                ("AWS_ACCESS_KEY_ID", "any"),
                ("AWS_SECRET_ACCESS_KEY", "any"),
                ("AWS_REGION", "eu-west-1"),
            ])
            .stdin(Stdio::null());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The latest change of each function.
    fn changes(&self) -> BTreeMap<String, Change> {
        let answer = get(&format!("http://{}/v1/changes", self.last));
        let changes = answer["changes"].as_array().unwrap().iter();
        let mut changes: Vec<_> =
            changes.map(|change| (text(&change["function"]["name"]), Change::of(change))).collect();
        changes.sort_by(|a, b| a.1.id.cmp(&b.1.id));
        changes.into_iter().collect()
    }

    /// Waits until the latest change of a function has one of these states. It fails when the change ends otherwise.
    pub(crate) fn wait_for(&self, name: &str, states: &[&str]) -> Change {
        self.wait(&format!("{states:?} of {name}"), || {
            self.reached(self.changes().remove(name)?, name, states)
        })
    }

    /// Waits until the change of each function has one of its states, and ends the traffic of each function then.
    pub(crate) fn wait_for_all(
        &self,
        ends: &BTreeMap<&'static str, &[&str]>,
        mut traffic: BTreeMap<&'static str, Traffic>,
    ) -> BTreeMap<&'static str, Change> {
        let mut ended = BTreeMap::new();
        self.wait("the end of all changes", || {
            let mut changes = self.changes();
            for (name, states) in
                ends.iter().filter(|(name, _)| traffic.contains_key(*name)).collect::<Vec<_>>()
            {
                if let Some(change) =
                    changes.remove(*name).and_then(|change| self.reached(change, name, states))
                {
                    traffic.remove(name);
                    ended.insert(*name, change);
                }
            }
            traffic.is_empty().then_some(())
        });
        ended
    }

    /// The change, if it has one of these states.
    fn reached(&self, change: Change, name: &str, states: &[&str]) -> Option<Change> {
        const ENDS: [&str; 6] =
            ["settled", "rolled-back", "quarantined", "blocked", "external-change", "frozen"];
        let state = change.states.last()?.as_str();
        if states.contains(&state) {
            println!("{:>6.1} s: {name} is {state}: {}", self.started.elapsed().as_secs_f64(), change.reason);
            return Some(change);
        }
        assert!(!ENDS.contains(&state), "{name} is not {states:?}: {change:?}");
        None
    }

    fn wait<T>(&self, what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(value) = ready() {
                return value;
            }
            if Instant::now() > deadline {
                let log = self.collectors.iter().flatten().last().map(Server::log_tail).unwrap_or_default();
                panic!("timeout while waiting for {what}: {:#?}\n{}\n{log}", self.changes(), self.plan());
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// What the tuner would do now, for messages.
    fn plan(&self) -> String {
        let mut command = Command::new(&self.programs.collector);
        let lambda = self.lambda.trim_end_matches("/2015-03-31/functions");
        command
            .args(["changes", "plan", "--lambda-endpoint", lambda])
            .args(&self.place)
            .args(SETTINGS)
            .arg("--tuner=apply");
        command.envs([("AWS_ACCESS_KEY_ID", "any"), ("AWS_SECRET_ACCESS_KEY", "any")]);
        let output = command.output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    /// The collector's requests to Lambda are what botocore sends for the same calls.
    pub(crate) fn assert_requests_are_those_of_botocore(&self) {
        let packages = python::install("botocore", &["botocore==1.44.8"]).unwrap();
        let script = workspace::project().unwrap().join("tests/tests/tuner/requests.py");
        let mut compare = Command::new("python3");
        compare.env("PYTHONPATH", packages);
        compare.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = compare.spawn().unwrap();
        let requests = serde_json::to_vec(&self.recorder.requests()).unwrap();
        child.stdin.take().unwrap().write_all(&requests).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).trim(),
            "DeleteFunction GetFunction ListAliases ListProvisionedConcurrencyConfigs ListVersionsByFunction \
             PublishVersion UpdateAlias UpdateFunctionConfiguration"
        );
    }

    pub(crate) fn assert_log_is_intact(&self) {
        self.tailor(&["changes", "log", "--verify"]);
    }
}

/// The built-in prices with the date of today, so that the test does not depend on their age.
fn write_prices(file: &Path) {
    let built_in = workspace::project().unwrap().join("sizing/data/prices.json");
    let mut prices: Value = serde_json::from_str(&fs::read_to_string(built_in).unwrap()).unwrap();
    let today = Command::new("date").args(["-u", "+%F"]).output().unwrap().stdout;
    prices["compiled"] = String::from_utf8(today).unwrap().trim().into();
    fs::write(file, prices.to_string()).unwrap();
}

fn write_function(folder: &PathBuf, function: &Function, collector: &str) {
    fs::create_dir_all(folder).unwrap();
    let source = workspace::project().unwrap().join("tests/functions/exec/bootstrap.py");
    let source = fs::read_to_string(source).unwrap();
    fs::write(folder.join("bootstrap"), format!("#!/usr/bin/env python3\n{source}")).unwrap();
    fs::set_permissions(folder.join("bootstrap"), fs::Permissions::from_mode(0o755)).unwrap();
    let endpoint = as_seen_by_functions(&format!("http://{collector}"));
    let settings = format!(
        "name = \"{}\"\nruntime = \"provided.al2023\"\nmemory_mb = {}\ntimeout_s = 30\n\
         [tags]\n\"tailor:tune\" = \"apply\"\n\"tailor:strategy\" = \"{}\"\n\
         [environment]\nTAILOR_ENDPOINT = \"{endpoint}\"\nTAILOR_API_KEY = \"{KEY}\"\n\
         TAILOR_FLUSH_INTERVAL_MS = \"300\"\n",
        function.name, function.memory_mb, function.strategy
    );
    fs::write(folder.join("function.toml"), settings).unwrap();
}
