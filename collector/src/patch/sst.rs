//! Programs of SST: its own components (version 3) and its constructs of CDK (version 2).

use super::name::Name;
use super::program::{Call, Expression, Form};
use super::{Definition, Setting, Unit};

/// What a function without the setting has, MB.
const DEFAULT_MB: u32 = 1_024;

/// Version 3.
const COMPONENT: Form = Form {
    key: "memory",
    separator: ": ",
    anchors: &["timeout", "runtime", "handler"],
    default_mb: DEFAULT_MB,
    unit: Unit::Text,
};

/// Version 2.
const CONSTRUCT: Form = Form { key: "memorySize", unit: Unit::Number, ..COMPONENT };

/// Modules of version 2.
const MODULES: [&str; 2] = ["sst/constructs", "@serverless-stack/resources"];

/// Whether a program sets defaults for all functions.
pub(super) fn has_defaults(text: &str) -> bool {
    text.contains("$transform(sst.aws.Function") || text.contains("setDefaultFunctionProps")
}

/// Adds the functions of a program. `has_defaults` is whether a file of the source sets defaults.
pub(super) fn read(text: &str, calls: &[Call], has_defaults: bool, found: &mut Vec<Definition>) {
    for call in calls {
        let arguments = call.named.as_ref();
        let is_construct = MODULES.iter().any(|module| call.callee == format!("{module}.Function"));
        if is_construct {
            let name = arguments.and_then(|arguments| arguments.get("functionName"));
            let id = call.text(1);
            let by_id =
                || id.map_or(Name::Computed, |id| Name::Cdk(vec![id.to_owned(), "Resource".to_owned()]));
            let shared = has_defaults.then_some("setDefaultFunctionProps");
            found.push(Definition {
                file: 0,
                at: call.at,
                label: id.unwrap_or("(computed id)").to_owned(),
                name: name.map_or_else(by_id, Expression::name),
                setting: CONSTRUCT.setting(text, arguments, shared),
            });
        } else if call.callee == "sst.aws.Function" {
            found.push(component(text, call, has_defaults));
        }
    }
}

fn component(text: &str, call: &Call, has_defaults: bool) -> Definition {
    let arguments = call.named.as_ref();
    let id = call.text(0);
    let name = arguments.and_then(|arguments| arguments.get("name"));
    let is_transformed = arguments.is_some_and(|arguments| arguments.get("transform").is_some());
    let shared = if has_defaults {
        Some("$transform(sst.aws.Function)")
    } else {
        is_transformed.then_some("transform")
    };
    let by_id = || id.map_or(Name::Computed, |id| Name::Sst(id.to_owned()));
    let setting = match COMPONENT.setting(text, arguments, shared) {
        Setting::Literal { .. } if is_transformed => {
            Setting::Unsure("its `transform` can set another size".to_owned())
        }
        setting => setting,
    };
    Definition {
        file: 0,
        at: call.at,
        label: id.unwrap_or("(computed name)").to_owned(),
        name: name.map_or_else(by_id, Expression::name),
        setting,
    }
}
