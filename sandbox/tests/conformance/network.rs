//! Each environment has a network of its own, and reaches the machine at a documented address.

use std::io::Write;
use std::net::TcpListener;
use std::process::Command;

use crate::sandbox::{Builder, is_root, skip, wait_until};

/// Whether environments can have their own network here. If not, `test` is reported as skipped.
#[track_caller]
fn has_networks(test: &str) -> bool {
    if Command::new("ip").arg("-V").output().is_err() || Command::new("python3").arg("-V").output().is_err() {
        skip(&format!("{test}: needs iproute2 and python3"));
        return false;
    }
    is_root(test)
}

/// A function that runs `program` in Python. It writes its output to the file `out` and a number of its own.
fn python(builder: Builder, program: &str) -> Builder {
    let folder = builder.path().display().to_string();
    let bootstrap = format!(
        "#!/bin/sh\nexec python3 -u - > {folder}/out-$(id -u) 2>&1 <<'END'\n{program}\nimport time\ntime.sleep(1000)\nEND\n"
    );
    builder.arguments(&["--network", "own"]).function("fn", "memory_mb = 256", &bootstrap)
}

/// A program of the machine is reached at the documented name and address, and not at 127.0.0.1, which is the
/// environment's own. The APIs are at port 9001.
#[test]
fn the_machine_has_a_documented_address() {
    if !has_networks("the_machine_has_a_documented_address") {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            stream.write_all(b"machine").unwrap();
        }
    });
    let program = format!(
        "import os, socket, urllib.request\n\
         def ask(host):\n  \
           try: return socket.create_connection((host, {port}), 5).recv(100).decode()\n  \
           except OSError as error: return type(error).__name__\n\
         api = os.environ['AWS_LAMBDA_RUNTIME_API']\n\
         ping = urllib.request.urlopen('http://' + api + '/ping').read().decode()\n\
         print(ask('host.sandbox.internal'), ask('169.254.100.5'), ask('127.0.0.1'), api, ping)\n\
         print(sorted(name for _, name in socket.if_nameindex()))"
    );
    let sandbox = python(Builder::new(), &program).start();
    let _caller = sandbox.invoke_later("fn", "{}");
    let text = wait_until("the output", || sandbox.read("out-993").filter(|text| text.lines().count() == 2));
    let expected = "machine machine ConnectionRefusedError 127.0.0.1:9001 pong\n['lo', 'vinternal_1']\n";
    assert_eq!(text, expected);
}

/// Two environments of a function with a server on a fixed port each reach their own server. Without networks of their
/// own, the second could not bind the port.
#[test]
fn environments_may_use_the_same_port() {
    if !has_networks("environments_may_use_the_same_port") {
        return;
    }
    let program = "import os, socket, threading\n\
         server = socket.create_server(('0.0.0.0', 8080))\n\
         def serve():\n  \
           while True: server.accept()[0].sendall(str(os.getuid()).encode())\n\
         threading.Thread(target=serve, daemon=True).start()\n\
         print(socket.create_connection(('127.0.0.1', 8080)).recv(100).decode())";
    let sandbox = python(Builder::new(), program).start();
    let _callers = [sandbox.invoke_later("fn", "{}"), sandbox.invoke_later("fn", "{}")];
    for user in ["993", "100993"] {
        let file = format!("out-{user}");
        let text = wait_until(&file, || sandbox.read(&file).filter(|text| text.ends_with('\n')));
        assert_eq!(text.trim(), user);
    }
}

/// Telemetry is delivered to a listener inside the environment.
#[test]
fn telemetry_is_delivered_inside_the_environment() {
    if !has_networks("telemetry_is_delivered_inside_the_environment") {
        return;
    }
    let builder = Builder::new();
    let folder = builder.path().display().to_string();
    let extension = format!(
        "#!/usr/bin/env python3\n\
         import http.server, json, os, threading, urllib.request\n\
         class Listener(http.server.BaseHTTPRequestHandler):\n  \
           def do_POST(self):\n    \
             events = json.loads(self.rfile.read(int(self.headers['Content-Length'])))\n    \
             open('{folder}/types', 'a').writelines(event['type'] + '\\n' for event in events)\n    \
             self.send_response(200); self.end_headers()\n\
         server = http.server.HTTPServer(('127.0.0.1', 4243), Listener)\n\
         threading.Thread(target=server.serve_forever, daemon=True).start()\n\
         api = 'http://' + os.environ['AWS_LAMBDA_RUNTIME_API']\n\
         def call(method, path, body, **headers):\n  \
           headers = {{name.replace('_', '-'): value for name, value in headers.items()}}\n  \
           data = json.dumps(body).encode() if body else None\n  \
           return urllib.request.urlopen(urllib.request.Request(api + path, data, headers, method=method))\n\
         response = call('POST', '/2020-01-01/extension/register', {{'events': ['INVOKE']}}, Lambda_Extension_Name='a')\n\
         own = response.headers['Lambda-Extension-Identifier']\n\
         call('PUT', '/2022-07-01/telemetry', {{'schemaVersion': '2022-12-13', 'types': ['platform'],\n  \
           'buffering': {{'maxItems': 1000, 'maxBytes': 262144, 'timeoutMs': 25}}, 'destination':\n  \
           {{'protocol': 'HTTP', 'URI': 'http://sandbox.localdomain:4243'}}}}, Lambda_Extension_Identifier=own)\n\
         while True: call('GET', '/2020-01-01/extension/event/next', None, Lambda_Extension_Identifier=own)\n"
    );
    let sandbox = builder
        .arguments(&["--network", "own"])
        .function("fn", "memory_mb = 256", "#!/bin/sh\nexec sleep 1000\n")
        .extension("a", &extension)
        .start();
    let _caller = sandbox.invoke_later("fn", "{}");
    wait_until("telemetry", || sandbox.read("types").filter(|types| types.contains("platform.initStart")));
}
