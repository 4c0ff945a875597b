//! JSON documents: what CloudWatch Logs, Firehose, Insights and container runtimes put around messages.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use memchr::memmem::Finder;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Place, Scan};
use crate::decode::{GZIP_IN_BASE64, MAX_DEPTH, from_base64};
use crate::event;
use crate::origin::Origin;
use crate::problems::Problem;
use crate::record::Record;
use crate::row::{self, Row};
use crate::text::Parsed;
use crate::timestamp;

/// Maximum number of documents inside each other.
const MAX_DOCUMENTS: u32 = 6;

type Raw<'a> = Option<&'a RawValue>;

/// The members that are used of any document. Their types differ between programs.
#[derive(Debug, Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Document<'a> {
    #[serde(borrow, rename = "type")]
    kind: Raw<'a>,
    #[serde(borrow)]
    record: Raw<'a>,
    #[serde(borrow)]
    time: Raw<'a>,
    #[serde(borrow)]
    timestamp: Raw<'a>,
    #[serde(borrow)]
    message: Raw<'a>,
    #[serde(borrow)]
    log: Raw<'a>,
    #[serde(borrow)]
    owner: Raw<'a>,
    #[serde(borrow)]
    log_group: Raw<'a>,
    #[serde(borrow)]
    log_group_name: Raw<'a>,
    #[serde(borrow)]
    log_stream: Raw<'a>,
    #[serde(borrow)]
    log_stream_name: Raw<'a>,
    #[serde(borrow)]
    log_events: Raw<'a>,
    #[serde(borrow)]
    events: Raw<'a>,
    #[serde(borrow)]
    results: Raw<'a>,
    #[serde(borrow)]
    records: Raw<'a>,
    #[serde(borrow, rename = "Records")]
    lambda_records: Raw<'a>,
    #[serde(borrow)]
    awslogs: Raw<'a>,
    #[serde(borrow)]
    kinesis: Raw<'a>,
    #[serde(borrow)]
    data: Raw<'a>,
    #[serde(borrow, rename = "@timestamp")]
    at_timestamp: Raw<'a>,
    #[serde(borrow, rename = "@message")]
    insights_message: Raw<'a>,
    #[serde(borrow, rename = "@billedDuration")]
    insights_billed: Raw<'a>,
}

/// A log event in a list of events.
#[derive(Debug, Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    message: Raw<'a>,
    #[serde(borrow)]
    timestamp: Raw<'a>,
}

/// A field of a row of CloudWatch Logs Insights.
#[derive(Debug, Deserialize)]
struct InsightsField<'a> {
    #[serde(borrow)]
    field: Cow<'a, str>,
    #[serde(borrow, default)]
    value: Cow<'a, str>,
}

/// The text of a JSON string; `None` for other values.
fn string(raw: Raw<'_>) -> Option<Cow<'_, str>> {
    let text = raw?.get();
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(text).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// A time as a JSON string or number.
fn time(raw: Raw<'_>) -> Option<u64> {
    let text = raw?.get();
    timestamp::parse(text.trim_matches('"').as_bytes())
}

impl Scan<'_> {
    /// Reads one JSON value. Returns `false` when it is not valid JSON.
    pub(crate) fn document(&mut self, json: &[u8], place: &Place, depth: u32) -> bool {
        if depth > MAX_DOCUMENTS {
            self.problems.add(Problem::TooLarge, json);
            return true;
        }
        if json.starts_with(b"[") {
            let Ok(elements) = serde_json::from_slice::<Vec<&RawValue>>(json) else { return false };
            if elements.first().is_some_and(|first| is_insights_row(first)) {
                self.insights_row(json, place);
            } else {
                self.elements(&elements, place, depth);
            }
            return true;
        }
        if !json.starts_with(b"{") {
            return serde_json::from_slice::<&RawValue>(json).is_ok();
        }
        let Ok(document) = serde_json::from_slice::<Document<'_>>(json) else { return false };
        self.members(&document, json, place, depth);
        true
    }

    fn members(&mut self, document: &Document<'_>, json: &[u8], place: &Place, depth: u32) {
        if let (Some(kind), Some(record)) = (string(document.kind), document.record)
            && kind.starts_with("platform.")
        {
            let at_us = time(document.time).or(place.at_us);
            let parsed = event::parse(&kind, record);
            self.parsed(parsed, &Place { at_us, ..place.clone() }, json);
            return;
        }
        let place = self.place_of(document, place);
        let mut is_container = false;
        let lists = [
            document.log_events,
            document.events,
            document.results,
            document.records,
            document.lambda_records,
        ];
        for list in lists.into_iter().flatten() {
            if let Ok(elements) = serde_json::from_str::<Vec<&RawValue>>(list.get()) {
                is_container = true;
                self.elements(&elements, &place, depth);
            }
        }
        for inner in [document.awslogs, document.kinesis].into_iter().flatten() {
            if inner.get().starts_with('{') {
                is_container = true;
                self.document(inner.get().as_bytes(), &place, depth + 1);
            }
        }
        if let Some(data) = string(document.data).filter(|data| data.as_bytes().starts_with(GZIP_IN_BASE64)) {
            is_container = true;
            self.base64(data.as_bytes(), &place, depth);
        }
        if is_container {
            return;
        }
        let is_row = document.insights_message.is_some() || document.insights_billed.is_some();
        if is_row && document.message.is_none() {
            self.flat_row(json, &place);
            return;
        }
        let messages = [document.message, document.log];
        if let Some(message) = messages.into_iter().flatten().next() {
            // A message can be a JSON object itself, when a program has parsed it.
            match string(Some(message)) {
                Some(text) => self.message(text.as_bytes(), &place, depth + 1),
                None if self.is_candidate(message.get().as_bytes()) => {
                    self.document(message.get().as_bytes(), &place, depth + 1);
                }
                None => {}
            }
        }
    }

    /// The place that the members of a document name.
    fn place_of(&mut self, document: &Document<'_>, place: &Place) -> Place {
        let times = [document.timestamp, document.time, document.at_timestamp];
        let at_us = times.into_iter().find_map(time).or(place.at_us);
        let group = string(document.log_group).or_else(|| string(document.log_group_name));
        let stream = string(document.log_stream).or_else(|| string(document.log_stream_name));
        let owner = string(document.owner);
        if group.is_none() && stream.is_none() {
            return Place { at_us, origin: Arc::clone(&place.origin) };
        }
        let origin = self.origin(&place.origin, group.as_deref(), stream.as_deref(), owner.as_deref());
        Place { at_us, origin }
    }

    /// Counts a document of an input: it is a log event, or what a program has put around the message of one.
    pub(crate) fn count_document(&mut self, document: &[u8]) {
        match wrapped_message(document) {
            Some(message) => self.count_event(message.as_bytes()),
            None => self.count_event(document),
        }
    }

    fn elements(&mut self, elements: &[&RawValue], place: &Place, depth: u32) {
        for element in elements {
            let json = element.get().as_bytes();
            if let Ok(Event { message: Some(message), timestamp: Some(_) }) = serde_json::from_slice(json) {
                let text = string(Some(message));
                self.count_event(text.as_deref().unwrap_or_else(|| message.get()).as_bytes());
            }
            if self.is_candidate(json) && !self.document(json, place, depth + 1) {
                self.problems.add(Problem::MalformedJson, json);
            }
        }
    }

    /// A row of Insights as a list of fields: `[{"field": "@message", "value": "…"}]`.
    fn insights_row(&mut self, json: &[u8], place: &Place) {
        let Ok(fields) = serde_json::from_slice::<Vec<InsightsField<'_>>>(json) else {
            self.problems.add(Problem::MalformedRow, json);
            return;
        };
        let mut row = Row::default();
        for InsightsField { field, value } in &fields {
            if let Some(field) = row::field(field) {
                row.set(field, value);
            }
        }
        self.row(&row, place, json);
    }

    /// A row of Insights as an object: `{"@timestamp": "…", "@message": "…"}` or `{"@timestamp": "…", "@billedDuration": 12}`.
    fn flat_row(&mut self, json: &[u8], place: &Place) {
        let Ok(fields) = serde_json::from_slice::<std::collections::BTreeMap<Cow<'_, str>, &RawValue>>(json)
        else {
            self.problems.add(Problem::MalformedRow, json);
            return;
        };
        let mut row = Row::default();
        for (name, value) in &fields {
            if let Some(field) = row::field(name) {
                row.set(field, &string(Some(value)).unwrap_or_else(|| Cow::Borrowed(value.get())));
            }
        }
        self.row(&row, place, json);
    }

    /// A row of named fields.
    pub(crate) fn row(&mut self, row: &Row, place: &Place, example: &[u8]) {
        let origin = self.origin(&place.origin, row.group.as_deref(), row.stream.as_deref(), None);
        let place = Place { at_us: row.at_us.or(place.at_us), origin };
        if let Some(message) = &row.message {
            self.message(message.as_bytes(), &place, 1);
        } else {
            match row.report() {
                Some(Some(record)) => self.emit(record, &place),
                Some(None) => self.problems.add(Problem::MalformedRow, example),
                None => {}
            }
        }
    }

    /// Compressed data in base64.
    pub(crate) fn base64(&mut self, text: &[u8], place: &Place, depth: u32) {
        match from_base64(text) {
            Some(bytes) if depth < MAX_DEPTH => self.stream(Box::new(bytes.as_slice()), place, depth + 1),
            _ => self.problems.add(Problem::DamagedData, text),
        }
    }

    /// Passes on a record, or counts why there is none.
    pub(crate) fn parsed(&mut self, parsed: Parsed, place: &Place, example: &[u8]) {
        match parsed {
            Parsed::Record(record) => self.emit(record, place),
            Parsed::Malformed => self.problems.add(Problem::MalformedLine, example),
            Parsed::Other => {}
        }
    }

    fn emit(&mut self, record: Record, place: &Place) {
        let mut origin = Arc::clone(&place.origin);
        if let Record::InitStart(init) = &record {
            let learns = origin.function.is_empty() && !init.function.is_empty();
            if learns {
                origin = self.learn(&origin, init);
            }
        } else if origin.function.is_empty() {
            origin = self.learned(&origin);
        }
        let log_bytes = self.log_bytes.take();
        (self.sink)(crate::Entry { origin, at_us: place.at_us, log_bytes, record });
    }
}

/// The message in a document of Docker, or in one that names a log group or a log stream; `None` in others.
fn wrapped_message(document: &[u8]) -> Option<Cow<'_, str>> {
    static LOG: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"log"));
    LOG.find(document)?;
    let document: Document<'_> = serde_json::from_slice(document).ok()?;
    let names = [document.log_group, document.log_group_name, document.log_stream, document.log_stream_name];
    if names.into_iter().flatten().next().is_some() {
        string(document.message)
    } else {
        document.time.and_then(|_| string(document.log))
    }
}

/// Whether a value is a field of a row of Insights.
fn is_insights_row(value: &RawValue) -> bool {
    serde_json::from_str::<InsightsField<'_>>(value.get()).is_ok()
}

/// The origin with what a wrapper names.
pub(crate) fn refine(
    origin: &Origin,
    group: Option<&str>,
    stream: Option<&str>,
    account: Option<&str>,
) -> Origin {
    let mut origin = origin.clone();
    if let Some(group) = group {
        // A wrapper names the function of its messages, which a path or argument for the whole input does not.
        let mut named = Origin::default();
        named.set_group(group);
        for (own, other) in [
            (&mut origin.account, named.account),
            (&mut origin.region, named.region),
            (&mut origin.function, named.function),
        ] {
            if !other.is_empty() {
                *own = other;
            }
        }
    }
    if let Some(stream) = stream {
        origin.version.clear();
        origin.set_stream(stream);
    }
    if let Some(account) =
        account.filter(|account| account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit()))
    {
        account.clone_into(&mut origin.account);
    }
    origin
}
