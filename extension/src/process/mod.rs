//! Measuring the function's processes from outside, through `/proc` and their CPU clocks.
//!
//! Between freeze and thaw the counters stand still, so one reading at the next INVOKE closes one
//! invocation and opens the next, exactly, and no handler ever waits for it.

pub mod budget;
mod difference;
mod files;
pub mod machine;
mod parse;
mod probe;
mod scan;
mod threads;

use std::collections::HashMap;

pub use difference::{Measured, between};
pub use probe::Reading;
pub use threads::ThreadReading;

use files::{Allowance, View};
use machine::{Machine, Watch};
use probe::{Glance, Probe};
use scan::Scanner;

use crate::settings::Peak;

/// Files that are held open at most, over all processes: enough for a runtime of a hundred threads, and an
/// eighth of the 1,024 that Lambda gives the function and its extensions together.
const MAX_HELD: usize = 128;

/// Processes that are read at most: as many as Lambda lets an environment have.
const MAX_PROCESSES: usize = 1_024;

/// Threads that ticks remember for one invocation at most. More than Lambda lets live at once; a function that
/// starts and ends more than these in one invocation is one whose waits are inferred.
const MAX_TICKED: usize = 4_096;

/// The function's processes: every descendant of the platform's process that is not an extension.
#[derive(Debug)]
pub struct Processes {
    scanner: Scanner,
    probes: Vec<Probe>,
    peak: Peak,
    /// Threads as the ticks of this invocation last saw them, by process and thread id. Those that end take
    /// their counters with them, and this is what is left.
    ticked: HashMap<(i32, i32), ThreadReading>,
    /// What the last tick of this invocation saw, and the most that processes begun in it held at any tick, KiB.
    glances: Vec<Glance>,
    newcomers_peak_kib: u64,
    watch: Watch,
    loadavg: View,
    allowance: Allowance,
    /// The id that was given last when we looked last. Unchanged, no process and no thread has begun since.
    last_id: Option<u64>,
}

/// All of the function's processes at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// One reading per live process.
    pub processes: Vec<Reading>,
    /// Whether the peaks in this snapshot go back to a reset at the start of the invocation only.
    pub peaks_reset: bool,
    /// The most that processes begun in the invocation were seen to hold at once before some of them ended, KiB.
    pub newcomers_peak_kib: u64,
    /// What is counted for the environment as a whole.
    pub machine: Machine,
}

impl Processes {
    /// Nothing is read before the first [`Processes::read`].
    #[must_use]
    pub fn new(peak: Peak) -> Self {
        Self::with(Scanner::of_this_process(), peak)
    }

    /// The descendants of this very process instead: what a benchmark can start itself.
    #[must_use]
    pub fn of_children(peak: Peak) -> Self {
        Self::with(Scanner::of_children(), peak)
    }

    fn with(scanner: Scanner, peak: Peak) -> Self {
        let allowance = Allowance::of(MAX_HELD);
        Self {
            scanner,
            probes: vec![],
            peak,
            ticked: HashMap::new(),
            glances: vec![],
            newcomers_peak_kib: 0,
            watch: Watch::new(&allowance),
            loadavg: View::of("/proc/loadavg".to_owned(), &allowance),
            allowance,
            last_id: None,
        }
    }

    /// Reads every process, new ones included. Processes that ended are dropped.
    ///
    /// The CPU clocks of known processes are read before anything else: the thawed handler is running
    /// already, and each microsecond later is a microsecond of the next invocation counted to the last.
    pub fn read(&mut self) -> Snapshot {
        let clocks: Vec<_> = self.probes.iter().map(Probe::cpu_ns).collect();
        let may_have_begun = self.something_began();
        let mut processes = Vec::with_capacity(self.probes.len());
        let mut peaks_reset = self.peak == Peak::Reset;
        let mut clock = clocks.into_iter();
        self.probes.retain_mut(|probe| {
            let mut reading = probe.read(clock.next().flatten(), may_have_begun);
            if let Some(reading) = &mut reading {
                add_ended_threads(reading, &self.ticked);
            }
            peaks_reset &= probe.peak_was_reset() || probe.is_new;
            probe.is_new = false;
            let alive = reading.is_some();
            processes.extend(reading);
            alive
        });
        if may_have_begun {
            for mut probe in self.find_new() {
                // Found only now: all of its life lies in this invocation, or before the first.
                probe.is_new = false;
                if let Some(reading) = probe.read(probe.cpu_ns(), true) {
                    processes.push(reading);
                    self.probes.push(probe);
                }
            }
        }
        self.ticked.clear();
        self.glances.clear();
        let newcomers_peak_kib = std::mem::take(&mut self.newcomers_peak_kib);
        Snapshot { processes, peaks_reset, newcomers_peak_kib, machine: self.watch.read() }
    }

    /// What the last tick saw, as far as it looked: for an invocation whose processes are gone.
    #[must_use]
    pub fn last_tick(&self) -> Snapshot {
        let reading = |glance: &Glance| {
            let (identity, cpu_ns) = (glance.identity, glance.cpu_ns);
            let mut reading = Reading { identity, cpu_ns, ..Reading::default() };
            add_ended_threads(&mut reading, &self.ticked);
            reading.live_threads = reading.threads.len();
            reading
        };
        Snapshot { processes: self.glances.iter().map(reading).collect(), ..Snapshot::default() }
    }

    /// Looks at the threads in the middle of an invocation, so that those that end before it does are not
    /// lost without a trace.
    pub fn tick(&mut self) {
        let may_have_begun = self.something_began();
        if may_have_begun {
            let new = self.find_new();
            self.probes.extend(new);
        }
        self.glances.clear();
        for probe in &mut self.probes {
            let pid = probe.pid();
            self.glances.push(probe.glance());
            let threads = probe.thread_times(may_have_begun);
            for thread in threads {
                let key = (pid, thread.tid);
                if self.ticked.len() < MAX_TICKED || self.ticked.contains_key(&key) {
                    self.ticked.insert(key, thread);
                }
            }
        }
        let newcomers_kib = self.glances.iter().map(|glance| glance.peak_kib).sum();
        self.newcomers_peak_kib = self.newcomers_peak_kib.max(newcomers_kib);
    }

    /// Whether any process or thread may have begun since this was asked last: one read that saves a scan.
    fn something_began(&mut self) -> bool {
        let last_id = self.loadavg.read(parse::last_id);
        last_id.is_none() || std::mem::replace(&mut self.last_id, last_id) != last_id
    }

    fn find_new(&mut self) -> Vec<Probe> {
        let new = self.scanner.new_pids(|pid| self.probes.iter().any(|probe| probe.pid() == pid));
        let room = MAX_PROCESSES.saturating_sub(self.probes.len());
        new.into_iter().filter_map(|pid| Probe::open(pid, &self.allowance)).take(room).collect()
    }

    /// Starts a new peak for every process, where that is wanted and permitted.
    pub fn reset_peaks(&mut self) {
        if self.peak == Peak::Reset {
            self.probes.iter_mut().for_each(Probe::reset_peak);
        }
    }
}

/// Adds the threads that ticks saw and that are gone.
fn add_ended_threads(reading: &mut Reading, ticked: &HashMap<(i32, i32), ThreadReading>) {
    let live = reading.threads.len();
    for (&(pid, tid), &thread) in ticked {
        let is_live = reading.threads[..live].binary_search_by_key(&tid, |thread| thread.tid).is_ok();
        if pid == reading.identity.0 && !is_live {
            reading.threads.push(thread);
        }
    }
    reading.live_threads = live;
    reading.threads.sort_unstable_by_key(|thread| thread.tid);
}

/// Our own resident memory, KiB. Not `getrusage`'s maximum: that is inherited from whoever started us.
#[must_use]
pub fn own_resident_kib() -> u64 {
    parse::value(&std::fs::read_to_string("/proc/self/status").unwrap_or_default(), "VmRSS:")
}

impl Snapshot {
    /// Resident memory of all processes, KiB. Pages they share count once for each.
    #[must_use]
    pub fn resident_kib(&self) -> u64 {
        self.processes.iter().map(|process| process.resident_kib).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn held_views() -> usize {
        let links = std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|entry| entry.ok()?.path().read_link().ok());
        links.filter(|path| path.starts_with("/proc") && path.ends_with("stat")).count()
    }

    /// Titles are cut at 15 bytes, also in the middle of a letter.
    #[test]
    fn a_process_with_any_name_is_measured() {
        let script = r"printf '\320\236\320\261\321\200\320\260\320\261\320\276\321\202\321' > /proc/$$/comm; echo; read stop";
        let mut command = Command::new("sh");
        command.args(["-c", script]).env("LAMBDA_TASK_ROOT", "/");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut named = [0];
        std::io::Read::read_exact(&mut child.stdout.take().unwrap(), &mut named).unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let comm = std::fs::read(format!("/proc/{pid}/comm")).unwrap();
        assert!(std::str::from_utf8(&comm).is_err(), "{comm:?}");
        let snapshot = Processes::of_children(Peak::Sampled).read();
        let found = snapshot.processes.iter().find(|process| process.identity.0 == pid);
        assert!(found.is_some_and(|process| process.resident_kib > 0 && process.threads.len() == 1));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// A function may start as many processes as it likes.
    #[test]
    fn descriptors_are_bounded_however_many_processes_there_are() {
        let mut children: Vec<Child> = (0..2 * MAX_HELD)
            .map(|_| Command::new("cat").env("LAMBDA_TASK_ROOT", "/").stdin(Stdio::piped()).spawn().unwrap())
            .collect();
        let mut processes = Processes::of_children(Peak::Sampled);
        let snapshot = processes.read();
        let seen = |child: &&Child| {
            let pid = i32::try_from(child.id()).unwrap();
            snapshot.processes.iter().any(|process| process.identity.0 == pid && process.resident_kib > 0)
        };
        assert_eq!(children.iter().filter(seen).count(), children.len(), "each is read all the same");
        assert!(processes.allowance.left() == 0 && held_views() <= MAX_HELD, "{}", held_views());
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        processes.read();
        // Other tests' children are ours, too, while they run.
        assert!(
            processes.allowance.left() > MAX_HELD / 2,
            "what ended is let go: {}",
            processes.allowance.left()
        );
    }
}
