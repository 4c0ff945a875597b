//! The file of tags: JSON or CSV.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{TagTable, Tags};
use crate::files::read_text;
use crate::store::FunctionKey;

/// Maximum size of the file, bytes.
const MAX_BYTES: u64 = 64 << 20;

/// Maximum length of a tag's key and value, characters: AWS's limits.
const MAX_KEY: usize = 128;
const MAX_VALUE: usize = 256;

/// Maximum number of tags of a function: AWS's limit.
const MAX_TAGS: usize = 50;

/// Why a file of tags cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TagError {
    /// It cannot be read or written.
    #[error("cannot read or write the tags in {0}: {1}")]
    Io(PathBuf, std::io::Error),
    /// It is too large.
    #[error("{0} has more than {MAX_BYTES} bytes, the limit of a file of tags")]
    TooLarge(PathBuf),
    /// It is neither JSON nor CSV of the documented form.
    #[error(
        "{0}: {1}; the file is JSON such as {{\"FUNCTION\": {{\"team\": \"payments\"}}}}, or CSV with the header \
         `function,team,...`, where FUNCTION is a name or an ARN"
    )]
    Form(PathBuf, String),
    /// The body of a request is not JSON of the documented form.
    #[error(
        "{0}; the body is JSON such as {{\"FUNCTION\": {{\"team\": \"payments\"}}}}, where FUNCTION is a name or an ARN"
    )]
    Body(String),
    /// There is no data folder to store tags in that were sent.
    #[error(
        "this collector stores no tags that are sent, because it has no data folder: send them to a `tailor serve`"
    )]
    NotStored,
    /// There are more functions than are kept.
    #[error("at most {0} functions have tags that were sent: remove those of others with `{{}}`")]
    TooMany(usize),
    /// The tags of one function are not valid.
    #[error("{0}, function `{1}`: {2}")]
    Tag(PathBuf, String, String),
}

pub(super) fn read(path: &Path) -> Result<TagTable, TagError> {
    let io = |error| TagError::Io(path.to_owned(), error);
    if std::fs::metadata(path).map_err(io)?.len() > MAX_BYTES {
        return Err(TagError::TooLarge(path.to_owned()));
    }
    parse(path, &read_text(path).map_err(io)?)
}

/// The tags of a text in JSON or CSV. `path` is named in errors.
fn parse(path: &Path, text: &str) -> Result<TagTable, TagError> {
    let form = |message: String| TagError::Form(path.to_owned(), message);
    let entries = if text.trim_start().starts_with('{') {
        serde_json::from_str::<BTreeMap<String, Tags>>(text)
            .map_err(|error| form(error.to_string()))?
            .into_iter()
            .collect()
    } else {
        csv_entries(text).map_err(form)?
    };
    table(path, entries)
}

/// The table of some functions, named by name or by ARN, and their tags.
pub(super) fn table(
    path: &Path,
    entries: impl IntoIterator<Item = (String, Tags)>,
) -> Result<TagTable, TagError> {
    let mut table = TagTable::default();
    for (function, tags) in entries {
        let invalid = |message: String| TagError::Tag(path.to_owned(), function.clone(), message);
        if function.is_empty() {
            return Err(invalid("a function has a name".to_owned()));
        }
        check(&tags).map_err(invalid)?;
        if function.starts_with("arn:") {
            let message = "the ARN of a function is arn:aws:lambda:REGION:ACCOUNT:function:NAME".to_owned();
            let key = key_of(&function).ok_or_else(|| invalid(message))?;
            table.by_key.entry(key).or_default().extend(tags);
        } else {
            table.by_name.entry(function).or_default().extend(tags);
        }
    }
    Ok(table)
}

/// The rows of a CSV file: its first column is the function, every other one is a tag.
fn csv_entries(text: &str) -> Result<Vec<(String, Tags)>, String> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    let header = reader.headers().map_err(|error| error.to_string())?.clone();
    if header.get(0) != Some("function") {
        return Err("the first column is not named `function`".to_owned());
    }
    let mut entries = vec![];
    for row in reader.records() {
        let row = row.map_err(|error| error.to_string())?;
        let cells = header.iter().zip(&row).skip(1).filter(|(_, value)| !value.is_empty());
        let tags = cells.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        entries.push((row.get(0).unwrap_or_default().to_owned(), tags));
    }
    Ok(entries)
}

fn check(tags: &Tags) -> Result<(), String> {
    if tags.len() > MAX_TAGS {
        return Err(format!("a function has at most {MAX_TAGS} tags"));
    }
    for (key, value) in tags {
        if key.is_empty() || key.chars().count() > MAX_KEY || key.contains('=') {
            return Err(format!(
                "`{key}` is not a key of a tag: it has 1 to {MAX_KEY} characters and no `=`"
            ));
        }
        if value.chars().count() > MAX_VALUE {
            return Err(format!("the value of `{key}` has more than {MAX_VALUE} characters"));
        }
    }
    Ok(())
}

/// The function of an ARN, without its version or alias.
pub fn key_of(arn: &str) -> Option<FunctionKey> {
    let parts: Vec<&str> = arn.split(':').collect();
    match parts.as_slice() {
        ["arn", _, "lambda", region, account, "function", name, ..] => Some(FunctionKey {
            account: (*account).to_owned(),
            region: (*region).to_owned(),
            name: (*name).to_owned(),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<TagTable, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tags");
        std::fs::write(&path, text).unwrap();
        read(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn json_and_csv_give_the_same_tags_and_an_arn_counts_before_a_name() {
        let json = read_text(
            r#"{"arn:aws:lambda:eu-west-1:123456789012:function:auth": {"team": "identity"},
                "auth": {"team": "none", "env": "prod"}}"#,
        );
        let csv = read_text(
            "function, team, env\narn:aws:lambda:eu-west-1:123456789012:function:auth:live,identity,\nauth,none,prod\n",
        );
        let table = csv.unwrap();
        assert_eq!(json.unwrap(), table);
        let key = |region: &str| FunctionKey {
            account: "123456789012".to_owned(),
            region: region.to_owned(),
            name: "auth".to_owned(),
        };
        assert_eq!(table.value(&key("eu-west-1"), "team"), Some("identity"));
        assert_eq!(table.value(&key("us-east-1"), "team"), Some("none"));
        assert_eq!(table.value(&key("eu-west-1"), "env"), Some("prod"));
        assert_eq!(table.keys(), ["env", "team"]);
    }

    #[test]
    fn errors_name_what_is_wrong() {
        for (text, part) in [
            ("name,team\na,b\n", "the first column is not named `function`"),
            ("{\"f\": 3}", "invalid type"),
            ("{\"f\": {\"a=b\": \"c\"}}", "function `f`: `a=b` is not a key"),
            ("{\"arn:aws:s3:::bucket\": {}}", "the ARN of a function is"),
        ] {
            let error = read_text(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
