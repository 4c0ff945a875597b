//! Configuration files of Terraform and OpenTofu.

use tree_sitter::Node;

use tailor_sizing::units::Megabytes;

use super::insertion::own_line;
use super::name::{Name, Part};
use super::source::{Unparsed, children, named, parse};
use super::{Definition, Setting, Unit};

/// What a function without the argument has, MB.
const DEFAULT_MB: u32 = 128;
const KEY: &str = "memory_size";
/// The public module that has a function's arguments as its own.
const LAMBDA_MODULE: &str = "terraform-aws-modules/lambda/aws";

/// Adds the functions of a file.
pub(super) fn read(text: &str, found: &mut Vec<Definition>) -> Result<(), Unparsed> {
    if !text.contains("aws_lambda_function") && !text.contains("function_name") {
        return Ok(());
    }
    let tree = parse(text, tree_sitter_hcl::LANGUAGE)?;
    let blocks = named(tree.root_node()).flat_map(named).filter(|node| node.kind() == "block");
    found.extend(blocks.filter_map(|block| function(text, block)));
    Ok(())
}

fn function(text: &str, block: Node<'_>) -> Option<Definition> {
    let labels: Vec<&str> = named(block)
        .take_while(|node| node.kind() != "block_start")
        .map(|node| text[node.byte_range()].trim_matches('"'))
        .collect();
    let body = named(block).find(|node| node.kind() == "body")?;
    let argument = |name: &str| attribute(text, body, name);
    let (label, is_known) = match labels[..] {
        ["resource", "aws_lambda_function", name] => (format!("aws_lambda_function.{name}"), true),
        ["module", name] => {
            argument("function_name")?;
            let is_known = argument("source").is_some_and(|source| {
                text[value(source).map_or(0..0, |v| v.byte_range())].trim_matches('"') == LAMBDA_MODULE
            });
            (format!("module.{name}"), is_known)
        }
        _ => return None,
    };
    let several = ["count", "for_each"].into_iter().find(|name| argument(name).is_some());
    let setting = if !is_known {
        Setting::Unsure("it is a module of your own: change the size where the module uses it".to_owned())
    } else if let Some(several) = several {
        Setting::Unsure(format!("one setting with `{several}` is for several functions"))
    } else {
        setting(text, body, argument(KEY), argument("function_name"))
    };
    let name = argument("function_name").and_then(value).map_or(Name::Computed, |value| name(text, value));
    Some(Definition { file: 0, at: block.start_byte(), label, name, setting })
}

/// The argument of a block.
fn attribute<'t>(text: &str, body: Node<'t>, name: &str) -> Option<Node<'t>> {
    named(body).find(|node| {
        node.kind() == "attribute"
            && named(*node).next().is_some_and(|identifier| &text[identifier.byte_range()] == name)
    })
}

/// The innermost expression of an argument.
fn value(attribute: Node<'_>) -> Option<Node<'_>> {
    let mut node = named(attribute).last().filter(|node| node.kind() == "expression")?;
    while ["expression", "literal_value", "template_expr"].contains(&node.kind()) {
        let mut inner = named(node);
        match (inner.next(), inner.next()) {
            (Some(only), None) => node = only,
            _ => break,
        }
    }
    Some(node)
}

fn name(text: &str, value: Node<'_>) -> Name {
    if !["string_lit", "quoted_template"].contains(&value.kind()) {
        return Name::Computed;
    }
    let parts = children(value).filter_map(|part| match part.kind() {
        "template_literal" => Some(Part::Text(text[part.byte_range()].to_owned())),
        "template_interpolation" | "template_directive" => Some(Part::Hole),
        _ => None,
    });
    Name::of_parts(parts.collect())
}

fn setting(text: &str, body: Node<'_>, memory: Option<Node<'_>>, anchor: Option<Node<'_>>) -> Setting {
    let Some(memory) = memory else { return absent(text, body, anchor) };
    let Some(value) = value(memory) else { return Setting::Unsure(format!("`{KEY}` is empty")) };
    let raw = &text[value.byte_range()];
    let quotes = usize::from(value.kind() == "string_lit");
    let range = value.start_byte() + quotes..value.end_byte() - quotes;
    match (value.kind(), text[range.clone()].parse::<u32>()) {
        ("numeric_lit" | "string_lit", Ok(mb)) => {
            Setting::Literal { range, memory: Megabytes(mb), unit: Unit::Number }
        }
        _ => {
            let is_reference = !raw.contains(char::is_whitespace)
                && named(value)
                    .next()
                    .is_none_or(|first| first.kind() == "variable_expr" || first.kind() == "identifier");
            let kind = if is_reference { "comes from elsewhere" } else { "is computed" };
            Setting::Unsure(format!("its size {kind}: `{raw}`"))
        }
    }
}

/// The argument goes after the function's name, with `=` in the same column.
fn absent(text: &str, body: Node<'_>, anchor: Option<Node<'_>>) -> Setting {
    let unsure = || Setting::Unsure("its arguments are not on lines of their own".to_owned());
    let anchor = anchor.or_else(|| named(body).find(|node| node.kind() == "attribute"));
    let Some(anchor) = anchor else { return unsure() };
    let range = anchor.byte_range();
    let Some(indent) = own_line(text, range.start).filter(|_| !text[range.clone()].contains('\n')) else {
        return unsure();
    };
    let rest = text[range.end..].split('\n').next().unwrap_or_default();
    // `terraform fmt` aligns neighbours.
    let column = text[range.clone()].find('=').unwrap_or_default().max(KEY.len() + 1);
    let end = if rest.ends_with('\r') { "\r\n" } else { "\n" };
    let line = rest.strip_suffix('\r').unwrap_or(rest);
    if line.contains('}') && !line.trim_start().starts_with(['#', '/']) {
        return unsure();
    }
    Setting::Absent {
        at: range.end + line.len(),
        before: format!("{end}{indent}{KEY:column$}= "),
        after: String::new(),
        default: Megabytes(DEFAULT_MB),
        unit: Unit::Number,
    }
}
