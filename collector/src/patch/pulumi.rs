//! Programs of Pulumi in TypeScript, JavaScript, Python and YAML.

use super::document::Document;
use super::name::{Name, template};
use super::program::{Call, Expression, Form};
use super::source::{File, Unparsed};
use super::{Definition, Setting, Unit};

/// What a function without the setting has, MB.
const DEFAULT_MB: u32 = 128;

/// The names of a language.
pub(super) struct Dialect {
    form: Form,
    classes: &'static [&'static str],
}

/// TypeScript and JavaScript.
pub(super) const TYPESCRIPT: Dialect = Dialect {
    form: Form {
        key: "memorySize",
        separator: ": ",
        anchors: &["timeout", "runtime", "handler", "name"],
        default_mb: DEFAULT_MB,
        unit: Unit::Number,
    },
    classes: &[
        "@pulumi/aws.lambda.Function",
        "@pulumi/aws.lambda.CallbackFunction",
        "@pulumi/aws/lambda.Function",
        "@pulumi/aws/lambda.CallbackFunction",
    ],
};

/// Python.
pub(super) const PYTHON: Dialect = Dialect {
    form: Form { key: "memory_size", separator: "=", ..TYPESCRIPT.form },
    classes: &["pulumi_aws.lambda_.Function"],
};

/// Adds the functions of a program.
pub(super) fn read(text: &str, calls: &[Call], dialect: &Dialect, found: &mut Vec<Definition>) {
    for call in calls.iter().filter(|call| dialect.classes.contains(&call.callee.as_str())) {
        let arguments = call.named.as_ref();
        let id = call.text(0);
        let name = arguments.and_then(|arguments| arguments.get("name"));
        let by_id = || id.map_or(Name::Computed, |id| Name::Pulumi(id.to_owned()));
        // Python can have the settings in one object, and Pulumi's options are an object of their own.
        let elsewhere = call.positional.len() > 1
            || arguments.is_some_and(|a| {
                ["args", "parent", "provider", "dependsOn"].iter().any(|n| a.get(n).is_some())
            });
        let setting = match dialect.form.setting(text, arguments, None) {
            Setting::Absent { .. } if elsewhere => {
                Setting::Unsure("its settings are not written where it is made".to_owned())
            }
            setting => setting,
        };
        found.push(Definition {
            file: 0,
            at: call.at,
            label: id.unwrap_or("(computed name)").to_owned(),
            name: name.map_or_else(by_id, Expression::name),
            setting,
        });
    }
}

/// Adds the functions of a program in YAML.
pub(super) fn read_yaml(file: &File, found: &mut Vec<Definition>) -> Result<(), Unparsed> {
    if !file.text.contains("aws:lambda:Function") && !file.text.contains("aws:lambda/function:Function") {
        return Ok(());
    }
    let document = Document::parse(&file.text, file.extension() == "json")?;
    for root in document.roots() {
        let resources = root.get("resources");
        for entry in resources.map(|resources| resources.entries()).unwrap_or_default() {
            let Some(resource) = entry.value else { continue };
            let kind = resource.get("type").and_then(|kind| kind.scalar()).unwrap_or_default();
            if !["aws:lambda:Function", "aws:lambda/function:Function"].contains(&kind.as_str()) {
                continue;
            }
            let properties = resource.get("properties");
            let name =
                match properties.and_then(|properties| properties.get("name")).map(|name| name.scalar()) {
                    Some(Some(name)) => Name::of_parts(template(&name, "${", '}')),
                    Some(None) => Name::Computed,
                    None => Name::Pulumi(entry.key.clone()),
                };
            let setting = properties.map_or_else(
                || Setting::Unsure("it has no `properties`".to_owned()),
                |properties| properties.setting("memorySize", DEFAULT_MB, None, TYPESCRIPT.form.anchors),
            );
            found.push(Definition { file: 0, at: resource.at(), label: entry.key.clone(), name, setting });
        }
    }
    Ok(())
}
