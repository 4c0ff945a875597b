//! A real workload over a real store, and whether a store contains exactly what the workload sent.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agent_proto::batch::Batch;
use tailor_archive::{Totals as ArchiveTotals, object_name};
use tailor_collector::clock::{Clock, now_us};
use tailor_collector::report::summaries::Summarizer;
use tailor_collector::store::archive::{ArchiveStore, SealLimits, Upload};
use tailor_collector::store::sqlite::{LogLimits, Retention, SqliteStore, check};
use tailor_collector::store::{
    ChangeEvent, FunctionKey, HOUR_US, NewBatch, Receipt, Store, StoreError, Tenant, Window,
};
use tailor_sizing::pricing::prices::PriceTable;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::common::fleet::{KINDS, batch, environment};
use crate::common::received;
use crate::vfs::Watched;

/// Environments that send in turn. Each belongs to one of the functions of [`KINDS`].
pub(crate) const ENVIRONMENTS: u64 = 24;

/// Requests that wait for their acknowledgement at a time.
const CONCURRENT: usize = 3;

/// The write-ahead log begins again after so few pages that it does so many times in one run.
const LOG_LIMITS: LogLimits =
    LogLimits { interval: Duration::from_millis(2), restart_pages: 60, ..LogLimits::DEFAULT };

/// Marks from here on are uploads of the archive.
pub(crate) const UPLOADS: usize = 1 << 32;

/// Limit of the spool, bytes: more than a run writes.
const SPOOL_BYTES: u64 = 64 << 20;

/// The objects of the archive, with their number of invocations.
pub(crate) type Objects = BTreeMap<String, u64>;

/// Something that the store acknowledges.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Request {
    /// The next batch of an environment, from 1.
    Batch { environment: u64, sequence: u64 },
    /// The next step of the change log.
    Change { step: u64 },
}

/// What was acknowledged: the highest sequence of each environment, and the number of steps.
#[derive(Debug, Clone, Default)]
pub(crate) struct Acknowledged {
    sequences: BTreeMap<u64, u64>,
    steps: u64,
}

impl Acknowledged {
    pub(crate) fn add(&mut self, request: Request) {
        match request {
            Request::Batch { environment, sequence } => drop(self.sequences.insert(environment, sequence)),
            Request::Change { step } => self.steps = step + 1,
        }
    }
}

/// The requests of a run in their order.
pub(crate) fn requests(batches: u64) -> Vec<Request> {
    let mut requests = vec![];
    for number in 0..batches {
        let (environment, sequence) = (number % ENVIRONMENTS, 1 + number / ENVIRONMENTS);
        requests.push(Request::Batch { environment, sequence });
        if number % 40 == 39 {
            requests.push(Request::Change { step: number / 40 });
        }
    }
    requests
}

/// Invocations in one batch.
fn invocations(environment: u64, sequence: u64) -> u64 {
    1 + (environment * 5 + sequence * 3) % 11
}

pub(crate) fn new_batch(number: u64, sequence: u64) -> NewBatch {
    let kind = &KINDS[usize::try_from(number).unwrap() % KINDS.len()];
    // Some are so old that retention merges their hours.
    let age_us = if number.is_multiple_of(2) { 0 } else { (12 * 24 - sequence) * HOUR_US };
    let end_us = now_us() - age_us;
    let batch = batch(kind, number + 1, sequence, invocations(number, sequence), end_us);
    NewBatch { last_at_us: end_us, ..received(Tenant::default(), &batch, now_us()) }
}

fn change(step: u64) -> ChangeEvent {
    ChangeEvent {
        function: FunctionKey::of(&environment(&KINDS[0], 1)),
        change_id: "000001".to_owned(),
        step,
        at_us: now_us(),
        kind: "planned".to_owned(),
        detail: serde_json::json!({ "to": 256 }),
    }
}

fn open(folder: &Path) -> SqliteStore {
    SqliteStore::open_limited(folder, Clock::system(), Retention::default(), LOG_LIMITS).unwrap()
}

/// Seals and uploads everything. `put` gets each object before its upload is recorded.
async fn upload(store: &SqliteStore, put: &mut impl FnMut(String, u64)) -> Result<(), StoreError> {
    for file in store.seal(SealLimits { max_bytes: 4_096, max_age_us: 0 }).await? {
        let mut invocations = 0;
        let mut from = file.first;
        loop {
            let parts = store.parts(&file, from, 1 << 20).await?;
            let Some(last) = parts.last() else { break };
            from = last.number + 1;
            let batches = parts.iter().flat_map(|part| &part.batches);
            invocations +=
                batches.map(|body| Batch::decode(body).unwrap().invocations.len() as u64).sum::<u64>();
        }
        let object = object_name("", &file.partition, file.first, &file.digest);
        put(object.clone(), invocations);
        let totals = ArchiveTotals { invocations, ..file.totals };
        let upload = Upload { at_us: now_us(), object, bytes: 1, sha256: String::new(), totals };
        store.record_upload(&file, upload).await?;
    }
    while store.remove_uploaded().await? {}
    Ok(())
}

/// Sends all requests to a store in `folder`, which is stopped and started again twice, and marks the number of each
/// request when it is acknowledged. Returns the objects in the order of their uploads, which are marked, too.
pub(crate) fn run(folder: &Path, watched: &Arc<Watched>, requests: &[Request]) -> Vec<(String, u64)> {
    let runtime = Runtime::new().unwrap();
    let mut uploads = vec![];
    let mut sent = 0;
    for part in requests.chunks(requests.len().div_ceil(3)) {
        let store = Arc::new(open(folder));
        // A store that is lost while it is created would be found too easily.
        watched.leave_out_syncs();
        runtime.block_on(store.set_archive(Some(SPOOL_BYTES))).unwrap();
        let summarizer = Summarizer {
            store: Arc::clone(&store) as Arc<dyn Store>,
            prices: PriceTable::embedded(),
            clock: Clock::system(),
            enforcements: Arc::default(),
            fleet_sums: Arc::default(),
        };
        for (round, group) in part.chunks(CONCURRENT).enumerate() {
            runtime.block_on(async {
                let mut tasks = JoinSet::new();
                for request in group {
                    let (store, watched) = (Arc::clone(&store), Arc::clone(watched));
                    let (request, number) = (*request, sent);
                    sent += 1;
                    tasks.spawn(async move {
                        match request {
                            Request::Batch { environment, sequence } => {
                                let receipt = store.append(new_batch(environment, sequence)).await.unwrap();
                                assert_eq!(receipt, Receipt::Stored);
                            }
                            Request::Change { step } => {
                                store.log_change(&Tenant::default(), &change(step)).await.unwrap();
                            }
                        }
                        watched.mark(number);
                    });
                }
                while let Some(result) = tasks.join_next().await {
                    result.unwrap();
                }
                if round % 7 == 6 {
                    store.maintain().await.unwrap();
                }
                if round % 5 == 4 {
                    let mut put = |object, invocations| {
                        uploads.push((object, invocations));
                        watched.mark(UPLOADS + uploads.len() - 1);
                    };
                    upload(&store, &mut put).await.unwrap();
                }
                if round % 31 == 30 {
                    summarizer.step().await.unwrap();
                }
            });
        }
        drop(summarizer);
        drop(store);
    }
    uploads
}

/// The highest sequence of each environment.
type Sequences = BTreeMap<u64, u64>;

/// The invocations of each function.
type Totals = BTreeMap<String, u64>;

/// What a store contains.
fn content_of(store: &SqliteStore, runtime: &Runtime) -> Result<(Sequences, Totals), String> {
    let tenant = Tenant::default();
    let environments = runtime.block_on(store.environments(&tenant, None, Window::ALL));
    let mut sequences = BTreeMap::new();
    for state in environments.map_err(|error| format!("environments: {error}"))?.live {
        let id = u64::from_be_bytes(state.header.environment.id.0[..8].try_into().unwrap()) - 1;
        let missing = state.sequences.missing_since(0);
        if missing > 0 {
            return Err(format!("{missing} batches of environment {id} are missing"));
        }
        sequences.insert(id, state.sequences.highest());
    }
    let mut totals = BTreeMap::new();
    let series = runtime.block_on(store.series(&tenant, None, Window::ALL));
    for series in series.map_err(|error| format!("series: {error}"))? {
        *totals.entry(series.key.function.name).or_default() += series.rollup.invocations;
    }
    Ok((sequences, totals))
}

fn expected_totals(sequences: &BTreeMap<u64, u64>) -> BTreeMap<String, u64> {
    let mut totals = BTreeMap::new();
    for (environment, highest) in sequences {
        let name = KINDS[usize::try_from(*environment).unwrap() % KINDS.len()].name;
        let sum: u64 = (1..=*highest).map(|sequence| invocations(*environment, sequence)).sum();
        *totals.entry(name.to_owned()).or_default() += sum;
    }
    totals
}

/// Opens the store after a power failure and compares it with what was acknowledged. Each environment may also have one
/// batch that was sent and not acknowledged. `objects` are those that were uploaded before the power failure. After the
/// uploads that are left, the archive has each invocation once.
pub(crate) fn verify(
    folder: &Path,
    (acknowledged, objects): (&Acknowledged, &Objects),
    runtime: &Runtime,
) -> Result<(), String> {
    let store = SqliteStore::open(folder).map_err(|error| format!("does not open: {error}"))?;
    let set = runtime.block_on(store.set_archive(Some(SPOOL_BYTES)));
    set.map_err(|error| format!("archive: {error}"))?;
    let (sequences, totals) = content_of(&store, runtime)?;
    for environment in 0..ENVIRONMENTS {
        let at_least = acknowledged.sequences.get(&environment).copied().unwrap_or(0);
        let found = sequences.get(&environment).copied().unwrap_or(0);
        if found != at_least && found != at_least + 1 {
            return Err(format!("environment {environment} has {found} batches of {at_least} acknowledged"));
        }
    }
    if totals != expected_totals(&sequences) {
        return Err(format!("the invocations are {totals:?}, not {:?}", expected_totals(&sequences)));
    }
    let tenant = Tenant::default();
    let steps =
        runtime.block_on(store.changes(&tenant, None)).map_err(|error| format!("changes: {error}"))?;
    let steps = steps.len() as u64;
    if steps != acknowledged.steps && steps != acknowledged.steps + 1 {
        return Err(format!("{steps} steps of {} acknowledged", acknowledged.steps));
    }
    // The environment whose batch was not acknowledged sends it again, then the next one.
    let mut sequences = sequences;
    for environment in (0..ENVIRONMENTS).step_by(7) {
        let highest = sequences.get(&environment).copied().unwrap_or(0);
        for (sequence, expected) in [(highest, Receipt::Duplicate), (highest + 1, Receipt::Stored)] {
            if sequence == 0 {
                continue;
            }
            let receipt = runtime.block_on(store.append(new_batch(environment, sequence)));
            if receipt != Ok(expected) {
                return Err(format!("batch {sequence} of environment {environment}: {receipt:?}"));
            }
        }
        sequences.insert(environment, highest + 1);
    }
    runtime.block_on(store.maintain()).map_err(|error| format!("maintenance: {error}"))?;
    let (stored, totals) = content_of(&store, runtime)?;
    if stored != sequences || totals != expected_totals(&sequences) {
        return Err(format!("after maintenance: {totals:?}, not {:?}", expected_totals(&sequences)));
    }
    let mut objects = objects.clone();
    let mut put = |object, invocations| {
        objects.insert(object, invocations);
    };
    let uploaded = runtime.block_on(upload(&store, &mut put));
    uploaded.map_err(|error| format!("uploads: {error}"))?;
    let (archived, measured) = (objects.values().sum::<u64>(), totals.values().sum::<u64>());
    if archived != measured {
        return Err(format!("the archive has {archived} invocations of {measured}"));
    }
    drop(store);
    let findings = check::check(folder).map_err(|error| format!("check: {error}"))?;
    if findings.is_clean() { Ok(()) } else { Err(format!("damaged: {findings:?}")) }
}
