#!/usr/bin/env bash
# Removes the layer and its variables from one function, keeping its other layers and variables. Needs the AWS CLI and
# python3.
#
#   detach.sh FUNCTION
#
# The variables are TAILOR_ENDPOINT, TAILOR_API_KEY, TAILOR_API_KEY_SECRET and all others that begin with TAILOR_. What else
# was made for the layer stays: its published versions, the secret, and the permission secretsmanager:GetSecretValue of
# the function's role.
set -euo pipefail

if [ $# -ne 1 ]; then
    sed -n '5s/^# *//p' "$0" >&2
    exit 64
fi
function=$1
export AWS_PAGER=

# The function's variables are secrets: they go through files that no one else reads, never through arguments, which every
# user of the machine sees.
umask 077
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

aws lambda get-function-configuration --function-name "$function" --output json >"$work/function.json"
python3 - "$work" <<'PYTHON'
import json, re, sys

folder = sys.argv[1]
with open(f"{folder}/function.json") as file:
    function = json.load(file)

# An update replaces all variables, so they must be known. Those that a customer-managed key encrypts are left out of the
# answer for a caller who may not decrypt them.
environment = function.get("Environment", {"Variables": {}})
if "Error" in environment or "Variables" not in environment:
    reason = environment.get("Error", {}).get("Message", "Lambda does not show them")
    name = function["FunctionName"]
    sys.exit(f"error: the variables of {name} cannot be read and would be lost: {reason.rstrip('.')}; nothing was changed")

attached = [entry["Arn"] for entry in function.get("Layers") or []]
is_ours = re.compile(r":layer:tailor-extension(-x86_64|-arm64)?:\d+$").search
layers = [arn for arn in attached if not is_ours(arn)]
variables = {key: value for key, value in environment["Variables"].items() if not key.startswith("TAILOR_")}
if layers != attached or variables != environment["Variables"]:
    # With the revision that was read, so that a change by others in between is refused, not overwritten.
    request = {"FunctionName": function["FunctionArn"], "RevisionId": function["RevisionId"], "Layers": layers,
               "Environment": {"Variables": variables}}
    with open(f"{folder}/request.json", "w") as file:
        json.dump(request, file)
PYTHON

if [ -e "$work/request.json" ]; then
    aws lambda update-function-configuration --cli-input-json "file://$work/request.json" \
        --query '[FunctionName,LastUpdateStatus]' --output text
else
    echo "$function has neither the layer nor its variables"
fi
