//! Programs in Python.

use std::collections::BTreeMap;

use tree_sitter::Node;

use super::name::Part;
use super::program::{Argument, Arguments, Call, Expression, shortened};
use super::source::{Unparsed, children, descendants, named, parse};

/// Modules whose programs are read.
const MODULES: [&str; 3] = ["aws_cdk", "constructs", "pulumi"];

/// The calls of a program.
pub(super) fn calls(text: &str) -> Result<Vec<Call>, Unparsed> {
    if !MODULES.iter().any(|module| text.contains(module)) {
        return Ok(Vec::new());
    }
    let tree = parse(text, tree_sitter_python::LANGUAGE)?;
    let imports = imports(text, tree.root_node());
    let calls = descendants(tree.root_node()).filter(|node| node.kind() == "call");
    Ok(calls.filter_map(|node| call(text, node, &imports)).collect())
}

/// The full name of each imported name.
fn imports(text: &str, root: Node<'_>) -> BTreeMap<String, String> {
    let of = |node: Node<'_>| text[node.byte_range()].to_owned();
    let mut found = BTreeMap::new();
    for node in descendants(root) {
        let module = match node.kind() {
            "import_statement" => None,
            "import_from_statement" => node.child_by_field_name("module_name"),
            _ => continue,
        };
        let prefix = module.map(|module| format!("{}.", of(module))).unwrap_or_default();
        for name in named(node).filter(|name| Some(*name) != module) {
            if name.kind() == "aliased_import" {
                let parts = name.child_by_field_name("name").zip(name.child_by_field_name("alias"));
                if let Some((name, alias)) = parts {
                    found.insert(of(alias), format!("{prefix}{}", of(name)));
                }
            } else {
                // `import a.b` binds `a`, which is its own name.
                found.insert(of(name), format!("{prefix}{}", of(name)));
            }
        }
    }
    found
}

fn call(text: &str, node: Node<'_>, imports: &BTreeMap<String, String>) -> Option<Call> {
    let callee =
        text[node.child_by_field_name("function")?.byte_range()].split_whitespace().collect::<String>();
    let (first, rest) = callee.split_at(callee.find('.').unwrap_or(callee.len()));
    let callee = imports.get(first).map_or_else(|| callee.clone(), |module| format!("{module}{rest}"));
    let list = node.child_by_field_name("arguments").filter(|list| list.kind() == "argument_list")?;
    let mut positional = Vec::new();
    let mut arguments = Arguments { list: Vec::new(), has_spread: false, open: list.start_byte() + 1 };
    for argument in named(list) {
        match argument.kind() {
            "keyword_argument" => {
                let parts = argument.child_by_field_name("name").zip(argument.child_by_field_name("value"));
                let (name, value) = parts?;
                let name = text[name.byte_range()].to_owned();
                let value = expression(text, value);
                arguments.list.push(Argument { name, range: argument.byte_range(), value });
            }
            "dictionary_splat" | "list_splat" => arguments.has_spread = true,
            _ => positional.push(expression(text, argument)),
        }
    }
    Some(Call { callee, positional, named: Some(arguments), at: node.start_byte() })
}

fn expression(text: &str, node: Node<'_>) -> Expression {
    let raw = &text[node.byte_range()];
    match node.kind() {
        "integer" => raw.replace('_', "").parse().map_or_else(
            |_| Expression::Other(raw.to_owned()),
            |number| Expression::Number(node.byte_range(), number),
        ),
        "string" => string(text, node),
        "identifier" | "attribute" => Expression::Variable(raw.to_owned()),
        _ => Expression::Other(shortened(raw)),
    }
}

fn string(text: &str, node: Node<'_>) -> Expression {
    let mut parts = Vec::new();
    let mut range = node.end_byte()..node.end_byte();
    for part in children(node).filter(|part| part.is_named()) {
        match part.kind() {
            "string_content" if named(part).next().is_none() => {
                range = part.byte_range();
                parts.push(Part::Text(text[part.byte_range()].to_owned()));
            }
            "string_start" | "string_end" => {}
            _ => parts.push(Part::Hole),
        }
    }
    match &parts[..] {
        [Part::Text(only)] => Expression::Text(range, only.clone()),
        [] => Expression::Text(range, String::new()),
        _ => Expression::Template(parts),
    }
}
