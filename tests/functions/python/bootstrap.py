"""A handler and the least of a runtime: fetches each event from the Runtime API and posts the answer.

The work is mixed: it asks a server, parses what came, and sorts and serialises it.
"""

import http.client
import json
import os
import random
import urllib.request

API = os.environ["AWS_LAMBDA_RUNTIME_API"]
SERVER = os.environ.get("SERVER")


def handler(event):
    delay_ms = event.get("delay_ms", 30)
    with urllib.request.urlopen(f"http://{SERVER}/{delay_ms}", timeout=10) as answer:
        answer.read()
    numbers = [random.random() for _ in range(event.get("items", 20_000))]
    text = json.dumps(sorted(numbers))
    return {"bytes": len(text), "items": len(json.loads(text))}


def main():
    api = http.client.HTTPConnection(API)
    while True:
        api.request("GET", "/2018-06-01/runtime/invocation/next")
        answer = api.getresponse()
        event = json.loads(answer.read() or b"{}")
        request_id = answer.headers["Lambda-Runtime-Aws-Request-Id"]
        path = f"/2018-06-01/runtime/invocation/{request_id}"
        try:
            body, path = handler(event), f"{path}/response"
        except Exception as error:  # what a handler raises is the invocation's error, not the runtime's
            body, path = {"errorMessage": str(error), "errorType": type(error).__name__}, f"{path}/error"
        api.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        api.getresponse().read()


if __name__ == "__main__":
    main()
