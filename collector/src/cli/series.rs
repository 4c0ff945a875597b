//! `tailor hints` and `tailor series`: hints over the fleet, and cost, invocations, durations, errors and cold starts per hour or day.

use std::process::ExitCode;

use super::arguments::ShowArgs;
use super::fail_on::FailOnArgs;
use super::list::{HintArgs, SeriesArgs};
use super::show::{missing, print, read_folder, request, selected_reports, style};
use crate::query::ListQuery;
use crate::render::hints::Hints;
use crate::render::output::write;
use crate::render::series::TimeSeries;
use crate::report;
use crate::report::series;

/// The time series of the fleet.
pub(super) fn fleet(args: &ShowArgs, list: &SeriesArgs) -> anyhow::Result<ExitCode> {
    if let Some(server) = &args.server {
        return request(args, server, &["v1", "series"], &list.parameters(true));
    }
    print(read_folder(args, |reader| async move {
        let mut report = series::fleet(&reader.request(), &list.query(args)).await?;
        let nothing = report.total.invocations == 0;
        if list.reverse {
            report.reverse();
        }
        Ok((write(&TimeSeries(&[report]), args.format, style(args)), nothing))
    })?)
}

/// The time series of the functions with this name.
pub(super) fn function(name: &str, args: &ShowArgs, list: &SeriesArgs) -> anyhow::Result<ExitCode> {
    if let Some(server) = &args.server {
        return request(args, server, &["v1", "functions", name, "series"], &list.parameters(false));
    }
    print(read_folder(args, |reader| async move {
        let keys = reader.store.functions(&reader.tenant, Some(name), usize::MAX).await?;
        let mut reports = Vec::new();
        for key in keys.iter().filter(|key| list.filters.place.has(key)) {
            let report = series::function(&reader.request(), key, args.window_hours()).await?;
            reports.extend(report);
        }
        if reports.is_empty() {
            tracing::error!("{}", missing(name));
            return Ok((String::new(), true));
        }
        if list.reverse {
            reports.iter_mut().for_each(report::SeriesReport::reverse);
        }
        Ok((write(&TimeSeries(&reports), args.format, style(args)), false))
    })?)
}

/// The hints over the fleet.
pub(super) fn hints(args: &ShowArgs, list: &HintArgs, fail_on: &FailOnArgs) -> anyhow::Result<ExitCode> {
    let code = match &args.server {
        Some(server) => request(args, server, &["v1", "hints"], &list.parameters())?,
        None => print(read_folder(args, |reader| async move {
            let query = ListQuery { limit: 1, ..list.filters.query(args) };
            let mut hints = report::fleet(&reader.request(), &query).await?.hints;
            let nothing = hints.is_empty();
            list.sort.sort(&mut hints, list.reverse);
            hints.truncate(list.limit());
            Ok((write(&Hints(&hints), args.format, style(args)), nothing))
        })?)?,
    };
    fail_on.check(code, || selected_reports(args, &list.filters))
}
