#!/usr/bin/env bash
# Removes the layer and its variables from one function, keeping its other layers and variables. Needs the AWS CLI,
# python3, and function.py beside it.
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
# The folder of function.py. Only python3 below gets it, because the AWS CLI is a Python program as well.
scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# The function's variables are secrets: they go through files that no one else reads, never through arguments, which every
# user of the machine sees.
umask 077
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

aws lambda get-function-configuration --function-name "$function" --output json >"$work/function.json"
PYTHONPATH=$scripts PYTHONDONTWRITEBYTECODE=1 python3 - "$work" <<'PYTHON'
import sys
from function import Function

function = Function(sys.argv[1])
variables = {key: value for key, value in function.variables().items() if not key.startswith("TAILOR_")}
function.update(function.other_layers, variables)
PYTHON

if [ -e "$work/request.json" ]; then
    aws lambda update-function-configuration --cli-input-json "file://$work/request.json" \
        --query '[FunctionName,LastUpdateStatus]' --output text
else
    echo "$function has neither the layer nor its variables"
fi
