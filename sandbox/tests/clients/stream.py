"""`invoke_with_response_stream` through boto3, against a runtime that streams parts, or fails in the middle."""

import base64
import io
import json
import sys
import time
import zipfile

import boto3

BOOTSTRAP = f"#!{sys.executable}\n" + '''
import base64, os, socket, time

host, port = os.environ["AWS_LAMBDA_RUNTIME_API"].split(":")


def talk(head, body=()):
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + b"\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
        for part in body:
            connection.sendall(part)
        return connection.makefile("rb").read()


while True:
    head, _, event = talk("GET /2018-06-01/runtime/invocation/next HTTP/1.1").partition(b"\\r\\n\\r\\n")
    headers = dict(line.lower().split(": ", 1) for line in head.decode().splitlines()[1:])

    def parts():
        for part in (b"one ", b"two ", b"three"):
            time.sleep(0.05)
            yield b"%x\\r\\n%s\\r\\n" % (len(part), part)
        yield b"0\\r\\n"
        if b"fail" in event:
            body = base64.b64encode(b'{"errorMessage": "boom"}')
            yield b"Lambda-Runtime-Function-Error-Type: Function.Boom\\r\\n"
            yield b"Lambda-Runtime-Function-Error-Body: " + body + b"\\r\\n"
        yield b"\\r\\n"

    request = f"/2018-06-01/runtime/invocation/{headers['lambda-runtime-aws-request-id']}/response"
    mode = "Lambda-Runtime-Function-Response-Mode: streaming\\r\\nTransfer-Encoding: chunked"
    talk(f"POST {request} HTTP/1.1\\r\\n{mode}", parts())
'''


def packed():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo("bootstrap")
        entry.external_attr = 0o755 << 16
        archive.writestr(entry, BOOTSTRAP)
    return buffer.getvalue()


client = boto3.client("lambda")
client.create_function(
    FunctionName="s",
    Runtime="provided.al2023",
    Handler="bootstrap",
    Role="arn:aws:iam::123456789012:role/r",
    Timeout=20,
    Code={"ZipFile": packed()},
)
client.get_waiter("function_active_v2").wait(FunctionName="s", WaiterConfig={"Delay": 1})


def streamed(payload, **arguments):
    response = client.invoke_with_response_stream(FunctionName="s", Payload=json.dumps(payload), **arguments)
    assert response["ExecutedVersion"] == "$LATEST", response
    chunks, times = [], []
    for event in response["EventStream"]:
        if "PayloadChunk" in event:
            chunks.append(event["PayloadChunk"]["Payload"])
            times.append(time.monotonic())
        else:
            return b"".join(chunks), times, event["InvokeComplete"]
    raise AssertionError("no InvokeComplete")


text, times, complete = streamed({}, LogType="Tail")
assert text == b"one two three", text
assert times[-1] - times[0] > 0.05, times
assert "ErrorCode" not in complete, complete
assert "REPORT RequestId" in base64.b64decode(complete["LogResult"]).decode()

text, _, complete = streamed({"fail": True})
assert text == b"one two three", text
assert complete["ErrorCode"] == "Function.Boom", complete
assert json.loads(complete["ErrorDetails"]) == {"errorMessage": "boom"}

# A caller of `invoke` gets the buffered response.
assert client.invoke(FunctionName="s", Payload=b"{}")["Payload"].read() == b"one two three"
print("done")
