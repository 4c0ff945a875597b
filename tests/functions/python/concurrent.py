"""A runtime for managed instances: threads that each take one invocation after the other."""

import http.client
import json
import os
import threading
import time

API = os.environ["AWS_LAMBDA_RUNTIME_API"]


def handle(event):
    """Uses CPU for `busy_ms`, keeps `mb` of memory, then waits for `wait_ms`."""
    kept = b"x" * (event.get("mb", 0) << 20)
    until = time.thread_time() + event.get("busy_ms", 0) / 1000
    while time.thread_time() < until:
        pass
    time.sleep(event.get("wait_ms", 0) / 1000)
    return len(kept)


def work():
    connection = http.client.HTTPConnection(API)

    def request(method, path, body=None):
        connection.request(method, "/2018-06-01/runtime/invocation/" + path, body)
        response = connection.getresponse()
        return response.read(), response.headers

    while True:
        event, headers = request("GET", "next")
        result = json.dumps(handle(json.loads(event)))
        request("POST", headers["Lambda-Runtime-Aws-Request-Id"] + "/response", result)


for _ in range(int(os.environ["AWS_LAMBDA_MAX_CONCURRENCY"])):
    threading.Thread(target=work).start()
