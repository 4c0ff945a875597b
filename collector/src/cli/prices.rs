//! `tailor prices`: the table of prices, and a new one from AWS's price lists.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde::Serialize;

use tailor_sizing::pricing::meters::Meter;
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::pricing::prices::PriceTable;
use tailor_sizing::units::Architecture;

use super::arguments::Colour;
use super::show::{print, style_with};
use crate::prices;
use crate::query::{Format, TableStyle};
use crate::render::output::{Output, Rows, write as write_output};

#[derive(Debug, Subcommand)]
pub(super) enum PricesCommand {
    /// Make a table of prices from files of AWS's price lists, for `--prices`. No connection is opened.
    ///
    /// The files are the offers AWSLambda, AmazonCloudWatch and AWSDataTransfer, of one region or of all:
    /// <https://pricing.us-east-1.amazonaws.com/offers/v1.0/aws/AWSLambda/current/REGION/index.json>
    Import(ImportArgs),
    /// Show the prices of a region, with the source and the day of each.
    Show(ShowPricesArgs),
}

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// Files of AWS's price lists, or tables that this command wrote.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The table to write. An existing file is replaced.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Leave out the built-in prices. Without it, they stay for what the files do not have.
    #[arg(long)]
    only: bool,
}

#[derive(Debug, Args)]
pub(super) struct ShowPricesArgs {
    /// The region; a list of all regions when left out.
    region: Option<String>,
    /// File with prices in place of the built-in ones, as for `tailor serve`.
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(command: &PricesCommand) -> anyhow::Result<ExitCode> {
    match command {
        PricesCommand::Import(args) => import(args),
        PricesCommand::Show(args) => show(args),
    }
}

fn import(args: &ImportArgs) -> anyhow::Result<ExitCode> {
    let mut table: Option<PriceTable> = (!args.only).then(PriceTable::embedded);
    for file in &args.files {
        let read = prices::load(Some(file))?;
        tracing::info!(
            "{}: prices of {} for {} regions",
            file.display(),
            read.compiled(),
            read.regions().count()
        );
        match &mut table {
            None => table = Some(read),
            Some(table) => table.merge(read),
        }
    }
    let Some(table) = table else { bail!("name the files of AWS's price lists") };
    write(&args.out, &table.to_json())?;
    tracing::info!("written to {}; use it with --prices {}", args.out.display(), args.out.display());
    Ok(ExitCode::SUCCESS)
}

/// Writes a file completely or not at all.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    let part = PathBuf::from(name);
    let written = File::create(&part).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&part, path)
    });
    if written.is_err() {
        // The cause is reported; a part that cannot be removed either has no effect.
        drop(fs::remove_file(&part));
    }
    written.with_context(|| format!("cannot write {}", path.display()))
}

fn show(args: &ShowPricesArgs) -> anyhow::Result<ExitCode> {
    let table = prices::load(args.prices.as_deref())?;
    let Some(region) = &args.region else {
        let regions: Vec<&str> = table.regions().collect();
        let rows = Rows::new(&["region"], regions.iter().map(|region| [*region]));
        let notes = regions.iter().map(|region| format!("{region}\n")).collect();
        let listing = PriceList { value: serde_json::json!({ "regions": regions }), rows, text: notes };
        return print((write_output(&listing, args.format, style_with(Colour::Auto)), false));
    };
    if !table.regions().any(|known| known == region) {
        bail!("no prices for region `{region}`: `tailor prices show` lists the regions");
    }
    let listing = price_list(region_prices(&table, region));
    print((write_output(&listing, args.format, style_with(Colour::Auto)), false))
}

/// Prices in every format.
struct PriceList {
    value: serde_json::Value,
    rows: Rows,
    text: String,
}

impl Output for PriceList {
    fn value(&self) -> impl Serialize {
        &self.value
    }

    fn table(&self, _style: TableStyle) -> String {
        self.text.clone()
    }

    fn markdown(&self) -> Rows {
        self.rows.clone()
    }

    fn csv(&self) -> Rows {
        self.rows.clone()
    }
}

/// One price of a region.
#[derive(Debug, Serialize)]
struct Price {
    name: String,
    /// Dollars.
    #[serde(rename = "price_usd")]
    price: String,
    unit: String,
    source: String,
    date: String,
}

fn price_list(prices: Vec<Price>) -> PriceList {
    let line = |Price { name, price, unit, source, date }: &Price| {
        format!("{name:<36} {price:>14} $ per {unit:<11} {source} of {date}\n")
    };
    let row = |price: &Price| {
        let Price { name, price, unit, source, date } = price;
        [name, price, unit, source, date].map(String::clone)
    };
    PriceList {
        rows: Rows::new(&["name", "price_usd", "unit", "source", "date"], prices.iter().map(row)),
        text: prices.iter().map(line).collect(),
        value: serde_json::json!({ "prices": prices }),
    }
}

fn region_prices(table: &PriceTable, region: &str) -> Vec<Price> {
    let mut prices = Vec::new();
    let mut line = |name: &str, price: String, unit: &str, source: &str, date: &str| {
        prices.push(Price {
            name: name.to_owned(),
            price,
            unit: unit.to_owned(),
            source: source.to_owned(),
            date: date.to_owned(),
        });
    };
    for architecture in [Architecture::X86_64, Architecture::Arm64] {
        let Ok(rates) = table.rates(region, architecture) else { continue };
        let (source, date) = (&rates.source.name, &rates.source.date);
        for tier in rates.tiers() {
            let name = match tier.from_gb_seconds {
                0 => format!("compute {architecture}"),
                from => format!("compute {architecture} from {from} GB-s"),
            };
            line(&name, tier.gb_second.to_decimal(), "GB-s", source, date);
        }
        let provisioned = rates.provisioned;
        for (name, price, unit) in [
            ("requests", Some(rates.request), "request"),
            ("ephemeral-storage", rates.storage_gb_second, "GB-s"),
            ("provisioned-concurrency", provisioned.map(|rates| rates.idle_gb_second), "GB-s"),
            ("provisioned-duration", provisioned.map(|rates| rates.duration_gb_second), "GB-s"),
            ("snap-start-cache", rates.snap_start.map(|rates| rates.cache_gb_second), "GB-s"),
            ("snap-start-restore", rates.snap_start.map(|rates| rates.restore_gb), "GB"),
        ] {
            let price = price.map_or_else(|| "not known".to_owned(), PicoDollars::to_decimal);
            line(&format!("{name} {architecture}"), price, unit, source, date);
        }
    }
    for meter in Meter::ALL.into_iter().filter(|meter| meter.has_flat_price()) {
        match table.meter(region, meter) {
            None => line(meter.code(), "not known".to_owned(), meter.unit(), "-", "-"),
            Some(price) => {
                for tier in &price.tiers {
                    let name = match tier.from_units {
                        0 => meter.code().to_owned(),
                        from => format!("{meter} from {from} {}", meter.unit()),
                    };
                    line(
                        &name,
                        tier.price.to_decimal(),
                        meter.unit(),
                        &price.source.name,
                        &price.source.date,
                    );
                }
            }
        }
    }
    if let Some((instances, source)) = table.instances(region) {
        for (name, hour) in instances {
            line(&format!("instance {name}"), hour.to_decimal(), "hour", &source.name, &source.date);
        }
    }
    prices
}
