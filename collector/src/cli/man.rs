//! `tailor man`: the manual pages.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::Command;
use clap_mangen::Man;

use super::Cli;
use super::streams::note;
use crate::clock::now_us;
use crate::render::units;

/// The variable with the time of a reproducible build, seconds since the Unix epoch.
const BUILD_TIME_VARIABLE: &str = "SOURCE_DATE_EPOCH";

/// Writes `tailor.1`, and one page for each command, such as `tailor-functions.1`.
pub(super) fn write(folder: &Path) -> anyhow::Result<ExitCode> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let build_time = std::env::var(BUILD_TIME_VARIABLE).ok().and_then(|seconds| seconds.parse::<u64>().ok());
    let at_us = build_time.map_or_else(now_us, |seconds| seconds.saturating_mul(1_000_000));
    let date: String = units::instant(at_us).chars().take("2026-01-01".len()).collect();
    let mut definition = Cli::definition();
    // It gives each command its full name.
    definition.build();
    let pages = write_pages(&definition, "tailor", &date, folder)
        .with_context(|| format!("cannot write the manual pages to {}", folder.display()))?;
    note(format_args!("wrote {pages} manual pages to {}", folder.display()));
    Ok(ExitCode::SUCCESS)
}

/// Writes the page of a command and those of its commands. Returns their number.
fn write_pages(command: &Command, name: &str, date: &str, folder: &Path) -> std::io::Result<usize> {
    let mut page = Vec::new();
    Man::new(command.clone()).title(name.to_uppercase()).date(date).render(&mut page)?;
    fs::write(folder.join(format!("{name}.1")), without_double_breaks(&String::from_utf8_lossy(&page)))?;
    let mut pages = 1;
    let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
    for command in shown.filter(|command| command.get_name() != "help") {
        pages += write_pages(command, &format!("{name}-{}", command.get_name()), date, folder)?;
    }
    Ok(pages)
}

/// An empty line ends the line before it: a line break beside it does nothing.
fn without_double_breaks(page: &str) -> String {
    let lines: Vec<&str> = page.lines().collect();
    let is_space =
        |index: Option<usize>| index.and_then(|index| lines.get(index)).is_some_and(|line| line.is_empty());
    let kept = lines.iter().enumerate().filter(|(index, line)| {
        **line != ".br" || !(is_space(index.checked_sub(1)) || is_space(Some(index + 1)))
    });
    kept.map(|(_, line)| format!("{line}\n")).collect()
}
