//! Function names as callers write them: plain, partial or full ARN, with or without a qualifier.

use crate::control::server::error::AwsError;

/// A function and, if the caller gave one, the version or alias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionRef {
    /// Function name.
    pub name: String,
    /// `$LATEST`, a version number or an alias.
    pub qualifier: Option<String>,
}

impl FunctionRef {
    /// Parses `NAME[:Q]`, `ACCOUNT:function:NAME[:Q]` or `arn:aws:lambda:REGION:ACCOUNT:function:NAME[:Q]`.
    /// `qualifier` is the query parameter; both may be given only if they agree.
    pub fn parse(text: &str, qualifier: Option<&str>) -> Result<FunctionRef, AwsError> {
        let parts: Vec<&str> = text.split(':').collect();
        let rest = match parts.iter().position(|part| *part == "function") {
            Some(at) => &parts[at + 1..],
            None => &parts[..],
        };
        let (name, own) = match rest {
            [name] => (*name, None),
            [name, qualifier] => (*name, Some(*qualifier)),
            _ => return Err(AwsError::invalid(format!("{text} is not a function name or ARN"))),
        };
        let is_valid = |character: char| character.is_ascii_alphanumeric() || "-_".contains(character);
        if name.is_empty() || name.len() > 140 || !name.chars().all(is_valid) {
            return Err(AwsError::invalid(format!("{text} is not a function name or ARN")));
        }
        let qualifier = match (own, qualifier) {
            (Some(own), Some(other)) if own != other => {
                let message =
                    "The derived qualifier from the function name does not match the specified qualifier.";
                return Err(AwsError::invalid(message));
            }
            (own, other) => own.or(other).map(str::to_owned),
        };
        Ok(FunctionRef { name: name.to_owned(), qualifier })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_name_the_same_function() {
        for (text, qualifier) in [
            ("fn", None),
            ("fn:live", Some("live")),
            ("123456789012:function:fn", None),
            ("123456789012:function:fn:live", Some("live")),
            ("arn:aws:lambda:us-east-1:123456789012:function:fn", None),
            ("arn:aws:lambda:us-east-1:123456789012:function:fn:7", Some("7")),
            ("fn:$LATEST", Some("$LATEST")),
        ] {
            let parsed = FunctionRef::parse(text, None).unwrap();
            assert_eq!((parsed.name.as_str(), parsed.qualifier.as_deref()), ("fn", qualifier), "{text}");
        }
    }

    #[test]
    fn qualifiers_must_agree() {
        assert_eq!(FunctionRef::parse("fn", Some("1")).unwrap().qualifier.as_deref(), Some("1"));
        assert!(FunctionRef::parse("fn:1", Some("1")).is_ok());
        assert!(FunctionRef::parse("fn:1", Some("2")).is_err());
        assert!(FunctionRef::parse("a b", None).is_err());
        assert!(FunctionRef::parse("", None).is_err());
    }
}
