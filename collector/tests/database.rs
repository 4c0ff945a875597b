//! A database as its operators use it: TLS with their own authority, and `tailor check` beside running collectors.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use common::fleet::{KINDS, batch};
use common::places::Place;
use common::process::CollectorProcess;
use common::{KEY, received, send_batch};
use tailor_collector::clock::{Clock, now_us};
use tailor_collector::store::Tenant;
use tailor_test_kit::postgres::PostgresServer;
use tailor_test_kit::skip;
use tokio::runtime::Runtime;

/// A certificate authority, and the certificate that it issued for `localhost`.
struct Authority {
    certificate: PathBuf,
    server_certificate: String,
    server_key: String,
}

impl Authority {
    fn new(folder: &Path, name: &str) -> Self {
        let path = |suffix: &str| folder.join(format!("{name}{suffix}"));
        let text = |suffix: &str| path(suffix).to_str().unwrap().to_owned();
        let openssl = |arguments: &str| {
            let output = Command::new("openssl").args(arguments.split(' ')).output().unwrap();
            assert!(output.status.success(), "{output:?}");
        };
        let new_key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        fs::write(path(".cnf"), "[req]\ndistinguished_name = dn\n[dn]\n").unwrap();
        fs::write(path(".ext"), "subjectAltName = DNS:localhost\nbasicConstraints = critical, CA:FALSE\n")
            .unwrap();
        openssl(&format!(
            "req -config {} -x509 {new_key} -subj /CN={name} -days 2 -addext basicConstraints=critical,CA:TRUE \
             -keyout {} -out {}",
            text(".cnf"),
            text(".key"),
            text(".pem")
        ));
        openssl(&format!(
            "req -config {} {new_key} -subj /CN=localhost -keyout {} -out {}",
            text(".cnf"),
            text(".server.key"),
            text(".csr")
        ));
        openssl(&format!(
            "x509 -req -in {} -CA {} -CAkey {} -CAcreateserial -days 2 -extfile {} -out {}",
            text(".csr"),
            text(".pem"),
            text(".key"),
            text(".ext"),
            text(".server.pem")
        ));
        Self {
            certificate: path(".pem"),
            server_certificate: fs::read_to_string(path(".server.pem")).unwrap(),
            server_key: fs::read_to_string(path(".server.key")).unwrap(),
        }
    }
}

#[test]
fn tls_to_the_database_verifies_the_certificate_and_the_name() {
    if !PostgresServer::is_installed() {
        return skip("PostgreSQL is not installed");
    }
    let parent = tempfile::tempdir().unwrap();
    let (ours, other) = (Authority::new(parent.path(), "ours"), Authority::new(parent.path(), "other"));
    let files = [
        ("server.crt", ours.server_certificate.as_str()),
        ("server.key", ours.server_key.as_str()),
        // Without TLS there is no access.
        ("pg_hba.conf", "hostssl all all 127.0.0.1/32 trust\n"),
    ];
    let server =
        PostgresServer::start_with_files(&std::env::temp_dir(), &["fsync=off", "ssl=on"], &files).unwrap();
    let plain = server.new_database().unwrap();
    let name = plain.rsplit('/').next().unwrap().split('?').next().unwrap();
    let url = |host: &str, mode: &str| format!("postgres://tailor@{host}:{}/{name}{mode}", server.port());
    let verified = url("localhost", "?sslmode=verify-full");

    let mut program = Command::new(env!("CARGO_BIN_EXE_tailor"));
    program.env("TAILOR_DATABASE", &verified).env("TAILOR_DATABASE_CA", &ours.certificate);
    let keys = parent.path().join("keys");
    fs::write(&keys, format!("{KEY}\n")).unwrap();
    let arguments = ["--api-key-file", keys.to_str().unwrap()];
    let collector = CollectorProcess::start_as(program, &parent.path().join("data"), &arguments);
    let body = batch(&KINDS[0], 1, 1, 10, now_us()).encode().unwrap();
    assert_eq!(send_batch(&collector.address, KEY, &body), Some(200));
    let sql = "SELECT DISTINCT ssl, version FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
               WHERE application_name = 'tailor'";
    assert_eq!(server.sql(name, sql).unwrap().trim(), "t|TLSv1.3");

    let check = |url: &str, authority: Option<&Authority>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tailor"));
        command.args(["check", "--database", url]);
        if let Some(authority) = authority {
            command.arg("--database-ca").arg(&authority.certificate);
        }
        command.output().unwrap()
    };
    let checked = check(&verified, Some(&ours));
    assert!(checked.status.success(), "{checked:?}");
    for (url, authority, cause) in [
        (verified.clone(), None, "UnknownIssuer"),
        (verified.clone(), Some(&other), "certificate"),
        // A mode that does not require it verifies it, too.
        (url("localhost", ""), None, "UnknownIssuer"),
        (url("localhost", "?sslmode=verify-ca"), Some(&other), "certificate"),
        (url("127.0.0.1", "?sslmode=verify-full"), Some(&ours), "not valid for name"),
        (url("localhost", "?sslmode=disable"), Some(&ours), "no encryption"),
    ] {
        let refused = check(&url, authority);
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && error.contains(cause), "{url}: {error}");
    }
}

fn check(url: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tailor"))
        .args(["check", "--format", "json", "--database", url])
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn damage_in_a_database_is_found_and_isolated_beside_a_collector() {
    let Some(place) = Place::database() else { return };
    let Place::Database { server, url } = &place else { unreachable!("it is a database") };
    let parent = tempfile::tempdir().unwrap();
    let absent = check(url, &[]);
    let error = String::from_utf8_lossy(&absent.stderr).into_owned();
    assert!(!absent.status.success() && error.contains("no store in this database"), "{error}");

    let keys = parent.path().join("keys");
    fs::write(&keys, format!("{KEY}\n")).unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_tailor"));
    program.env("TAILOR_DATABASE", url);
    let arguments = ["--api-key-file", keys.to_str().unwrap()];
    let collector = CollectorProcess::start_as(program, &parent.path().join("data"), &arguments);
    for (kind, environment) in KINDS.iter().zip(1..=3) {
        let body = batch(kind, environment, 1, 10, now_us()).encode().unwrap();
        assert_eq!(send_batch(&collector.address, KEY, &body), Some(200));
    }
    assert!(check(url, &[]).status.success());
    // The rows of the batches are in one table or the other, depending on the maintenance.
    let damage = |table: &str| {
        let sql = format!(
            "UPDATE tailor_{table} SET received_at_us = received_at_us + 1 WHERE function = '{}'",
            KINDS[0].name
        );
        server.sql(url, &sql).unwrap();
    };
    damage("pending");
    damage("environment");
    let found = check(url, &[]);
    assert_eq!(found.status.code(), Some(1), "{found:?}");
    let findings: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
    let rows = findings["damaged_rows"].as_array().unwrap();
    assert!(
        !rows.is_empty() && rows.iter().all(|row| row.as_str().unwrap().contains(KINDS[0].name)),
        "{findings}"
    );
    assert!(check(url, &["--repair"]).status.success());
    let after = check(url, &[]);
    assert!(after.status.success(), "{after:?}");
    let after: serde_json::Value = serde_json::from_slice(&after.stdout).unwrap();
    assert!(after["isolated_rows"].as_u64().unwrap() >= 1, "{after}");
    // The others are as before.
    assert_eq!(
        send_batch(&collector.address, KEY, &batch(&KINDS[1], 2, 2, 10, now_us()).encode().unwrap()),
        Some(200)
    );
}

/// The row is written between the reading and the repair, as a collector does that merges a batch into it.
#[test]
fn repair_leaves_a_row_that_was_written_anew_meanwhile() {
    let Some(place) = Place::database() else { return };
    let Place::Database { server, url } = &place else { unreachable!("it is a database") };
    let runtime = Runtime::new().unwrap();
    let store = place.open(Clock::system());
    let of_now = received(Tenant::default(), &batch(&KINDS[0], 1, 1, 10, now_us()), now_us());
    runtime.block_on(store.append(of_now)).unwrap();
    runtime.block_on(store.maintain()).unwrap();
    drop(store);
    let change =
        |sign: char| format!("UPDATE tailor_environment SET received_at_us = received_at_us {sign} 1");
    server.sql(url, &change('+')).unwrap();
    let findings = std::thread::scope(|threads| {
        // One transaction, which ends after the check has read the row.
        threads.spawn(|| server.sql(url, &format!("{}; SELECT pg_sleep(4)", change('-'))).unwrap());
        let sleeping = "SELECT COUNT(*) FROM pg_stat_activity
                        WHERE wait_event = 'PgSleep' AND datname = current_database()";
        while server.sql(url, sleeping).unwrap().trim() == "0" {
            std::thread::sleep(Duration::from_millis(20));
        }
        let repaired = check(url, &["--repair"]);
        assert!(repaired.status.success(), "{repaired:?}");
        serde_json::from_slice::<serde_json::Value>(&repaired.stdout).unwrap()
    });
    assert_eq!((place.rows("environment"), place.rows("damaged")), (1, 0), "{findings}");
    assert_eq!(findings["damaged_rows"], serde_json::json!([]));
    assert!(check(url, &[]).status.success());
}
