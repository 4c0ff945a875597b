"""Receives what the collector sends: OTLP metrics, decoded by OpenTelemetry's own package, or events of the webhook,
verified by the library of Standard Webhooks and by the example of the documentation.

usage: receiver.py otlp|webhook FOLDER PORT [SECRET EXAMPLE]

Writes its port to FOLDER/port, and each request as a line of JSON to FOLDER/requests. FOLDER/plan has a line for each of the
first requests: the status, then `Retry-After`; `partial` answers with a partial success, and `hang` never answers. Other
requests are answered with 200.
"""

import gzip
import hashlib
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

mode, folder, port = sys.argv[1:4]
lock = threading.Lock()


def value(any_value):
    return getattr(any_value, any_value.WhichOneof("value"))


def attributes(pairs):
    return {pair.key: value(pair.value) for pair in pairs}


def point(data):
    found = {
        "attributes": attributes(data.attributes),
        "start": data.start_time_unix_nano,
        "time": data.time_unix_nano,
    }
    if data.DESCRIPTOR.name == "HistogramDataPoint":
        found.update(
            count=data.count, sum=data.sum, buckets=list(data.bucket_counts), bounds=list(data.explicit_bounds)
        )
    else:
        found["value"] = getattr(data, data.WhichOneof("value"))
    return found


def metric(found):
    kind = found.WhichOneof("data")
    data = getattr(found, kind)
    return {
        "name": found.name,
        "unit": found.unit,
        "kind": kind,
        "temporality": getattr(data, "aggregation_temporality", 0),
        "monotonic": getattr(data, "is_monotonic", False),
        "points": [point(one) for one in data.data_points],
    }


def decode(body):
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    request = ExportMetricsServiceRequest.FromString(body)
    return [
        {
            "resource": attributes(resource.resource.attributes),
            "schema": resource.schema_url,
            "metrics": [metric(found) for scope in resource.scope_metrics for found in scope.metrics],
        }
        for resource in request.resource_metrics
    ]


def partial():
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

    response = ExportMetricsServiceResponse()
    response.partial_success.rejected_data_points = 3
    response.partial_success.error_message = "too old"
    return response.SerializeToString()


def verify(headers, body):
    """Whether the library and the example accept an event, and refuse another and an old one."""
    from standardwebhooks.webhooks import Webhook, WebhookVerificationError

    secret, example = sys.argv[4:6]
    # Several secrets sign while one is replaced.
    names = {}
    exec(open(example).read(), names)
    Webhook(secret).verify(body, headers)
    names["verify"](headers, body, secret)
    old = dict(headers, **{"webhook-timestamp": str(int(time.time()) - 3600)})
    for wrong_headers, wrong_body in ((headers, body + b" "), (old, body)):
        for check in (
            lambda: Webhook(secret).verify(wrong_body, wrong_headers),
            lambda: names["verify"](wrong_headers, wrong_body, secret),
        ):
            try:
                check()
            except (WebhookVerificationError, ValueError):
                continue
            return False
    return True


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): text for name, text in self.headers.items()}
        found = {"path": self.path, "headers": headers, "sha256": hashlib.sha256(body).hexdigest()}
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        if mode == "otlp":
            found["resources"] = decode(body)
        else:
            found["event"] = json.loads(body)
            found["verified"] = "webhook-signature" in headers and verify(headers, body)
        with lock:
            plan = os.path.join(folder, "plan")
            lines = open(plan).read().splitlines() if os.path.exists(plan) else []
            step = (lines.pop(0) if lines else "200").split()
            with open(plan, "w") as file:
                file.write("\n".join(lines))
            found["answer"] = step[0]
            with open(os.path.join(folder, "requests"), "a") as file:
                file.write(json.dumps(found) + "\n")
        if step[0] == "hang":
            time.sleep(600)
        answer = partial() if step[0] == "partial" else b""
        self.send_response(200 if step[0] == "partial" else int(step[0]))
        if len(step) > 1:
            self.send_header("Retry-After", step[1])
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(port)), Handler)
server.daemon_threads = True
with open(os.path.join(folder, "port.new"), "w") as file:
    file.write(str(server.server_port))
os.rename(os.path.join(folder, "port.new"), os.path.join(folder, "port"))
server.serve_forever()
