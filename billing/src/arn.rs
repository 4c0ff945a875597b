//! Functions by their ARN.

use std::fmt;

/// A function as a resource of a bill.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Function {
    /// AWS account.
    pub account: String,
    /// AWS region.
    pub region: String,
    /// Function name.
    pub name: String,
}

impl Function {
    /// The function of an ARN, without its version or alias; `None` when it is not the ARN of a function.
    #[must_use]
    pub fn of_arn(arn: &str) -> Option<Self> {
        let mut parts = arn.split(':');
        let is_lambda = parts.next() == Some("arn")
            && parts.next().is_some_and(|partition| partition.starts_with("aws"))
            && parts.next() == Some("lambda");
        let (region, account, kind, name) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        (is_lambda && kind == "function" && !name.is_empty()).then(|| Self {
            account: account.to_owned(),
            region: region.to_owned(),
            name: name.to_owned(),
        })
    }
}

/// Its ARN.
impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let partition = match self.region.as_str() {
            region if region.starts_with("cn-") => "aws-cn",
            region if region.starts_with("us-gov-") => "aws-us-gov",
            region if region.starts_with("eusc-") => "aws-eusc",
            _ => "aws",
        };
        write!(f, "arn:{partition}:lambda:{}:{}:function:{}", self.region, self.account, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_gives_the_function_without_its_version() {
        let arn = "arn:aws-us-gov:lambda:us-gov-west-1:123456789012:function:pay";
        let function = Function::of_arn(&format!("{arn}:live")).unwrap();
        assert_eq!(function.to_string(), arn);
        for other in [
            "",
            "arn:aws:s3:::bucket",
            "arn:aws:lambda:eu-west-1:1:layer:x:1",
            "arn:aws:lambda:r:1:function:",
        ] {
            assert_eq!(Function::of_arn(other), None, "{other}");
        }
    }
}
