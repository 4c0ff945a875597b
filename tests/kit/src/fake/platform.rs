//! A puppet of Lambda: the extensions API and the Telemetry API for one extension.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Connection;

/// Called before each INVOKE, with how many there were; and before SHUTDOWN, with how many there are.
type Watch = Box<dyn FnMut(u64) + Send>;

/// A platform that answers registration and subscription at once, sends INVOKE events and then SHUTDOWN.
pub struct FakePlatform {
    /// How many INVOKE events it sends.
    pub invocations: u64,
    /// Invocations between two deliveries of telemetry, each awaited. On Lambda it is what fits into 25 ms.
    pub invocations_per_delivery: u64,
    /// Called between the events.
    pub watch: Watch,
}

impl std::fmt::Debug for FakePlatform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakePlatform").field("invocations", &self.invocations).finish_non_exhaustive()
    }
}

impl FakePlatform {
    /// Starts it, and sets the variables by which an extension finds it. The platform lives as long as the
    /// extension stays connected.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(self, extension: &mut Command, memory_mb: u32) -> Result<()> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        extension
            .env_clear()
            .env("AWS_LAMBDA_RUNTIME_API", listener.local_addr()?.to_string())
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", memory_mb.to_string())
            .env("AWS_REGION", "us-east-1")
            .env("TAILOR_TELEMETRY_PORT", "0");
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
                let body = br#"{"functionName":"function","functionVersion":"1","handler":"h"}"#;
                extension.answer("Lambda-Extension-Identifier: extension\r\n", body);
            } else if request.line.contains("/telemetry") {
                let stream = TcpStream::connect(destination(&request.body)?)?;
                telemetry = Some(Connection::new(stream));
                extension.answer("", b"OK");
            } else {
                (self.watch)(sent);
                let is_last = sent == self.invocations;
                if !records.is_empty() && (sent.is_multiple_of(self.invocations_per_delivery) || is_last) {
                    let telemetry = telemetry.as_mut().context("it asked for events before telemetry")?;
                    deliver(telemetry, &records)?;
                    records.clear();
                }
                if is_last {
                    let deadline = now_ms() + 2_000;
                    let event = format!(
                        r#"{{"eventType":"SHUTDOWN","shutdownReason":"spindown","deadlineMs":{deadline}}}"#
                    );
                    extension.answer("", event.as_bytes());
                    continue;
                }
                sent += 1;
                let id = format!("00000000-0000-4000-8000-{sent:012x}");
                let deadline = now_ms() + 3_000;
                let event = format!(r#"{{"eventType":"INVOKE","deadlineMs":{deadline},"requestId":"{id}"}}"#);
                extension.answer("", event.as_bytes());
                records.extend(records_of(&id));
            }
        }
        Ok(())
    }
}

/// Where telemetry is wanted: the port in the subscription.
fn destination(subscription: &[u8]) -> Result<SocketAddr> {
    let subscription: Value = serde_json::from_slice(subscription)?;
    let uri = subscription["destination"]["URI"].as_str().context("a subscription names its destination")?;
    let (_, port) = uri.rsplit_once(':').context("a destination has a port")?;
    Ok(SocketAddr::from(([127, 0, 0, 1], port.trim_end_matches('/').parse()?)))
}

fn deliver(receiver: &mut Connection<TcpStream>, records: &[String]) -> Result<()> {
    let body = format!("[{}]", records.join(","));
    let head =
        format!("POST / HTTP/1.1\r\nhost: sandbox.localdomain\r\ncontent-length: {}\r\n\r\n", body.len());
    receiver.write((head + &body).as_bytes())?;
    let answer = receiver.read().context("the receiver of telemetry is gone")?;
    ensure!(answer.line.contains("200"), "telemetry is refused: {}", answer.line);
    Ok(())
}

/// The three records of an invocation that was billed 2 ms, now.
fn records_of(id: &str) -> [String; 3] {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Within one day of a soak the date may be any: repetitions are told by the order of times.
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
