//! `tailor key`: one more API key.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, ensure};

use crate::keys;
use crate::store::Tenant;

pub(super) fn create(folder: &Path, tenant: &str) -> anyhow::Result<ExitCode> {
    let plain = !tenant.is_empty() && !tenant.contains(|c: char| c.is_whitespace() || c.is_control());
    ensure!(plain, "a tenant's name has no spaces in it");
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    println!("{}", keys::create(folder, &Tenant(tenant.to_owned()))?);
    eprintln!("only its digest is kept: store it now, and restart `tailor serve` to let it in");
    Ok(ExitCode::SUCCESS)
}
