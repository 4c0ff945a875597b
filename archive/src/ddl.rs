//! The definition of the table for Athena.

use crate::columns::{Kind, all};

/// The first day of the projected partitions.
const FIRST_DAY: &str = "2020-01-01";

/// The range of the days of the table, for the partition projection of Athena.
#[must_use]
pub fn partition_range() -> String {
    format!("{FIRST_DAY},NOW+1DAYS")
}

/// `CREATE EXTERNAL TABLE` for the files under `location`, such as `s3://BUCKET/PREFIX`. Partitions are projected, so that
/// new days need no `MSCK REPAIR TABLE`. A query names the accounts that it reads.
#[must_use]
pub fn athena(table: &str, location: &str) -> String {
    let columns: Vec<_> = all()
        .map(|column| {
            let kind = match column.kind() {
                Kind::Text => "string",
                Kind::Integer => "bigint",
                Kind::Boolean => "boolean",
                Kind::Timestamp => "timestamp",
            };
            format!("  `{}` {kind}", column.name)
        })
        .collect();
    let location = location.trim_end_matches('/');
    format!(
        "CREATE EXTERNAL TABLE `{table}` (\n{}\n)\nPARTITIONED BY (`day` date, `account` string)\nSTORED AS PARQUET\n\
         LOCATION '{location}/'\nTBLPROPERTIES (\n  'projection.enabled' = 'true',\n  \
         'projection.day.type' = 'date',\n  'projection.day.format' = 'yyyy-MM-dd',\n  \
         'projection.day.range' = '{}',\n  'projection.account.type' = 'injected',\n  \
         'storage.location.template' = '{location}/day=${{day}}/account=${{account}}'\n);\n",
        columns.join(",\n"),
        partition_range()
    )
}
