//! Links to the pages of a query.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{DEFAULT_HOURS, DEFAULT_STRATEGY, Group, Query};
use crate::store::FunctionKey;

impl Query {
    /// A relative link to the first page of the same list; `changes` replaces some parameters.
    pub(crate) fn list_link(&self, changes: &[(&str, Option<String>)]) -> String {
        let parameters = [
            ("hours", self.hours.map(|hours| hours.to_string())),
            ("strategy", self.strategy.clone()),
            ("name", self.name.clone()),
            ("tag", self.tag.clone()),
            ("account", self.account.clone()),
            ("region", self.region.clone()),
            ("runtime", self.runtime.clone()),
            ("architecture", self.architecture.clone()),
            ("advice", self.advice.map(|advice| advice.code().to_owned())),
            ("min_cost", self.min_cost.clone()),
            ("sort", self.sort.clone()),
            ("reverse", self.reverse.then(|| "true".to_owned())),
            ("by", self.by.as_ref().map(Group::code)),
            ("limit", self.limit.map(|limit| limit.to_string())),
            ("cursor", None),
        ];
        let changed = |name: &str| changes.iter().find(|(changed, _)| *changed == name);
        let pairs = parameters.into_iter().filter_map(|(name, value)| {
            let value = changed(name).map_or(value, |(_, value)| value.clone())?;
            (!value.is_empty()).then(|| format!("{name}={}", path_segment(&value)))
        });
        format!("?{}", pairs.collect::<Vec<_>>().join("&"))
    }

    /// A relative link to the same page with another window and strategy.
    pub(crate) fn link(&self, hours: u64, strategy: &str) -> String {
        self.list_link(&[("hours", Some(hours.to_string())), ("strategy", Some(strategy.to_owned()))])
    }

    /// The path of a function's page, with the window and strategy of this query.
    pub(crate) fn function_link(&self, key: &FunctionKey) -> String {
        let hours = self.hours.unwrap_or(DEFAULT_HOURS);
        let strategy = self.strategy.as_deref().unwrap_or(DEFAULT_STRATEGY);
        format!(
            "/functions/{}?hours={hours}&strategy={}&region={}&account={}",
            path_segment(&key.name),
            path_segment(strategy),
            path_segment(&key.region),
            path_segment(&key.account)
        )
    }
}

/// The characters that a path segment or query value may contain unencoded, in addition to letters and digits.
const UNRESERVED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'$');

/// A name as one part of a path, percent-encoded.
#[must_use]
pub fn path_segment(name: &str) -> String {
    utf8_percent_encode(name, UNRESERVED).to_string()
}
