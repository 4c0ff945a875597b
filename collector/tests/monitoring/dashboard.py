# Reads a dashboard with Grafana's library, and compares what it writes with the file: what the library does not know is lost.
import json
import sys

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

register_default_plugins()
with open(sys.argv[1]) as file:
    document = json.load(file)
written = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(document)))


def compare(expected, found, where):
    """Every value of the file is in what the library wrote."""
    if isinstance(expected, dict):
        for key, value in expected.items():
            assert isinstance(found, dict) and key in found, f"{where}: Grafana's library does not know `{key}`"
            compare(value, found[key], f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(expected) == len(found), f"{where}: {len(found)} of {len(expected)} entries"
        for index, value in enumerate(expected):
            compare(value, found[index], f"{where}[{index}]")
    else:
        assert expected == found, f"{where}: {expected} became {found}"


compare(document, written, "dashboard")
ids = [panel["id"] for panel in document["panels"]]
assert len(ids) == len(set(ids)), "two panels have the same id"
print(f"{len(ids)} panels")
