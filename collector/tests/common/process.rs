//! The real binary as a process. Its log is in a file beside the data folder.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The real binary over a data folder; killed when dropped.
pub(crate) struct CollectorProcess {
    pub(crate) child: Child,
    pub(crate) address: String,
}

impl CollectorProcess {
    pub(crate) fn start(folder: &Path) -> Self {
        Self::start_as(Command::new(env!("CARGO_BIN_EXE_tailor")), folder, &[])
    }

    /// Starts it with more arguments. `program` is the binary, or a program that starts it with the arguments it gets.
    pub(crate) fn start_as(mut program: Command, folder: &Path, arguments: &[&str]) -> Self {
        let log_file = folder.with_extension("log");
        let log = std::fs::File::create(&log_file).unwrap();
        let child = program
            .args(["serve", "--listen", "127.0.0.1:0", "--local-reads", "--data"])
            .arg(folder)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut collector = Self { child, address: String::new() };
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let log = std::fs::read_to_string(&log_file).unwrap_or_default();
            if let Some(status) = collector.child.try_wait().unwrap() {
                panic!("the collector ended at once: {status}: {log}");
            }
            // The file with the address cannot be written on a full disk.
            let address = log.split("listening on ").nth(1).and_then(|rest| rest.split_once(','));
            if let Some((address, _)) = address {
                address.clone_into(&mut collector.address);
                if ureq::get(format!("{}/healthz", collector.address)).call().is_ok() {
                    return collector;
                }
            }
            assert!(Instant::now() < deadline, "the collector did not become ready");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn kill(&mut self) {
        // On Unix this is SIGKILL: the process runs no more code.
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn total(&self) -> serde_json::Value {
        let mut response = ureq::get(format!("{}/v1/functions", self.address)).call().unwrap();
        response.body_mut().read_json::<serde_json::Value>().unwrap()["total"].clone()
    }
}

/// Posts a batch once; `None` when there was no response within `timeout`.
pub(crate) fn send_batch_within(timeout: Duration, address: &str, key: &str, body: &[u8]) -> Option<u16> {
    let sent = ureq::post(format!("{address}/v1/batches"))
        .config()
        .http_status_as_error(false)
        .timeout_global(Some(timeout))
        .build()
        .header("Authorization", format!("Bearer {key}"))
        .header("Content-Type", agent_proto::CONTENT_TYPE)
        .send(body);
    sent.ok().map(|response| response.status().as_u16())
}

impl Drop for CollectorProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
