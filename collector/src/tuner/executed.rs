//! Requests that were executed and could not be removed.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use super::requests::TunerRequest;

/// The names of requests that were executed and could not be removed. They are not executed again. The names are not stored: after
/// a start of the collector, such a request is executed once more.
#[derive(Default)]
pub(super) struct Executed(Mutex<HashSet<String>>);

impl Executed {
    /// Remembers a request.
    pub(super) fn insert(&self, name: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
    }

    /// The requests that were not executed. What is not in a list any more is forgotten.
    pub(super) fn new_ones(&self, mut requests: Vec<(String, TunerRequest)>) -> Vec<(String, TunerRequest)> {
        let mut executed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The list is also empty when it cannot be read.
        if !requests.is_empty() {
            executed.retain(|executed| requests.iter().any(|(name, _)| name == executed));
        }
        requests.retain(|(name, _)| !executed.contains(name));
        requests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_cannot_be_removed_is_executed_once() {
        let executed = Executed::default();
        let request = |name: &str| (name.to_owned(), TunerRequest::Freeze { reason: String::new() });
        let names = |requests: &[&str]| -> Vec<String> {
            let requests = requests.iter().map(|name| request(name)).collect();
            executed.new_ones(requests).into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(names(&["1", "2"]), ["1", "2"]);
        executed.insert("1".to_owned());
        assert_eq!(names(&["1", "2"]), ["2"]);
        assert!(names(&[]).is_empty());
        assert_eq!(names(&["1", "3"]), ["3"], "the list could not be read in between");
        assert_eq!(names(&["3"]), ["3"]);
        assert_eq!(names(&["1"]), ["1"], "it was removed, and is another one");
    }
}
