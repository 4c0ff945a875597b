//! The help of `tailor`: the commands by purpose.

use clap::Command;

use super::exit;

/// The commands by purpose, in the order of the help.
const GROUPS: [(&str, &[&str]); 5] = [
    ("Measure", &["serve", "lambda", "import"]),
    ("Show", &["functions", "function", "hints", "series", "bill", "where", "prices", "top"]),
    ("Bills and exports", &["reconcile", "report", "export", "archive"]),
    ("Change memory sizes", &["changes", "policy", "tune"]),
    ("Maintain", &["doctor", "check", "backup", "migrate", "keys", "completions", "man", "help"]),
];

/// The command with a help that lists its commands by purpose.
pub(super) fn with_groups(command: Command) -> Command {
    let commands = list(&command);
    command
        .help_template(format!(
            "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{commands}Options:\n{{options}}{{after-help}}"
        ))
        .after_help(format!("{}\n\n`tailor COMMAND --help` describes a command.", exit::text()))
}

fn list(command: &Command) -> String {
    let width = GROUPS.iter().flat_map(|(_, names)| *names).map(|name| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (purpose, names) in GROUPS {
        text.push_str(&format!("{purpose}:\n"));
        for name in names {
            let about = match command.find_subcommand(name) {
                Some(found) => found.get_about().map(ToString::to_string).unwrap_or_default(),
                // clap adds it when it reads the command line.
                None => "Print this message or the help of a command".to_owned(),
            };
            text.push_str(&format!("  {name:<width$}  {about}\n"));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_command_is_in_one_group() {
        let command = Cli::definition();
        let shown: BTreeSet<&str> = command
            .get_subcommands()
            .filter(|command| !command.is_hide_set())
            .map(Command::get_name)
            .collect();
        let listed: Vec<&str> =
            GROUPS.iter().flat_map(|(_, names)| *names).copied().filter(|name| *name != "help").collect();
        assert_eq!(listed.len(), shown.len(), "{listed:?}");
        assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), shown);
    }
}
