//! `tailor doctor`: checks the machine, the store, the keys, what is reachable, and what the extension of each function
//! reports.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use ureq::Agent;

use super::arguments::ShowArgs;
use super::list::FilterArgs;
use super::runtime::block_on;
use super::show::{print, selected_reports, style};
use super::{client, exit};
use crate::clock::now_us;
use crate::doctor::{Finding, Level, functions, host, keys};
use crate::prices;
use crate::query::TableStyle;
use crate::render::output::{Output, Rows, write};
use crate::render::table::wrap;
use crate::render::units::exactly;
use crate::report::FunctionReport;
use crate::store::sqlite::free_bytes;
use crate::tuner::aws::AwsLambda;

/// Timeout of a request that checks whether something is reachable.
const REACH_TIMEOUT: Duration = Duration::from_secs(10);

/// The variables that configure credentials of AWS.
const AWS_VARIABLES: [&str; 7] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_ENDPOINT_URL_LAMBDA",
];

/// What is checked.
#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    show: ShowArgs,
    #[command(flatten)]
    filters: FilterArgs,
    /// End with exit code 4 when a finding is at least of this level.
    #[arg(long, help_heading = "Checks", value_enum, value_name = "LEVEL", default_value_t = FailLevel::Error)]
    fail_on: FailLevel,
    /// Check AWS also when no variable configures its credentials, for example with those of an EC2 instance.
    #[arg(long, help_heading = "Checks")]
    aws: bool,
    /// URL of the Lambda API, if it is not AWS; `AWS_ENDPOINT_URL_LAMBDA` does the same.
    #[arg(long, help_heading = "Checks")]
    lambda_endpoint: Option<String>,
}

/// The level from which findings are a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FailLevel {
    /// Something needs attention.
    Warning,
    /// Something does not work.
    Error,
}

impl FailLevel {
    const fn level(self) -> Level {
        match self {
            Self::Warning => Level::Warning,
            Self::Error => Level::Error,
        }
    }
}

pub(super) fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let show = &args.show;
    let mut findings = match &show.server {
        Some(server) => of_named_server(show, server),
        None => of_folder(show),
    };
    findings.extend(of_aws(args));
    match selected_reports(show, &args.filters) {
        Ok(reports) => findings.extend(of_reports(show, &reports)),
        Err(error) => findings.push(unreadable(show, &error)),
    }
    findings.extend(show.server.is_none().then(|| of_prices(show)));
    // The order of equal levels is that of the checks.
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    let fails = findings.iter().any(|finding| finding.level >= args.fail_on.level());
    print((write(&Findings(&findings), show.format, style(show)), false))?;
    Ok(ExitCode::from(if fails { exit::CONDITION } else { exit::SUCCESS }))
}

/// The store cannot be read, or the collector does not answer.
fn unreadable(show: &ShowArgs, error: &anyhow::Error) -> Finding {
    let (check, subject, action) = match &show.server {
        Some(server) => {
            ("server", server.clone(), "check the address, and the key in TAILOR_API_KEY or --api-key-file")
        }
        None => ("store", place(show), "check --data or --database; `tailor check` lists damage"),
    };
    Finding::new(Level::Error, check, subject, format!("{error:#}"), action)
}

/// The store that is read, without its password.
fn place(show: &ShowArgs) -> String {
    match show.database.database() {
        Ok(Some(database)) => database.to_string(),
        _ => show.data.display().to_string(),
    }
}

fn of_reports(show: &ShowArgs, reports: &[FunctionReport]) -> Vec<Finding> {
    let mut findings = Vec::new();
    if show.server.is_none() {
        findings.push(Finding::ok(
            "store",
            place(show),
            format!("the store is readable, with {}", exactly(reports.len() as u64, "function")),
        ));
    }
    findings.push(host::clock_of_environments(reports));
    findings.extend(functions::functions(reports, now_us()));
    findings
}

fn of_folder(show: &ShowArgs) -> Vec<Finding> {
    let folder = show.data.display().to_string();
    let mut findings = Vec::new();
    match free_bytes(&show.data) {
        _ if show.database.is_set() => {}
        Ok(free) => findings.push(host::disk(&folder, free)),
        Err(error) => findings.push(Finding::new(
            Level::Error,
            "disk",
            &folder,
            error.to_string(),
            "name the data folder with --data",
        )),
    }
    let ring = show.database.keys(&show.data, false);
    match ring.and_then(|sources| Ok(block_on(sources.revocable())??)) {
        Ok(ring) => findings.extend(keys::keys(&ring, now_us() / 1_000_000)),
        Err(error) => findings.push(Finding::new(
            Level::Error,
            "keys",
            &folder,
            format!("{error:#}"),
            "repair or restore the store or the file; no key of it is accepted",
        )),
    }
    match show.address() {
        Some(address) => findings.extend(of_local_server(&address)),
        None => findings.push(Finding::new(
            Level::Info,
            "server",
            &folder,
            "no collector runs with this data folder on this machine",
            "",
        )),
    }
    findings
}

/// The collector of `--server`. Its certificate is verified.
fn of_named_server(show: &ShowArgs, server: &str) -> Vec<Finding> {
    match client::trusting(server, show.ca_file.as_deref()) {
        Ok(agent) => of_server(&agent, server, ""),
        Err(error) => vec![Finding::new(
            Level::Error,
            "server",
            server,
            format!("{error:#}"),
            "name another file with --ca-file",
        )],
    }
}

/// The collector that runs with the data folder. Its certificate is for the name by which functions reach it, so it is not verified
/// here.
fn of_local_server(address: &str) -> Vec<Finding> {
    let note = if address.starts_with("https://") {
        "; its certificate is not verified: --server with the name in it does that"
    } else {
        ""
    };
    of_server(&client::unverified(), address, note)
}

/// Whether a collector is ready, and its clock. `note` is added when it is ready.
fn of_server(agent: &Agent, address: &str, note: &str) -> Vec<Finding> {
    let url = format!("{}/readyz", address.trim_end_matches('/'));
    let request =
        agent.get(&url).config().timeout_global(Some(REACH_TIMEOUT)).http_status_as_error(false).build();
    let mut response = match request.call() {
        Ok(response) => response,
        Err(error) => {
            return vec![Finding::new(
                Level::Error,
                "server",
                address,
                format!("the collector cannot be reached: {error}"),
                format!(
                    "check that `tailor serve` runs, its --listen address, and the network{}",
                    client::advice(&error)
                ),
            )];
        }
    };
    let date = response.headers().get("date").and_then(|date| date.to_str().ok().map(str::to_owned));
    let status = response.status().as_u16();
    let body = response.body_mut().with_config().limit(4_096).read_to_string().unwrap_or_default();
    let mut findings = vec![match status {
        200 => Finding::ok("server", address, format!("the collector is {}{note}", body.trim())),
        503 => Finding::new(
            Level::Error,
            "server",
            address,
            format!("the collector cannot store batches: {}", super::show::message(&body)),
            "read its log",
        ),
        other => Finding::new(
            Level::Error,
            "server",
            address,
            format!("it responded with {other} to {url}"),
            "check that the address is that of a collector",
        ),
    }];
    let server_time =
        date.and_then(|date| OffsetDateTime::parse(&date.replace("GMT", "+0000"), &Rfc2822).ok());
    if let Some(server_time) = server_time {
        let now_s = i64::try_from(now_us() / 1_000_000).unwrap_or(i64::MAX);
        findings.push(host::clock_of_server(address, server_time.unix_timestamp(), now_s));
    }
    findings
}

/// Whether AWS is reachable, where it is configured.
fn of_aws(args: &DoctorArgs) -> Option<Finding> {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if !args.aws && args.lambda_endpoint.is_none() && !AWS_VARIABLES.into_iter().any(is_set) {
        return None;
    }
    let subject = args.lambda_endpoint.clone().unwrap_or_else(|| "AWS Lambda".to_owned());
    let reach = async { AwsLambda::new(args.lambda_endpoint.clone(), None, 1.0).await.reach(None).await };
    let result = block_on(reach).ok()?;
    Some(match result {
        Ok(what) => Finding::ok("aws", subject, what),
        Err(error) => Finding::new(
            Level::Error,
            "aws",
            subject,
            error,
            "check the credentials, AWS_REGION and the network; the tuner and the import from AWS need them",
        ),
    })
}

fn of_prices(show: &ShowArgs) -> Finding {
    let now_s = i64::try_from(now_us() / 1_000_000).unwrap_or(i64::MAX);
    match prices::load(show.prices.as_deref()) {
        Ok(table) => host::prices(table.compiled(), now_s),
        Err(error) => {
            Finding::new(Level::Error, "prices", "--prices", format!("{error:#}"), "name another file")
        }
    }
}

/// All findings.
struct Findings<'a>(&'a [Finding]);

impl Findings<'_> {
    fn rows(&self, header: &[&'static str]) -> Rows {
        let row = |finding: &Finding| {
            [
                finding.level.name().to_owned(),
                finding.check.to_owned(),
                finding.subject.clone(),
                finding.finding.clone(),
                finding.action.clone(),
            ]
        };
        Rows::new(header, self.0.iter().map(row))
    }
}

impl Output for Findings<'_> {
    fn value(&self) -> impl Serialize {
        serde_json::json!({ "findings": self.0 })
    }

    fn table(&self, style: TableStyle) -> String {
        let mut text = String::new();
        let indent = " ".repeat(22);
        for finding in self.0 {
            let level = finding.level.name();
            let head = format!("{level:<8} {:<12} ", finding.check);
            let what = format!("{}: {}", finding.subject, finding.finding);
            for (index, line) in wrap(&what, style.width.saturating_sub(22).max(20)).iter().enumerate() {
                text.push_str(if index == 0 { &head } else { &indent });
                text.push_str(&format!("{line}\n"));
            }
            if !finding.action.is_empty() {
                for line in wrap(&finding.action, style.width.saturating_sub(24).max(20)) {
                    text.push_str(&format!("{indent}  {line}\n"));
                }
            }
        }
        let count = |level: Level| self.0.iter().filter(|finding| finding.level == level).count();
        let (errors, warnings) = (count(Level::Error), count(Level::Warning));
        text + &format!(
            "\nerrors: {errors}, warnings: {warnings}, others: {}\n",
            self.0.len() - errors - warnings
        )
    }

    fn markdown(&self) -> Rows {
        self.rows(&["LEVEL", "CHECK", "SUBJECT", "FINDING", "ACTION"])
    }

    fn csv(&self) -> Rows {
        self.rows(&["level", "check", "subject", "finding", "action"])
    }
}
