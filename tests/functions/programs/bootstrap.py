"""A minimal runtime for handlers that start other programs.

It loads the module that WORKLOAD names, calls `start()` in Init and `handle(event)` for each event.
"""

import http.client
import importlib
import json
import os
import time

API = os.environ["AWS_LAMBDA_RUNTIME_API"]
NEXT = "/2018-06-01/runtime/invocation"


def main():
    program = importlib.import_module(os.environ["WORKLOAD"])
    program.start()
    connection = http.client.HTTPConnection(API)
    while True:
        connection.request("GET", f"{NEXT}/next")
        response = connection.getresponse()
        event = json.loads(response.read())
        # The extension reads the counters now. CPU time before that counts for the previous invocation.
        time.sleep(0.02)
        request_id = response.headers["Lambda-Runtime-Aws-Request-Id"]
        try:
            path, body = f"{NEXT}/{request_id}/response", program.handle(event)
        except Exception as error:
            path = f"{NEXT}/{request_id}/error"
            body = {"errorType": type(error).__name__, "errorMessage": str(error)}
        connection.request("POST", path, json.dumps(body))
        connection.getresponse().read()


# Children that Python starts anew import this file.
if __name__ == "__main__":
    main()
