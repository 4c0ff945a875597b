//! Options that exclude each other, of which one may have an environment variable, and an option that wins over the variable
//! of another one.
//!
//! clap's own conflicts count a variable as a given option: who sets `TAILOR_DATA` for all commands could use none that excludes
//! `--data`.

use std::ffi::OsString;

use clap::ArgMatches;
use clap::error::ErrorKind;
use clap::parser::ValueSource;

use super::Cli;

/// The options that exclude each other.
const CONFLICTS: [[&str; 2]; 3] = [["tags", "server"], ["usage", "server"], ["advice", "data"]];

/// Commands that use a data folder beside a database.
const WITH_FOLDER_AND_DATABASE: [&str; 5] = ["serve", "lambda", "import", "migrate", "keys"];

/// The arguments without a database, when a command reads one store, its folder is named, and only a variable names a database. Who sets
/// the variable for all commands can read a folder.
pub(super) fn without_database(matches: &ArgMatches, arguments: &[OsString]) -> Option<Vec<OsString>> {
    let (name, mut matches) = matches.subcommand()?;
    while let Some((_, inner)) = matches.subcommand() {
        matches = inner;
    }
    let is_from = |id: &str, source: ValueSource| {
        matches.try_contains_id(id).is_ok() && matches.value_source(id) == Some(source)
    };
    let reads_folder =
        is_from("data", ValueSource::CommandLine) && is_from("database", ValueSource::EnvVariable);
    if WITH_FOLDER_AND_DATABASE.contains(&name) || !reads_folder {
        return None;
    }
    // What follows `--` is no option.
    let end = arguments.iter().position(|argument| argument == "--").unwrap_or(arguments.len());
    let mut arguments = arguments.to_vec();
    arguments.insert(end, "--database=".into());
    Some(arguments)
}

/// Checks the arguments of the command that was given.
///
/// # Errors
/// Two of them exclude each other.
pub(super) fn check(matches: &ArgMatches) -> Result<(), clap::Error> {
    if let Some((_, matches)) = matches.subcommand() {
        return check(matches);
    }
    let is_given = |id: &str| {
        matches.try_contains_id(id).is_ok() && matches.value_source(id) == Some(ValueSource::CommandLine)
    };
    match CONFLICTS.into_iter().find(|pair| pair.iter().all(|id| is_given(id))) {
        None => Ok(()),
        Some([option, other]) => {
            let message = format!("the argument '--{option}' cannot be used with '--{other}'");
            Err(Cli::definition().error(ErrorKind::ArgumentConflict, message))
        }
    }
}
