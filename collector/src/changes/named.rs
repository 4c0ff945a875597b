//! Functions as people name them and as lists show them: a name, with account and region where several functions have it.

use std::collections::BTreeSet;

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

/// How a list names its functions.
#[derive(Debug, Clone, Default)]
pub struct ListedNames<'a> {
    /// Names that several functions of the list have.
    repeated: BTreeSet<&'a str>,
}

impl<'a> ListedNames<'a> {
    /// The names of a list. A function may be in it several times.
    #[must_use]
    pub fn of(functions: impl IntoIterator<Item = &'a FunctionKey>) -> Self {
        let functions: BTreeSet<&FunctionKey> = functions.into_iter().collect();
        let mut seen = BTreeSet::new();
        let names = functions.into_iter().map(|key| key.name.as_str());
        Self { repeated: names.filter(|name| !seen.insert(*name)).collect() }
    }

    /// The name of a function, with region and account where another function of the list has it.
    #[must_use]
    pub fn text(&self, function: &FunctionKey) -> String {
        self.text_as(&function.name, function)
    }

    /// The same with another form of its name.
    #[must_use]
    pub fn text_as(&self, name: &str, function: &FunctionKey) -> String {
        if self.repeated.contains(function.name.as_str()) {
            function.with_region_and_account(name)
        } else {
            name.to_owned()
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

    #[test]
    fn a_list_shows_region_and_account_of_names_that_repeat() {
        let keys = [
            key("1", "eu-west-1", "orders"),
            key("", "us-east-1", "orders"),
            key("2", "eu-west-1", "stock"),
            key("2", "eu-west-1", "stock"),
        ];
        let names = ListedNames::of(&keys);
        let texts: Vec<String> = keys.iter().map(|key| names.text(key)).collect();
        assert_eq!(texts, ["orders (eu-west-1, account 1)", "orders (us-east-1)", "stock", "stock"]);
        assert_eq!(names.text_as("ord…", &keys[0]), "ord… (eu-west-1, account 1)");
        assert_eq!(names.text(&key("", "", "orders")), "orders", "nothing more is known");
    }
}
