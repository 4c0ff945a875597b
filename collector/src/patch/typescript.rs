//! Programs in TypeScript and JavaScript.

use std::collections::BTreeMap;

use tree_sitter::Node;

use super::name::Part;
use super::program::{Argument, Arguments, Call, Expression, shortened};
use super::source::{Unparsed, children, descendants, named, parse};

/// Modules whose programs are read.
const MODULES: [&str; 6] = ["aws-cdk", "monocdk", "constructs", "pulumi", "sst", "serverless-stack"];

/// The calls of a program.
pub(super) fn calls(text: &str) -> Result<Vec<Call>, Unparsed> {
    if !MODULES.iter().any(|module| text.contains(module)) {
        return Ok(Vec::new());
    }
    let tree = parse(text, tree_sitter_typescript::LANGUAGE_TYPESCRIPT)?;
    let imports = imports(text, tree.root_node());
    let calls = descendants(tree.root_node())
        .filter(|node| ["new_expression", "call_expression"].contains(&node.kind()));
    Ok(calls.filter_map(|node| call(text, node, &imports)).collect())
}

/// The module and the exported name of each imported name.
fn imports(text: &str, root: Node<'_>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for node in descendants(root) {
        match node.kind() {
            "import_statement" => {
                let Some(module) = node.child_by_field_name("source").and_then(|n| content(text, n)) else {
                    continue;
                };
                import(text, node, &module, &mut found);
            }
            "variable_declarator" => {
                let required = node.child_by_field_name("value").and_then(|value| required(text, value));
                if let (Some(module), Some(name)) = (required, node.child_by_field_name("name")) {
                    require(text, name, &module, &mut found);
                }
            }
            _ => {}
        }
    }
    found
}

fn import(text: &str, statement: Node<'_>, module: &str, found: &mut BTreeMap<String, String>) {
    for node in descendants(statement) {
        let names: Vec<_> = named(node).map(|name| text[name.byte_range()].to_owned()).collect();
        match (node.kind(), &names[..]) {
            ("namespace_import", [name]) => drop(found.insert(name.clone(), module.to_owned())),
            ("import_specifier", [name]) => drop(found.insert(name.clone(), format!("{module}.{name}"))),
            ("import_specifier", [name, local]) => {
                drop(found.insert(local.clone(), format!("{module}.{name}")));
            }
            ("import_clause", [name, ..]) if named(node).next().is_some_and(|n| n.kind() == "identifier") => {
                found.insert(name.clone(), module.to_owned());
            }
            // `import lambda = require('…')`
            ("import_require_clause", [name, ..]) => drop(found.insert(name.clone(), module.to_owned())),
            _ => {}
        }
    }
}

fn require(text: &str, name: Node<'_>, module: &str, found: &mut BTreeMap<String, String>) {
    let of = |node: Node<'_>| text[node.byte_range()].to_owned();
    if name.kind() == "identifier" {
        found.insert(of(name), module.to_owned());
    }
    for member in named(name) {
        match member.kind() {
            "shorthand_property_identifier_pattern" => {
                found.insert(of(member), format!("{module}.{}", of(member)));
            }
            "pair_pattern" => {
                if let [key, local] = named(member).collect::<Vec<_>>()[..] {
                    found.insert(of(local), format!("{module}.{}", of(key)));
                }
            }
            _ => {}
        }
    }
}

/// The module in `require('…')`.
fn required(text: &str, value: Node<'_>) -> Option<String> {
    let function = value.child_by_field_name("function")?;
    let argument = named(value.child_by_field_name("arguments")?).next()?;
    if &text[function.byte_range()] == "require" { content(text, argument) } else { None }
}

fn call(text: &str, node: Node<'_>, imports: &BTreeMap<String, String>) -> Option<Call> {
    let callee = node.child_by_field_name("constructor").or_else(|| node.child_by_field_name("function"))?;
    let callee = text[callee.byte_range()].split_whitespace().collect::<String>();
    let (first, rest) = callee.split_at(callee.find('.').unwrap_or(callee.len()));
    let callee = imports.get(first).map_or_else(|| callee.clone(), |module| format!("{module}{rest}"));
    let mut positional = Vec::new();
    let mut arguments = None;
    for argument in named(node.child_by_field_name("arguments")?) {
        match expression(text, argument) {
            // The settings are the first object. Pulumi and SST have options in a second one.
            Expression::Object(object) => drop(arguments.get_or_insert(object)),
            other => positional.push(other),
        }
    }
    Some(Call { callee, positional, named: arguments, at: node.start_byte() })
}

fn expression(text: &str, node: Node<'_>) -> Expression {
    let raw = &text[node.byte_range()];
    match node.kind() {
        "number" => raw.replace('_', "").parse().map_or_else(
            |_| Expression::Other(raw.to_owned()),
            |number| Expression::Number(node.byte_range(), number),
        ),
        "string" => content(text, node).map_or_else(
            || Expression::Other(shortened(raw)),
            |content| Expression::Text(node.start_byte() + 1..node.end_byte() - 1, content),
        ),
        "template_string" => {
            let parts: Vec<_> = named(node)
                .map(|part| match part.kind() {
                    "string_fragment" => Part::Text(text[part.byte_range()].to_owned()),
                    _ => Part::Hole,
                })
                .collect();
            match &parts[..] {
                [Part::Text(only)] => {
                    Expression::Text(node.start_byte() + 1..node.end_byte() - 1, only.clone())
                }
                _ => Expression::Template(parts),
            }
        }
        "identifier" | "member_expression" => Expression::Variable(raw.to_owned()),
        "object" => Expression::Object(object(text, node)),
        _ => Expression::Other(shortened(raw)),
    }
}

fn object(text: &str, node: Node<'_>) -> Arguments {
    let mut arguments = Arguments { list: Vec::new(), has_spread: false, open: node.start_byte() + 1 };
    for member in named(node) {
        let argument = match member.kind() {
            "pair" => member.child_by_field_name("key").zip(member.child_by_field_name("value")).map(
                |(key, value)| {
                    let name = content(text, key).unwrap_or_else(|| text[key.byte_range()].to_owned());
                    (name, expression(text, value))
                },
            ),
            "shorthand_property_identifier" => {
                let name = text[member.byte_range()].to_owned();
                Some((name.clone(), Expression::Variable(name)))
            }
            "method_definition" => member.child_by_field_name("name").map(|name| {
                let name = text[name.byte_range()].to_owned();
                (name, Expression::Other("a method".to_owned()))
            }),
            _ => None,
        };
        match argument {
            Some((name, value)) => {
                arguments.list.push(Argument { name, range: member.byte_range(), value });
            }
            None => arguments.has_spread = true,
        }
    }
    arguments
}

/// The content of a quoted text without escapes.
fn content(text: &str, node: Node<'_>) -> Option<String> {
    if node.kind() != "string" {
        return None;
    }
    let parts: Vec<_> = children(node).filter(|part| part.is_named()).collect();
    match parts[..] {
        [] => Some(String::new()),
        [only] if only.kind() == "string_fragment" => Some(text[only.byte_range()].to_owned()),
        _ => None,
    }
}
