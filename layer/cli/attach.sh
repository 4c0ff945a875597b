#!/usr/bin/env bash
# Publishes the layer's zip and attaches it to one function, keeping its other layers and variables.
#
#   attach.sh ZIP x86_64|arm64 FUNCTION COLLECTOR_URL    (the key comes from the variable TAILOR_API_KEY)
set -euo pipefail

if [ $# -ne 4 ] || [ -z "${TAILOR_API_KEY:-}" ]; then
    sed -n '2,4s/^# \{0,1\}//p' "$0" >&2
    exit 64
fi
zip=$1 architecture=$2 function=$3 endpoint=$4

found=$(aws lambda get-function-configuration --function-name "$function" --query 'Architectures[0]' --output text)
if [ "$found" != "$architecture" ]; then
    echo "error: $function is $found, the layer is $architecture: build the zip for $found" >&2
    exit 65
fi

layer=$(aws lambda publish-layer-version --layer-name "tailor-extension-$architecture" \
    --zip-file "fileb://$zip" --compatible-architectures "$architecture" --license-info Apache-2.0 \
    --query LayerVersionArn --output text)

# Both lists are replaced as a whole by an update, so what is there is read first.
layers=$(aws lambda get-function-configuration --function-name "$function" \
    --query 'Layers[].Arn' --output text | tr '\t' '\n' | grep -v ':layer:tailor-extension-' | grep -v '^None$' || true)
environment=$(aws lambda get-function-configuration --function-name "$function" \
    --query 'Environment.Variables' --output json |
    ENDPOINT=$endpoint python3 -c '
import json, os, sys
variables = json.load(sys.stdin) or {}
variables |= {"TAILOR_ENDPOINT": os.environ["ENDPOINT"], "TAILOR_API_KEY": os.environ["TAILOR_API_KEY"]}
print(json.dumps({"Variables": variables}))')

# shellcheck disable=SC2086 # one word for each layer is wanted
aws lambda update-function-configuration --function-name "$function" \
    --layers $layers "$layer" --environment "$environment" --query '[FunctionName,LastUpdateStatus]' --output text
