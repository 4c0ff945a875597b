//! Usage files of Infracost: what functions use in a month, so that Infracost shows the cost of a change of their code.
//!
//! The keys are those of Infracost's `infracost-usage-example.yml`. The duration is the mean billed duration, because the
//! metric `Duration` of CloudWatch does not contain billed Inits.

use std::collections::BTreeSet;
use std::fmt::Write;

/// Usage of one function in a month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionUsage {
    /// Function name.
    pub name: String,
    /// Name of the resource in Terraform; derived from the function name when empty.
    pub resource: String,
    /// Requests in a month.
    pub monthly_requests: u64,
    /// Mean billed duration, ms.
    pub request_duration_ms: u64,
}

/// A usage file.
///
/// Terraform's name of a resource is not known from measurements. It is taken from the function's name, and a comment
/// has the function's name, so that a reader can replace it.
#[must_use]
pub fn usage_file(functions: &[FunctionUsage], comment: &str) -> String {
    let mut text = String::new();
    for line in comment.lines() {
        let _ = writeln!(text, "# {line}");
    }
    text.push_str("version: 0.1\n");
    if functions.is_empty() {
        text.push_str("resource_usage: {}\n");
        return text;
    }
    text.push_str("resource_usage:\n");
    let mut used = BTreeSet::new();
    for function in functions {
        let base = if function.resource.is_empty() {
            resource_name(&function.name)
        } else {
            function.resource.clone()
        };
        let mut name = base.clone();
        let mut number = 2;
        while !used.insert(name.clone()) {
            name = format!("{base}_{number}");
            number += 1;
        }
        let visible: String = function.name.chars().filter(|letter| !letter.is_control()).collect();
        let _ = write!(
            text,
            "  # {visible}\n  aws_lambda_function.{name}:\n    monthly_requests: {}\n    request_duration_ms: {}\n",
            function.monthly_requests, function.request_duration_ms
        );
    }
    text
}

/// A name that Terraform allows: letters, digits, `_` and `-`, and no digit first.
fn resource_name(name: &str) -> String {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-');
    let mut text: String = name.chars().map(|letter| if allowed(letter) { letter } else { '_' }).collect();
    if !text.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_') {
        text.insert(0, '_');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_that_terraform_allows_and_is_used_once() {
        let usage = |name: &str| FunctionUsage {
            name: name.to_owned(),
            resource: String::new(),
            monthly_requests: 7,
            request_duration_ms: 12,
        };
        let text = usage_file(&[usage("1 pay"), usage("_1_pay"), usage("a\nb: c")], "made for a test");
        assert!(text.starts_with("# made for a test\nversion: 0.1\nresource_usage:\n"), "{text}");
        for name in [
            "  aws_lambda_function._1_pay:\n",
            "  aws_lambda_function._1_pay_2:\n",
            "  aws_lambda_function.a_b__c:\n",
        ] {
            assert!(text.contains(name), "{text}");
        }
        assert!(text.contains("    monthly_requests: 7\n    request_duration_ms: 12\n"), "{text}");
        assert!(usage_file(&[], "").ends_with("resource_usage: {}\n"));
    }
}
