//! The formats of key files.
//!
//! A key in a store is a JSON object. The data folder's file `keys` has one per line. Lines `TENANT DIGEST` of earlier versions are accepted:
//! such a key has the scopes `ingest` and `read`, and that of the tenant `default` also `admin`.
//!
//! An operator's file (`--api-key-file`) has one key per line: `[TENANT] KEY [scopes=LIST] [functions=LIST] [name=NAME]
//! [expires=YYYY-MM-DD]`. A key without scopes is like one of earlier versions. Instead of the key, the line may
//! have `sha256:` and its digest. Lines with `#` are comments.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};
use time::{Date, Month, Time};

use super::{FunctionPattern, Key, KeyError, KeyRing, Scope, SecretDigest};
use crate::store::Tenant;

/// Minimum length of a key in an operator's file: shorter keys could be guessed.
const MIN_KEY_CHARACTERS: usize = 16;

/// Longest name of a key, characters.
const MAX_NAME_CHARACTERS: usize = 100;

/// A line of the data folder's file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    sha256: String,
    #[serde(default)]
    name: String,
    tenant: String,
    scopes: Vec<String>,
    #[serde(default)]
    functions: Vec<String>,
    created_at_s: Option<u64>,
    expires_at_s: Option<u64>,
}

/// The line of a key in the data folder's file and in a store, without the end of the line.
#[must_use]
pub fn to_line(key: &Key) -> String {
    let line = Line {
        sha256: key.digest.to_string(),
        name: key.name.clone(),
        tenant: key.tenant.0.clone(),
        scopes: key.scopes.iter().map(|scope| scope.name().to_owned()).collect(),
        functions: key.functions.iter().map(|pattern| pattern.0.clone()).collect(),
        created_at_s: key.created_at_s,
        expires_at_s: key.expires_at_s,
    };
    // Strings and numbers always have a JSON form.
    serde_json::to_string(&line).unwrap_or_default()
}

/// Adds the keys of the data folder's file.
///
/// # Errors
/// [`KeyError::File`] and [`KeyError::Line`].
pub(super) fn add_folder_file(ring: &mut KeyRing, path: &Path) -> Result<(), KeyError> {
    for (line, text) in lines(path)? {
        let key = if text.starts_with('{') { parse_json(&text) } else { parse_digest_line(&text) };
        ring.insert(key.map_err(|problem| KeyError::Line { path: path.to_owned(), line, problem })?);
    }
    Ok(())
}

/// Adds the keys of an operator's file.
///
/// # Errors
/// [`KeyError::File`], also when there is no such file, and [`KeyError::Line`].
pub fn add_operator_file(ring: &mut KeyRing, path: &Path) -> Result<(), KeyError> {
    let exists = path.try_exists().map_err(|error| KeyError::File { path: path.to_owned(), error })?;
    if !exists {
        return Err(KeyError::File { path: path.to_owned(), error: ErrorKind::NotFound.into() });
    }
    for (line, text) in lines(path)? {
        let key = parse_operator_line(&text);
        ring.insert(key.map_err(|problem| KeyError::Line { path: path.to_owned(), line, problem })?);
    }
    Ok(())
}

/// Adds the keys of a text in the form of an operator's file. Also `;` separates two keys.
///
/// # Errors
/// The line and what is wrong with it. The text itself is not in the error.
pub fn add_lines(ring: &mut KeyRing, text: &str) -> Result<(), KeyError> {
    for (line, text) in content(&text.replace(';', "\n")) {
        let key = parse_operator_line(text);
        ring.insert(key.map_err(|problem| KeyError::Text { line, problem })?);
    }
    Ok(())
}

/// Reads a line that [`to_line`] wrote.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse_json(text: &str) -> Result<Key, String> {
    let line: Line = serde_json::from_str(text).map_err(|error| error.to_string())?;
    Ok(Key {
        digest: digest(&line.sha256)?,
        name: line.name,
        tenant: Tenant(line.tenant),
        scopes: line.scopes.iter().map(|scope| scope.parse()).collect::<Result<_, _>>()?,
        functions: line.functions.into_iter().map(FunctionPattern).collect(),
        created_at_s: line.created_at_s,
        expires_at_s: line.expires_at_s,
    })
}

fn parse_digest_line(text: &str) -> Result<Key, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    match words[..] {
        [tenant, hex] => Ok(Key::without_scopes(digest(hex)?, Tenant(tenant.to_owned()))),
        _ => Err("expected `TENANT DIGEST`; the name of a tenant has no spaces".to_owned()),
    }
}

fn digest(hex: &str) -> Result<SecretDigest, String> {
    SecretDigest::from_hex(hex).ok_or_else(|| "the digest is not 64 hexadecimal digits".to_owned())
}

fn parse_operator_line(text: &str) -> Result<Key, String> {
    const OPTIONS: [&str; 4] = ["scopes", "functions", "name", "expires"];
    let option = |word: &'_ str| {
        word.split_once('=').filter(|(name, _)| OPTIONS.contains(name)).map(|(name, _)| name.len() + 1)
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    let options_at = words.iter().position(|word| option(word).is_some()).unwrap_or(words.len());
    let (identity, options) = words.split_at(options_at);
    let (tenant, secret) = match identity {
        [secret] => (Tenant::DEFAULT_NAME, *secret),
        [tenant, secret] => (*tenant, *secret),
        _ => {
            return Err(
                "expected `KEY` or `TENANT KEY`, and then `scopes=`, `functions=`, `name=` or `expires=`; \
                        the name of a tenant has no spaces"
                    .to_owned(),
            );
        }
    };
    let digest = match secret.strip_prefix("sha256:") {
        Some(hex) => digest(hex)?,
        None if secret.len() < MIN_KEY_CHARACTERS => {
            return Err("a key needs at least 16 characters; `openssl rand -hex 32` creates one".to_owned());
        }
        None => SecretDigest::of(secret),
    };
    let mut key = Key::without_scopes(digest, Tenant(tenant.to_owned()));
    for word in options {
        let value = option(word).map(|length| &word[length..]);
        let value = value.ok_or_else(|| format!("`{word}` is not an option"))?;
        match word.as_bytes()[0] {
            b's' => key.scopes = parse_scopes(value)?,
            b'f' => key.functions = parse_functions(value)?,
            b'n' => key.name = parse_name(value)?,
            _ => key.expires_at_s = Some(parse_date(value)?),
        }
    }
    Ok(key)
}

/// Reads scopes that are separated by commas.
///
/// # Errors
/// The name that is not a scope.
pub fn parse_scopes(text: &str) -> Result<Vec<Scope>, String> {
    text.split(',').map(|scope| scope.trim().parse()).collect()
}

/// Reads patterns of function names that are separated by commas.
///
/// # Errors
/// A pattern is empty or has characters that no function name has.
pub fn parse_functions(text: &str) -> Result<Vec<FunctionPattern>, String> {
    let pattern = |text: &str| {
        let valid = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_*".contains(c));
        valid.then(|| FunctionPattern(text.to_owned())).ok_or_else(|| {
            format!("`{text}` is not a pattern of function names: use letters, digits, `-`, `_` and `*`")
        })
    };
    text.split(',').map(|text| pattern(text.trim())).collect()
}

/// Reads the name of a key.
///
/// # Errors
/// It is empty, too long or has control characters.
pub fn parse_name(text: &str) -> Result<String, String> {
    let valid = !text.is_empty()
        && text.chars().count() <= MAX_NAME_CHARACTERS
        && !text.chars().any(crate::render::text::is_invisible);
    valid.then(|| text.to_owned()).ok_or_else(|| {
        format!("a name has 1 to {MAX_NAME_CHARACTERS} characters, without control characters")
    })
}

/// Reads a date, `YYYY-MM-DD`, as the seconds since the Unix epoch at its begin in UTC.
///
/// # Errors
/// It is not a date.
pub fn parse_date(text: &str) -> Result<u64, String> {
    let numbers: Vec<&str> = text.split('-').collect();
    let date = match numbers[..] {
        [year, month, day] => parse_parts(year, month, day),
        _ => None,
    };
    date.ok_or_else(|| format!("`{text}` is not a date: write `YYYY-MM-DD`"))
}

fn parse_parts(year: &str, month: &str, day: &str) -> Option<u64> {
    let month = Month::try_from(month.parse::<u8>().ok()?).ok()?;
    let date = Date::from_calendar_date(year.parse().ok()?, month, day.parse().ok()?).ok()?;
    u64::try_from(date.with_time(Time::MIDNIGHT).assume_utc().unix_timestamp()).ok()
}

/// The lines without comments and empty lines, with line numbers; none when the file does not exist.
pub(super) fn lines(path: &Path) -> Result<Vec<(usize, String)>, KeyError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(KeyError::File { path: path.to_owned(), error }),
    };
    Ok(content(&text).map(|(number, line)| (number, line.to_owned())).collect())
}

/// The lines without comments and empty lines, with line numbers.
fn content(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = (1..).zip(text.lines().map(str::trim));
    numbered.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(text: &str) -> Result<KeyRing, KeyError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mounted");
        fs::write(&path, text).unwrap();
        let mut ring = KeyRing::default();
        add_operator_file(&mut ring, &path)?;
        Ok(ring)
    }

    #[test]
    fn an_operators_file_has_tenants_scopes_and_digests() {
        let text = format!(
            "# ours\n0123456789abcdef\nacme fedcba9876543210\n\
             acme ingest-key-padded== scopes=ingest functions=checkout-*,auth name=ci expires=2030-01-02\n\
             other sha256:{} scopes=read\n",
            SecretDigest::of("the-key-of-the-other")
        );
        let ring = ring(&text).unwrap();
        let key = |secret: &str| ring.find(secret).unwrap().key.clone();
        assert_eq!(key("0123456789abcdef").tenant, Tenant::default());
        assert_eq!(key("0123456789abcdef").scopes, Scope::ALL);
        assert_eq!(key("fedcba9876543210").tenant.0, "acme");
        assert_eq!(key("fedcba9876543210").scopes, [Scope::Ingest, Scope::Read]);
        let ingest = key("ingest-key-padded==");
        assert_eq!((ingest.name.as_str(), &ingest.scopes[..]), ("ci", &[Scope::Ingest][..]));
        assert!(ingest.permits_function("checkout-price") && !ingest.permits_function("checkout"));
        assert!(!ingest.has_expired(1_893_542_399) && ingest.has_expired(1_893_542_400));
        assert_eq!(key("the-key-of-the-other").scopes, [Scope::Read]);
    }

    #[test]
    fn invalid_lines_are_refused_with_their_number() {
        for (line, cause) in [
            ("short", "16 characters"),
            ("my tenant 0123456789abcdef", "no spaces"),
            ("0123456789abcdef scopes=write", "`write` is not a scope"),
            ("0123456789abcdef functions=a/b", "pattern"),
            ("0123456789abcdef expires=tomorrow", "not a date"),
            ("0123456789abcdef scopes=read more", "`more`"),
            ("sha256:12", "64 hexadecimal digits"),
        ] {
            let error = ring(&format!("ok-key-ok-key-ok-key\n{line}\n")).unwrap_err().to_string();
            assert!(error.contains("line 2") && error.contains(cause), "{line}: {error}");
        }
    }
}
