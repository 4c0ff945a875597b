//! `tailor summary`, `advise` and `changes`: read a data folder, or request the same text from a running collector.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};

use tailor_sizing::advice::strategy::Strategy;
use tailor_sizing::pricing::prices::PriceTable;

use super::Colour;
use super::ShowArgs;
use super::list::ListArgs;
use super::serve::address_of;
use crate::changes;
use crate::clock::Clock;
use crate::prices;
use crate::query::{self, DEFAULT_WIDTH, Format, Look, path_segment};
use crate::recommendations::Recommendations;
use crate::render::json::indent;
use crate::render::table;
use crate::report;
use crate::store::{Store, Tenant, Window};
use crate::tags::{CurrentTags, TagTable};

/// Exit code when there is nothing to show.
const NOTHING: u8 = 3;

/// Timeout of a request to a running collector.
const RESPONSE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

/// Maximum size of a response: more than the JSON of a few thousand functions.
const MAX_RESPONSE_BYTES: u64 = 256 << 20;

pub(super) fn summary(args: &ShowArgs, list: &ListArgs) -> anyhow::Result<ExitCode> {
    let (code, address) = match &args.server {
        Some(server) => {
            (request(args, server, &["v1", "functions"], &list.parameters())?, Some(server.clone()))
        }
        None => {
            let text = read_folder(args, |reader| async move {
                let fleet = report::fleet(&reader.request(), &list.query(args)).await?;
                let nothing = fleet.functions.is_empty();
                Ok((table::fleet(&fleet, args.format, look(args)), nothing))
            })?;
            (print(text)?, args.address())
        }
    };
    if let (Format::Table, Some(address)) = (args.format, address) {
        print((format!("\nThe web page shows the curves and the change log: {address}\n"), false))?;
    }
    Ok(code)
}

pub(super) fn advise(function: &str, args: &ShowArgs) -> anyhow::Result<ExitCode> {
    if let Some(server) = &args.server {
        return request(args, server, &["v1", "functions", function], &[]);
    }
    let recommendations = Recommendations::of(&args.data);
    let text = read_folder(args, |reader| async move {
        let keys = reader.store.functions(&reader.tenant, Some(function), usize::MAX).await?;
        let mut reports = Vec::new();
        for key in &keys {
            let mut found = report::function(&reader.request(), key).await?;
            if let Some(report) = &mut found {
                report.other_recommendations = recommendations.for_function(&reader.tenant, key)?;
            }
            reports.extend(found);
        }
        let nothing = reports.is_empty();
        if nothing {
            tracing::error!("no measurements of `{function}`: `tailor summary` lists the measured functions");
            return Ok((String::new(), nothing));
        }
        Ok((table::namesakes(&reports, args.format, look(args)), nothing))
    })?;
    print(text)
}

pub(super) fn changes(args: &ShowArgs) -> anyhow::Result<ExitCode> {
    if let Some(server) = &args.server {
        return request(args, server, &["v1", "changes"], &[]);
    }
    let text = read_folder(args, |reader| async move {
        let changes = changes::fold(reader.store.changes(&reader.tenant, None).await?);
        Ok((table::changes(&changes, args.format, look(args)), false))
    })?;
    print(text)
}

impl ShowArgs {
    /// The address of the collector that runs with the data folder that was read, if one does.
    fn address(&self) -> Option<String> {
        if self.database.is_set() { None } else { address_of(&self.data) }
    }
}

/// An open store and what is read from it.
pub(super) struct Reader {
    pub(super) store: Arc<dyn Store>,
    pub(super) tenant: Tenant,
    prices: PriceTable,
    window: Window,
    strategy: Strategy,
    now_us: u64,
    tags: CurrentTags,
}

impl Reader {
    pub(super) fn request(&self) -> report::Request<'_> {
        let Self { store, tenant, prices, window, strategy, now_us, tags } = self;
        report::Request {
            store: store.as_ref(),
            tenant,
            window: *window,
            prices,
            strategy: *strategy,
            now_us: *now_us,
            enforcements: None,
            fleet_sums: None,
            tags: Some(tags),
        }
    }
}

pub(super) fn read_folder<F>(
    args: &ShowArgs,
    show: impl FnOnce(Reader) -> F,
) -> anyhow::Result<(String, bool)>
where
    F: Future<Output = anyhow::Result<(String, bool)>>,
{
    let clock = Clock::system();
    let tenant = Tenant(args.tenant.clone());
    let tags = CurrentTags::default();
    if let Some(file) = &args.tags {
        tags.set_file(&tenant, TagTable::read(file)?);
    }
    let reader = Reader {
        store: args.database.open_to_read(&args.data)?,
        tenant,
        prices: prices::load(args.prices.as_deref())?,
        window: query::last_hours(clock.now_us(), args.hours),
        // clap validated the arguments.
        strategy: query::strategy(Some(&args.strategy), args.weight).unwrap_or_default(),
        now_us: clock.now_us(),
        tags,
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(show(reader))
}

pub(super) fn look(args: &ShowArgs) -> Look {
    look_with(args.color)
}

pub(super) fn look_with(colour: Colour) -> Look {
    let colour = match colour {
        Colour::Always => true,
        Colour::Never => false,
        Colour::Auto => {
            std::io::stdout().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        }
    };
    // A pipe gets the default width, because its reader may be a terminal.
    let terminal = comfy_table::Table::new().width().filter(|_| std::io::stdout().is_terminal());
    let width = terminal.map_or(DEFAULT_WIDTH, usize::from).max(DEFAULT_WIDTH);
    Look { colour, width, indents: true }
}

pub(super) fn print((text, nothing): (String, bool)) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // The reader closed the pipe, as `head` does. This is not an error.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        other => other.context("cannot write the output")?,
    }
    Ok(if nothing { ExitCode::from(NOTHING) } else { ExitCode::SUCCESS })
}

pub(super) fn request(
    args: &ShowArgs,
    server: &str,
    path: &[&str],
    more: &[(&str, String)],
) -> anyhow::Result<ExitCode> {
    match fetch(args, server, path, more, args.format)? {
        Some(body) => print((body, false)),
        None => Ok(ExitCode::from(NOTHING)),
    }
}

/// The reports of these functions as JSON texts after each other; the report of the fleet when there are none.
pub(super) fn reports(args: &ShowArgs, functions: &[String]) -> anyhow::Result<String> {
    if let Some(server) = &args.server {
        let mut text = String::new();
        if functions.is_empty() {
            let limit = [("limit", query::MAX_LIMIT.to_string())];
            text.extend(fetch(args, server, &["v1", "functions"], &limit, Format::Json)?);
        }
        for function in functions {
            text.extend(fetch(args, server, &["v1", "functions", function], &[], Format::Json)?);
        }
        return Ok(text);
    }
    let (text, _) = read_folder(args, |reader| async move {
        let mut keys = reader.store.functions(&reader.tenant, None, usize::MAX).await?;
        keys.retain(|key| functions.is_empty() || functions.contains(&key.name));
        let mut text = String::new();
        for key in &keys {
            if let Some(report) = report::function(&reader.request(), key).await? {
                text.push_str(&table::function(&report, Format::Json, look(args)));
            }
        }
        Ok((text, false))
    })?;
    Ok(text)
}

/// The body of a response; `None` when there is nothing to show.
fn fetch(
    args: &ShowArgs,
    server: &str,
    path: &[&str],
    more: &[(&str, String)],
    format: Format,
) -> anyhow::Result<Option<String>> {
    let key = match &args.api_key_file {
        Some(file) => Some(
            std::fs::read_to_string(file)
                .with_context(|| format!("cannot read the key in {}", file.display()))?
                .trim()
                .to_owned(),
        ),
        None => std::env::var("TAILOR_API_KEY").ok(),
    };
    let look = look(args);
    let mut url = server.trim_end_matches('/').to_owned();
    for part in path {
        url.push('/');
        url.push_str(&path_segment(part));
    }
    let is_json = format == Format::Json;
    let format = serde_json::to_value(format)?;
    let mut request = ureq::get(url.as_str())
        .config()
        .timeout_global(Some(RESPONSE_TIMEOUT))
        .http_status_as_error(false)
        .build()
        .query("format", format.as_str().unwrap_or("json"))
        .query("hours", args.hours.to_string())
        .query("strategy", &args.strategy)
        .query("width", look.width.to_string())
        .query("colour", look.colour.to_string());
    for (name, value) in more {
        request = request.query(*name, value);
    }
    if let Some(weight) = args.weight {
        request = request.query("weight", weight.to_string());
    }
    if let Some(key) = key {
        request = request.header("Authorization", format!("Bearer {key}"));
    }
    let mut response = request.call().with_context(|| format!("cannot reach {url}"))?;
    let status = response.status();
    let body = response.body_mut().with_config().limit(MAX_RESPONSE_BYTES).read_to_string();
    let body = body.with_context(|| format!("cannot read the response of {url}"))?;
    match status.as_u16() {
        // Responses are compact.
        200 if is_json => Ok(Some(indent(&body))),
        200 => Ok(Some(body)),
        404 => {
            tracing::error!("{}", message(&body));
            Ok(None)
        }
        code => bail!("{url} responded with {code}: {}", message(&body)),
    }
}

/// The message of an error body, or the first characters of another body.
fn message(body: &str) -> String {
    let parsed: Option<serde_json::Value> = serde_json::from_str(body).ok();
    let message = parsed.as_ref().and_then(|value| value.pointer("/error/message")?.as_str());
    message.map_or_else(|| body.chars().take(200).collect(), str::to_owned)
}
