//! API keys in a store: what every store does with them, and that all collectors with one database follow it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use common::places::{AnyStore, Place};
use common::process::CollectorProcess;
use tailor_collector::clock::now_us;
use tailor_collector::store::StoredKey;
use tokio::runtime::Runtime;

/// Longer than everything that a test waits for, also on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

fn key(digit: char, text: &str) -> StoredKey {
    StoredKey { digest: digit.to_string().repeat(64), text: text.to_owned(), last_used_s: 0 }
}

#[test]
fn every_store_keeps_keys() {
    for place in Place::each() {
        let runtime = Runtime::new().unwrap();
        let store = place.open_at(now_us());
        let keys = |store: &AnyStore| runtime.block_on(store.keys()).unwrap();
        assert_eq!(keys(&store), []);
        let (first, second) = (key('a', "first"), key('b', "second"));
        runtime.block_on(store.add_keys(vec![second.clone(), first.clone()])).unwrap();
        runtime
            .block_on(store.add_keys(vec![StoredKey { text: "other".to_owned(), ..first.clone() }]))
            .unwrap();
        assert_eq!(keys(&store), [first.clone(), second.clone()], "the stored key stays");
        let uses = |at_s| vec![(first.digest.clone(), at_s), ("c".repeat(64), at_s)];
        for (at_s, stored) in [(20, 20), (10, 20), (30, 30)] {
            runtime.block_on(store.note_key_uses(uses(at_s))).unwrap();
            assert_eq!(keys(&store)[0].last_used_s, stored);
        }
        assert!(runtime.block_on(store.remove_key(&first.digest)).unwrap());
        assert!(!runtime.block_on(store.remove_key(&first.digest)).unwrap());
        assert!(!runtime.block_on(store.add_first_keys(vec![first])).unwrap(), "there is a key");
        drop(store);
        assert_eq!(keys(&place.open_at(now_us())), [second]);
    }
}

#[test]
fn a_damaged_key_is_not_accepted_and_is_named() {
    for place in Place::each() {
        let runtime = Runtime::new().unwrap();
        let store = place.open_at(now_us());
        runtime.block_on(store.add_keys(vec![key('a', "scopes=read"), key('b', "scopes=read")])).unwrap();
        let damage = |table: &str| format!("UPDATE {table} SET text = 'scopes=admin' WHERE digest LIKE 'a%'");
        match &place {
            Place::Folder(folder) => {
                let file = rusqlite::Connection::open(folder.path().join("tailor.sqlite")).unwrap();
                assert_eq!(file.execute(&damage("api_key"), []).unwrap(), 1);
            }
            Place::Database { server, url } => drop(server.sql(url, &damage("tailor_api_key")).unwrap()),
        }
        assert_eq!(runtime.block_on(store.keys()).unwrap(), [key('b', "scopes=read")]);
        let found = store.damage();
        assert!(found.rows == 1 && format!("{found:?}").contains("api_key digest=aaa"), "{found:?}");
    }
}

#[test]
fn of_several_first_starts_one_creates_the_keys() {
    for place in Place::each() {
        let runtime = Runtime::new().unwrap();
        let stores: Vec<AnyStore> = match place {
            Place::Folder(_) => vec![place.open_at(now_us())],
            Place::Database { .. } => (0..3).map(|_| place.open_at(now_us())).collect(),
        };
        let starts = ('a'..='f').enumerate().map(|(number, digit)| {
            let store = &stores[number % stores.len()];
            async move { store.add_first_keys(vec![key(digit, "first")]).await.unwrap() }
        });
        let added = runtime.block_on(futures_util::future::join_all(starts));
        assert_eq!(added.iter().filter(|added| **added).count(), 1);
        let keys = runtime.block_on(stores[0].keys()).unwrap();
        assert_eq!(keys.len(), 1);
        // Also when all are revoked, the next start creates none.
        runtime.block_on(stores[0].remove_key(&keys[0].digest)).unwrap();
        assert!(!runtime.block_on(stores[0].add_first_keys(keys)).unwrap());
    }
}

fn tailor(arguments: &[&str], folder: &Path, url: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tailor"));
    command.args(arguments).arg("--data").arg(folder).env("TAILOR_DATABASE", url).output().unwrap()
}

fn succeeds(arguments: &[&str], folder: &Path, url: &str) -> String {
    let output = tailor(arguments, folder, url);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn status(collector: &CollectorProcess, key: &str) -> u16 {
    // `/v1/functions` can be read without a key on this machine, other than what sends.
    let request =
        ureq::post(format!("{}/v1/batches", collector.address)).config().http_status_as_error(false);
    let request = request.build().header("Content-Type", agent_proto::CONTENT_TYPE);
    request.header("Authorization", format!("Bearer {key}")).send(&b"no batch"[..]).unwrap().status().as_u16()
}

/// Waits until the collector accepts the key, or refuses it; returns how long that took.
fn wait(collector: &CollectorProcess, key: &str, is_accepted: bool) -> Duration {
    let start = Instant::now();
    // A known key is answered with what is wrong with the batch.
    while (status(collector, key) == 400) != is_accepted {
        assert!(start.elapsed() < DEADLINE, "{key}: {}", status(collector, key));
        std::thread::sleep(Duration::from_millis(20));
    }
    start.elapsed()
}

#[test]
fn all_collectors_with_one_database_follow_its_keys() {
    let Some(place) = Place::database() else { return };
    let Place::Database { server, url } = &place else { unreachable!("it is a database") };
    let parent = tempfile::tempdir().unwrap();
    let folder = |name: &str| parent.path().join(name);
    let start = |name: &str| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_tailor"));
        program.env("TAILOR_DATABASE", url);
        CollectorProcess::start_as(program, &folder(name), &[])
    };
    let (first, second) = (start("first"), start("second"));
    // The first start of the store creates the keys, and the second collector accepts them.
    let ingest = fs::read_to_string(folder("first").join("ingest-key")).unwrap().trim().to_owned();
    assert!(!folder("second").join("ingest-key").exists());
    assert!(!folder("first").join("keys").exists(), "the digests are in the database");
    wait(&second, &ingest, true);

    // The command needs the database only, from any machine.
    let elsewhere = folder("elsewhere");
    let created = succeeds(&["keys", "create", "--name", "ci", "--functions", "ci-*"], &elsewhere, url);
    for collector in [&first, &second] {
        println!("accepted after {:.1} s", wait(collector, &created, true).as_secs_f64());
    }
    let listed = succeeds(&["keys", "list"], &elsewhere, url);
    let line = |name: &str| listed.lines().find(|line| line.contains(name)).unwrap().to_owned();
    assert!(line(" ci ").contains("ci-*") && line(" functions ").contains("ingest"), "{listed}");
    assert!(!listed.contains(&created) && !elsewhere.exists());
    let stored = server.sql(url, "SELECT digest, text FROM tailor_api_key").unwrap();
    assert!(stored.lines().count() == 3 && !stored.contains(&created) && !stored.contains(&ingest));

    succeeds(&["keys", "revoke", "ci"], &elsewhere, url);
    for collector in [&first, &second] {
        println!("refused after {:.1} s", wait(collector, &created, false).as_secs_f64());
    }
    assert_eq!(status(&first, &ingest), 400);
    // A collector that stops stores when keys were used.
    let pid = second.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let start = Instant::now();
    while !succeeds(&["keys", "list", "--format", "json"], &elsewhere, url).contains("\"last_used_at_s\": 1")
    {
        assert!(start.elapsed() < DEADLINE, "the last use is stored");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_migration_and_a_backup_have_the_keys_of_the_store_and_of_the_file() {
    let Some(place) = Place::database() else { return };
    let Place::Database { url, .. } = &place else { unreachable!("it is a database") };
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("data");
    let names = |folder: &Path, url: &str| {
        let listed = succeeds(&["keys", "list", "--format", "json", "--sort", "name"], folder, url);
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        let keys = listed["keys"].as_array().unwrap();
        keys.iter().map(|key| key["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&folder, ""), [""; 0]);
    assert!(!folder.exists(), "a list creates nothing");
    let secret = succeeds(&["keys", "create", "--name", "of the store"], &folder, "");
    // A file of an earlier version.
    let digest = tailor_collector::keys::SecretDigest::of("of-an-earlier-version");
    let line = format!(
        "{{\"sha256\":\"{digest}\",\"name\":\"of the file\",\"tenant\":\"default\",\"scopes\":[\"read\"]}}"
    );
    fs::write(folder.join("keys"), format!("{line}\n")).unwrap();
    let both = ["of the file", "of the store"];
    assert_eq!(names(&folder, ""), both);

    let result = parent.path().join("tuned.json");
    let tuned = r#"{"power": 512, "cost": 0.000002, "duration": 12.5, "stateMachine": {}, "stats": []}"#;
    fs::write(&result, tuned).unwrap();
    let import = ["import", "power-tuning", result.to_str().unwrap(), "--function", "auth"];
    succeeds(&import, &folder, "");
    let recommended = |folder: &Path| fs::read_to_string(folder.join("recommendations.json")).unwrap();

    let restored = parent.path().join("restored");
    fs::create_dir(&restored).unwrap();
    let copy = restored.join("tailor.sqlite");
    succeeds(&["backup", copy.to_str().unwrap()], &folder, "");
    assert_eq!(names(&restored, ""), both);
    assert!(CollectorProcess::start(&restored).total()["invocations"] == 0);
    assert!(tailor(&["check"], &restored, "").status.success());
    assert_eq!(recommended(&restored), recommended(&folder));

    let elsewhere = parent.path().join("elsewhere");
    succeeds(&["keys", "create", "--name", "before"], &elsewhere, url);
    let report = succeeds(&["migrate"], &folder, url);
    assert!(report.contains("api_key: 2 rows"), "{report}");
    assert_eq!(names(&elsewhere, url), ["before", "of the file", "of the store"]);
    let mut program = Command::new(env!("CARGO_BIN_EXE_tailor"));
    program.env("TAILOR_DATABASE", url);
    let collector = CollectorProcess::start_as(program, &elsewhere, &[]);
    wait(&collector, &secret, true);

    // A key that was in two places is revoked in both.
    succeeds(&["keys", "revoke", "of the file"], &folder, url);
    assert_eq!(names(&folder, url), ["before", "of the store"]);
    assert_eq!(fs::read_to_string(folder.join("keys")).unwrap(), "");
    // An error of the operator: the folder of a collector with a database.
    let refused = tailor(&["keys", "create"], &elsewhere, "");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--database"), "{refused:?}");
}
