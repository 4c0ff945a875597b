//! The receiver in another process, written in Python with the packages of others.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tailor_test_kit::{skip, workspace};
use tempfile::TempDir;

pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A running receiver; killed when dropped.
pub(crate) struct Receiver {
    child: Child,
    folder: TempDir,
    pub(crate) url: String,
}

/// An interpreter with the packages, or `None` after the test was skipped.
pub(crate) fn python() -> Option<PathBuf> {
    let python = std::env::var_os("TAILOR_PYTHON").map(PathBuf::from);
    let has_packages = python.as_ref().is_some_and(|python| {
        let imports = "import standardwebhooks, opentelemetry.proto.metrics.v1.metrics_pb2";
        Command::new(python).args(["-c", imports]).output().is_ok_and(|output| output.status.success())
    });
    if !has_packages {
        skip("opentelemetry-proto and standardwebhooks (TAILOR_PYTHON names no interpreter with them)");
    }
    python.filter(|_| has_packages)
}

/// The code of the example in the documentation.
fn example(folder: &Path) -> PathBuf {
    let page = std::fs::read_to_string(workspace::project().unwrap().join("docs/notifications.md")).unwrap();
    let (_, code) = page.split_once("```python\n").unwrap();
    let (code, _) = code.split_once("```").unwrap();
    let file = folder.join("example.py");
    std::fs::write(&file, code).unwrap();
    file
}

impl Receiver {
    pub(crate) fn start(python: &Path, mode: &str, plan: &str) -> Self {
        Self::start_on(python, mode, plan, 0)
    }

    /// Starts it on a port, with the answers to the first requests.
    pub(crate) fn start_on(python: &Path, mode: &str, plan: &str, port: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("plan"), plan).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/push/receiver.py");
        let mut command = Command::new(python);
        command.arg(script).arg(mode).arg(folder.path()).arg(port.to_string());
        if mode == "webhook" {
            command.arg(SECRET).arg(example(folder.path()));
        }
        let child = command.stdout(Stdio::null()).spawn().unwrap();
        let mut receiver = Self { child, folder, url: String::new() };
        let port = receiver
            .wait("port", |receiver| std::fs::read_to_string(receiver.folder.path().join("port")).ok());
        receiver.url = format!("http://127.0.0.1:{port}");
        receiver
    }

    /// The requests until now.
    pub(crate) fn requests(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.path().join("requests")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits until `found` returns something.
    pub(crate) fn wait<T>(&self, what: &str, mut found: impl FnMut(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(found) = found(self) {
                return found;
            }
            assert!(Instant::now() < deadline, "no {what} in {:#?}", self.requests());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
