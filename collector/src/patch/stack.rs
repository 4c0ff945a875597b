//! Stacks of CloudFormation: the names that they give to functions, and the stacks that a source is deployed as.

use std::collections::BTreeMap;

use super::name::Name;
use super::{Definition, Target};

/// Length of the random text that CloudFormation appends to a name.
const RANDOM: usize = 12;
/// Longest name of a function. CloudFormation shortens stack and logical id in longer ones.
const MAX_NAME: usize = 64;

/// A name that CloudFormation generated: `STACK-LOGICALID-RANDOM`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GeneratedName<'a> {
    stack: &'a str,
    pub(super) logical_id: &'a str,
    /// Whether the last characters of the two may be cut off.
    pub(super) is_short: bool,
}

impl<'a> GeneratedName<'a> {
    /// Reads the name of a function; `None` when it has another form, or another stack than the known one.
    pub(super) fn read(name: &'a str, known_stack: Option<&str>) -> Option<Self> {
        let (rest, random) = name.rsplit_once('-')?;
        let is_random = random.len() == RANDOM && random.bytes().all(|b| b.is_ascii_alphanumeric());
        // A logical id has no hyphen.
        let (stack, logical_id) = rest.rsplit_once('-')?;
        let is_short = name.len() >= MAX_NAME - 1;
        let is_stack =
            known_stack.is_none_or(|known| known == stack || (is_short && known.starts_with(stack)));
        let is_generated = is_random && is_stack && !stack.is_empty() && !logical_id.is_empty();
        is_generated.then_some(Self { stack, logical_id, is_short })
    }
}

/// The stacks that templates are deployed as, by the index of the file, where they are known.
pub(super) type Stacks = BTreeMap<usize, Vec<String>>;

/// Whether a file is a configuration of the SAM CLI, by its name. It is for the template in its folder.
pub(super) fn is_configuration(name: &str) -> bool {
    ["samconfig.toml", "samconfig.yaml", "samconfig.yml"].contains(&name)
}

/// The stacks that a configuration of the SAM CLI names; none when one of the names is not plain.
pub(super) fn configured(text: &str) -> Vec<String> {
    let values = text.lines().filter_map(|line| {
        let value = line.trim().strip_prefix("stack_name")?.trim_start().strip_prefix(['=', ':'])?;
        Some(value.split('#').next()?.trim().trim_matches(['"', '\'']).to_owned())
    });
    let names: Vec<String> = values.collect();
    let is_plain = |name: &String| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if names.iter().all(is_plain) { names } else { Vec::new() }
}

/// Whether the function is of another stack than those that the file of the definition is deployed as.
pub(super) fn is_other(definition: &Definition, target: &Target, stacks: &Stacks) -> bool {
    let Some(configured) = stacks.get(&definition.file) else { return false };
    let is_configured = |stack: &str, is_short: bool| {
        configured.iter().any(|name| {
            // The names of other stages and of nested stacks usually begin with that of the stack.
            let is_derived = stack.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with('-'));
            name == stack || is_derived || (is_short && name.starts_with(stack))
        })
    };
    match (&target.stack, &definition.name) {
        (Some(stack), _) => !is_configured(stack, false),
        (None, Name::CloudFormation(_)) => GeneratedName::read(&target.function, None)
            .is_some_and(|generated| !is_configured(generated.stack, generated.is_short)),
        (None, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_name_has_the_known_stack() {
        let read = |name, stack| GeneratedName::read(name, stack).map(|generated| generated.logical_id);
        assert_eq!(read("shop-dev-Api-AbCdEf123456", None), Some("Api"));
        assert_eq!(read("shop-dev-Api-AbCdEf123456", Some("shop-dev")), Some("Api"));
        assert_eq!(read("shop-dev-Api-AbCdEf123456", Some("shop")), None);
        assert_eq!(read("shop-dev-Api-production", None), None);
        // Names of 64 characters are shortened.
        let name = "document-processing-product-TransformIncomingDocume-AbCdEf123456";
        assert_eq!(name.len(), MAX_NAME);
        assert_eq!(read(name, Some("document-processing-production")), Some("TransformIncomingDocume"));
        assert_eq!(read(name, Some("other")), None);
    }

    #[test]
    fn the_stacks_of_a_configuration_are_read() {
        let toml = "version = 0.1\n[default.deploy.parameters]\nstack_name = \"shop-dev\" # the default\n\
                    [prod.deploy.parameters]\nstack_name='shop-prod'\n";
        assert_eq!(configured(toml), ["shop-dev", "shop-prod"]);
        let yaml = "default:\n  global:\n    parameters:\n      stack_name: shop\n";
        assert_eq!(configured(yaml), ["shop"]);
        assert!(configured("stack_name = \"shop\"\nstack_name = \"${NAME}\"\n").is_empty());
        assert!(configured("region = \"eu-west-1\"\n").is_empty());
    }
}
