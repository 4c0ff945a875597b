//! `tailor hints` and `tailor series`: hints over the fleet, and cost, invocations, durations, errors and cold starts per hour or day.

use std::process::ExitCode;

use super::ShowArgs;
use super::list::ListArgs;
use super::show::{look, print, read_folder, request};
use crate::render;
use crate::report;
use crate::report::series;

/// The time series of the fleet.
pub(super) fn fleet(args: &ShowArgs, list: &ListArgs) -> anyhow::Result<ExitCode> {
    if let Some(server) = &args.server {
        return request(args, server, &["v1", "series"], &list.parameters());
    }
    print(read_folder(args, |reader| async move {
        let report = series::fleet(&reader.request(), &list.query(args)).await?;
        Ok((render::series::series(&report, args.format, look(args)), report.total.invocations == 0))
    })?)
}

/// The time series of the functions with this name.
pub(super) fn function(name: &str, args: &ShowArgs, list: &ListArgs) -> anyhow::Result<ExitCode> {
    if let Some(server) = &args.server {
        return request(args, server, &["v1", "functions", name, "series"], &list.place());
    }
    print(read_folder(args, |reader| async move {
        let keys = reader.store.functions(&reader.tenant, Some(name), usize::MAX).await?;
        let mut text = String::new();
        for key in keys.iter().filter(|key| list.is_at(key)) {
            if let Some(report) = series::function(&reader.request(), key, args.hours).await? {
                text.push_str(&render::series::series(&report, args.format, look(args)));
            }
        }
        if text.is_empty() {
            tracing::error!("no measurements of `{name}`: `tailor summary` lists the measured functions");
        }
        let nothing = text.is_empty();
        Ok((text, nothing))
    })?)
}

/// The hints over the fleet.
pub(super) fn hints(args: &ShowArgs, list: &ListArgs) -> anyhow::Result<ExitCode> {
    if let Some(server) = &args.server {
        return request(args, server, &["v1", "hints"], &list.parameters());
    }
    print(read_folder(args, |reader| async move {
        let fleet = report::fleet(&reader.request(), &list.query(args)).await?;
        Ok((render::hints::hints(&fleet.hints, args.format, look(args)), fleet.hints.is_empty()))
    })?)
}
