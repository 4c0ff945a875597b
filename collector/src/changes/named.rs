//! Functions as people name them: a name, with account and region where several functions have it.

use crate::store::FunctionKey;

/// A function as a person names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedFunction<'a> {
    name: &'a str,
    account: Option<&'a str>,
    region: Option<&'a str>,
}

/// Several functions have the name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{number} functions are named `{name}`: add `--region` and `--account` of one of them: {candidates}")]
pub struct AmbiguousName {
    name: String,
    number: usize,
    candidates: String,
}

impl<'a> NamedFunction<'a> {
    /// A function with this name; in any account or region where these are absent.
    #[must_use]
    pub const fn new(name: &'a str, account: Option<&'a str>, region: Option<&'a str>) -> Self {
        Self { name, account, region }
    }

    /// The name.
    #[must_use]
    pub const fn name(&self) -> &'a str {
        self.name
    }

    /// Whether this function may be meant.
    fn may_be(&self, key: &FunctionKey) -> bool {
        self.name == key.name
            && self.account.is_none_or(|account| account == key.account)
            && self.region.is_none_or(|region| region == key.region)
    }

    /// The function that is meant; `None` when none of these is.
    ///
    /// # Errors
    /// [`AmbiguousName`] when several of them may be meant.
    pub fn find<'k>(
        &self,
        functions: impl IntoIterator<Item = &'k FunctionKey>,
    ) -> Result<Option<&'k FunctionKey>, AmbiguousName> {
        let mut found: Vec<&'k FunctionKey> = functions.into_iter().filter(|key| self.may_be(key)).collect();
        found.sort_unstable();
        found.dedup();
        match found[..] {
            [] => Ok(None),
            [key] => Ok(Some(key)),
            _ => {
                let candidates: Vec<String> = found.iter().map(|key| key.region_and_account()).collect();
                Err(AmbiguousName {
                    name: self.name.to_owned(),
                    number: found.len(),
                    candidates: candidates.join("; "),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(account: &str, region: &str, name: &str) -> FunctionKey {
        FunctionKey { account: account.to_owned(), region: region.to_owned(), name: name.to_owned() }
    }

    #[test]
    fn a_name_of_several_functions_needs_account_or_region() {
        let keys = [
            key("1", "eu-west-1", "orders"),
            key("2", "eu-west-1", "orders"),
            key("2", "us-east-1", "orders"),
            key("", "eu-west-1", "stock"),
            // A function has several changes.
            key("", "eu-west-1", "stock"),
        ];
        let find = |name: &str, account: Option<&str>, region: Option<&str>| {
            NamedFunction::new(name, account, region).find(&keys).map(Option::<&FunctionKey>::cloned)
        };
        assert_eq!(find("mail", None, None), Ok(None));
        assert_eq!(find("stock", None, None), Ok(Some(keys[3].clone())));
        assert_eq!(find("stock", Some(""), Some("eu-west-1")), Ok(Some(keys[3].clone())));
        assert_eq!(find("stock", Some("1"), None), Ok(None));
        assert_eq!(find("orders", Some("1"), None), Ok(Some(keys[0].clone())));
        assert_eq!(find("orders", None, Some("us-east-1")), Ok(Some(keys[2].clone())));
        assert_eq!(find("orders", Some("2"), Some("eu-west-1")), Ok(Some(keys[1].clone())));
        let ambiguous = |region| find("orders", None, region).unwrap_err().to_string();
        assert_eq!(
            ambiguous(Some("eu-west-1")),
            "2 functions are named `orders`: add `--region` and `--account` of one of them: \
             eu-west-1, account 1; eu-west-1, account 2"
        );
        assert!(ambiguous(None).starts_with("3 functions"));
    }
}
