//! A real sandbox under test: the binary, in its own folder, with shell scripts as functions.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::http::{Response, request};

/// A script that only sleeps: the test itself makes the API calls.
pub const IDLE_SCRIPT: &str = "#!/bin/sh\nexec sleep 1000\n";

/// Time limit for any event, long enough for a busy machine.
const EVENT_TIMEOUT: Duration = Duration::from_secs(40);

/// The configuration of a sandbox.
pub struct Builder {
    directory: TempDir,
    arguments: Vec<String>,
}

impl Builder {
    pub fn new() -> Builder {
        let directory = tempfile::tempdir_in(shared_folder()).unwrap();
        // Functions run as another user.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        fs::create_dir_all(directory.path().join("layer/extensions")).unwrap();
        Builder { directory, arguments: Vec::new() }
    }

    /// A function called `name`; `settings` are lines of its function.toml besides `runtime`.
    pub fn function(self, name: &str, settings: &str, bootstrap: &str) -> Builder {
        let folder = self.directory.path().join("functions").join(name);
        fs::create_dir_all(&folder).unwrap();
        // Long, so that invocations do not time out on a busy machine, unless the test sets it.
        let timeout = if settings.contains("timeout_s") { "" } else { "timeout_s = 60\n" };
        let toml = format!("runtime = 'provided.al2023'\n{timeout}{settings}");
        fs::write(folder.join("function.toml"), toml).unwrap();
        write_script(&folder.join("bootstrap"), bootstrap);
        self
    }

    /// A file in `/opt/extensions` of every function.
    pub fn extension(self, name: &str, script: &str) -> Builder {
        write_script(&self.directory.path().join("layer/extensions").join(name), script);
        self
    }

    pub fn arguments(mut self, arguments: &[&str]) -> Builder {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// Environments share the machine's network, in which the test listens.
    pub fn host_network(self) -> Builder {
        self.arguments(&["--network", "host"])
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn start(self) -> Sandbox {
        let at = |name: &str| self.directory.path().join(name);
        let mut child = Command::new(env!("CARGO_BIN_EXE_lambda-sandbox"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(at("data"))
            .arg("--functions")
            .arg(at("functions"))
            .arg("--layer")
            .arg(at("layer"))
            .arg("--share")
            .arg(self.directory.path())
            .arg("--trace")
            .arg(at("trace"))
            .args(&self.arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit('/').next().unwrap().to_owned();
        assert!(address.contains(':'), "the sandbox did not start: {line}");
        Sandbox { child, address, directory: self.directory }
    }
}

fn write_script(path: &Path, script: &str) {
    fs::write(path, script).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A running sandbox; shut down when dropped.
pub struct Sandbox {
    child: Child,
    pub address: String,
    directory: TempDir,
}

/// A folder that tests and environments can both write to. Environments have their own `/tmp`, so it must not be there,
/// as it would be with a checkout in `/tmp`.
fn shared_folder() -> &'static Path {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    if target.starts_with("/tmp") { Path::new("/var/tmp") } else { target }
}

impl Sandbox {
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn call(&self, method: &str, path: &str, body: &str) -> Response {
        request(&self.address, method, path, &[("Content-Type", "application/json")], body.as_bytes())
    }

    pub fn invoke(&self, name: &str, payload: &str) -> Response {
        self.call("POST", &format!("/2015-03-31/functions/{name}/invocations"), payload)
    }

    /// Invokes from another thread, so that this one can act as runtime and extensions.
    pub fn invoke_later(&self, name: &str, payload: &str) -> JoinHandle<Response> {
        let (address, payload) = (self.address.clone(), payload.to_owned());
        let path = format!("/2015-03-31/functions/{name}/invocations");
        thread::spawn(move || request(&address, "POST", &path, &[], payload.as_bytes()))
    }

    /// Invokes with the log tail, which is the second value.
    pub fn invoke_with_tail(&self, name: &str, payload: &str) -> (Response, String) {
        use base64::Engine;
        let path = format!("/2015-03-31/functions/{name}/invocations");
        let headers = [("X-Amz-Log-Type", "Tail")];
        let response = request(&self.address, "POST", &path, &headers, payload.as_bytes());
        let tail = response.header("x-amz-log-result").expect("a log tail");
        let tail = base64::engine::general_purpose::STANDARD.decode(tail).unwrap();
        let tail = String::from_utf8(tail).unwrap();
        (response, tail)
    }

    /// All trace lines so far.
    pub fn trace(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path().join("trace")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Trace lines with this `event`.
    pub fn events(&self, event: &str) -> Vec<Value> {
        self.trace().into_iter().filter(|line| line["event"] == event).collect()
    }

    /// Records of telemetry events of this type.
    pub fn telemetry(&self, kind: &str) -> Vec<Value> {
        let events = self.events("telemetry").into_iter();
        events.filter(|line| line["type"] == kind).map(|line| line["record"].clone()).collect()
    }

    /// Waits for the `count`th line with `event` and returns it.
    pub fn await_event(&self, event: &str, count: usize) -> Value {
        wait_until(&format!("{count} x {event}"), || self.events(event).get(count - 1).cloned())
    }

    /// Waits for the `count`th telemetry event of `kind` and returns its record.
    pub fn await_telemetry(&self, kind: &str, count: usize) -> Value {
        if count == 0 {
            return Value::Null;
        }
        wait_until(&format!("{count} x {kind}"), || self.telemetry(kind).get(count - 1).cloned())
    }

    /// Address of the `count`th environment's APIs.
    pub fn api(&self, count: usize) -> String {
        self.await_event("environment.start", count)["api"].as_str().unwrap().to_owned()
    }

    /// A file that scripts write to as `$OUT`.
    pub fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.path().join(name)).ok()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Ends the sandbox as Ctrl-C does; returns the trace.
    pub fn stop(&mut self) -> Vec<Value> {
        self.signal(Signal::SIGINT);
        let _ = self.child.wait();
        self.trace()
    }

    pub fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), signal);
    }

    /// `kill -9`: the sandbox cannot clean up.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

impl Drop for Sandbox {
    /// The second signal does not wait for fakes that ignore SHUTDOWN.
    fn drop(&mut self) {
        self.signal(Signal::SIGINT);
        thread::sleep(Duration::from_millis(30));
        self.signal(Signal::SIGINT);
        let _ = self.child.wait();
    }
}

/// Polls until `look` finds something.
pub fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < EVENT_TIMEOUT, "timed out waiting for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// When this variable is set and not empty, a skipped test fails.
pub const REQUIRE_ALL_VARIABLE: &str = "TAILOR_REQUIRE_ALL";

/// Reports that a test, or a part of it, is skipped. The caller then returns.
///
/// # Panics
/// When [`REQUIRE_ALL_VARIABLE`] is set and not empty.
#[track_caller]
pub fn skip(reason: &str) {
    let is_required = std::env::var_os(REQUIRE_ALL_VARIABLE).is_some_and(|value| !value.is_empty());
    assert!(!is_required, "skipped, but {REQUIRE_ALL_VARIABLE} is set: {reason}");
    println!("skipped: {reason}");
}

/// Whether the tests run as root, which namespaces, mounts and control groups need. If not, `test` is reported as
/// skipped.
#[track_caller]
pub fn is_root(test: &str) -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        skip(&format!("{test}: needs root"));
    }
    is_root
}
