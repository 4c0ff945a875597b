//! Events for a webhook: their content, signature and Slack text, and the queue that keeps them until a receiver accepts them.

mod advice;
mod event;
mod losses;
mod outbox;
mod secret;
mod slack;

pub use advice::{AdviceEvent, CurrentAdvice, KnownAdvice, advice_event};
pub use event::{Advice, BillDifference, Content, Event, Freeze, Function, Losses, SizeChange};
pub use losses::LossState;
pub use outbox::{Attempt, MAX_EVENT_AGE_US, MAX_QUEUED, Outbox, OutboxError, Queued, attempt};
pub use secret::{Secrets, SecretsError};

/// Scheme, host and port of an address, for logs: the other parts may contain a secret.
#[must_use]
pub fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find(['/', '?', '#']).map_or(url.len(), |at| host + at);
    match url[host..end].rfind('@') {
        Some(at) => &url[host + at + 1..end],
        None => &url[..end],
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_origin_has_no_secret() {
        for (url, origin) in [
            ("https://hooks.slack.com/services/T/B/secret", "https://hooks.slack.com"),
            ("http://user:secret@host:80?key=secret", "host:80"),
            ("http://host", "http://host"),
            ("host/secret", "host"),
        ] {
            assert_eq!(super::origin(url), origin);
        }
    }
}
