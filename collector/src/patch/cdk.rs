//! Programs of the AWS CDK in TypeScript, JavaScript and Python.

use super::name::Name;
use super::program::{Call, Expression, Form};
use super::{Definition, Setting, Unit};

/// The names of a language.
pub(super) struct Dialect {
    form: Form,
    name: &'static str,
}

/// TypeScript and JavaScript.
pub(super) const TYPESCRIPT: Dialect = Dialect {
    form: Form {
        key: "memorySize",
        separator: ": ",
        anchors: &["timeout", "runtime", "handler", "entry", "functionName"],
        default_mb: 128,
        unit: Unit::Number,
    },
    name: "functionName",
};

/// Python.
pub(super) const PYTHON: Dialect = Dialect {
    form: Form {
        key: "memory_size",
        separator: "=",
        anchors: &["timeout", "runtime", "handler", "entry", "function_name"],
        default_mb: 128,
        unit: Unit::Number,
    },
    name: "function_name",
};

/// Modules of constructs. SST's second version is made of CDK's constructs.
const MODULES: [&str; 6] =
    ["aws-cdk-lib", "@aws-cdk/", "monocdk", "cargo-lambda-cdk", "aws_cdk", "cargo_lambda_cdk"];

/// The constructs that are one function.
const FUNCTIONS: [&str; 7] = [
    "Function",
    "NodejsFunction",
    "PythonFunction",
    "GoFunction",
    "RustFunction",
    "DockerImageFunction",
    "CfnFunction",
];

/// The ids of all constructs.
pub(super) fn construct_ids(calls: &[Call]) -> impl Iterator<Item = String> {
    calls.iter().filter_map(|call| call.text(1)).map(str::to_owned)
}

/// Adds the functions of a program.
pub(super) fn read(text: &str, calls: &[Call], dialect: &Dialect, found: &mut Vec<Definition>) {
    for call in calls {
        let class = call.callee.rsplit(['.', '/']).next().unwrap_or_default();
        let is_module = MODULES.iter().any(|module| call.callee.starts_with(module));
        let arguments = call.named.as_ref();
        let name = arguments.and_then(|arguments| arguments.get(dialect.name));
        let is_function = is_module && FUNCTIONS.contains(&class);
        // A construct of the program's own, with a function's settings.
        let is_own = !is_module
            && name.is_some()
            && arguments.is_some_and(|arguments| arguments.get(dialect.form.key).is_some());
        let id = call.text(1);
        let by_id = || match id {
            Some(id) if class == "CfnFunction" => Name::Cdk(vec![id.to_owned()]),
            Some(id) => Name::Cdk(vec![id.to_owned(), "Resource".to_owned()]),
            None => Name::Computed,
        };
        if is_function {
            found.push(Definition {
                file: 0,
                at: call.at,
                label: id.unwrap_or("(computed id)").to_owned(),
                name: name.map_or_else(by_id, Expression::name),
                setting: dialect.form.setting(text, arguments, None),
            });
        } else if let (true, Some(name)) = (is_own, name) {
            found.push(Definition {
                file: 0,
                at: call.at,
                label: id.unwrap_or_default().to_owned(),
                name: name.name(),
                setting: Setting::Unsure(format!("`{class}` is not a construct of CDK")),
            });
        }
    }
}
