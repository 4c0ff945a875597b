//! The properties by which functions are added up, and filters by tags.

use serde::{Deserialize, Serialize};

/// A property by which functions are added up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Group {
    /// By AWS account.
    Account,
    /// By AWS region.
    Region,
    /// By runtime.
    Runtime,
    /// By the value of the tag with this key.
    Tag(String),
}

impl Group {
    /// The value of the parameter.
    #[must_use]
    pub fn code(&self) -> String {
        match self {
            Self::Account => "account".to_owned(),
            Self::Region => "region".to_owned(),
            Self::Runtime => "runtime".to_owned(),
            Self::Tag(key) => format!("tag:{key}"),
        }
    }

    /// The filter by one of its groups: parameter and value.
    pub(crate) fn filter(&self, value: &str) -> (&'static str, String) {
        match self {
            Self::Account => ("account", value.to_owned()),
            Self::Region => ("region", value.to_owned()),
            Self::Runtime => ("runtime", value.to_owned()),
            Self::Tag(key) => ("tag", format!("{key}={value}")),
        }
    }
}

impl std::str::FromStr for Group {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "account" => Ok(Self::Account),
            "region" => Ok(Self::Region),
            "runtime" => Ok(Self::Runtime),
            _ => match text.strip_prefix("tag:") {
                Some(key) if !key.is_empty() => Ok(Self::Tag(key.to_owned())),
                _ => Err("a group is account, region, runtime, or a tag such as tag:team".to_owned()),
            },
        }
    }
}

impl TryFrom<String> for Group {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Group> for String {
    fn from(group: Group) -> Self {
        group.code()
    }
}

/// A filter by a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagFilter {
    /// Its key.
    pub key: String,
    /// Its value; any when absent.
    pub value: Option<String>,
}

impl TagFilter {
    /// Reads `KEY=VALUE` or `KEY`, several with commas between them.
    #[must_use]
    pub fn parse(text: &str) -> Vec<Self> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let filter = |part: &str| match part.split_once('=') {
            Some((key, value)) => Self { key: key.to_owned(), value: Some(value.to_owned()) },
            None => Self { key: part.to_owned(), value: None },
        };
        parts.map(filter).collect()
    }
}
