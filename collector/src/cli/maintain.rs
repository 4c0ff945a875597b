//! `tailor check`, `tailor migrate` and `tailor backup`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use serde::Serialize;

use super::arguments::Colour;
use super::database::DatabaseArgs;
use super::runtime::block_on;
use super::show;
use crate::clock::now_us;
use crate::keys::sources;
use crate::push::queue_store;
use crate::query::{Format, TableStyle};
use crate::render::output::{Field, Output, Rows, write};
use crate::store::Tenant;
use crate::store::postgres::{
    self, CopiedTable, Database, FromFiles, LeftOut, Migration, NamedText, PostgresStore,
};
use crate::store::sqlite::check::{self, Findings};

/// Maximum number of damaged rows that are listed.
const MAX_LISTED: usize = 1_000;

pub(super) fn check(
    folder: &Path,
    database: &DatabaseArgs,
    repairs: bool,
    format: Format,
) -> anyhow::Result<ExitCode> {
    let about = || format!("cannot check the store in {}", folder.display());
    let (findings, kept) = match (database.database()?, repairs) {
        (Some(database), _) => (check_database(&database, repairs)?, None),
        (None, true) => check::repair(folder, now_us()).with_context(about)?,
        (None, false) => (check::check(folder).with_context(about)?, None),
    };
    show::print((
        write(&Checked { findings: &findings, kept, repairs }, format, show::style_with(Colour::Auto)),
        false,
    ))?;
    Ok(if findings.is_clean() || repairs { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What a check found, and what was repaired.
struct Checked<'a> {
    findings: &'a Findings,
    /// The damaged file, when the file was written anew.
    kept: Option<PathBuf>,
    repairs: bool,
}

impl Checked<'_> {
    fn rows(&self) -> Rows {
        let Findings { damaged_rows, structure, .. } = self.findings;
        let rows = damaged_rows.iter().take(MAX_LISTED).map(|row| ["row", row.as_str()]);
        Rows::new(&["damaged", "where"], rows.chain(structure.iter().map(|line| ["file", line.as_str()])))
    }
}

impl Output for Checked<'_> {
    fn value(&self) -> impl Serialize {
        let Findings { rows, damaged_rows, structure, isolated_rows } = self.findings;
        serde_json::json!({
            "rows": rows,
            "damaged_rows": damaged_rows,
            "structure": structure,
            "isolated_rows": isolated_rows,
            "damaged_file": self.kept,
        })
    }

    fn table(&self, _style: TableStyle) -> String {
        let Findings { rows, damaged_rows, structure, isolated_rows } = self.findings;
        let mut text = String::new();
        for row in damaged_rows.iter().take(MAX_LISTED) {
            text.push_str(&format!("damaged row: {row}\n"));
        }
        for line in structure {
            text.push_str(&format!("damaged file: {line}\n"));
        }
        text.push_str(&format!(
            "{rows} rows checked, {} damaged, {} faults of the file; {isolated_rows} rows were isolated before\n",
            damaged_rows.len(),
            structure.len()
        ));
        if let Some(kept) = &self.kept {
            text.push_str(&format!("the file was written anew; the damaged one is {}\n", kept.display()));
        } else if self.repairs && !self.findings.is_clean() {
            text.push_str("the damaged rows are isolated in a table of their own\n");
        }
        text
    }

    fn markdown(&self) -> Rows {
        self.rows()
    }

    fn csv(&self) -> Rows {
        self.rows()
    }
}

fn check_database(database: &Database, repairs: bool) -> anyhow::Result<Findings> {
    let store =
        PostgresStore::open_to_read(database).with_context(|| format!("cannot open the {database}"))?;
    let findings = block_on(store.examine(repairs.then(now_us)))?;
    findings.with_context(|| format!("cannot check the {database}"))
}

pub(super) fn migrate(
    folder: &Path,
    database: &DatabaseArgs,
    webhook_tenant: String,
    format: Format,
) -> anyhow::Result<ExitCode> {
    let database = database.database()?.context("name the database with --database")?;
    let queue = queue_store::in_file(folder)?.map(|(text, entries)| NamedText {
        tenant: Tenant(webhook_tenant),
        name: queue_store::NAME,
        text,
        entries,
    });
    let from_files = FromFiles { keys: sources::of_folder_file(folder)?, texts: queue.into_iter().collect() };
    let progress = |copied: &CopiedTable| tracing::info!("{}: {} rows", copied.name, copied.rows);
    let migration = block_on(postgres::migrate(folder, &database, from_files, progress))?;
    let migration = migration
        .with_context(|| format!("cannot migrate the store in {} to the {database}", folder.display()))?;
    show::print((write(&Migrated(&migration), format, show::style_with(Colour::Auto)), false))
}

/// What a migration did.
struct Migrated<'a>(&'a Migration);

impl Migrated<'_> {
    fn rows(&self) -> Rows {
        let copied =
            self.0.copied.iter().map(|table| {
                [table.name.into(), table.rows.into(), Field::from(table.damaged), Field::from("")]
            });
        let left_out = self.0.left_out.iter();
        let left_out = left_out.map(|LeftOut { name, rows, reason }| {
            [Field::from(*name), Field::number(*rows), Field::from(""), Field::from(*reason)]
        });
        Rows::new(&["table", "rows", "damaged", "not_copied_because"], copied.chain(left_out))
    }
}

impl Output for Migrated<'_> {
    fn value(&self) -> impl Serialize {
        let table = |CopiedTable { name, rows, damaged, .. }: &CopiedTable| serde_json::json!({ "table": name, "rows": rows, "damaged": damaged });
        let left_out = |LeftOut { name, rows, reason }: &LeftOut| serde_json::json!({ "name": name, "rows": rows, "reason": reason });
        serde_json::json!({
            "tables": self.0.copied.iter().map(table).collect::<Vec<_>>(),
            "left_out": self.0.left_out.iter().map(left_out).collect::<Vec<_>>(),
        })
    }

    fn table(&self, _style: TableStyle) -> String {
        let line = |CopiedTable { name, rows, damaged, .. }: &CopiedTable| {
            format!("{name}: {rows} rows copied and verified, {damaged} damaged rows left out\n")
        };
        let mut text: String = self.0.copied.iter().map(line).collect();
        for LeftOut { name, rows, reason } in self.0.left_out.iter().filter(|left| left.rows != Some(0)) {
            let rows = rows.map(|rows| format!(" ({rows} rows)")).unwrap_or_default();
            text.push_str(&format!("{name}{rows} is not copied: {reason}\n"));
        }
        text + "start the collectors with --database now\n"
    }

    fn markdown(&self) -> Rows {
        self.rows()
    }

    fn csv(&self) -> Rows {
        self.rows()
    }
}

pub(super) fn backup(folder: &Path, file: &Path) -> anyhow::Result<ExitCode> {
    // It has the digests of the keys.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    check::backup(folder, file, &sources::of_folder_file(folder)?)
        .with_context(|| format!("cannot copy the store in {} to {}", folder.display(), file.display()))?;
    Ok(ExitCode::SUCCESS)
}
