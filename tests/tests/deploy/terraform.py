"""Checks Terraform modules against the provider's schema, without the provider.

usage: terraform.py SCHEMA FOLDER...

SCHEMA is the folder of the npm package @cdktf/provider-aws, which is generated from the provider's schema: each resource has an interface
whose properties are its attributes and blocks, and the link above a property has its name in Terraform. Checked are: known
resources, attributes and blocks; those that are required; the variables of modules in other folders, which are checked only when they
are a FOLDER themselves; references to variables, locals, resources, data sources, and to attributes of these and outputs of modules.
It prints one line per fault.
"""

import re
import sys
from pathlib import Path

import hcl2
from hcl2.utils import SerializationOptions

# What every block of a kind may have.
META = {"count", "for_each", "depends_on", "provider", "lifecycle"}
PROPERTY = re.compile(r"(?:#(\w+) \w+#\w+\}[\s\S]*?\*/\s*)readonly (\w+)(\??): ([^;]+);")
# Arguments of a newer provider than that of the package. The module requires that provider.
NEWER = {"LambdaPermissionConfig": {"invoked_via_function_url"}}
REFERENCE = re.compile(r"(?<![\w.\"/-])([a-z][a-z0-9_]*)\.([A-Za-z_][\w-]*)(?:\[[^\]]*\])?(?:\.(\w+))?(?:\.(\w+))?")

faults = []


class Schema:
    def __init__(self, package):
        self.package = Path(package)
        self.known = {}

    def file(self, kind):
        """The interfaces of one kind of resource, such as `lambda_function` or `data_aws_subnet`; None when there is none."""
        if kind not in self.known:
            path = self.package / "lib" / kind.replace("_", "-") / "index.d.ts"
            self.known[kind] = self.parse(path.read_text()) if path.exists() else None
        return self.known[kind]

    @staticmethod
    def parse(text):
        interfaces = {}
        for match in re.finditer(r"export interface (\w+) (?:extends [\w.]+ )?\{([\s\S]*?)\n\}", text):
            properties = {}
            for name, _, optional, kind in PROPERTY.findall(match[2]):
                properties[name] = (not optional, kind.strip())
            interfaces[match[1]] = properties
        getters = set(re.findall(r"get (\w+)\(\)", text))
        config = next(name for name in interfaces if name.endswith("Config") and "extends cdktf" in text.split(name)[1][:60])
        return {"interfaces": interfaces, "config": config, "getters": getters}


def camel(name):
    head, *tail = name.split("_")
    return head + "".join(part.capitalize() for part in tail)


def check_block(where, schema, interface, content):
    properties = schema["interfaces"][interface]
    present = {name for name in content if not name.startswith("__") and name not in META}
    if "dynamic" in present:
        faults.append(f"{where}: dynamic blocks are not checked")
    for name in sorted(present - set(properties) - NEWER.get(interface, set())):
        faults.append(f"{where}: `{name}` is not an argument")
    for name, (required, _) in sorted(properties.items()):
        if required and name not in present:
            faults.append(f"{where}: `{name}` is missing")
    for name in present & set(properties):
        kind = properties[name][1].split("|")[0].strip()
        nested = kind.removesuffix("[]").strip()
        if nested in schema["interfaces"]:
            blocks = content[name] if isinstance(content[name], list) else [content[name]]
            for block in blocks:
                if isinstance(block, dict):
                    check_block(f"{where}.{name}", schema, nested, block)
        elif isinstance(content[name], list) and content[name] and isinstance(content[name][0], dict):
            faults.append(f"{where}: `{name}` is not a block")


def strings(value):
    if isinstance(value, dict):
        for key, inner in value.items():
            if not key.startswith("__"):
                yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
    elif isinstance(value, str):
        yield value


def expressions(text):
    """The text without what is only quoted: names in a quoted text are references only inside ${...}."""
    if text.startswith("${") and text.endswith("}"):
        text = text[2:-1]
    return re.sub(r'"((?:[^"$]|\$\{[^}]*\}|\$)*)"', lambda quoted: " ".join(re.findall(r"\$\{([^}]*)\}", quoted[1])), text)


def unquoted(text):
    return text.strip('"')


def load(folder):
    """The blocks of a module by their kind."""
    module = {}
    for path in sorted(folder.glob("*.tf")):
        with path.open() as file:
            parsed = hcl2.load(file, serialization_options=SerializationOptions(explicit_blocks=False))
        for name, blocks in parsed.items():
            module.setdefault(name, []).extend(blocks)
    return module


def check_call(where, folder, content):
    """Checks the use of a module in another folder. Returns the module's outputs."""
    source = unquoted(content.get("source", ""))
    child = (folder / source).resolve()
    if not source.startswith(".") or not any(child.glob("*.tf")):
        faults.append(f"{where}: there is no module in `{source}`")
        return set()
    module = load(child)
    variables = {unquoted(name): body for block in module.get("variable", []) for name, body in block.items()}
    present = {name for name in content if not name.startswith("__") and name not in META | {"source", "providers"}}
    for name in sorted(present - set(variables)):
        faults.append(f"{where}: `{name}` is not a variable of the module")
    for name, body in sorted(variables.items()):
        if "default" not in body and name not in present:
            faults.append(f"{where}: `{name}` is missing")
    return {unquoted(name) for block in module.get("output", []) for name in block}


def check_module(folder, schema):
    module = load(folder)
    declared = {"var": set(), "local": set(), "data": set(), "resource": set()}
    kinds = {}
    for block in module.get("variable", []):
        declared["var"].update(map(unquoted, block))
    for block in module.get("locals", []):
        declared["local"].update(map(unquoted, block))
    for section in ("resource", "data"):
        for block in module.get(section, []):
            for kind, named in block.items():
                kind = unquoted(kind)
                for name, content in named.items():
                    if name.startswith("__"):
                        continue
                    address = f"{kind}.{unquoted(name)}"
                    declared[section].add(address)
                    plain = kind.removeprefix("aws_")
                    file = schema.file(plain if section == "resource" else f"data_aws_{plain}")
                    kinds[(section, address)] = file
                    where = f"{folder.name}: {section} {address}"
                    if file is None:
                        faults.append(f"{where}: there is no such kind")
                    else:
                        check_block(where, file, file["config"], content)
    modules = {}
    for block in module.get("module", []):
        for name, content in block.items():
            modules[unquoted(name)] = check_call(f"{folder.name}: module {unquoted(name)}", folder, content)
    used = set()
    for text in strings([blocks for name, blocks in module.items() if name != "terraform"]):
        code = expressions(text)
        for root, first, second, third in REFERENCE.findall(code):
            if root in ("var", "local"):
                used.add(f"{root}.{first}")
                if first not in declared[root]:
                    faults.append(f"{folder.name}: `{root}.{first}` is not declared")
            elif root == "module":
                if first not in modules:
                    faults.append(f"{folder.name}: `module.{first}` is not declared")
                elif second and second not in modules[first]:
                    faults.append(f"{folder.name}: `module.{first}` has no output `{second}`")
            elif root == "data" or root.startswith("aws_"):
                section, address, attribute = (
                    ("data", f"{first}.{second}", third) if root == "data" else ("resource", f"{root}.{first}", second)
                )
                if address not in declared[section]:
                    faults.append(f"{folder.name}: `{section}` has no `{address}`")
                elif attribute and kinds[(section, address)] and camel(attribute) not in kinds[(section, address)]["getters"]:
                    faults.append(f"{folder.name}: `{address}` has no attribute `{attribute}`")
    for name in sorted(declared["var"]):
        if f"var.{name}" not in used:
            faults.append(f"{folder.name}: variable `{name}` is not used")
    return len(kinds)


schema = Schema(sys.argv[1])
count = sum(check_module(Path(folder), schema) for folder in sys.argv[2:])
print("\n".join(faults) if faults else f"{count} resources and data sources are valid")
sys.exit(bool(faults))
