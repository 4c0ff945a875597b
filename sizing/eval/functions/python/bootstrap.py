"""A minimal runtime. WORKLOAD names a function of `workloads.py`; one named `start_WORKLOAD` runs in Init."""

import http.client
import json
import os

import workloads

NEXT = "/2018-06-01/runtime/invocation"


def main():
    name = os.environ["WORKLOAD"]
    handler = getattr(workloads, name)
    getattr(workloads, f"start_{name}", lambda: None)()
    api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    while True:
        api.request("GET", f"{NEXT}/next")
        answer = api.getresponse()
        event = json.loads(answer.read() or b"{}")
        path = f"{NEXT}/{answer.headers['Lambda-Runtime-Aws-Request-Id']}"
        try:
            path, body = f"{path}/response", handler(event)
        except Exception as error:
            path, body = f"{path}/error", {"errorMessage": str(error), "errorType": type(error).__name__}
        api.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        api.getresponse().read()


if __name__ == "__main__":
    main()
