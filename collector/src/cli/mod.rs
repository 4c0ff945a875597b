//! The command line: data on standard output, everything else on standard error.
//!
//! [`exit`] has the exit codes.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::engine::ArgValueCompleter;

use crate::logging::{self, LogFormat};
use crate::query::Format;
use crate::store::Tenant;

use arguments::ShowArgs;
use database::DatabaseArgs;
use serve_arguments::ServeArgs;

mod archive;
mod arguments;
mod bill;
mod changes;
mod client;
mod completions;
mod config;
mod conflicts;
mod database;
mod doctor;
pub mod exit;
mod export;
mod fail_on;
mod help;
mod import;
mod keys;
mod lambda;
mod list;
mod maintain;
mod man;
mod patch;
mod placement;
mod prices;
mod profiles;
mod push;
mod recommendations;
mod reconcile;
mod report;
mod runtime;
mod series;
mod serve;
mod serve_arguments;
mod serve_check;
mod serve_reload;
mod show;
mod streams;
mod top;
mod tune;
mod tuner;

/// Measures every Lambda invocation, predicts cost and duration at other memory sizes, and changes the size if enabled.
#[derive(Debug, Parser)]
#[command(name = "tailor", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the collector: receive batches from the extensions, serve the web page and the API.
    Serve(Box<ServeArgs>),
    /// Run the collector as a Lambda function behind a function URL, with the store in a database.
    Lambda(Box<lambda::LambdaArgs>),
    /// Show all functions with their cost and recommended memory size.
    #[command(alias = "summary")]
    Functions {
        #[command(flatten)]
        show: ShowArgs,
        #[command(flatten)]
        list: list::ListArgs,
        /// Show all functions, whatever their number.
        #[arg(long, help_heading = "List", conflicts_with_all = ["limit", "cursor"])]
        all: bool,
        #[command(flatten)]
        fail_on: fail_on::FailOnArgs,
    },
    /// Show the recommended memory size of a function, the reasons, and the prediction at each size.
    Function {
        /// Function name.
        #[arg(add = ArgValueCompleter::new(completions::function_names))]
        function: String,
        #[command(flatten)]
        show: ShowArgs,
        #[command(flatten)]
        place: list::PlaceArgs,
        #[command(flatten)]
        fail_on: fail_on::FailOnArgs,
    },
    /// The same as `function`; without a name, as `functions`.
    #[command(hide = true)]
    Advise {
        /// Function name; all functions when left out.
        #[arg(add = ArgValueCompleter::new(completions::function_names))]
        function: Option<String>,
        #[command(flatten)]
        show: ShowArgs,
        #[command(flatten)]
        list: list::ListArgs,
        #[command(flatten)]
        fail_on: fail_on::FailOnArgs,
    },
    /// Show the hints over all functions: which saves the most, and for which functions.
    Hints {
        #[command(flatten)]
        show: ShowArgs,
        #[command(flatten)]
        list: list::HintArgs,
        #[command(flatten)]
        fail_on: fail_on::FailOnArgs,
    },
    /// Show cost, invocations, durations, errors and cold starts per hour or day, of the fleet or of a function.
    Series {
        /// Function name; the whole fleet when left out.
        #[arg(add = ArgValueCompleter::new(completions::function_names))]
        function: Option<String>,
        #[command(flatten)]
        show: ShowArgs,
        #[command(flatten)]
        list: list::SeriesArgs,
    },
    /// Show the full bill of a function or of all functions: each meter with quantity, price and cost, and what is not known.
    Bill {
        /// Function name; all functions when left out.
        #[arg(add = ArgValueCompleter::new(completions::function_names))]
        function: Option<String>,
        #[command(flatten)]
        show: ShowArgs,
        #[command(flatten)]
        list: list::ListArgs,
        #[command(flatten)]
        bill: bill::BillArgs,
    },
    /// Show where functions should run: arm64, provisioned concurrency by hour of the day, SnapStart or managed instances.
    Where {
        /// Function name; the functions with the largest savings when left out.
        #[arg(add = ArgValueCompleter::new(completions::function_names))]
        function: Option<String>,
        #[command(flatten)]
        show: ShowArgs,
        #[command(flatten)]
        list: list::ListArgs,
    },
    /// Show the prices, or make a table of prices from AWS's price lists.
    #[command(subcommand)]
    Prices(prices::PricesCommand),
    /// Show cost per hour, invocations per second, errors, durations and memory of the functions, repeatedly.
    ///
    /// On a terminal it is a live view: a key changes the order, `q` ends it. Elsewhere it prints rows. Rates are over the
    /// last three minutes, and in the first minute over the window; the other figures are over the window, by default the
    /// present hour and the one before.
    Top(Box<top::TopArgs>),
    /// Check the clock, the disk, the store, the keys, what is reachable, the prices, and what the extension of each
    /// function reports.
    Doctor(Box<doctor::DoctorArgs>),
    /// Read the whole store and list what is damaged.
    Check {
        /// The data folder.
        #[arg(long, env = "TAILOR_DATA", default_value = "tailor-data")]
        data: PathBuf,
        /// Output format.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        /// Isolate damaged rows, and write a damaged file again from its readable rows. No collector may run on the folder.
        #[arg(long)]
        repair: bool,
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Copy the store of a data folder into an empty database. No collector may run on the folder. An interrupted
    /// migration continues.
    Migrate {
        /// The data folder.
        #[arg(long, env = "TAILOR_DATA", default_value = "tailor-data")]
        data: PathBuf,
        /// Output format.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        /// Tenant of the webhook, as for `tailor serve`: its queue is copied for this tenant.
        #[arg(long, env = "TAILOR_WEBHOOK_TENANT", default_value = Tenant::DEFAULT_NAME, value_parser = keys::tenant)]
        webhook_tenant: String,
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Write a copy of the store to a new file, also while a collector runs.
    Backup {
        /// The data folder.
        #[arg(long, env = "TAILOR_DATA", default_value = "tailor-data")]
        data: PathBuf,
        /// The new file.
        file: PathBuf,
    },
    /// Show the changes of the tuner, with predicted and measured values; plan, stop and roll them back.
    #[command(args_conflicts_with_subcommands = true)]
    Changes {
        #[command(flatten)]
        show: ShowArgs,
        #[command(flatten)]
        list: list::ChangeArgs,
        #[command(subcommand)]
        command: Option<ChangesCommand>,
    },
    /// Invoke a function at several memory sizes and print the best one, as AWS Lambda Power Tuning does.
    Tune(Box<tune::TuneArgs>),
    /// Import invocations that were measured without the layer.
    #[command(subcommand)]
    Import(import::ImportCommand),
    /// Show, complete and verify the archive of single invocations in S3.
    #[command(subcommand)]
    Archive(archive::ArchiveCommand),
    /// Write measured usage in a format that other tools read.
    #[command(subcommand)]
    Export(export::ExportCommand),
    /// Write the monthly report: cost, what changed, what to do first, changes of memory sizes, and the cost by account and tag.
    Report(report::ReportArgs),
    /// Compare AWS's bill with what was computed from measurements, per function, day and meter.
    Reconcile(reconcile::ReconcileArgs),
    /// Check the policy file of the tuner.
    #[command(subcommand)]
    Policy(changes::PolicyCommand),
    /// Create, list and revoke API keys of a data folder or database. A running collector uses the change within seconds.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Print the completion of commands, options and names of functions for a shell.
    ///
    /// For bash: `tailor completions bash > /etc/bash_completion.d/tailor`. For zsh: `tailor completions zsh > _tailor`
    /// in a folder of `$fpath`. For fish: `tailor completions fish > ~/.config/fish/completions/tailor.fish`. Names of
    /// functions come from the data folder (`--data` or `TAILOR_DATA`).
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: completions::Shell,
    },
    /// Write the manual pages of all commands to a folder.
    Man {
        /// The folder. It is created when it does not exist.
        folder: PathBuf,
    },
    /// Create a key that sends and reads. `keys create` has more options.
    #[command(hide = true)]
    Key {
        /// The data folder.
        #[arg(long, env = "TAILOR_DATA", default_value = "tailor-data")]
        data: PathBuf,
        /// Tenant of the key.
        #[arg(long, default_value = "default", value_parser = keys::tenant)]
        tenant: String,
        #[command(flatten)]
        database: database::DatabaseArgs,
    },
}

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one value in the whole program")]
enum ChangesCommand {
    /// Print the recommended sizes as a change of templates and programs: SAM, CloudFormation, CDK, Terraform,
    /// OpenTofu, Serverless Framework, SST and Pulumi. What is not certain is listed and not changed.
    Patch(patch::PatchArgs),
    #[command(flatten)]
    Tuner(changes::TunerCommand),
}

impl Cli {
    /// Answers a shell that requests completions, and ends the process. Otherwise it does nothing.
    pub fn answer_shell() {
        completions::answer();
    }

    /// The definition of all commands.
    #[must_use]
    pub fn definition() -> clap::Command {
        help::with_groups(Self::command())
    }

    /// Reads the arguments, and the configuration file that they name.
    ///
    /// # Errors
    /// The arguments or the file cannot be used. The caller prints it and exits with 2.
    pub fn from_arguments(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let arguments: Vec<OsString> = arguments.into_iter().collect();
        let mut matches = Self::definition().try_get_matches_from(&arguments)?;
        conflicts::check(&matches)?;
        if let Some(arguments) = conflicts::without_database(&matches, &arguments) {
            matches = Self::definition().try_get_matches_from(arguments)?;
        }
        let mut cli = Self::from_arg_matches(&matches)?;
        let Command::Serve(args) = &cli.command else { return Ok(cli) };
        let is_check = args.check;
        let (args, problems) = serve_arguments::read(&arguments, args.config.as_deref())?;
        if !is_check && !problems.is_empty() {
            let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
            return Err(
                Self::definition().error(clap::error::ErrorKind::InvalidValue, lines.join("\n       "))
            );
        }
        cli.command = Command::Serve(Box::new(ServeArgs { problems, ..args }));
        Ok(cli)
    }

    /// Begins to log, as the arguments of the command require.
    pub fn start_log(&self) {
        match &self.command {
            Command::Serve(args) => logging::start(args.log.log_format, args.log.log_level),
            Command::Lambda(args) => logging::start(args.log.log_format, args.log.log_level),
            _ => logging::start(LogFormat::Text, logging::level_of_environment()),
        }
    }

    /// Runs the command.
    ///
    /// # Errors
    /// The failure with its context. The caller prints it and exits with 1.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Serve(args) if args.check => serve_check::run(&args),
            Command::Serve(args) => serve::serve(*args),
            Command::Lambda(args) => lambda::run(&args),
            Command::Functions { show, list, all, fail_on } => show::functions(&show, &list, all, &fail_on),
            Command::Advise { function: None, show, list, fail_on } => {
                show::functions(&show, &list, false, &fail_on)
            }
            Command::Function { function, show, place, fail_on } => {
                show::function(&function, &show, &place, &fail_on)
            }
            Command::Advise { function: Some(function), show, list, fail_on } => {
                show::function(&function, &show, &list.filters.place, &fail_on)
            }
            Command::Hints { show, list, fail_on } => series::hints(&show, &list, &fail_on),
            Command::Series { function: None, show, list } => series::fleet(&show, &list),
            Command::Series { function: Some(function), show, list } => {
                series::function(&function, &show, &list)
            }
            Command::Bill { function: None, show, list, bill } => bill::fleet(&show, &list, &bill),
            Command::Bill { function: Some(function), show, list, bill } => {
                bill::function(&function, &show, &list, &bill)
            }
            Command::Where { function: None, show, list } => placement::fleet(&show, &list),
            Command::Where { function: Some(function), show, list } => {
                placement::function(&function, &show, &list)
            }
            Command::Prices(command) => prices::run(&command),
            Command::Top(args) => top::run(*args),
            Command::Doctor(args) => doctor::run(&args),
            Command::Check { data, format, repair, database } => {
                maintain::check(&data, &database, repair, format)
            }
            Command::Migrate { data, format, webhook_tenant, database } => {
                maintain::migrate(&data, &database, webhook_tenant, format)
            }
            Command::Backup { data, file } => maintain::backup(&data, &file),
            Command::Changes { command: Some(ChangesCommand::Patch(args)), .. } => patch::run(&args),
            Command::Changes { command: Some(ChangesCommand::Tuner(command)), .. } => changes::run(command),
            Command::Changes { show, list, command: None } => show::changes(&show, &list),
            Command::Tune(args) => tune::run(&args),
            Command::Import(command) => import::run(command),
            Command::Archive(command) => archive::run(command),
            Command::Export(command) => export::run(&command),
            Command::Report(args) => report::run(&args),
            Command::Reconcile(args) => reconcile::run(&args),
            Command::Policy(command) => changes::policy(&command),
            Command::Keys(command) => keys::run(command),
            Command::Completions { shell } => completions::print(shell),
            Command::Man { folder } => man::write(&folder),
            Command::Key { data, tenant, database } => keys::create_without_scopes(&data, &database, tenant),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Cli;

    /// clap checks the definition of a command only when it runs: names that are used twice and conflicts with unknown names.
    #[test]
    fn every_command_is_well_formed() {
        Cli::definition().debug_assert();
    }
}
