//! A fake Lambda platform: the Extensions API and the Telemetry API for one extension.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Connection;

/// Callback before each INVOKE and before SHUTDOWN. Its argument is the number of INVOKE events sent so far.
type BeforeEvent = Box<dyn FnMut(u64) + Send>;

/// A platform that accepts registration and subscription at once, sends INVOKE events and then SHUTDOWN.
pub struct FakePlatform {
    /// Number of INVOKE events to send.
    pub invocations: u64,
    /// Number of invocations for each delivery of telemetry. The platform waits for each delivery. On Lambda, a delivery
    /// contains the records of up to 25 ms.
    pub invocations_per_delivery: u64,
    /// Called before each event.
    pub before_event: BeforeEvent,
    /// Body of the answer to the registration.
    pub registration: &'static str,
}

/// A usual body of the answer to a registration.
pub const REGISTRATION: &str = r#"{"functionName":"function","functionVersion":"1","handler":"h"}"#;

impl std::fmt::Debug for FakePlatform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakePlatform").field("invocations", &self.invocations).finish_non_exhaustive()
    }
}

impl FakePlatform {
    /// Starts the platform and sets the environment variables of `extension` that contain its address. The platform
    /// runs until the extension closes its connection.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(self, extension: &mut Command, memory_mb: u32) -> Result<()> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        extension
            .env_clear()
            .env("AWS_LAMBDA_RUNTIME_API", listener.local_addr()?.to_string())
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", memory_mb.to_string())
            .env("AWS_REGION", "us-east-1");
        thread::spawn(move || {
            if let Err(error) =
                listener.accept().map_err(Into::into).and_then(|(stream, _)| self.serve(stream))
            {
                eprintln!("the fake platform failed: {error:#}");
            }
        });
        Ok(())
    }

    fn serve(mut self, stream: TcpStream) -> Result<()> {
        stream.set_nodelay(true)?;
        let mut extension = Connection::new(stream);
        let mut telemetry = None;
        let mut records = vec![];
        let mut sent = 0u64;
        while let Some(request) = extension.read() {
            if request.line.contains("/register") {
                let body = self.registration.as_bytes();
                extension.respond("Lambda-Extension-Identifier: extension\r\n", body);
            } else if request.line.contains("/telemetry") {
                let stream = TcpStream::connect(destination(&request.body)?)?;
                telemetry = Some(Connection::new(stream));
                extension.respond("", b"OK");
            } else {
                (self.before_event)(sent);
                let is_last = sent == self.invocations;
                if !records.is_empty() && (sent.is_multiple_of(self.invocations_per_delivery) || is_last) {
                    let telemetry = telemetry
                        .as_mut()
                        .context("the extension requested an event before it subscribed to telemetry")?;
                    deliver(telemetry, &records)?;
                    records.clear();
                }
                if is_last {
                    let deadline = now_ms() + 2_000;
                    let event = format!(
                        r#"{{"eventType":"SHUTDOWN","shutdownReason":"spindown","deadlineMs":{deadline}}}"#
                    );
                    extension.respond("", event.as_bytes());
                    continue;
                }
                sent += 1;
                let id = format!("00000000-0000-4000-8000-{sent:012x}");
                let deadline = now_ms() + 3_000;
                let event = format!(r#"{{"eventType":"INVOKE","deadlineMs":{deadline},"requestId":"{id}"}}"#);
                extension.respond("", event.as_bytes());
                records.extend(records_of(&id));
            }
        }
        Ok(())
    }
}

/// The address for telemetry: the loopback address with the port in the subscription.
fn destination(subscription: &[u8]) -> Result<SocketAddr> {
    let subscription: Value = serde_json::from_slice(subscription)?;
    let uri = subscription["destination"]["URI"].as_str().context("the subscription has no destination")?;
    let (_, port) = uri.rsplit_once(':').context("the destination has no port")?;
    Ok(SocketAddr::from(([127, 0, 0, 1], port.trim_end_matches('/').parse()?)))
}

fn deliver(receiver: &mut Connection<TcpStream>, records: &[String]) -> Result<()> {
    let body = format!("[{}]", records.join(","));
    let head =
        format!("POST / HTTP/1.1\r\nhost: sandbox.localdomain\r\ncontent-length: {}\r\n\r\n", body.len());
    receiver.write((head + &body).as_bytes())?;
    let response = receiver.read().context("the telemetry receiver closed the connection")?;
    ensure!(response.line.contains("200"), "telemetry was rejected: {}", response.line);
    Ok(())
}

/// The three telemetry records of an invocation at this moment with a billed duration of 2 ms.
fn records_of(id: &str) -> [String; 3] {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // The date is constant. The extension detects duplicates by the order of the times, and a run is shorter than a day.
    let (seconds, ms) = (now.as_secs() % 86_400, now.subsec_millis());
    let time =
        format!("2026-01-02T{:02}:{:02}:{:02}.{ms:03}Z", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let record = |kind: &str, more: &str| {
        format!(r#"{{"time":"{time}","type":"platform.{kind}","record":{{"requestId":"{id}"{more}}}}}"#)
    };
    [
        record("start", r#","version":"1""#),
        record("runtimeDone", r#","status":"success","metrics":{"durationMs":1.2,"producedBytes":12}"#),
        record(
            "report",
            r#","status":"success","metrics":{"durationMs":1.4,"billedDurationMs":2,"memorySizeMB":128,"maxMemoryUsedMB":40}"#,
        ),
    ]
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
