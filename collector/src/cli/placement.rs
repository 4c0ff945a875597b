//! `tailor where`: where a function should run.

use std::process::ExitCode;

use super::arguments::ShowArgs;
use super::list::ListArgs;
use super::show::{missing, print, read_folder, request, style};
use crate::render;
use crate::report::placement;

/// The functions that may be cheaper in another place, those with the largest savings first.
pub(super) fn fleet(args: &ShowArgs, list: &ListArgs) -> anyhow::Result<ExitCode> {
    if let Some(server) = &args.server {
        return request(args, server, &["v1", "placement"], &list.parameters());
    }
    print(read_folder(args, |reader| async move {
        let fleet = placement::fleet::fleet(&reader.request(), &list.query(args)).await?;
        Ok((render::placement::fleet(&fleet, args.format, style(args)), fleet.compared_functions == 0))
    })?)
}

/// The places of the functions with this name.
pub(super) fn function(name: &str, args: &ShowArgs, list: &ListArgs) -> anyhow::Result<ExitCode> {
    if let Some(server) = &args.server {
        return request(
            args,
            server,
            &["v1", "functions", name, "placement"],
            &list.filters.place.parameters(),
        );
    }
    print(read_folder(args, |reader| async move {
        let keys = reader.store.functions(&reader.tenant, Some(name), usize::MAX).await?;
        let mut text = String::new();
        for key in keys.iter().filter(|key| list.filters.place.has(key)) {
            if let Some(report) = placement::function(&reader.request(), key).await? {
                text.push_str(&render::placement::function(&report, args.format, style(args)));
            }
        }
        if text.is_empty() {
            tracing::error!("{}", missing(name));
        }
        let nothing = text.is_empty();
        Ok((text, nothing))
    })?)
}
