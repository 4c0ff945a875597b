#!/usr/bin/env python3
"""A telemetry extension that behaves as AWS's Python sample: it listens on port 4243 and subscribes to everything.

It prints the number of records of each type when the environment ends.
"""

import collections
import http.server
import json
import os
import threading
import time
import urllib.request

API = "http://" + os.environ["AWS_LAMBDA_RUNTIME_API"]
NAME = os.path.basename(__file__)
PORT = 4243

counts = collections.Counter()


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        records = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        counts.update(record["type"] for record in records)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


def call(method, path, headers, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(API + path, data, {"Content-Type": "application/json", **headers}, method=method)
    with urllib.request.urlopen(request) as answer:
        return answer.headers, answer.read()


headers, _ = call("POST", "/2020-01-01/extension/register", {"Lambda-Extension-Name": NAME},
                  {"events": ["INVOKE", "SHUTDOWN"]})
identifier = {"Lambda-Extension-Identifier": headers["Lambda-Extension-Identifier"]}
# Fails when the port is in use: the extension ends, and with it the environment.
server = http.server.HTTPServer(("0.0.0.0", PORT), Receiver)
threading.Thread(target=server.serve_forever, daemon=True).start()
call("PUT", "/2022-07-01/telemetry", identifier, {
    "schemaVersion": "2022-07-01",
    "types": ["platform", "function", "extension"],
    "buffering": {"maxItems": 1000, "maxBytes": 256 * 1024, "timeoutMs": 100},
    "destination": {"protocol": "HTTP", "URI": f"http://sandbox.localdomain:{PORT}"},
})
while True:
    _, body = call("GET", "/2020-01-01/extension/event/next", identifier)
    if json.loads(body)["eventType"] == "SHUTDOWN":
        # The last records come after SHUTDOWN.
        time.sleep(0.4)
        print("received", json.dumps(counts), flush=True)
        break
