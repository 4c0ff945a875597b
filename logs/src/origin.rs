//! Where a log line comes from: account, region, function, version and log stream.

/// The place of a log. Texts that are unknown are empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Origin {
    /// AWS account.
    pub account: String,
    /// AWS region.
    pub region: String,
    /// Function name.
    pub function: String,
    /// Function version.
    pub version: String,
    /// Log stream: one execution environment.
    pub stream: String,
}

/// What Lambda's log groups begin with, unless the function has another one.
const GROUP_PREFIX: &str = "/aws/lambda/";

/// Maximum length of a name, bytes. Function names have 64 and log streams about 100.
const MAX_NAME_BYTES: usize = 256;

impl Origin {
    /// Uses a log group: `/aws/lambda/NAME`, also after an account (`123456789012:/aws/lambda/NAME`) or as an ARN. A name
    /// that is known already stays.
    pub fn set_group(&mut self, group: &str) {
        if let Some(arn) = group.strip_prefix("arn:") {
            let mut parts = arn.splitn(6, ':').skip(2);
            let (region, account) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            set(&mut self.region, region);
            set(&mut self.account, account);
        }
        let Some(at) = group.find(GROUP_PREFIX) else { return };
        let account = group[..at].trim_end_matches(':');
        if account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit()) {
            set(&mut self.account, account);
        }
        let name = &group[at + GROUP_PREFIX.len()..];
        set(&mut self.function, name.split([':', '/']).next().unwrap_or_default());
    }

    /// Uses a log stream: `2026/01/02/[$LATEST]0123…`, or `2026/01/02/NAME[$LATEST]0123…` in a custom log group.
    pub fn set_stream(&mut self, stream: &str) {
        if stream.len() > MAX_NAME_BYTES {
            return;
        }
        stream.clone_into(&mut self.stream);
        let Some((name, version)) = parse_stream(stream) else { return };
        version.clone_into(&mut self.version);
        if !name.is_empty() {
            set(&mut self.function, name);
        }
    }

    /// Uses a function's ARN, with or without a version.
    pub fn set_arn(&mut self, arn: &str) {
        let parts: Vec<&str> = arn.split(':').collect();
        if let ["arn", _, "lambda", region, account, "function", name, rest @ ..] = parts.as_slice() {
            set(&mut self.region, region);
            set(&mut self.account, account);
            set(&mut self.function, name);
            if let [version] = rest {
                set(&mut self.version, version);
            }
        }
    }

    /// Uses the path of a file or of an S3 object: `…/aws/lambda/NAME/…`, the folder of a log stream as CloudWatch Logs
    /// exports it (`2026-01-02-[$LATEST]0123…`, or `2026-01-02-NAME[$LATEST]0123…` of a custom log group), and
    /// `AWSLogs/ACCOUNT/…`.
    pub fn set_path(&mut self, path: &str) {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        for window in parts.windows(3) {
            if let ["aws", "lambda", name] = window {
                let name = name.split(['.', ':']).next().unwrap_or_default();
                set(&mut self.function, name);
            }
        }
        for part in &parts {
            let is_account = part.len() == 12 && part.bytes().all(|byte| byte.is_ascii_digit());
            if is_account {
                set(&mut self.account, part);
            }
            if is_region(part) {
                set(&mut self.region, part);
            }
            // A file can have the name of a log stream, with an ending.
            let id = part.rfind(']').unwrap_or(0);
            let stream = part[id..].find('.').map_or(*part, |ending| &part[..id + ending]);
            if let Some((name, version)) = parse_stream(stream)
                && stream.len() <= MAX_NAME_BYTES
            {
                stream.clone_into(&mut self.stream);
                set(&mut self.version, version);
                set(&mut self.function, name);
            }
        }
    }
}

/// Sets a text that is unknown to a valid name.
fn set(field: &mut String, value: &str) {
    let is_valid = !value.is_empty()
        && value.len() <= MAX_NAME_BYTES
        && value.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
    if field.is_empty() && is_valid {
        value.clone_into(field);
    }
}

/// Whether a text has the form of a region's name, such as `eu-west-1` or `us-gov-east-1`.
fn is_region(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let is_form = (3..=4).contains(&parts.len())
        && parts[0].len() >= 2
        && parts[0].len() <= 4
        && parts.last().is_some_and(|last| last.len() == 1 && last.bytes().all(|byte| byte.is_ascii_digit()));
    is_form && parts[..parts.len() - 1].iter().all(|part| part.bytes().all(|byte| byte.is_ascii_lowercase()))
}

/// Function name (may be empty) and version of a log stream's name; `None` when it is not one of Lambda's. Lambda's
/// documentation writes the id of the environment in brackets, too.
pub(crate) fn parse_stream(stream: &str) -> Option<(&str, &str)> {
    let bytes = stream.as_bytes();
    let is_date = bytes.len() > 13
        && [0, 1, 2, 3, 5, 6, 8, 9].into_iter().all(|at| bytes[at].is_ascii_digit())
        && bytes[4] == bytes[7]
        && matches!(bytes[4], b'/' | b'-')
        && bytes[10] == bytes[4];
    if !is_date {
        return None;
    }
    let (name, rest) = stream[11..].split_once('[')?;
    let (version, id) = rest.split_once(']')?;
    let id = id.strip_prefix('[').and_then(|id| id.strip_suffix(']')).unwrap_or(id);
    let is_valid = !version.is_empty()
        && !id.is_empty()
        && !name.contains(char::is_whitespace)
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    is_valid.then_some((name, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(account: &str, region: &str, function: &str, version: &str) -> Origin {
        let [account, region, function, version] = [account, region, function, version].map(str::to_owned);
        Origin { account, region, function, version, stream: String::new() }
    }

    #[test]
    fn groups_streams_arns_and_paths_name_the_function() {
        let of = |set: fn(&mut Origin, &str), text: &str| {
            let mut origin = Origin::default();
            set(&mut origin, text);
            Origin { stream: String::new(), ..origin }
        };
        let group = Origin::set_group;
        assert_eq!(of(group, "/aws/lambda/pay"), origin("", "", "pay", ""));
        assert_eq!(of(group, "123456789012:/aws/lambda/pay"), origin("123456789012", "", "pay", ""));
        let arn = "arn:aws:logs:eu-west-1:123456789012:log-group:/aws/lambda/pay:*";
        assert_eq!(of(group, arn), origin("123456789012", "eu-west-1", "pay", ""));
        assert_eq!(of(group, "/ecs/web"), Origin::default());
        let stream = Origin::set_stream;
        assert_eq!(of(stream, "2026/01/02/[$LATEST]0123abcd"), origin("", "", "", "$LATEST"));
        assert_eq!(of(stream, "2026/01/02/pay[7]0123abcd"), origin("", "", "pay", "7"));
        assert_eq!(of(stream, "2026/01/02/pay[7][0123abcd]"), origin("", "", "pay", "7"));
        let arn = "arn:aws:lambda:eu-west-1:123456789012:function:pay:3";
        assert_eq!(of(Origin::set_arn, arn), origin("123456789012", "eu-west-1", "pay", "3"));
        let path = Origin::set_path;
        assert_eq!(
            of(path, "logs/aws/lambda/pay/2026-01-02-[$LATEST]0123abcd/000000.gz"),
            origin("", "", "pay", "$LATEST")
        );
        assert_eq!(
            of(path, "logs/2026-01-02-pay[$LATEST]0123abcd/000000.gz"),
            origin("", "", "pay", "$LATEST")
        );
        assert_eq!(of(path, "logs/2026-01-02-pay-all[7]0123abcd.log"), origin("", "", "pay-all", "7"));
        assert_eq!(
            of(path, "AWSLogs/123456789012/eu-west-1/x.gz"),
            origin("123456789012", "eu-west-1", "", "")
        );
        assert_eq!(of(path, "a/b-c-d/000000.gz"), Origin::default());
    }
}
