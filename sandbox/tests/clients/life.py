"""The life of a function through boto3: create, invoke, update, publish, alias, tags, concurrency, delete."""

import base64
import io
import json
import os
import time
import zipfile

import boto3
from botocore.exceptions import ClientError

client = boto3.client("lambda")
bootstrap = open(os.path.join(os.path.dirname(__file__), "bootstrap.sh"), "rb").read()


def packed(comment=b""):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo("bootstrap")
        entry.external_attr = 0o755 << 16
        archive.writestr(entry, bootstrap + comment)
    return buffer.getvalue()


def refused(code, call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        assert error.response["Error"]["Code"] == code, error
    else:
        raise AssertionError(f"{code} expected")


def answer(name, **arguments):
    response = client.invoke(FunctionName=name, Payload=b"{}", **arguments)
    assert "FunctionError" not in response, response["Payload"].read()
    return json.load(response["Payload"]), response


base = {
    "FunctionName": "f",
    "Runtime": "provided.al2023",
    "Handler": "bootstrap",
    "Role": "arn:aws:iam::123456789012:role/r",
    "Timeout": 20,
    "Environment": {"Variables": {"KEY": "value"}},
    "Tags": {"team": "a"},
}
created = client.create_function(Code={"ZipFile": packed()}, **base)
assert created["State"] == "Pending", created
refused("ResourceConflictException", client.create_function, Code={"ZipFile": packed()}, **base)
client.get_waiter("function_active_v2").wait(FunctionName="f", WaiterConfig={"Delay": 1})
body, response = answer("f", LogType="Tail")
assert body == "$LATEST 128" and response["ExecutedVersion"] == "$LATEST"
assert "REPORT RequestId" in base64.b64decode(response["LogResult"]).decode()
assert client.invoke(FunctionName="f", InvocationType="Event", Payload=b"{}")["StatusCode"] == 202
assert client.invoke(FunctionName="f", InvocationType="DryRun")["StatusCode"] == 204

one = client.publish_version(FunctionName="f")
assert one["Version"] == "1" and one["FunctionArn"].endswith(":f:1")
revision = client.get_function_configuration(FunctionName="f")["RevisionId"]
refused("PreconditionFailedException", client.update_function_configuration, FunctionName="f", MemorySize=512, RevisionId="x")
client.update_function_configuration(FunctionName="f", MemorySize=512, RevisionId=revision)
client.get_waiter("function_updated_v2").wait(FunctionName="f", WaiterConfig={"Delay": 1})
assert client.publish_version(FunctionName="f")["Version"] == "2"

updated = client.update_function_code(FunctionName="f", ZipFile=packed(b"# changed\n"))
assert updated["CodeSha256"] != created["CodeSha256"]
client.get_waiter("function_updated_v2").wait(FunctionName="f", WaiterConfig={"Delay": 1})
assert answer("f")[0] == "$LATEST 512"

alias = client.create_alias(FunctionName="f", Name="live", FunctionVersion="1")
assert answer("f", Qualifier="live")[0] == "1 128"
client.update_alias(
    FunctionName="f", Name="live", RevisionId=alias["RevisionId"], RoutingConfig={"AdditionalVersionWeights": {"2": 1.0}}
)
assert answer("f:live")[0] == "2 512"
assert client.get_alias(FunctionName="f", Name="live")["RoutingConfig"]["AdditionalVersionWeights"] == {"2": 1.0}
assert [alias["Name"] for alias in client.list_aliases(FunctionName="f")["Aliases"]] == ["live"]
assert len(client.list_versions_by_function(FunctionName="f")["Versions"]) == 3

client.put_provisioned_concurrency_config(FunctionName="f", Qualifier="2", ProvisionedConcurrentExecutions=1)
for _ in range(100):
    status = client.get_provisioned_concurrency_config(FunctionName="f", Qualifier="2")
    if status["Status"] == "READY":
        break
    time.sleep(0.1)
assert status["AllocatedProvisionedConcurrentExecutions"] == 1, status
client.delete_provisioned_concurrency_config(FunctionName="f", Qualifier="2")

client.put_function_concurrency(FunctionName="f", ReservedConcurrentExecutions=0)
try:
    boto3.client("lambda", config=boto3.session.Config(retries={"max_attempts": 0})).invoke(FunctionName="f")
except ClientError as error:
    assert error.response["Error"]["Code"] == "TooManyRequestsException", error
else:
    raise AssertionError("throttling expected")
client.delete_function_concurrency(FunctionName="f")

arn = created["FunctionArn"]
client.tag_resource(Resource=arn, Tags={"x": "y"})
client.untag_resource(Resource=arn, TagKeys=["team"])
assert client.list_tags(Resource=arn)["Tags"] == {"x": "y"}
assert client.get_account_settings()["AccountUsage"]["FunctionCount"] == 2
names = [function["FunctionName"] for page in client.get_paginator("list_functions").paginate() for function in page["Functions"]]
assert names == ["f", "other"], names

refused("ResourceConflictException", client.delete_function, FunctionName="f", Qualifier="1")
client.delete_alias(FunctionName="f", Name="live")
client.delete_function(FunctionName="f", Qualifier="1")
client.delete_function(FunctionName="f")
refused("ResourceNotFoundException", client.get_function, FunctionName="f")

# Tenants are unknown to older versions of boto3.
if "TenantId" in client.meta.service_model.operation_model("Invoke").input_shape.members:
    isolation = {"TenantIsolationMode": "PER_TENANT"}
    isolated = client.create_function(Code={"ZipFile": packed()}, TenancyConfig=isolation, **{**base, "FunctionName": "t"})
    assert isolated["TenancyConfig"] == isolation, isolated
    client.get_waiter("function_active_v2").wait(FunctionName="t", WaiterConfig={"Delay": 1})
    refused("InvalidParameterValueException", client.invoke, FunctionName="t")
    assert answer("t", TenantId="blue")[0] == "$LATEST 128"
    client.delete_function(FunctionName="t")
print("done")
