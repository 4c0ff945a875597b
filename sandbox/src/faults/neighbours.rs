//! Busy processes that compete for CPU, each in its own control group beside those of environments,
//! so that the kernel's scheduler gives each as much as an environment. Without control groups they are processes
//! like any other.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::Context;

use crate::cgroup::{Group, Hierarchy};

/// Hidden subcommand that runs [`spin`].
pub const SUBCOMMAND: &str = "neighbour";

/// A higher number would only slow down the machine.
const MAX_NEIGHBOURS: usize = 256;

/// Line that a neighbour writes when it is in its control group.
const ENTERED: &[u8] = b".";

/// The running neighbours.
#[derive(Debug, Default)]
pub struct Neighbours {
    running: Mutex<Vec<Neighbour>>,
}

#[derive(Debug)]
struct Neighbour {
    child: Child,
    group: Group,
}

impl Neighbours {
    /// Starts or ends neighbours until `requested` run. `helper` is the `lambda-sandbox` binary.
    pub fn set_count(&self, requested: usize, helper: &Path, hierarchy: &Hierarchy) -> anyhow::Result<()> {
        anyhow::ensure!(
            requested <= MAX_NEIGHBOURS,
            "cpu_contention is {requested}, the maximum is {MAX_NEIGHBOURS}"
        );
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.truncate(requested);
        let more = running.len()..requested;
        // All or none: after a failure, the processes that were started end here.
        let more: Vec<Neighbour> =
            more.map(|number| Neighbour::start(number, helper, hierarchy)).collect::<anyhow::Result<_>>()?;
        running.extend(more);
        Ok(())
    }
}

impl Neighbour {
    fn start(number: usize, helper: &Path, hierarchy: &Hierarchy) -> anyhow::Result<Neighbour> {
        let group = hierarchy.create(&format!("neighbour-{number}"))?;
        let child = Command::new(helper)
            .arg(SUBCOMMAND)
            .args(group.entrances())
            // Closed when the sandbox ends, also when it is killed.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a process that competes for CPU")?;
        let mut neighbour = Neighbour { child, group };
        neighbour.await_entry()?;
        Ok(neighbour)
    }

    /// Waits until it reports that it is in its control group; it is busy only there.
    fn await_entry(&mut self) -> anyhow::Result<()> {
        let stdout = self.child.stdout.as_mut().context("the process has no standard output")?;
        stdout
            .read_exact(&mut [0; ENTERED.len()])
            .context("a process that competes for CPU ended at its start")
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.group.remove();
    }
}

/// Enters control groups and spins until standard input is closed.
pub fn spin(entrances: &[PathBuf]) -> io::Result<()> {
    for entrance in entrances {
        fs::write(entrance, "0")?;
    }
    io::stdout().write_all(ENTERED)?;
    io::stdout().flush()?;
    thread::spawn(|| {
        loop {
            std::hint::black_box(0);
        }
    });
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
