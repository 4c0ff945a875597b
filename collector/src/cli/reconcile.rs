//! `tailor reconcile`: AWS's bill beside what was computed.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use tailor_billing::bill::Bill;
use tailor_billing::read::{Export, has_name_of_export};

use super::archive::S3Args;
use super::arguments::Colour;
use super::database::{Opened, ReadArgs};
use super::runtime::block_on;
use super::{exit, runtime, show};
use crate::clock::now_us;
use crate::query::Format;
use crate::reconcile::{LastReconciliations, ReadExports, reconcile};
use crate::render;
use crate::s3::objects::{self, Objects};

/// Every format of an export is recognized by its content: CUR 2.0, legacy CUR, FOCUS 1.0 and 1.2, in CSV or Parquet, also
/// compressed with gzip or zstd. Rows of other services are skipped. Rows that cannot be read are counted. The data folder keeps
/// the result, which the page and the API show.
#[derive(Debug, Args)]
pub(super) struct ReconcileArgs {
    /// Files and folders with exports of AWS; `s3://BUCKET/PREFIX` for objects of S3.
    #[arg(required = true, value_name = "FILE")]
    paths: Vec<String>,
    /// Exit with 4 when more of the cost than this is unexplained, percent.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    threshold: Option<f64>,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// When the table has colours.
    #[arg(long, value_enum, default_value_t)]
    color: Colour,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    s3: S3Args,
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (0.0..=100.0).contains(number));
    number.ok_or_else(|| "a percentage is a number from 0 to 100".to_owned())
}

/// Reads the files, then the objects.
fn read(args: &ReconcileArgs) -> anyhow::Result<ReadExports> {
    let runtime = runtime::multi_threaded()?;
    let (addresses, paths): (Vec<&String>, Vec<&String>) =
        args.paths.iter().partition(|path| path.starts_with("s3://"));
    let mut objects = if addresses.is_empty() {
        Objects::default()
    } else {
        runtime.block_on(Objects::find(args.s3.client(), &addresses, objects::ONE))?
    };
    objects.retain(|key| has_name_of_export(Path::new(key)));
    let (mut export, mut bill) = (Export::default(), Bill::default());
    let files = export.files(&paths);
    for (index, path) in files.iter().enumerate() {
        let is_last = index + 1 == files.len() && objects.is_empty();
        export.read_file(&path.display().to_string(), File::open(path), is_last, &mut |row| bill.add(&row));
    }
    while let Some((name, _, object)) = objects.next(runtime.handle()) {
        let file = object.map_err(|error| io::Error::other(format!("{error:#}"))).and_then(copy);
        export.read_file(&name, file, objects.is_empty(), &mut |row| bill.add(&row));
    }
    Ok(ReadExports { bill, counts: export.counts, problems: export.problems })
}

/// An object as a file, because Parquet is read from its end.
fn copy(mut object: impl Read) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    io::copy(&mut object, &mut file)?;
    file.rewind()?;
    Ok(file)
}

pub(super) fn run(args: &ReconcileArgs) -> anyhow::Result<ExitCode> {
    let Opened { store, tenant, prices } = args.read.open()?;
    let exports = read(args)?;
    let result = block_on(reconcile(exports, store.as_ref(), &tenant, &prices, now_us()))??;
    let nothing = result.row_count == 0;
    let style = show::style_with(args.color);
    let code = show::print((render::reconciliation::reconciliation(&result, args.format, style), nothing))?;
    if nothing {
        tracing::error!("no usage of a Lambda function in these files: nothing is compared");
        return Ok(code);
    }
    if let Err(error) = LastReconciliations::of(&args.read.data).put(&tenant, &result) {
        // The folder can be read-only.
        tracing::warn!(
            error = format!("{error:#}"),
            "the result is not kept: the page and the API do not show it"
        );
    }
    let unexplained = result.total.unexplained_percent();
    match args.threshold {
        Some(threshold) if unexplained > threshold => {
            tracing::error!("{unexplained:.2} % of the cost is unexplained, more than {threshold} %");
            Ok(ExitCode::from(exit::CONDITION))
        }
        _ => Ok(code),
    }
}
