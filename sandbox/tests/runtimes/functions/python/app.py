"""The same operations as the handlers in other languages: echo, fail, sleep, use memory."""

import time

invocations = 0


def handler(event, context):
    global invocations
    invocations += 1
    match event.get("do"):
        case "fail":
            raise ValueError("boom")
        case "sleep":
            time.sleep(event["seconds"])
        case "memory":
            return len(bytes(b"x" * (event["mb"] * 1024 * 1024)))
    return {
        "invocations": invocations,
        "request_id": context.aws_request_id,
        "memory_mb": context.memory_limit_in_mb,
    }
