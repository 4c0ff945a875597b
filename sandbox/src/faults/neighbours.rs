//! Others who want the CPU: processes that spin, each in a control group of its own beside those of environments,
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

/// More would only slow down the machine.
const MAX_NEIGHBOURS: usize = 256;

/// What a neighbour says once it is where it spins.
const ENTERED: &[u8] = b".";

/// The neighbours that run.
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
    /// Starts or ends neighbours until there are `wanted`. `helper` is the `lambda-sandbox` binary.
    pub fn keep(&self, wanted: usize, helper: &Path, hierarchy: &Hierarchy) -> anyhow::Result<()> {
        anyhow::ensure!(wanted <= MAX_NEIGHBOURS, "cpu_contention is {wanted}, allowed are {MAX_NEIGHBOURS}");
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.truncate(wanted);
        let more = running.len()..wanted;
        // All or none: those started before a failure end here.
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
            // Closed when the sandbox ends, however it ends.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a process that competes for CPU")?;
        let mut neighbour = Neighbour { child, group };
        neighbour.await_entry()?;
        Ok(neighbour)
    }

    /// Waits for its word that it is in its control group and about to spin; it spins nowhere else.
    fn await_entry(&mut self) -> anyhow::Result<()> {
        let said = self.child.stdout.as_mut().context("no standard output to hear it from")?;
        said.read_exact(&mut [0; ENTERED.len()])
            .context("a process that competes for CPU ended as it started")
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
