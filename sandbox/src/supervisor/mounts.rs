//! The environment's own view of the file system.

use std::path::Path;

use anyhow::Context;
use nix::mount::{MsFlags, mount};

use super::BindMount;
use super::proc_view::ProcView;

/// Mounts `/proc` for this PID namespace, the files of `view` in it, and then `mounts`, not visible outside.
pub(super) fn make(mounts: &[BindMount], view: Option<ProcView>) -> anyhow::Result<()> {
    let none: Option<&Path> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("cannot make mounts private")?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, none).context("cannot mount /proc")?;
    if let Some(view) = view {
        view.mount()?;
    }
    for BindMount { source, target, read_only } in mounts {
        mount(Some(source), target, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
            .with_context(|| format!("cannot mount {} on {}", source.display(), target.display()))?;
        if *read_only {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            // A user namespace may not change the flags of some mounts; the files are then writable.
            let _ = mount(none, target, none, flags, none);
        }
    }
    Ok(())
}
