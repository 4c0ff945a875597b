//! The archive in a real S3 server: each acknowledged invocation once, also when the collector is killed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod database;
mod faulty_store;
mod parts;

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_proto::batch::Batch;
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use bytes::Bytes;
use common::fleet::{KINDS, batch};
use common::process::CollectorProcess;
use common::{received, send_batch};
use faulty_store::{Fault, FaultyStore};
use serde_json::Value;
use tailor_archive::DAY_US;
use tailor_collector::archive::{Archiver, Settings};
use tailor_collector::clock::{Clock, now_us};
use tailor_collector::s3::{Connection, Location, PutOptions, S3, shared_config};
use tailor_collector::store::archive::{ArchiveStore, SealLimits};
use tailor_collector::store::sqlite::SqliteStore;
use tailor_collector::store::{NewBatch, Store, Tenant};
use tailor_sizing::pricing::prices::PriceTable;
use tailor_test_kit::process::{Server, free_address};
use tailor_test_kit::s3::{ACCESS_KEY, S3Server, SECRET_KEY};
use tailor_test_kit::{python, skip};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const BUCKET: &str = "archive-test";

/// The readers of the files.
const PACKAGES: [&str; 2] = ["duckdb==2.0.1", "sqlglot==30.30.0"];

/// A server with a bucket, and a client of it. `None` where the packages cannot be installed.
struct Bucket {
    server: Arc<S3Server>,
    s3: S3,
    runtime: Runtime,
    folder: TempDir,
}

impl Bucket {
    /// In the server that the tests share: each has its own prefix.
    fn start() -> Option<Self> {
        Self::of(S3Server::shared(), tempfile::tempdir().unwrap())
    }

    /// In a server of its own, which the test can kill.
    fn start_alone() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        Self::of(S3Server::start(&folder.path().join("s3")).map(Arc::new), folder)
    }

    fn of(server: anyhow::Result<Arc<S3Server>>, folder: TempDir) -> Option<Self> {
        let server = match server {
            Ok(server) => server,
            Err(error) => {
                skip(&format!("needs an S3 server: {error:#}"));
                return None;
            }
        };
        let runtime = Runtime::new().unwrap();
        let connection = Connection {
            endpoint: Some(server.url()),
            region: Some("us-east-1".to_owned()),
            path_style: true,
        };
        let credentials = Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test");
        let shared = runtime.block_on(shared_config(Some("us-east-1"))).into_builder();
        let shared = shared.credentials_provider(SharedCredentialsProvider::new(credentials)).build();
        let s3 = S3::with(&shared, &connection);
        // The server creates a bucket with its first object.
        let ready = || runtime.block_on(s3.put(BUCKET, "ready", Bytes::new(), &PutOptions::default()));
        server.until_ready(ready).unwrap();
        Some(Self { server, s3, runtime, folder })
    }

    /// The server of a bucket that was started alone.
    fn server_alone(&mut self) -> &mut S3Server {
        Arc::get_mut(&mut self.server).unwrap()
    }

    fn put(&self, key: &str, content: Vec<u8>) {
        let options = PutOptions::default();
        self.runtime.block_on(self.s3.put(BUCKET, key, content.into(), &options)).unwrap();
    }

    fn objects(&self, prefix: &str) -> Vec<String> {
        let location: Location = format!("s3://{BUCKET}/{prefix}").parse().unwrap();
        let objects = self.runtime.block_on(self.s3.list(&location)).unwrap();
        objects.into_iter().map(|object| object.key).collect()
    }

    /// Copies all objects to files, and reads them with DuckDB.
    fn read(&self, prefix: &str, ddl: Option<&Path>) -> Option<Value> {
        let packages = match python::install("archive-readers", &PACKAGES) {
            Ok(packages) => packages,
            Err(error) => {
                skip(&format!("needs python3 and {PACKAGES:?}: {error:#}"));
                return None;
            }
        };
        let copy = self.folder.path().join("copy");
        let _ = std::fs::remove_dir_all(&copy);
        for key in self.objects(prefix) {
            let path = copy.join(key.strip_prefix(prefix).unwrap().trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let content = self.runtime.block_on(self.s3.get(BUCKET, &key, 1 << 30)).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/archive/read.py");
        let mut command = Command::new("python3");
        command.env("PYTHONPATH", packages).arg(script).arg(copy).args(ddl);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(serde_json::from_slice(&output.stdout).unwrap())
    }

    /// An archiver that uploads everything at once, to a prefix.
    fn archiver(&self, store: FaultyStore, prefix: &str, folder: &TempDir) -> Archiver {
        let settings = Settings {
            location: format!("s3://{BUCKET}/{prefix}").parse().unwrap(),
            options: PutOptions::default(),
            limits: SealLimits { max_bytes: 1 << 20, max_age_us: 0 },
            record_days: 400,
            folder: folder.path().to_owned(),
        };
        let (prices, clock) = (PriceTable::embedded(), Clock::system());
        Archiver::new(Arc::new(store), self.s3.clone(), settings, prices, clock)
    }

    fn tailor(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tailor"));
        command.args(arguments).envs(self.server.environment()).output().unwrap()
    }

    fn collector(&self, folder: &Path, arguments: &[&str]) -> CollectorProcess {
        let mut program = Command::new(env!("CARGO_BIN_EXE_tailor"));
        program.envs(self.server.environment());
        CollectorProcess::start_as(program, folder, arguments)
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A batch of one of some functions in two accounts, on two days.
fn varied(sender: u64, sequence: u64) -> Batch {
    let kind = &KINDS[usize::try_from((sender + sequence) % 4).unwrap()];
    // At noon, so that a batch has one day.
    let end_us = now_us() / DAY_US * DAY_US - DAY_US / 2 - sequence % 2 * DAY_US;
    let mut batch = batch(kind, sender * 10 + (sender + sequence) % 4, sequence, 20, end_us);
    if sender % 2 == 1 {
        batch.header.environment.account = "999999999999".to_owned();
    }
    batch
}

#[test]
fn kills_and_an_unreachable_server_leave_each_invocation_in_the_archive_once() {
    const ROUNDS: u64 = 6;
    let Some(mut bucket) = Bucket::start_alone() else { return };
    let folder = tempfile::tempdir().unwrap();
    let address = format!("s3://{BUCKET}/tailor");
    let arguments = ["--archive", address.as_str(), "--archive-storage-class", "STANDARD"];
    let (mut invocations, mut billed_ms) = (0, 0);
    for round in 0..ROUNDS {
        let mut collector = bucket.collector(folder.path(), &arguments);
        let key = std::fs::read_to_string(folder.path().join("api-key")).unwrap();
        if round == 2 {
            bucket.server_alone().kill().unwrap();
        }
        for sequence in round * 10 + 1..round * 10 + 11 {
            for sender in 0..4 {
                let batch = varied(sender, sequence);
                assert_eq!(send_batch(&collector.address, key.trim(), &batch.encode().unwrap()), Some(200));
                invocations += batch.invocations.len() as u64;
                billed_ms += batch.invocations.iter().map(|one| one.billed_ms).sum::<u64>();
            }
        }
        // The collector seals and uploads now. It is killed at another moment of that in each round.
        tailor_collector::archive::request::submit(folder.path()).unwrap();
        std::thread::sleep(Duration::from_millis(150 + 170 * round));
        collector.kill();
        if round == 3 {
            bucket.server_alone().restart().unwrap();
            let ready = || {
                bucket.runtime.block_on(bucket.s3.put(BUCKET, "ready", Bytes::new(), &PutOptions::default()))
            };
            bucket.server.until_ready(ready).unwrap();
        }
    }
    let data = folder.path().to_str().unwrap();
    let collector = bucket.collector(folder.path(), &arguments);
    let flushed = bucket.tailor(&["archive", "flush", "--data", data]);
    assert!(flushed.status.success(), "{}", text(&flushed));
    assert!(text(&flushed).contains(&format!("uploaded: {invocations} invocations")), "{}", text(&flushed));
    assert!(text(&flushed).contains("waiting: 0 invocations (0 files)"), "{}", text(&flushed));
    assert!(text(&flushed).contains("dropped: 0 invocations"), "{}", text(&flushed));
    let verified = bucket.tailor(&["archive", "verify", "--read", "--data", data, "--archive", &address]);
    assert!(verified.status.success(), "{}", text(&verified));
    let total = collector.total();
    assert_eq!(total["invocations"], invocations);
    drop(collector);

    let ddl = folder.path().join("table.sql");
    let printed = bucket.tailor(&["archive", "ddl", "--archive", &address]);
    std::fs::write(&ddl, printed.stdout).unwrap();
    let Some(read) = bucket.read("tailor", Some(&ddl)) else { return };
    assert_eq!((&read["rows"], &read["keys"]), (&invocations.into(), &invocations.into()), "{read}");
    assert_eq!((&read["billed_ms"], &read["with_cpu"]), (&billed_ms.into(), &invocations.into()), "{read}");
    assert_eq!(read["partitions"].as_array().unwrap().len(), 4, "{read}");
    let in_partitions: u64 =
        read["partitions"].as_array().unwrap().iter().map(|row| row[2].as_u64().unwrap()).sum();
    assert_eq!(in_partitions, invocations, "each row is in the partition of its day");

    // A missing, a changed and an unknown object are found.
    let objects = bucket.objects("tailor");
    bucket.put(&objects[0], b"PAR1".to_vec());
    bucket.put("tailor/day=2026-11-29/account=1/000000000001-0.parquet", b"PAR1".to_vec());
    let verified = bucket.tailor(&["archive", "verify", "--data", data, "--archive", &address]);
    assert_eq!(verified.status.code(), Some(1), "{}", text(&verified));
    assert!(text(&verified).contains("the object has 4 bytes"), "{}", text(&verified));
    assert!(text(&verified).contains("is not in the record"), "{}", text(&verified));
}

/// What the store gets of a batch that arrives now.
fn new_batch(batch: &Batch) -> NewBatch {
    received(Tenant::default(), batch, now_us())
}

#[test]
fn an_upload_that_is_not_recorded_is_repeated_with_the_same_name_and_content() {
    let Some(bucket) = Bucket::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(folder.path()).unwrap());
    let archiver = bucket.archiver(FaultyStore::new(store.clone(), Fault::LoseRecord), "repeated", &folder);
    bucket.runtime.block_on(async {
        store.set_archive(Some(1 << 20)).await.unwrap();
        // One batch that goes over midnight.
        let mut batch = batch(&KINDS[0], 1, 1, 100, now_us() / DAY_US * DAY_US + 50_000_000);
        batch.header.environment.account = String::new();
        store.append(new_batch(&batch)).await.unwrap();
        assert!(archiver.flush().await.is_err());
    });
    let (before, size) = (bucket.objects("repeated"), |key: &String| {
        bucket.runtime.block_on(bucket.s3.get(BUCKET, key, 1 << 20)).unwrap()
    });
    assert_eq!(before.len(), 1, "{before:?}");
    let first = size(&before[0]);
    let round = bucket.runtime.block_on(archiver.flush()).unwrap();
    assert_eq!((round.files, round.totals.invocations), (2, 100));
    let after = bucket.objects("repeated");
    assert_eq!((after.len(), size(&before[0])), (2, first), "{after:?}");
    assert!(after.iter().all(|key| key.contains("/account=unknown/")), "{after:?}");
    // A later start finds nothing to do, and the spool is empty.
    assert_eq!(bucket.runtime.block_on(archiver.flush()).unwrap().files, 0);
    assert_eq!(bucket.runtime.block_on(store.archive_record()).unwrap().spool_bytes, 0);
}

#[test]
fn a_repaired_store_keeps_the_settings_and_the_spool() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = Runtime::new().unwrap();
    let store = SqliteStore::open(folder.path()).unwrap();
    runtime.block_on(store.set_archive(Some(1 << 20))).unwrap();
    let add = |store: &SqliteStore, sequence| {
        runtime.block_on(store.append(new_batch(&varied(2, sequence)))).unwrap();
        runtime.block_on(store.compact()).unwrap();
        runtime.block_on(store.archive_record()).unwrap()
    };
    let before = add(&store, 1);
    drop(store);
    let file = rusqlite::Connection::open(folder.path().join("tailor.sqlite")).unwrap();
    file.execute_batch("DROP INDEX function_changed").unwrap();
    drop(file);
    let repaired = Command::new(env!("CARGO_BIN_EXE_tailor"))
        .args(["check", "--repair", "--data"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(text(&repaired).contains("was written anew"), "{}", text(&repaired));
    let store = SqliteStore::open(folder.path()).unwrap();
    assert_eq!(runtime.block_on(store.archive_record()).unwrap(), before);
    let after = add(&store, 3);
    assert_eq!((after.waiting().invocations, after.dropped().invocations), (40, 0));
}

#[test]
fn status_and_lifecycle_are_readable() {
    let folder = tempfile::tempdir().unwrap();
    drop(SqliteStore::open(folder.path()).unwrap());
    let run =
        |arguments: &[&str]| Command::new(env!("CARGO_BIN_EXE_tailor")).args(arguments).output().unwrap();
    let data = folder.path().to_str().unwrap();
    let status = run(&["archive", "status", "--data", data]);
    assert!(text(&status).contains("the archive was never switched on"), "{}", text(&status));
    let rule = run(&["archive", "lifecycle", "--archive", "s3://my-bucket/tailor", "--days", "365"]);
    let rule: Value = serde_json::from_slice(&rule.stdout).unwrap();
    assert_eq!(rule["Rules"][0]["Filter"]["Prefix"], "tailor/");
    assert_eq!(rule["Rules"][0]["Expiration"]["Days"], 365);
    let start = Instant::now();
    let flush = run(&["archive", "flush", "--data", data]);
    assert!(!flush.status.success() && start.elapsed() < Duration::from_secs(10));
    assert!(text(&flush).contains("--archive s3://BUCKET/PREFIX"), "{}", text(&flush));
}

/// The log of some invocations.
fn log(first: u32, count: u32) -> String {
    let lines = (first..first + count).map(|index| {
        let id = format!("{index:08x}-2222-4333-8444-555555555555");
        format!(
            "2026-01-02T03:04:05.{:03}Z REPORT RequestId: {id}\tDuration: 100.25 ms\tBilled Duration: 101 ms\t\
             Memory Size: 512 MB\tMax Memory Used: 90 MB\t\n",
            index % 1_000
        )
    });
    lines.collect()
}

#[test]
fn objects_of_s3_are_imported_once() {
    let Some(bucket) = Bucket::start() else { return };
    let gzip = |text: &str| {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let objects = [
        ("logs/aws/lambda/pay/a.log", log(0, 50).into_bytes()),
        ("logs/aws/lambda/pay/b.log.gz", gzip(&log(40, 60))),
        ("logs/aws/lambda/ship/c.zst", zstd::bulk::compress(log(1_000, 30).as_bytes(), 1).unwrap()),
        ("logs/empty", vec![]),
        ("logs-of-others/aws/lambda/other/d.log", log(2_000, 10).into_bytes()),
    ];
    for (key, content) in objects {
        bucket.put(key, content);
    }
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let address = format!("s3://{BUCKET}/logs");
    let arguments = ["import", "logs", "--data", data, "--region", "eu-west-1", "--format", "json", &address];
    let first = bucket.tailor(&arguments);
    assert!(
        text(&first).contains("130 invocations of 2 functions imported, 0 imported before"),
        "{}",
        text(&first)
    );
    let summary: Value = serde_json::from_slice(&first.stdout).unwrap();
    assert_eq!(summary["total"]["invocations"], 130);
    let second = bucket.tailor(&arguments);
    assert!(
        text(&second).contains("0 invocations of 2 functions imported, 130 imported before"),
        "{}",
        text(&second)
    );
    let absent = bucket.tailor(&["import", "logs", "--data", data, &format!("s3://{BUCKET}/absent")]);
    assert!(text(&absent).contains("there is no object"), "{}", text(&absent));
    let no_bucket = bucket.tailor(&["import", "logs", "--data", data, "s3://no-such-bucket-here/a"]);
    assert_eq!(no_bucket.status.code(), Some(1));
    assert!(text(&no_bucket).contains("does not exist: create it"), "{}", text(&no_bucket));
}

/// Both files have the same rows, which count once; the manifest has none.
#[test]
fn exports_of_the_bill_are_read_from_s3() {
    let Some(bucket) = Bucket::start() else { return };
    let collector = common::Collector::start();
    for (kind, id) in KINDS.iter().zip(1..) {
        let body = batch(kind, id, 1, 20, now_us()).encode().unwrap();
        assert_eq!(collector.post_batch(&body).status, 200);
    }
    let data = collector.folder.path().to_str().unwrap();
    let local = bucket.folder.path().join("exports");
    std::fs::create_dir(&local).unwrap();
    for (name, encoding) in [("a.parquet", &["--parquet"][..]), ("b.csv", &[])] {
        let file = local.join(name);
        let arguments = ["export", "focus", "--data", data, "--output", file.to_str().unwrap()];
        let output = bucket.tailor(&[&arguments[..], encoding].concat());
        assert!(output.status.success(), "{}", text(&output));
        bucket.put(&format!("exports/data/{name}"), std::fs::read(&file).unwrap());
    }
    bucket.put("exports/metadata/manifest.json", b"{}".to_vec());
    let reconcile = |place: &str| {
        let output = bucket.tailor(&["reconcile", place, "--data", data, "--format", "json"]);
        let result: Result<Value, _> = serde_json::from_slice(&output.stdout);
        let mut result = result.unwrap_or_else(|error| panic!("{error}: {}", text(&output)));
        result["at_us"] = 0.into();
        result
    };
    let expected = reconcile(local.to_str().unwrap());
    assert_eq!((&expected["files"], &expected["problems"]), (&2.into(), &Value::Array(vec![])));
    assert!(expected["repeated_rows"].as_u64().unwrap() > 0, "{expected}");
    assert_eq!(reconcile(&format!("s3://{BUCKET}/exports")), expected);
    let absent = bucket.tailor(&["reconcile", &format!("s3://{BUCKET}/absent"), "--data", data]);
    assert!(text(&absent).contains("there is no object"), "{}", text(&absent));
}

/// The test server of AWS's APIs, and its client.
const AWS_PACKAGES: [&str; 2] = ["moto[server,logs]==5.2.5", "boto3==1.44.8"];

#[test]
fn a_log_group_is_imported_after_its_cost_is_confirmed() {
    let packages = match python::install("aws-server", &AWS_PACKAGES) {
        Ok(packages) => packages,
        Err(error) => return skip(&format!("needs {AWS_PACKAGES:?}: {error:#}")),
    };
    let folder = tempfile::tempdir().unwrap();
    let address = free_address().unwrap();
    let port = address.port().to_string();
    let mut command = Command::new("python3");
    command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port]).env("PYTHONPATH", &packages);
    let ready = || std::net::TcpStream::connect(address).is_ok();
    let _server = Server::start(&mut command, &folder.path().join("aws.log"), ready).unwrap();
    let environment = [
        ("AWS_ACCESS_KEY_ID", "test".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ("AWS_REGION", "eu-west-1".to_owned()),
        ("AWS_DEFAULT_REGION", "eu-west-1".to_owned()),
        ("AWS_ENDPOINT_URL", format!("http://{address}")),
        ("AWS_ENDPOINT_URL_CLOUDWATCH_LOGS", format!("http://{address}")),
    ];
    let script = "
import boto3, sys, time
logs = boto3.client('logs')
logs.create_log_group(logGroupName='/aws/lambda/pay')
logs.create_log_stream(logGroupName='/aws/lambda/pay', logStreamName='2026/01/02/[$LATEST]0a')
now = int(time.time() * 1000) - 3_600_000
events = [{'timestamp': now + i, 'message': line} for i, line in enumerate(sys.stdin.read().splitlines())]
logs.put_log_events(logGroupName='/aws/lambda/pay', logStreamName='2026/01/02/[$LATEST]0a', logEvents=events)
";
    let mut python = Command::new("python3");
    python.args(["-c", script]).env("PYTHONPATH", &packages).envs(environment.clone());
    let mut child = python.stdin(std::process::Stdio::piped()).spawn().unwrap();
    let lines: String = log(0, 25).lines().map(|line| format!("{}\n", &line[25..])).collect();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), lines.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    let data = folder.path().join("data");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tailor"));
        command.args(["import", "logs", "--format", "json", "--data"]).arg(&data).args(arguments);
        command.stdin(std::process::Stdio::null()).envs(environment.clone()).output().unwrap()
    };
    let refused = run(&["--log-group", "/aws/lambda/pay"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused).contains("confirm the cost with --yes"), "{}", text(&refused));
    let imported = run(&["--log-group", "/aws/lambda/pay", "--yes"]);
    assert!(text(&imported).contains("25 invocations of 1 function imported"), "{}", text(&imported));
    // The account is that of the ARN, and the size of the log is not known.
    let fleet: Value = serde_json::from_slice(&imported.stdout).unwrap();
    assert_eq!(fleet["functions"][0]["account"], "123456789012", "{fleet}");
    let all = tailor_collector::store::Window::ALL;
    let sizes = tailor_collector::import::ledger::all_log_bytes(&data, &Default::default(), all).unwrap();
    assert!(sizes.is_empty(), "{sizes:?}");
    let cost = "data transfer would cost 0.00 dollars: 0.09 dollars per GB in us-east-1 (AWS price list AWSDataTransfer";
    assert!(text(&imported).contains(cost), "{}", text(&imported));
    let absent = run(&["--log-group", "/aws/lambda/absent", "--yes"]);
    assert!(text(&absent).contains("there is no log group /aws/lambda/absent"), "{}", text(&absent));
}
