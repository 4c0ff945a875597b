"""A handler and a minimal runtime, which fetches each event from the Runtime API and posts the response.

WORKLOAD selects the work; the default is `mixed`.
"""

import hashlib
import http.client
import json
import os
import random
import urllib.request

API = os.environ["AWS_LAMBDA_RUNTIME_API"]
SERVER = os.environ.get("SERVER")


def fetch(delay_ms):
    with urllib.request.urlopen(f"http://{SERVER}/{delay_ms}", timeout=10) as answer:
        return answer.read()


def mixed(event):
    """Waits for a response, then sorts, serialises and parses numbers."""
    fetch(event.get("delay_ms", 30))
    numbers = [random.random() for _ in range(event.get("items", 20_000))]
    text = json.dumps(sorted(numbers))
    return {"bytes": len(text), "items": len(json.loads(text))}


def compute(event):
    """Arithmetic in the interpreter on one thread."""
    state = 1
    for _ in range(event.get("rounds", 300_000)):
        state = (state * 1_103_515_245 + 12_345) % 2_147_483_648
    return {"state": state}


def digest(event):
    """Hashing in native code."""
    block = bytes(1 << 20)
    return {"digest": [hashlib.sha256(block).hexdigest() for _ in range(event.get("blocks", 40))][-1]}


def chat(event):
    """Many short CPU bursts between requests with a delay of 1 ms."""
    return {"bytes": sum(len(json.dumps(list(fetch(1)))) for _ in range(event.get("requests", 25)))}


def allocate(event):
    """Allocation of many objects, and garbage collection."""
    rows = [{"id": i, "name": f"row-{i}"} for i in range(event.get("items", 60_000))]
    return {"items": len({row["name"] for row in rows})}


def profile(event):
    """`compute` with a profile."""
    from profiles import profiled

    with profiled("compute"):
        return compute(event)


WORKLOADS = {"compute": compute, "digest": digest, "chat": chat, "allocate": allocate, "profile": profile}
handler = WORKLOADS.get(os.environ.get("WORKLOAD", ""), mixed)


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
        except Exception as error:  # an exception of the handler is reported as the invocation's error
            body, path = {"errorMessage": str(error), "errorType": type(error).__name__}, f"{path}/error"
        api.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        api.getresponse().read()


if __name__ == "__main__":
    main()
