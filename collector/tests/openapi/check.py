# Checks an OpenAPI document, and each of its examples by its schema.
import json
import sys

from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

with open(sys.argv[1]) as file:
    document = json.load(file)
validate(document)

examples = 0


def check(part, where):
    """Checks the examples of each object that has a schema."""
    global examples
    if isinstance(part, list):
        for index, item in enumerate(part):
            check(item, f"{where}[{index}]")
    if not isinstance(part, dict):
        return
    if "example" in part and "schema" in part:
        schema = {**part["schema"], "components": document["components"]}
        errors = list(Draft202012Validator(schema).iter_errors(part["example"]))
        assert not errors, f"{where}: {errors[0].message} at {list(errors[0].absolute_path)}"
        examples += 1
    for key, value in part.items():
        if key != "example":
            check(value, f"{where}/{key}")


check(document, "")
for path, methods in document["paths"].items():
    for method, operation in methods.items():
        for name in ["operationId", "summary", "description", "responses", "security", "tags"]:
            assert name in operation, f"{method} {path} has no {name}"
assert examples > 30, examples
print(f"{examples} examples are valid")
