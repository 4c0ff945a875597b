//! `tailor functions`, `function` and `changes`: read a data folder, or request the same text from a running collector.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use tailor_sizing::advice::strategy::Strategy;
use tailor_sizing::pricing::prices::PriceTable;

use super::arguments::{Colour, ShowArgs};
use super::fail_on::FailOnArgs;
use super::list::{ChangeArgs, FilterArgs, ListArgs, PlaceArgs};
use super::serve::address_of;
use super::{client, exit, runtime, streams};
use crate::api::EMPTY_HEADER;
use crate::changes;
use crate::clock::Clock;
use crate::prices;
use crate::query::{self, DEFAULT_WIDTH, Format, ListQuery, SortKey, TableStyle, path_segment};
use crate::recommendations::Recommendations;
use crate::render::changes::Changes;
use crate::render::json::indent;
use crate::render::output::write;
use crate::render::table::FunctionsOfOneName;
use crate::report::{self, FleetReport, FleetTotal, FunctionReport};
use crate::store::{Store, Tenant, Window};
use crate::tags::{CurrentTags, TagTable};

/// Timeout of a request to a running collector.
const RESPONSE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

/// Maximum size of a response: more than the JSON of a few thousand functions.
const MAX_RESPONSE_BYTES: u64 = 256 << 20;

/// The list of functions; with `all`, all its pages.
pub(super) fn functions(
    args: &ShowArgs,
    list: &ListArgs,
    all: bool,
    fail_on: &FailOnArgs,
) -> anyhow::Result<ExitCode> {
    let (code, address) = match &args.server {
        Some(server) if all => {
            let fleet = all_pages(args, server, list)?;
            let text = write(&fleet, args.format, style(args));
            (print((text, fleet.functions.is_empty()))?, Some(server.clone()))
        }
        Some(server) => {
            (request(args, server, &["v1", "functions"], &list.parameters())?, Some(server.clone()))
        }
        None => {
            let text = read_folder(args, |reader| async move {
                let mut query = list.query(args);
                if all {
                    query.limit = usize::MAX;
                }
                let fleet = report::fleet(&reader.request(), &query).await?;
                let nothing = fleet.functions.is_empty();
                Ok((write(&fleet, args.format, style(args)), nothing))
            })?;
            (print(text)?, args.address())
        }
    };
    if let (Format::Table, Some(address)) = (args.format, address) {
        print((format!("\nThe web page shows the curves and the change log: {address}\n"), false))?;
    }
    fail_on.check(code, || selected_reports(args, &list.filters))
}

/// The list of a running collector with the functions of all pages.
fn all_pages(args: &ShowArgs, server: &str, list: &ListArgs) -> anyhow::Result<FleetReport> {
    let mut parameters = list.parameters();
    parameters.retain(|(name, _)| *name != "limit");
    parameters.push(("limit", query::MAX_LIMIT.to_string()));
    let mut whole: FleetReport = fetch_page(args, server, &parameters, None)?.context(UNREADABLE)?;
    append_pages(&mut whole.functions, whole.next.take(), |cursor| {
        fetch_page(args, server, &parameters, Some(cursor))?.context(UNREADABLE)
    })?;
    Ok(whole)
}

/// Appends the functions of the page at the cursor `next` and of all after it.
fn append_pages(
    functions: &mut Vec<FunctionReport>,
    mut next: Option<String>,
    page: impl Fn(String) -> anyhow::Result<Page>,
) -> anyhow::Result<()> {
    while let Some(cursor) = next {
        let page = page(cursor)?;
        functions.extend(page.functions);
        next = page.next;
    }
    Ok(())
}

/// A page of the list of a running collector; `None` when it has no list.
fn fetch_page<T: DeserializeOwned>(
    args: &ShowArgs,
    server: &str,
    parameters: &[(&str, String)],
    cursor: Option<String>,
) -> anyhow::Result<Option<T>> {
    let mut parameters = parameters.to_vec();
    parameters.extend(cursor.map(|cursor| ("cursor", cursor)));
    let body = fetch(args, server, &["v1", "functions"], &parameters, Format::Json)?;
    body.map(|body| serde_json::from_str(&body.text).context(UNREADABLE)).transpose()
}

pub(super) fn function(
    function: &str,
    args: &ShowArgs,
    place: &PlaceArgs,
    fail_on: &FailOnArgs,
) -> anyhow::Result<ExitCode> {
    let code = match &args.server {
        Some(server) => request(args, server, &["v1", "functions", function], &place.parameters())?,
        None => {
            let recommendations = Recommendations::of(&args.data);
            print(read_folder(args, |reader| async move {
                let mut reports = reader.reports(function, place).await?;
                for report in &mut reports {
                    report.other_recommendations =
                        recommendations.for_function(&reader.tenant, &report.key())?;
                }
                let nothing = reports.is_empty();
                if nothing {
                    tracing::error!("{}", missing(function));
                    return Ok((String::new(), nothing));
                }
                Ok((write(&FunctionsOfOneName(&reports), args.format, style(args)), nothing))
            })?)?
        }
    };
    fail_on.check(code, || match &args.server {
        Some(server) => {
            let path = ["v1", "functions", function];
            let body = fetch(args, server, &path, &place.parameters(), Format::Json)?;
            let reports = body.map(|body| serde_json::from_str(&body.text).context(UNREADABLE));
            Ok(vec![reports.context("the function is not measured any more")??])
        }
        None => read_folder(args, |reader| async move { reader.reports(function, place).await }),
    })
}

/// That there is no such function.
pub(super) fn missing(function: &str) -> String {
    format!("no measurements of `{function}`: `tailor functions` lists the measured functions")
}

/// The reports of all functions that the filters select, on all pages.
pub(super) fn selected_reports(args: &ShowArgs, filters: &FilterArgs) -> anyhow::Result<Vec<FunctionReport>> {
    // A folder is read at once: each page of it would compute the whole fleet.
    let limit = if args.server.is_some() { query::MAX_LIMIT } else { usize::MAX };
    let page = |cursor| page(args, filters, SortKey::Name, limit, cursor);
    let Page { functions: mut reports, next, .. } = page(None)?;
    append_pages(&mut reports, next, |cursor| page(Some(cursor)))?;
    Ok(reports)
}

/// A page of the list of functions.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Page {
    /// The functions.
    pub(super) functions: Vec<FunctionReport>,
    /// Sums over all functions that the filters select.
    pub(super) total: FleetTotal,
    /// Their number.
    pub(super) matching_functions: u64,
    /// Cursor of the next page.
    next: Option<String>,
}

/// One page of the list of functions, at most `limit`.
pub(super) fn page(
    args: &ShowArgs,
    filters: &FilterArgs,
    sort: SortKey,
    limit: usize,
    cursor: Option<String>,
) -> anyhow::Result<Page> {
    let Some(server) = &args.server else {
        return read_folder(args, |reader| async move {
            let list = ListQuery { sort, limit, cursor, ..filters.query(args) };
            let FleetReport { functions, total, matching_functions, next, .. } =
                report::fleet(&reader.request(), &list).await?;
            Ok(Page { functions, total, matching_functions, next })
        });
    };
    let mut parameters = filters.parameters();
    parameters.extend([("sort", sort.code()), ("limit", limit.to_string())]);
    Ok(fetch_page(args, server, &parameters, cursor)?.unwrap_or_default())
}

/// Why a response is not understood.
const UNREADABLE: &str = "cannot read the response of the collector: it may have another version";

pub(super) fn changes(args: &ShowArgs, list: &ChangeArgs) -> anyhow::Result<ExitCode> {
    if let Some(server) = &args.server {
        return request(args, server, &["v1", "changes"], &list.parameters());
    }
    let text = read_folder(args, |reader| async move {
        let changes = changes::fold(reader.store.changes(&reader.tenant, None).await?);
        let changes = list.selection(args).of(changes);
        Ok((write(&Changes(&changes), args.format, style(args)), false))
    })?;
    print(text)
}

impl ShowArgs {
    /// The address of the collector that runs with the data folder that was read, if one does.
    pub(super) fn address(&self) -> Option<String> {
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
    computes_all: bool,
}

impl Reader {
    pub(super) fn request(&self) -> report::Request<'_> {
        let Self { store, tenant, prices, window, strategy, now_us, tags, computes_all } = self;
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
            computes_all: *computes_all,
        }
    }
}

impl Reader {
    /// The reports of the functions of a name.
    async fn reports(&self, name: &str, place: &PlaceArgs) -> anyhow::Result<Vec<FunctionReport>> {
        let keys = self.store.functions(&self.tenant, Some(name), usize::MAX).await?;
        let mut reports = Vec::new();
        for key in keys.iter().filter(|key| place.has(key)) {
            reports.extend(report::function(&self.request(), key).await?);
        }
        Ok(reports)
    }
}

pub(super) fn read_folder<T, F>(args: &ShowArgs, show: impl FnOnce(Reader) -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
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
        window: query::last_hours(clock.now_us(), args.window_hours()),
        // clap validated the arguments.
        strategy: query::strategy(Some(&args.strategy), args.weight).unwrap_or_default(),
        now_us: clock.now_us(),
        tags,
        computes_all: args.database.computes_all(&args.data, args.prices.as_deref()),
    };
    runtime::single_threaded()?.block_on(show(reader))
}

pub(super) fn style(args: &ShowArgs) -> TableStyle {
    style_with(args.color)
}

pub(super) fn style_with(colour: Colour) -> TableStyle {
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
    TableStyle { colour, width, indents: true }
}

pub(super) fn print((text, nothing): (String, bool)) -> anyhow::Result<ExitCode> {
    streams::output(&text)?;
    Ok(if nothing { ExitCode::from(exit::NOTHING) } else { ExitCode::SUCCESS })
}

pub(super) fn request(
    args: &ShowArgs,
    server: &str,
    path: &[&str],
    more: &[(&str, String)],
) -> anyhow::Result<ExitCode> {
    match fetch(args, server, path, more, args.format)? {
        Some(body) => print((body.text, body.is_empty)),
        None => Ok(ExitCode::from(exit::NOTHING)),
    }
}

/// The reports of these functions as JSON texts after each other; without any, of all functions for which another size is
/// recommended.
pub(super) fn reports(args: &ShowArgs, functions: &[String]) -> anyhow::Result<String> {
    if functions.is_empty() {
        let reports = selected_reports(args, &FilterArgs::recommended_changes())?;
        return Ok(write(&FunctionsOfOneName(&reports), Format::Json, style(args)));
    }
    if let Some(server) = &args.server {
        let mut text = String::new();
        for function in functions {
            let body = fetch(args, server, &["v1", "functions", function], &[], Format::Json)?;
            text.extend(body.map(|body| body.text));
        }
        return Ok(text);
    }
    let (text, _) = read_folder(args, |reader| async move {
        let mut keys = reader.store.functions(&reader.tenant, None, usize::MAX).await?;
        keys.retain(|key| functions.contains(&key.name));
        let mut text = String::new();
        for key in &keys {
            if let Some(report) = report::function(&reader.request(), key).await? {
                text.push_str(&write(&FunctionsOfOneName(&[report]), Format::Json, style(args)));
            }
        }
        Ok((text, false))
    })?;
    Ok(text)
}

/// The body of a response.
struct Body {
    text: String,
    /// Whether it is a list without entries.
    is_empty: bool,
}

/// The key for `--server`.
fn server_key(args: &ShowArgs) -> anyhow::Result<Option<String>> {
    let Some(file) = &args.api_key_file else { return Ok(std::env::var("TAILOR_API_KEY").ok()) };
    let text = std::fs::read_to_string(file);
    let text = text.with_context(|| format!("cannot read the key in {}", file.display()))?;
    Ok(Some(text.trim().to_owned()))
}

/// The body of a response; `None` when there is no such function.
fn fetch(
    args: &ShowArgs,
    server: &str,
    path: &[&str],
    more: &[(&str, String)],
    format: Format,
) -> anyhow::Result<Option<Body>> {
    let style = style(args);
    let mut url = server.trim_end_matches('/').to_owned();
    for part in path {
        url.push('/');
        url.push_str(&path_segment(part));
    }
    let is_json = format == Format::Json;
    let format = serde_json::to_value(format)?;
    let agent = client::trusting(server, args.ca_file.as_deref())?;
    let mut request = agent
        .get(url.as_str())
        .config()
        .timeout_global(Some(RESPONSE_TIMEOUT))
        .http_status_as_error(false)
        .build()
        .query("format", format.as_str().unwrap_or("json"))
        .query("strategy", &args.strategy)
        .query("width", style.width.to_string())
        .query("colour", style.colour.to_string());
    for (name, value) in more {
        request = request.query(*name, value);
    }
    if let Some(hours) = args.named_hours() {
        request = request.query("hours", hours.to_string());
    }
    if let Some(weight) = args.weight {
        request = request.query("weight", weight.to_string());
    }
    if let Some(key) = server_key(args)? {
        request = request.header("Authorization", format!("Bearer {key}"));
    }
    let mut response = request.call().map_err(|error| {
        let advice = client::advice(&error);
        anyhow::Error::new(error).context(format!("cannot reach {url}{advice}"))
    })?;
    let status = response.status();
    let is_empty = response.headers().contains_key(EMPTY_HEADER);
    let body = response.body_mut().with_config().limit(MAX_RESPONSE_BYTES).read_to_string();
    let body = body.with_context(|| format!("cannot read the response of {url}"))?;
    match status.as_u16() {
        // Responses are compact.
        200 if is_json => Ok(Some(Body { text: indent(&body), is_empty })),
        200 => Ok(Some(Body { text: body, is_empty })),
        404 => {
            tracing::error!("{}", message(&body));
            Ok(None)
        }
        code => bail!("{url} responded with {code}: {}", message(&body)),
    }
}

/// The message of an error body, or the first characters of another body.
pub(super) fn message(body: &str) -> String {
    let parsed: Option<serde_json::Value> = serde_json::from_str(body).ok();
    let message = parsed.as_ref().and_then(|value| value.pointer("/error/message")?.as_str());
    message.map_or_else(|| body.chars().take(200).collect(), str::to_owned)
}
