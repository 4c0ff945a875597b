//! A fake runtime and fake extensions, which use an environment's APIs from the test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use serde_json::{Value, json};

use crate::http::{Response, request, try_request};
use crate::sandbox::wait_until;

/// A registered extension.
#[derive(Clone)]
pub struct FakeExtension {
    pub api: String,
    pub id: String,
}

pub fn register(api: &str, name: &str, events: &[&str]) -> Response {
    let body = json!({"events": events}).to_string();
    request(
        api,
        "POST",
        "/2020-01-01/extension/register",
        &[("Lambda-Extension-Name", name)],
        body.as_bytes(),
    )
}

impl FakeExtension {
    pub fn register(api: &str, name: &str, events: &[&str]) -> FakeExtension {
        let response = register(api, name, events);
        assert_eq!(response.status, 200, "{:?}", String::from_utf8_lossy(&response.body));
        let id = response.header("Lambda-Extension-Identifier").unwrap().to_owned();
        FakeExtension { api: api.to_owned(), id }
    }

    pub fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
        let mut all = vec![("Lambda-Extension-Identifier", self.id.as_str())];
        all.extend(headers);
        request(&self.api, method, path, &all, body.as_bytes())
    }

    pub fn next(&self) -> Response {
        self.call("GET", "/2020-01-01/extension/event/next", &[], "")
    }

    /// Requests the next event from another thread; `None` if the environment ends first.
    pub fn next_later(&self) -> JoinHandle<Option<Value>> {
        let extension = self.clone();
        thread::spawn(move || {
            let headers = [("Lambda-Extension-Identifier", extension.id.as_str())];
            let path = "/2020-01-01/extension/event/next";
            let response = try_request(&extension.api, "GET", path, &headers, b"")?;
            (response.status == 200).then(|| response.json())
        })
    }

    pub fn subscribe(&self, port: u16, types: &[&str], schema: &str) -> Response {
        let body = json!({
            "schemaVersion": schema, "types": types,
            "buffering": {"maxItems": 1000, "maxBytes": 262144, "timeoutMs": 25},
            "destination": {"protocol": "HTTP", "URI": format!("http://sandbox.localdomain:{port}/in")},
        });
        self.call("PUT", "/2022-07-01/telemetry", &[], &body.to_string())
    }
}

/// The fake runtime.
#[derive(Clone)]
pub struct FakeRuntime {
    pub api: String,
}

impl FakeRuntime {
    pub fn next(&self) -> Response {
        request(&self.api, "GET", "/2018-06-01/runtime/invocation/next", &[], b"")
    }

    pub fn next_later(&self) -> JoinHandle<Option<Response>> {
        let api = self.api.clone();
        thread::spawn(move || try_request(&api, "GET", "/2018-06-01/runtime/invocation/next", &[], b""))
    }

    pub fn respond(&self, request_id: &str, body: &str) -> Response {
        let path = format!("/2018-06-01/runtime/invocation/{request_id}/response");
        request(&self.api, "POST", &path, &[], body.as_bytes())
    }

    pub fn fail(&self, request_id: &str, error_type: &str, body: &str) -> Response {
        let path = format!("/2018-06-01/runtime/invocation/{request_id}/error");
        let headers = [("Lambda-Runtime-Function-Error-Type", error_type)];
        request(&self.api, "POST", &path, &headers, body.as_bytes())
    }
}

pub fn request_id(response: &Response) -> String {
    response.header("Lambda-Runtime-Aws-Request-Id").expect("a request id").to_owned()
}

/// A telemetry listener that stores all events.
pub struct Listener {
    pub port: u16,
    batches: Arc<Mutex<Vec<Vec<Value>>>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Listener {
    /// Responds to the first `rejections` posts with 500.
    pub fn start(rejections: usize) -> Listener {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let batches = Arc::new(Mutex::new(Vec::new()));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let listener = Listener { port, batches: batches.clone(), requests: requests.clone() };
        let left = Arc::new(Mutex::new(rejections));
        thread::spawn(move || {
            for stream in socket.incoming().flatten() {
                let (batches, requests, left) = (batches.clone(), requests.clone(), left.clone());
                thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    let mut stream = stream;
                    while let Some((head, body)) = read_request(&mut reader) {
                        requests.lock().unwrap().push(head);
                        let mut left = left.lock().unwrap();
                        let status = if *left > 0 { "500 No" } else { "200 OK" };
                        if *left == 0 {
                            batches.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
                        }
                        *left = left.saturating_sub(1);
                        let response = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
                        if stream.write_all(response.as_bytes()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        listener
    }

    pub fn batches(&self) -> Vec<Vec<Value>> {
        self.batches.lock().unwrap().clone()
    }

    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    pub fn events(&self) -> Vec<Value> {
        self.batches().into_iter().flatten().collect()
    }

    pub fn kinds(&self) -> Vec<String> {
        self.events().iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect()
    }

    pub fn has(&self, kind: &str) -> bool {
        self.kinds().iter().any(|known| known == kind)
    }

    /// Waits for an event of this type.
    pub fn await_kind(&self, kind: &str) -> Value {
        wait_until(kind, || self.events().into_iter().find(|event| event["type"] == kind))
    }
}

fn read_request(reader: &mut BufReader<impl Read>) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line.trim().is_empty() {
            break;
        }
        head += &line;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((head, body))
}

/// A function `fn` with a fake runtime and fake extensions, in one environment that an invocation has started.
pub struct TestEnvironment {
    pub sandbox: crate::sandbox::Sandbox,
    pub api: String,
    pub runtime: FakeRuntime,
    pub caller: JoinHandle<Response>,
}

impl TestEnvironment {
    /// Starts with `settings` for the function; nothing has registered yet.
    pub fn start(extensions: &[&str], settings: &str) -> TestEnvironment {
        // The test is runtime and extensions, and telemetry is sent to it: all in one network.
        let mut builder = crate::sandbox::Builder::new().host_network().function(
            "fn",
            settings,
            crate::sandbox::IDLE_SCRIPT,
        );
        for name in extensions {
            builder = builder.extension(name, crate::sandbox::IDLE_SCRIPT);
        }
        let sandbox = builder.start();
        let caller = sandbox.invoke_later("fn", r#"{"n":1}"#);
        let api = sandbox.api(1);
        // Extensions are known once they are spawned.
        if !extensions.is_empty() {
            sandbox.await_event("extension.spawn", extensions.len());
        }
        TestEnvironment { runtime: FakeRuntime { api: api.clone() }, sandbox, api, caller }
    }

    /// With one extension `a` registered for both events.
    pub fn with_extension(settings: &str) -> (TestEnvironment, FakeExtension) {
        let environment = TestEnvironment::start(&["a"], settings);
        let extension = FakeExtension::register(&environment.api, "a", &["INVOKE", "SHUTDOWN"]);
        (environment, extension)
    }
}
