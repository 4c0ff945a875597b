#!/usr/bin/env python3
"""A runtime that sends valid and invalid requests to the Runtime API, and records the responses."""
import http.client
import json
import os

MANAGED = os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "lambda-managed-instances"
API = os.environ["AWS_LAMBDA_RUNTIME_API"]
FOLDER = os.environ["PROBE_RECORD"]
RUNTIME = "/2018-06-01/runtime"


def call(step, method, path, body=None, **headers):
    connection = http.client.HTTPConnection(API)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    text = response.read().decode()
    try:
        answer = json.loads(text)
    except ValueError:
        answer = text
    names = sorted(name.lower() for name, _ in response.getheaders() if name.lower().startswith("lambda-"))
    recorded = {"step": step, "status": response.status, "headers": names, "body": answer}
    with open(f"{FOLDER}/runtime.jsonl", "a") as file:
        file.write(json.dumps(recorded) + "\n")
    return response


def invocation(number, method="GET"):
    response = call(f"invocation {number}", method, f"{RUNTIME}/invocation/next")
    identifier = response.getheader("Lambda-Runtime-Aws-Request-Id")
    return f"{RUNTIME}/invocation/{identifier}"


print("a line of the function", flush=True)
call("an unknown path", "GET", f"{RUNTIME}/nonsense")

one = invocation(1)
call("response to an unknown invocation", "POST", f"{RUNTIME}/invocation/nobody/response", "{}")
call("response", "POST", f"{one}/response", '{"answer":1}')
call("response again", "POST", f"{one}/response", '{"answer":2}')
call("error after the response", "POST", f"{one}/error", "{}")

two = invocation(2)
error = json.dumps({"errorType": "Function.Sulks", "errorMessage": "no", "stackTrace": []})
call("error", "POST", f"{two}/error", error, Lambda_Runtime_Function_Error_Type="Function.Sulks")

three = invocation(3)
call("error of an unknown type", "POST", f"{three}/error", error, Lambda_Runtime_Function_Error_Type="whatever it is")

four = invocation(4)
if MANAGED:
    # After this request, the emulator does not accept further requests of an on-demand function's runtime.
    call("response with an unknown mode", "POST", f"{four}/response", "{}", Lambda_Runtime_Function_Response_Mode="song")
else:
    call("response at last", "POST", f"{four}/response", '"four"')
invocation(5)
