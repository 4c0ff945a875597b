//! Templates of CloudFormation and SAM, in YAML and JSON.

use super::document::{Document, Entry, Value};
use super::name::Name;
use super::source::{File, Unparsed};
use super::{Definition, Setting};

/// What a function without the property has, MB.
const DEFAULT_MB: u32 = 128;
const KEY: &str = "MemorySize";
/// The properties after which the size is inserted.
const ANCHORS: [&str; 5] = ["Timeout", "Runtime", "Handler", "PackageType", "FunctionName"];

/// Adds the functions of a template.
pub(super) fn read(file: &File, found: &mut Vec<Definition>) -> Result<(), Unparsed> {
    let types = ["AWS::Lambda::Function", "AWS::Serverless::Function"];
    if !types.iter().any(|name| file.text.contains(name)) {
        return Ok(());
    }
    let document = Document::parse(&file.text, file.extension() == "json")?;
    for root in document.roots() {
        // The Serverless Framework has a template in its own `resources`.
        let template = root.get("resources").filter(|inner| inner.get("Resources").is_some()).unwrap_or(root);
        let is_shared = template
            .get("Globals")
            .and_then(|globals| globals.get("Function"))
            .and_then(|function| function.get(KEY))
            .is_some();
        let resources = template.get("Resources");
        for entry in resources.map(|resources| resources.entries()).unwrap_or_default() {
            if entry.key.starts_with("Fn::ForEach::") {
                found.extend(entry.value.iter().flat_map(for_each));
            } else {
                found.extend(function(&entry, is_shared));
            }
        }
    }
    Ok(())
}

fn function(entry: &Entry<'_>, is_shared: bool) -> Option<Definition> {
    let resource = entry.value?;
    let kind = resource.get("Type")?.scalar()?;
    let is_sam = kind == "AWS::Serverless::Function";
    if !is_sam && kind != "AWS::Lambda::Function" {
        return None;
    }
    // CDK writes this template, and would write it again.
    if resource.get("Metadata").is_some_and(|metadata| metadata.get("aws:cdk:path").is_some()) {
        return None;
    }
    let properties = resource.get("Properties");
    let shared = (is_sam && is_shared).then_some("Globals.Function.MemorySize");
    let setting = properties.map_or_else(
        || Setting::Unsure("it has no `Properties`".to_owned()),
        |properties| properties.setting(KEY, DEFAULT_MB, shared, &ANCHORS),
    );
    let name = properties.and_then(|properties| properties.get("FunctionName"));
    Some(Definition {
        file: 0,
        at: entry.range.start,
        label: entry.key.clone(),
        name: name
            .map_or_else(|| Name::CloudFormation(entry.key.clone()), |name| Name::of_parts(name.parts())),
        setting,
    })
}

/// The functions of a loop: each is a template of several functions.
fn for_each(value: &Value<'_>) -> Vec<Definition> {
    let items = value.items();
    let entries = items.iter().flat_map(Value::entries);
    entries
        .filter_map(|entry| function(&entry, false))
        .map(|definition| {
            let name = match definition.name {
                Name::CloudFormation(_) => Name::Computed,
                name => name,
            };
            let reason = "one setting in `Fn::ForEach` is for several functions".to_owned();
            Definition { name, setting: Setting::Unsure(reason), ..definition }
        })
        .collect()
}
