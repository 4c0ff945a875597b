//! Options that exclude each other, of which one may have an environment variable.
//!
//! clap's own conflicts count a variable as a given option: who sets `TAILOR_DATA` for all commands could use none that excludes
//! `--data`.

use clap::ArgMatches;
use clap::error::ErrorKind;
use clap::parser::ValueSource;

use super::Cli;

/// The options that exclude each other.
const CONFLICTS: [[&str; 2]; 3] = [["tags", "server"], ["usage", "server"], ["advice", "data"]];

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
