#!/usr/bin/env python3
"""An extension that sends valid and invalid requests to the Extensions and Telemetry APIs, and records the responses."""
import http.client
import http.server
import json
import os
import socketserver
import threading

API = os.environ["AWS_LAMBDA_RUNTIME_API"]
MANAGED = os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "lambda-managed-instances"
FOLDER = os.environ["PROBE_RECORD"]
UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"
LOCK = threading.Lock()


def record(name, value):
    with LOCK, open(f"{FOLDER}/{name}.jsonl", "a") as file:
        file.write(json.dumps(value) + "\n")


def call(step, method, path, body=None, **headers):
    """Sends one request and records the status, the Lambda headers and the body of the response."""
    connection = http.client.HTTPConnection(API)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    if isinstance(body, (dict, list)):
        body = json.dumps(body)
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    text = response.read().decode()
    try:
        answer = json.loads(text)
    except ValueError:
        answer = text
    names = sorted(name.lower() for name, _ in response.getheaders() if name.lower().startswith("lambda-"))
    record("extension", {"step": step, "status": response.status, "headers": names, "body": answer})
    return response, answer


class Listener(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.end_headers()
        for event in json.loads(body):
            record("telemetry", event)
        record("delivery", {"path": self.path, "content_type": self.headers.get("Content-Type")})

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True


server = Server(("0.0.0.0", 0), Listener)
port = server.server_address[1]
threading.Thread(target=server.serve_forever, daemon=True).start()

EXTENSION = "/2020-01-01/extension"
REGISTER = f"{EXTENSION}/register"
NEXT = f"{EXTENSION}/event/next"
TELEMETRY = "/2022-07-01/telemetry"

call("next without an identifier", "GET", NEXT)
call("next with an identifier that is no UUID", "GET", NEXT, Lambda_Extension_Identifier="me")
call("next with an unknown identifier", "GET", NEXT, Lambda_Extension_Identifier=UNKNOWN_ID)
call("register without a name", "POST", REGISTER, {"events": ["SHUTDOWN"]})
call("register with a body that is no JSON", "POST", REGISTER, "{", Lambda_Extension_Name="probe")
call("register for an unknown event", "POST", REGISTER, {"events": ["LUNCH"]}, Lambda_Extension_Name="probe")
if MANAGED:
    call("register for INVOKE", "POST", REGISTER, {"events": ["INVOKE"]}, Lambda_Extension_Name="probe")
events = ["SHUTDOWN"] if MANAGED else ["INVOKE", "SHUTDOWN"]
response, _ = call(
    "register",
    "POST",
    REGISTER,
    {"events": events},
    Lambda_Extension_Name="probe",
    Lambda_Extension_Accept_Feature="accountId",
)
identifier = {"Lambda_Extension_Identifier": response.getheader("Lambda-Extension-Identifier")}
call("register again", "POST", REGISTER, {"events": events}, Lambda_Extension_Name="probe")
call("error without an identifier", "POST", f"{EXTENSION}/init/error", "{}")
call("error without a type", "POST", f"{EXTENSION}/init/error", "{}", **identifier)


def subscription(**changes):
    body = {
        "schemaVersion": "2025-01-29",
        "types": ["platform", "function", "extension"],
        "buffering": {"maxItems": 1000, "maxBytes": 262144, "timeoutMs": 25},
        "destination": {"protocol": "HTTP", "URI": f"http://sandbox.localdomain:{port}"},
    }
    body.update(changes)
    return body


def destination(uri):
    return {"protocol": "HTTP", "URI": uri}


def buffering(items, size, time):
    return {"maxItems": items, "maxBytes": size, "timeoutMs": time}


# For an on-demand function, the emulator returns the same response to every subscription.
if MANAGED:
    call("subscribe without an identifier", "PUT", TELEMETRY, subscription())
    call("subscribe with an unknown identifier", "PUT", TELEMETRY, subscription(), Lambda_Extension_Identifier=UNKNOWN_ID)
    for step, body in [
        ("with a body that is no JSON", "{"),
        ("to an unknown schema", subscription(schemaVersion="1999-01-01")),
        ("to an unknown type", subscription(types=["gossip"])),
        ("to no type", subscription(types=[])),
        ("with another host", subscription(destination=destination(f"http://example.com:{port}"))),
        ("with an unknown protocol", subscription(destination={"protocol": "PIGEON", "URI": "http://sandbox.localdomain:80"})),
        ("with too few items", subscription(buffering=buffering(999, 262144, 25))),
        ("with too many items", subscription(buffering=buffering(10001, 262144, 25))),
        ("with too few bytes", subscription(buffering=buffering(1000, 262143, 25))),
        ("with too many bytes", subscription(buffering=buffering(1000, 1048577, 25))),
        ("with too short a time", subscription(buffering=buffering(1000, 262144, 24))),
        ("with too long a time", subscription(buffering=buffering(1000, 262144, 30001))),
    ]:
        call(f"subscribe {step}", "PUT", TELEMETRY, body, **identifier)
call("subscribe", "PUT", TELEMETRY, subscription(), **identifier)
call("subscribe again", "PUT", TELEMETRY, subscription(), **identifier)
print("a line of the extension", flush=True)

for _ in range(100):
    _, event = call("event", "GET", NEXT, **identifier)
    if event.get("eventType") == "SHUTDOWN":
        break
