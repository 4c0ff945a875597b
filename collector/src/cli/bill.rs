//! `tailor bill`: the full bill of a function or of all functions.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use tailor_sizing::pricing::full_bill::Terms;

use super::arguments::ShowArgs;
use super::list::ListArgs;
use super::show::{missing, print, read_folder, request, style};
use crate::render;
use crate::report::bill::usage::UsageTable;
use crate::report::bill::{self, BillBasis};

/// What a bill depends on besides measurements and prices.
#[derive(Debug, Args)]
#[command(next_help_heading = "Bill")]
pub(super) struct BillArgs {
    /// File with usage that measurements do not show, such as provisioned concurrency and log bytes: JSON with an object for
    /// each function, see docs/bill.md. A running collector uses its own.
    #[arg(long, value_name = "FILE", env = "TAILOR_USAGE")]
    usage: Option<PathBuf>,
    /// The part of the list price that a Compute Savings Plan leaves, such as 0.88. It applies to compute, Init and
    /// provisioned concurrency.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = factor)]
    savings_plan_factor: f64,
    /// The part of all prices that an agreement with AWS leaves, such as 0.95.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = factor)]
    discount_factor: f64,
}

fn factor(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if (0.0..=1.0).contains(&factor) => Ok(factor),
        _ => Err("a factor is a number from 0 to 1: 0.88 is a discount of 12 %".to_owned()),
    }
}

impl BillArgs {
    /// What the bill of a data folder depends on.
    pub(super) fn basis(&self, show: &ShowArgs) -> anyhow::Result<BillBasis> {
        Ok(BillBasis {
            usage: self.usage.as_deref().map(UsageTable::read).transpose()?.unwrap_or_default(),
            terms: Terms {
                savings_plan_factor: self.savings_plan_factor,
                discount_factor: self.discount_factor,
                ..Terms::default()
            },
            imports: Some(show.data.clone()),
        })
    }

    /// The discounts as parameters of a request.
    pub(super) fn parameters(&self) -> [(&'static str, String); 2] {
        [
            ("savings_plan_factor", self.savings_plan_factor.to_string()),
            ("discount_factor", self.discount_factor.to_string()),
        ]
    }
}

/// The bill of the fleet.
pub(super) fn fleet(args: &ShowArgs, list: &ListArgs, bill_args: &BillArgs) -> anyhow::Result<ExitCode> {
    if let Some(server) = &args.server {
        let parameters: Vec<_> = list.parameters().into_iter().chain(bill_args.parameters()).collect();
        return request(args, server, &["v1", "bill"], &parameters);
    }
    let basis = bill_args.basis(args)?;
    print(read_folder(args, |reader| async move {
        let fleet = bill::fleet(&reader.request(), &list.query(args), &basis).await?;
        Ok((render::bill::fleet(&fleet, args.format, style(args)), fleet.functions.is_empty()))
    })?)
}

/// The bills of the functions with this name.
pub(super) fn function(
    name: &str,
    args: &ShowArgs,
    list: &ListArgs,
    bill_args: &BillArgs,
) -> anyhow::Result<ExitCode> {
    if let Some(server) = &args.server {
        let parameters: Vec<_> =
            list.filters.place.parameters().into_iter().chain(bill_args.parameters()).collect();
        return request(args, server, &["v1", "functions", name, "bill"], &parameters);
    }
    let basis = bill_args.basis(args)?;
    print(read_folder(args, |reader| async move {
        let keys = reader.store.functions(&reader.tenant, Some(name), usize::MAX).await?;
        let mut text = String::new();
        for key in keys.iter().filter(|key| list.filters.place.has(key)) {
            if let Some(report) = bill::function(&reader.request(), key, &basis).await? {
                text.push_str(&render::bill::function(&report, args.format, style(args)));
            }
        }
        if text.is_empty() {
            tracing::error!("{}", missing(name));
        }
        let nothing = text.is_empty();
        Ok((text, nothing))
    })?)
}
