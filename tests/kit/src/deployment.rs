//! A local deployment: a collector, and a sandbox with example functions to which the layer is attached.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::functions::{Assembly, Example};
use crate::lambda::LambdaClient;
use crate::process::{Server, as_seen_by_functions, free_address};
use crate::s3;

/// Time limit for the sandbox to stop: each environment has two seconds to shut down.
const SANDBOX_STOP_LIMIT: Duration = Duration::from_secs(60);

/// Time limit for the collector to stop.
const COLLECTOR_STOP_LIMIT: Duration = Duration::from_secs(20);

/// The API key of the collector. It need not be secret: the deployment ends with the test.
const API_KEY: &str = "local-test-key-4f1c2a90b7d35e86";

/// The built programs.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `tailor`.
    pub collector: PathBuf,
    /// `lambda-sandbox`.
    pub sandbox: PathBuf,
    /// The layer's zip.
    pub layer: PathBuf,
    /// The Rust example handler.
    pub handler: PathBuf,
}

/// What to deploy, and how.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The built programs.
    pub programs: Programs,
    /// The root folder of the workspace.
    pub project: &'a Path,
    /// An empty folder for all files of the deployment.
    pub folder: &'a Path,
    /// The functions to deploy.
    pub examples: &'a [Example],
    /// Whether the layer is attached to them. Benchmarks compare both cases.
    pub attach_layer: bool,
    /// Folders of more layers, with other extensions.
    pub other_layers: &'a [PathBuf],
    /// `TAILOR_FLUSH_INTERVAL_MS` of the extensions, milliseconds.
    pub flush_interval_ms: u64,
    /// `TAILOR_ENDPOINT` of the extensions when it is not the collector.
    pub endpoint: Option<String>,
    /// `host:port` on which the collector listens. Port 0 selects a free port.
    pub collector_listen: &'a str,
    /// More arguments for `tailor serve`.
    pub collector_arguments: &'a [&'a str],
    /// More environment variables of the functions.
    pub function_environment: &'a [(&'a str, &'a str)],
}

impl<'a> Plan<'a> {
    /// A plan with the layer attached, a delivery every second, a free port and no more arguments.
    #[must_use]
    pub const fn new(
        programs: Programs,
        project: &'a Path,
        folder: &'a Path,
        examples: &'a [Example],
    ) -> Self {
        Self {
            programs,
            project,
            folder,
            examples,
            attach_layer: true,
            other_layers: &[],
            flush_interval_ms: 1_000,
            endpoint: None,
            collector_listen: "127.0.0.1:0",
            collector_arguments: &[],
            function_environment: &[],
        }
    }
}

/// A running collector and a running sandbox.
#[derive(Debug)]
pub struct Deployment {
    programs: Programs,
    folder: PathBuf,
    collector: Server,
    collector_address: String,
    collector_arguments: Vec<String>,
    sandbox: Server,
    sandbox_address: String,
    /// Client of the sandbox's Lambda API.
    pub lambda: LambdaClient,
}

impl Deployment {
    /// Starts the collector and the sandbox.
    ///
    /// # Errors
    /// When a function cannot be assembled or a server does not start.
    pub fn start(plan: &Plan<'_>) -> Result<Self> {
        let folder = plan.folder.to_owned();
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        write_secret(&folder.join("api-key"), API_KEY)?;
        let collector_arguments: Vec<_> = plan.collector_arguments.iter().map(ToString::to_string).collect();
        // The collector's tuner needs the sandbox's address and the functions need the collector's. So the
        // sandbox's port is selected first.
        let sandbox_address = free_address()?.to_string();
        let collector = start_collector(
            &plan.programs,
            &folder,
            plan.collector_listen,
            &sandbox_address,
            &collector_arguments,
        )?;
        let collector_address = collector_address(&folder).context("the collector is ready")?;
        let functions = folder.join("functions");
        let assembly = Assembly {
            project: plan.project,
            output: &functions,
            rust_handler: &plan.programs.handler,
            environment: plan
                .function_environment
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned()))
                .chain([
                    ("SERVER", as_seen_by_functions(&crate::delay_server::start()?.to_string())),
                    (
                        "TAILOR_ENDPOINT",
                        as_seen_by_functions(
                            &plan.endpoint.clone().unwrap_or_else(|| format!("http://{collector_address}")),
                        ),
                    ),
                    ("TAILOR_API_KEY", API_KEY.to_owned()),
                    ("TAILOR_FLUSH_INTERVAL_MS", plan.flush_interval_ms.to_string()),
                ])
                .collect(),
        };
        for example in plan.examples {
            assembly.assemble(example).with_context(|| format!("cannot assemble {}", example.name))?;
        }
        let mut command = Command::new(&plan.programs.sandbox);
        command.args(["serve", "--listen", &sandbox_address]);
        command.arg("--data").arg(folder.join("sandbox"));
        command.arg("--functions").arg(&functions);
        command.arg("--trace").arg(folder.join("trace.jsonl"));
        if plan.attach_layer {
            command.arg("--layer").arg(&plan.programs.layer);
        }
        plan.other_layers.iter().for_each(|layer| {
            command.arg("--layer").arg(layer);
        });
        let ready = || TcpStream::connect(&sandbox_address).is_ok();
        let sandbox = Server::start(&mut command, &folder.join("sandbox.log"), ready)?;
        Ok(Self {
            programs: plan.programs.clone(),
            lambda: LambdaClient::new(&sandbox_address),
            folder,
            collector,
            collector_address,
            collector_arguments,
            sandbox,
            sandbox_address,
        })
    }

    /// The collector's base URL.
    #[must_use]
    pub fn collector_url(&self) -> String {
        format!("http://{}", self.collector_address)
    }

    /// The sandbox's base URL.
    #[must_use]
    pub fn sandbox_url(&self) -> String {
        format!("http://{}", self.sandbox_address)
    }

    /// Kills the sandbox, and with it every environment, with SIGKILL.
    ///
    /// # Errors
    /// When waiting for its exit fails.
    pub fn kill_sandbox(&mut self) -> Result<()> {
        self.sandbox.kill()
    }

    /// Kills the collector with SIGKILL.
    ///
    /// # Errors
    /// When waiting for its exit fails.
    pub fn kill_collector(&mut self) -> Result<()> {
        self.collector.kill()
    }

    /// Starts the collector again, with the same data folder and port.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_collector(&mut self) -> Result<()> {
        self.collector = start_collector(
            &self.programs,
            &self.folder,
            &self.collector_address,
            &self.sandbox_address,
            &self.collector_arguments,
        )?;
        Ok(())
    }

    /// Stops the sandbox. It shuts down every environment first, so the extensions send what they buffered.
    ///
    /// # Errors
    /// When the sandbox does not stop in time or fails.
    pub fn stop_sandbox(&mut self) -> Result<()> {
        let status = self.sandbox.stop(SANDBOX_STOP_LIMIT)?;
        ensure!(status.success(), "the sandbox ended with {status}:\n{}", self.sandbox.log_tail());
        Ok(())
    }

    /// The warnings in the sandbox's log, for example that CPU quotas are not available. Without quotas, the advice is
    /// not valid for Lambda.
    #[must_use]
    pub fn sandbox_warnings(&self) -> Vec<String> {
        let log = self.sandbox.log_tail();
        log.lines()
            .filter_map(|line| line.split_once(" WARN "))
            .map(|(_, message)| message.trim().to_owned())
            .collect()
    }

    /// Runs `tailor` with the running collector as its server.
    ///
    /// # Errors
    /// When it cannot be started or fails.
    pub fn tailor(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(&self.programs.collector);
        command
            .args(arguments)
            .args(["--server", &self.collector_url(), "--api-key-file"])
            .arg(self.folder.join("api-key"));
        run_tailor(&mut command, arguments)
    }

    /// Stops the collector and runs `tailor` on its data folder.
    ///
    /// # Errors
    /// When the collector does not stop in time, or as [`Deployment::tailor`].
    pub fn tailor_offline(&mut self, arguments: &[&str]) -> Result<Output> {
        self.collector.stop(COLLECTOR_STOP_LIMIT)?;
        let mut command = Command::new(&self.programs.collector);
        command.args(arguments).arg("--data").arg(self.folder.join("collector"));
        run_tailor(&mut command, arguments)
    }

    /// `tailor functions` as JSON.
    ///
    /// # Errors
    /// As [`Deployment::tailor`], or when the output is not JSON.
    pub fn summary(&self) -> Result<Value> {
        let output = self.tailor(&["functions", "--format", "json"])?;
        serde_json::from_slice(&output.stdout).context("tailor functions is not JSON")
    }

    /// The sandbox's trace so far, one value per line.
    ///
    /// # Errors
    /// When the trace cannot be read or a line is not JSON.
    pub fn trace(&self) -> Result<Vec<Value>> {
        let path = self.folder.join("trace.jsonl");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        // A line without a line end is not complete yet.
        let lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        lines.map(|line| Ok(serde_json::from_str(line)?)).collect()
    }
}

fn run_tailor(command: &mut Command, arguments: &[&str]) -> Result<Output> {
    let output = command.output().context("cannot start tailor")?;
    // 3: there is nothing to show yet.
    let is_shown = matches!(output.status.code(), Some(0 | 3));
    ensure!(is_shown, "tailor {} failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(output)
}

fn start_collector(
    programs: &Programs,
    folder: &Path,
    listen: &str,
    sandbox_address: &str,
    arguments: &[String],
) -> Result<Server> {
    // The collector writes this file when it listens. A file of an earlier process would be read too early.
    let _ = fs::remove_file(address_file(folder));
    Server::start(
        Command::new(&programs.collector)
            .args(["serve", "--listen", listen, "--local-reads"])
            .arg("--data")
            .arg(folder.join("collector"))
            .arg("--api-key-file")
            .arg(folder.join("api-key"))
            .args(arguments)
            // The sandbox accepts any credentials, so they are those of the S3 server.
            .env("AWS_ENDPOINT_URL_LAMBDA", format!("http://{sandbox_address}"))
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", s3::ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", s3::SECRET_KEY),
        &folder.join("collector.log"),
        || collector_address(folder).is_some_and(|address| TcpStream::connect(address).is_ok()),
    )
}

fn address_file(folder: &Path) -> PathBuf {
    folder.join("collector/address")
}

/// `host:port` of the running collector; `None` while it does not listen.
fn collector_address(folder: &Path) -> Option<String> {
    let url = fs::read_to_string(address_file(folder)).ok()?;
    Some(url.trim().strip_prefix("http://")?.to_owned())
}

fn write_secret(path: &Path, secret: &str) -> Result<()> {
    let _ = fs::remove_file(path);
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(path)?;
    Ok(std::io::Write::write_all(&mut file, secret.as_bytes())?)
}
