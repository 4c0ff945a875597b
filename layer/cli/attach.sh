#!/usr/bin/env bash
# Publishes the layer's zip and attaches it to one function, keeping its other layers and variables; what is there
# already is not done again. Needs the AWS CLI, python3, and function.py beside it.
#
#   TAILOR_API_KEY=KEY attach.sh ZIP FUNCTION COLLECTOR_URL
#   TAILOR_API_KEY_SECRET=ARN attach.sh ZIP FUNCTION COLLECTOR_URL
#
# With the ARN of a Secrets Manager secret that contains the key, the function's role must allow
# secretsmanager:GetSecretValue on it. The script does not change roles.
set -euo pipefail

if [ $# -ne 3 ] || [ -z "${TAILOR_API_KEY:-}${TAILOR_API_KEY_SECRET:-}" ]; then
    sed -n '5,6s/^# *//p' "$0" >&2
    exit 64
fi
zip=$1 function=$2
export TAILOR_ENDPOINT=$3 AWS_PAGER=
# The folder of function.py. Only python3 below gets it, because the AWS CLI is a Python program as well.
scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export TAILOR_API_KEY=${TAILOR_API_KEY:-} TAILOR_API_KEY_SECRET=${TAILOR_API_KEY_SECRET:-}

# The key and the function's variables are secrets: they go through files that no one else reads, never through
# arguments, which every user of the machine sees.
umask 077
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# plan ZIP FOLDER [LAYER]: the layer's architecture and the zip's hash; with LAYER, the update to send as request.json,
# unless the function is so already.
plan() {
    PYTHONPATH=$scripts PYTHONDONTWRITEBYTECODE=1 python3 - "$@" <<'PYTHON'
import base64, hashlib, os, sys, zipfile
from function import Function, is_ours, stop

zip_file, folder, layer = (sys.argv[1:] + [""])[:3]
function = Function(folder)
name = function.name
if function.configuration.get("PackageType") == "Image":
    stop(f"{name} is a container image and takes no layers: see container/Dockerfile")

# What the extension was built for is in its ELF header; of another architecture it would keep the function from
# starting.
try:
    machine = zipfile.ZipFile(zip_file).read("extensions/tailor-extension")[18]
except (OSError, KeyError, IndexError, zipfile.BadZipFile) as error:
    stop(f"{zip_file} is not the layer's zip: {error}")
built, runs = {0x3E: "x86_64", 0xB7: "arm64"}.get(machine), function.configuration.get("Architectures", ["x86_64"])[0]
if built != runs:
    stop(f"{name} is {runs}, {zip_file} is {built}: take the zip for {runs}")

present, layers = function.variables(), list(function.other_layers)
place = next((at for at, arn in enumerate(function.attached) if is_ours(arn)), len(layers))
if len(layers) > 4:
    stop(f"{name} has five layers, which is all it may have")
if not layer:
    with open(zip_file, "rb") as file:
        print(built, base64.b64encode(hashlib.sha256(file.read()).digest()).decode())
    sys.exit()

layers.insert(place, layer)
# The key is in one variable: the other one is removed.
names = ("TAILOR_ENDPOINT", "TAILOR_API_KEY", "TAILOR_API_KEY_SECRET")
kept = {key: value for key, value in present.items() if key not in names}
function.update(layers, {**kept, **{key: os.environ[key] for key in names if os.environ[key]}})
PYTHON
}

aws lambda get-function-configuration --function-name "$function" --output json >"$work/function.json"
facts=$(plan "$zip" "$work")
read -r architecture digest <<<"$facts"

# The newest version is taken when it is this very zip; who may not read versions publishes one more.
layer=$(aws lambda list-layer-versions --layer-name "tailor-extension-$architecture" --no-paginate \
    --query 'LayerVersions[0].LayerVersionArn' --output text 2>"$work/refused") || layer=None
if [ "$layer" = None ] || [ "$digest" != "$(aws lambda get-layer-version-by-arn --arn "$layer" \
    --query Content.CodeSha256 --output text 2>"$work/refused")" ]; then
    layer=$(aws lambda publish-layer-version --layer-name "tailor-extension-$architecture" \
        --description "Measures, costs and right-sizes every invocation" --zip-file "fileb://$zip" \
        --compatible-architectures "$architecture" --license-info Apache-2.0 --query LayerVersionArn --output text)
fi

plan "$zip" "$work" "$layer"
if [ -e "$work/request.json" ]; then
    aws lambda update-function-configuration --cli-input-json "file://$work/request.json" \
        --query '[FunctionName,LastUpdateStatus]' --output text
else
    echo "$function has $layer and its variables already"
fi
if [ -n "$TAILOR_API_KEY_SECRET" ]; then
    echo "allow the function's role secretsmanager:GetSecretValue on $TAILOR_API_KEY_SECRET"
fi
