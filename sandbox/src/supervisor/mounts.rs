//! The environment's own view of the file system.

use std::path::Path;

use anyhow::Context;
use nix::mount::{MsFlags, mount};

use super::proc_view::ProcView;
use super::{BindMount, Setup, root};

/// Makes the file system of `setup`, not visible outside, and covers files of `/proc` by those of `view`.
pub(super) fn make(setup: &Setup, view: Option<ProcView>) -> anyhow::Result<()> {
    let none: Option<&Path> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("cannot make mounts private")?;
    if let Some(own) = &setup.root {
        root::enter(own, view.is_some())?;
        if let Some(view) = view {
            view.mount(Path::new(root::VIEW_FOLDER), true)?;
        }
        return root::seal();
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, none).context("cannot mount /proc")?;
    if let Some(view) = view {
        let folder = view.folder().to_owned();
        view.mount(&folder, false)?;
    }
    for BindMount { source, target, read_only } in &setup.mounts {
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
