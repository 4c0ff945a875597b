"""Compares requests to Lambda with botocore's service model.

Reads a JSON list of {"method", "path", "query", "body"} from standard input. Each request must be one of an operation of
the model, with members of its input only, valid by botocore's validation, and equal to what botocore sends for the same
members.
"""

import json
import re
import sys
from urllib.parse import parse_qsl, unquote

from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.serialize import create_serializer
from botocore.validate import ParamValidator

model = ServiceModel(Loader().load_service_model("lambda", "service-2"))
serializer = create_serializer(model.metadata["protocol"])


def find(method, path, query):
    """The operation with this method, path and fixed part of the query, and the members in the path."""
    # An operation with a fixed query comes before one without.
    operations = [model.operation_model(name) for name in model.operation_names]
    for operation in sorted(operations, key=lambda operation: "?" not in operation.http["requestUri"]):
        template, _, fixed = operation.http["requestUri"].partition("?")
        if operation.http["method"] != method or not set(parse_qsl(fixed)) <= set(parse_qsl(query)):
            continue
        template = template.rstrip("/")
        pattern = re.sub(r"\\\{(\w+)(?:\\\+)?\\\}", r"(?P<\1>[^/]+)", re.escape(template))
        match = re.fullmatch(pattern, path.rstrip("/"))
        if match:
            in_path = {key: unquote(value) for key, value in match.groupdict().items()}
            return operation, in_path, dict(parse_qsl(fixed))
    raise SystemExit(f"no operation for {method} {path}")


def convert(shape, value):
    """A query parameter as its type."""
    return {"integer": int, "long": int, "boolean": lambda text: text == "true"}.get(shape.type_name, str)(value)


seen = set()
for request in json.load(sys.stdin):
    operation, in_path, fixed = find(request["method"], request["path"], request["query"])
    members = operation.input_shape.members
    by_location = {}
    for name, shape in members.items():
        location = shape.serialization.get("location", "body")
        by_location[(location, shape.serialization.get("name", name))] = (name, shape)
    parameters = {}
    found = [("uri", key, value) for key, value in in_path.items()]
    pairs = parse_qsl(request["query"], keep_blank_values=True)
    found += [("querystring", key, value) for key, value in pairs if key not in fixed]
    found += [("body", key, value) for key, value in json.loads(request["body"] or "{}").items()]
    for location, key, value in found:
        if (location, key) not in by_location:
            raise SystemExit(f"{operation.name} has no member {key} in the {location}")
        name, shape = by_location[(location, key)]
        parameters[name] = value if location == "body" else convert(shape, value)
    report = ParamValidator().validate(parameters, operation.input_shape)
    if report.has_errors():
        raise SystemExit(f"{operation.name}: {report.generate_report()}")
    sent = serializer.serialize_to_request(parameters, operation)
    body = json.loads(sent["body"] or "{}") if request["body"] else {}
    if (sent["method"], body) != (request["method"], json.loads(request["body"] or "{}")):
        raise SystemExit(f"{operation.name}: botocore sends {sent}, not {request}")
    if sent["url_path"].split("?")[0].rstrip("/") != request["path"].rstrip("/"):
        raise SystemExit(f"{operation.name}: botocore uses {sent['url_path']}, not {request['path']}")
    seen.add(operation.name)
print(" ".join(sorted(seen)))
