//! Files are written and read again, and the documents describe the columns.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use agent_proto::batch::{BatchHeader, Environment, EnvironmentId, InitializationType, Lost, Overhead};
use tailor_archive::{FileWriter, Row, Totals, athena, columns, read_totals};
use tailor_sizing::pricing::prices::PriceTable;
use tailor_sizing::telemetry::invocation::{Invocation, RequestId, Work};
use tailor_sizing::units::{Architecture, Megabytes};

fn header(sequence: u64) -> BatchHeader {
    BatchHeader {
        environment: Environment {
            id: EnvironmentId([7; 16]),
            account: "123456789012".to_owned(),
            region: "eu-west-1".to_owned(),
            function: "pay".to_owned(),
            version: "3".to_owned(),
            memory: Megabytes(512),
            architecture: Architecture::Arm64,
            runtime: "nodejs24.x".to_owned(),
            initialization_type: InitializationType::OnDemand,
            extension_version: "0.1.0".to_owned(),
            ephemeral_mb: 512,
            timeout_ms: 3_000,
        },
        sequence,
        sent_at_us: 0,
        lost: Lost::default(),
        overhead: Overhead::default(),
        unsent: 0,
        interval: None,
    }
}

fn file() -> (Vec<u8>, Totals) {
    let prices = PriceTable::embedded();
    let mut writer = FileWriter::start().unwrap();
    let mut totals = Totals::default();
    for sequence in 1..=3 {
        let header = header(sequence);
        let invocations: Vec<Invocation> = (0..1_000)
            .map(|index| Invocation {
                request_id: RequestId(index),
                started_at_us: 1_795_953_600_000_000 + u64::try_from(index).unwrap() * 1_000,
                billed_ms: 10 * sequence,
                work: (index % 2 == 0).then(|| Work::from_counters(1..=37)),
                ..Invocation::default()
            })
            .collect();
        let mut rows: Vec<_> = Row::of_batch(&header, &invocations, &prices).collect();
        assert!(rows.iter().all(|row| row.cost_picodollars.is_some_and(|cost| cost > 0)));
        writer.write(&mut rows).unwrap();
        totals.add(Totals { invocations: 1_000, billed_ms: 10_000 * sequence });
    }
    (writer.finish().unwrap(), totals)
}

#[test]
fn a_file_has_its_rows_and_the_same_bytes_each_time() {
    let (bytes, totals) = file();
    assert_eq!(read_totals(bytes.clone().into()).unwrap(), totals);
    assert_eq!(file().0, bytes);
}

#[test]
fn damaged_files_are_refused_without_a_panic() {
    let (bytes, totals) = file();
    for length in (0..bytes.len()).step_by(97) {
        assert!(read_totals(bytes[..length].to_vec().into()).is_err());
    }
    for at in (0..bytes.len()).step_by(53) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x41;
        // Other columns are not read.
        if let Ok(found) = read_totals(damaged.into()) {
            assert!(found.invocations <= totals.invocations);
        }
    }
}

#[test]
fn each_column_is_documented_and_in_the_table_for_athena() {
    let document = include_str!("../../docs/archive.md");
    let table = athena("lambda_invocations", "s3://my-bucket/tailor/");
    for column in columns() {
        let optional = if column.is_optional { " ∅" } else { "" };
        let is_documented = document.contains(&format!("`{}`{optional}", column.name));
        assert!(is_documented, "{} is not in docs/archive.md, or its ∅ is wrong", column.name);
        assert!(table.contains(&format!("  `{}` ", column.name)));
    }
    assert!(table.contains("LOCATION 's3://my-bucket/tailor/'"), "{table}");
}
