"""Parses files before and after their patch with the parsers of other projects, and compares the two.

Standard input is a list of {"path", "before", "after", "memory", "typescript"}. Whatever is different beside memory
sizes is an error.
"""

import ast
import io
import json
import subprocess
import sys
from collections import Counter

import hcl2
import yaml

KEYS = {"MemorySize", "memorySize", "memory_size", "memory"}

PARSE_TYPESCRIPT = """
const ts = require(process.argv[1]);
const keys = new Set(["memorySize", "memory"]);
const read = ({ path, text }) => {
  const file = ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true);
  if (file.parseDiagnostics.length) throw new Error(path + ": " + file.parseDiagnostics[0].messageText);
  const nodes = [], sizes = [];
  const visit = (node) => {
    if (ts.isPropertyAssignment(node) && keys.has(node.name.getText())) {
      sizes.push(node.initializer.getText());
      return;
    }
    nodes.push(ts.SyntaxKind[node.kind], node.getChildCount() ? "" : node.getText());
    node.forEachChild(visit);
  };
  file.forEachChild(visit);
  return { nodes, sizes };
};
const files = JSON.parse(require("fs").readFileSync(0, "utf8"));
console.log(JSON.stringify(files.map(read)));
"""


class Loader(yaml.SafeLoader):
    """YAML with the tags of CloudFormation."""


def tagged(loader, suffix, node):
    construct = {
        yaml.ScalarNode: loader.construct_scalar,
        yaml.SequenceNode: loader.construct_sequence,
        yaml.MappingNode: loader.construct_mapping,
    }[type(node)]
    return [suffix, construct(node)]


Loader.add_multi_constructor("!", tagged)


def plain(value, sizes):
    """The value without memory sizes, which go to `sizes`."""
    if isinstance(value, dict):
        sizes += [value[key] for key in value if key in KEYS]
        return {key: plain(inner, sizes) for key, inner in value.items() if key not in KEYS}
    if isinstance(value, list):
        return [plain(inner, sizes) for inner in value]
    return value


def python(text):
    sizes = []
    tree = ast.parse(text)
    for call in ast.walk(tree):
        if isinstance(call, ast.Call):
            sizes += [keyword.value.value for keyword in call.keywords
                      if keyword.arg in KEYS and isinstance(keyword.value, ast.Constant)]
            call.keywords = [keyword for keyword in call.keywords if keyword.arg not in KEYS]
    return ast.dump(tree), sizes


def read(path, text):
    sizes = []
    if path.endswith(".py"):
        return python(text)
    if path.endswith((".yml", ".yaml")):
        return plain(list(yaml.load_all(text, Loader)), sizes), sizes
    if path.endswith(".json"):
        return plain(json.loads(text), sizes), sizes
    return plain(hcl2.load(io.StringIO(text)), sizes), sizes


def main():
    files = json.load(sys.stdin)
    programs = [file for file in files if file["path"].endswith((".ts", ".js"))]
    texts = [{"path": file["path"], "text": file[state]} for file in programs for state in ("before", "after")]
    run = subprocess.run(["node", "-e", PARSE_TYPESCRIPT, sys.argv[1]], input=json.dumps(texts),
                         capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    parsed = json.loads(run.stdout)
    for file in files:
        path = file["path"]
        if file in programs:
            at = 2 * programs.index(file)
            (before, old), (after, new) = [(one["nodes"], one["sizes"]) for one in parsed[at:at + 2]]
        else:
            (before, old), (after, new) = read(path, file["before"]), read(path, file["after"])
        assert before == after, f"{path}: more than a memory size is different"
        changed = Counter(map(str, new)) - Counter(map(str, old))
        digits = ["".join(c for c in size if c.isdigit()) for size in changed.elements()]
        expected = (str(file["memory"]), str(file["memory"] // 1024))
        assert len(digits) == 1 and digits[0] in expected, f"{path}: the sizes {old} became {new}"
    print(len(files))


main()
