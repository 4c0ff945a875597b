//! The recommended size as a line for the tool that manages the function.

use tailor_sizing::units::Megabytes;

/// A piece of configuration with the tool it is for.
pub(super) struct Snippet {
    pub(super) tool: &'static str,
    pub(super) text: String,
}

/// The same size for each tool. Names become valid identifiers; the page escapes the rest.
pub(super) fn all(name: &str, memory: Megabytes) -> [Snippet; 5] {
    let Megabytes(mb) = memory;
    let identifier = identifier(name);
    let logical: String = identifier.split('_').map(capitalised).collect();
    let quoted = serde_json::Value::from(name).to_string();
    [
        Snippet {
            tool: "SAM",
            text: format!(
                "Resources:\n  {logical}:\n    Type: AWS::Serverless::Function\n    Properties:\n      \
                 FunctionName: {quoted}\n      MemorySize: {mb}\n"
            ),
        },
        Snippet {
            tool: "CDK",
            text: format!(
                "new lambda.Function(this, {}, {{\n  functionName: {quoted},\n  memorySize: {mb},\n  // …\n}});\n",
                serde_json::Value::from(logical.as_str())
            ),
        },
        Snippet {
            tool: "Terraform",
            text: format!(
                "resource \"aws_lambda_function\" \"{identifier}\" {{\n  function_name = {}\n  memory_size   = {mb}\n  # …\n}}\n",
                // `${` and `%{` begin templates in Terraform's strings.
                quoted.replace("${", "$${").replace("%{", "%%{")
            ),
        },
        Snippet {
            tool: "Serverless Framework",
            text: format!("functions:\n  {identifier}:\n    name: {quoted}\n    memorySize: {mb}\n"),
        },
        Snippet {
            tool: "AWS CLI",
            text: format!(
                "aws lambda update-function-configuration --function-name {} --memory-size {mb}\n",
                shell(name)
            ),
        },
    ]
}

fn identifier(name: &str) -> String {
    let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if plain.starts_with(|c: char| c.is_ascii_alphabetic()) { plain } else { format!("function_{plain}") }
}

fn capitalised(word: &str) -> String {
    let mut characters = word.chars();
    characters
        .next()
        .map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + characters.as_str())
}

/// One word for a shell, whatever it contains.
fn shell(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
    if !text.is_empty() && text.chars().all(plain) && !text.starts_with('-') {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out() {
        let [sam, cdk, terraform, _, cli] = all("a\"b${x}; rm 'c'", Megabytes(512));
        assert!(
            sam.text.contains("MemorySize: 512") && sam.text.contains(r#"FunctionName: "a\"b${x}; rm 'c'""#)
        );
        assert!(cdk.text.contains(r#"functionName: "a\"b"#));
        assert!(terraform.text.contains("$${x}") && terraform.text.contains("\"a_b__x___rm__c_\""));
        assert!(cli.text.contains(r"'a") && cli.text.contains(r"'\''c'\'''"));
    }
}
