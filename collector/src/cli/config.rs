//! The configuration file of `tailor serve`: YAML with one key per option, named as the option.
//!
//! Its values become the defaults of the options, so that environment variables and arguments replace them, and every value is
//! checked by the option's own rules.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use crate::files::read_text;

/// Options that are no settings.
const NO_SETTINGS: [&str; 4] = ["config", "check", "help", "version"];

/// The content of a file.
#[derive(Debug)]
pub(super) struct ConfigFile {
    path: PathBuf,
    settings: Vec<Setting>,
}

/// One key with its value.
#[derive(Debug)]
struct Setting {
    key: String,
    /// From 1.
    line: u64,
    values: Vec<String>,
    is_list: bool,
}

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    path: PathBuf,
    line: Option<u64>,
    message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl ConfigFile {
    /// Reads a file. The settings are not checked yet.
    ///
    /// # Errors
    /// It cannot be read, or is not a YAML document with keys and values.
    pub(super) fn read(path: &Path) -> Result<Self, Problem> {
        let failed = |line, message| Problem { path: path.to_owned(), line, message };
        let text = read_text(path).map_err(|error| failed(None, error.to_string()))?;
        let is_empty = text.lines().all(|line| line.trim().is_empty() || line.trim().starts_with('#'));
        let Entries(entries) = if is_empty {
            Entries::default()
        } else {
            serde_saphyr::from_str(&text).map_err(|error| {
                let line = error.location().map(|location| location.line());
                // The first line of a message has the cause; a picture of the place follows.
                let message = error.to_string();
                failed(
                    line,
                    message.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned(),
                )
            })?
        };
        let setting = |(key, value): (String, Spanned<Value>)| Setting {
            key,
            line: value.referenced.line(),
            is_list: matches!(value.value, Value::List(_)),
            values: match value.value {
                Value::One(value) => vec![value],
                Value::List(values) => values,
                Value::Null => Vec::new(),
            },
        };
        Ok(Self { path: path.to_owned(), settings: entries.into_iter().map(setting).collect() })
    }

    /// Every setting that the command `serve` does not accept.
    pub(super) fn problems(&self, serve: &Command) -> Vec<Problem> {
        let of = |setting: &Setting| {
            let problem = problem_of(setting, serve)?;
            Some(Problem { path: self.path.clone(), line: Some(setting.line), message: problem })
        };
        self.settings.iter().filter_map(of).collect()
    }

    /// The command `serve` with the settings as defaults. Those with problems are left out.
    pub(super) fn apply(&self, serve: Command) -> Command {
        let accepted: Vec<_> =
            self.settings.iter().filter(|setting| problem_of(setting, &serve).is_none()).collect();
        accepted.into_iter().fold(serve, |serve, setting| {
            let Some(id) = option(&serve, &setting.key).map(|arg| arg.get_id().clone()) else { return serve };
            serve.mut_arg(id, |arg| arg.default_values(setting.values.clone()))
        })
    }
}

/// The option with this name.
fn option<'a>(serve: &'a Command, key: &str) -> Option<&'a Arg> {
    let is_setting = !NO_SETTINGS.contains(&key);
    serve.get_arguments().find(|arg| is_setting && arg.get_long() == Some(key))
}

fn problem_of(setting: &Setting, serve: &Command) -> Option<String> {
    let Setting { key, values, is_list, .. } = setting;
    let Some(arg) = option(serve, key) else { return Some(unknown(serve, key)) };
    let is_flag = matches!(arg.get_action(), ArgAction::SetTrue);
    if *is_list && !matches!(arg.get_action(), ArgAction::Append) {
        return Some(format!("`{key}` takes one value, not a list"));
    }
    if values.is_empty() && !*is_list {
        return Some(format!("`{key}` has no value"));
    }
    if is_flag {
        let [value] = &values[..] else { return Some(format!("`{key}` takes one value")) };
        let is_boolean = matches!(value.as_str(), "true" | "false");
        return (!is_boolean).then(|| format!("`{key}` is `true` or `false`, not `{value}`"));
    }
    // The option's own rules decide, one value at a time and without the other options.
    values.iter().find_map(|value| {
        let argument = format!("--{key}={value}");
        let error = serve.clone().no_binary_name(true).try_get_matches_from([argument]).err()?;
        let is_of_the_value = matches!(
            error.kind(),
            clap::error::ErrorKind::InvalidValue | clap::error::ErrorKind::ValueValidation
        );
        is_of_the_value.then(|| cause(&error, key, value))
    })
}

/// Why clap refuses a value, without its advice about arguments.
fn cause(error: &clap::Error, key: &str, value: &str) -> String {
    if let Some(source) = std::error::Error::source(error) {
        return format!("`{key}`: {source} (the value is `{value}`)");
    }
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(valid)) if !valid.is_empty() => {
            format!("`{key}` is one of {}, not `{value}`", valid.join(", "))
        }
        _ => format!("`{key}` cannot be `{value}`"),
    }
}

fn unknown(serve: &Command, key: &str) -> String {
    // Names with `_` in place of `-`, and those of variables, are the usual errors.
    let plain = key.to_lowercase().replace('_', "-");
    let plain = plain.strip_prefix("tailor-").unwrap_or(&plain).trim_start_matches('-');
    let error = serve.clone().no_binary_name(true).try_get_matches_from([format!("--{plain}")]).err();
    let suggested = error.as_ref().and_then(|error| match error.get(ContextKind::SuggestedArg) {
        Some(ContextValue::String(name)) => Some(name.trim_start_matches('-').to_owned()),
        _ => None,
    });
    let close = option(serve, plain)
        .map(|_| plain.to_owned())
        .or(suggested)
        .filter(|name| option(serve, name).is_some());
    match close {
        Some(name) => format!("`{key}` is not a setting: did you mean `{name}`?"),
        None => {
            format!(
                "`{key}` is not a setting: `tailor serve --help` lists the options, which have the same names"
            )
        }
    }
}

/// The values of all options of `tailor serve`, by the name of the option.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Settings(BTreeMap<String, Vec<OsString>>);

impl Settings {
    /// The values that the arguments, the environment, the file and the defaults give together.
    pub(super) fn of(serve: &Command, matches: &ArgMatches) -> Self {
        let value = |arg: &Arg| {
            let name = arg.get_long().filter(|name| !NO_SETTINGS.contains(name))?.to_owned();
            let values = matches.try_get_raw(arg.get_id().as_str()).ok().flatten();
            Some((name, values.map(|values| values.map(ToOwned::to_owned).collect()).unwrap_or_default()))
        };
        Self(serve.get_arguments().filter_map(value).collect())
    }

    /// The names of the options that have another value.
    pub(super) fn changed(&self, new: &Self) -> Vec<String> {
        new.0
            .iter()
            .filter(|(name, value)| self.0.get(*name) != Some(*value))
            .map(|(name, _)| name.clone())
            .collect()
    }
}

impl Settings {
    /// Takes the values of these options from `new`.
    pub(super) fn take(&mut self, new: &Self, names: &[&str]) {
        for name in names {
            if let Some(values) = new.0.get(*name) {
                self.0.insert((*name).to_owned(), values.clone());
            }
        }
    }
}

/// The keys and values in their order.
#[derive(Debug, Default)]
struct Entries(Vec<(String, Spanned<Value>)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Entries;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("lines such as `listen: 127.0.0.1:8080`")
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// A value, as an argument has it.
#[derive(Debug)]
enum Value {
    One(String),
    List(Vec<String>),
    Null,
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a number, `true`, `false`, or a list of these")
            }
            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(Value::One(value.to_string()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(Value::One(value.to_string()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(Value::One(value.to_string()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(Value::One(value.to_string()))
            }
            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(Value::One(value.to_owned()))
            }
            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_none<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = seq.next_element::<Value>()? {
                    let Value::One(value) = value else {
                        return Err(de::Error::custom("a list has texts and numbers only"));
                    };
                    values.push(value);
                }
                Ok(Value::List(values))
            }
        }
        deserializer.deserialize_any(Any)
    }
}
