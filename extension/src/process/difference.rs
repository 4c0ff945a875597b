//! What happened between two snapshots.

use std::collections::HashMap;
use std::rc::Rc;

use tailor_sizing::telemetry::invocation::Work;

use super::{Reading, Snapshot};

/// One invocation's work and memory, as its two snapshots tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Measured {
    /// Counters; `idle_us` is still zero: it follows from the duration, which the platform tells later.
    pub work: Work,
    /// What part of the CPU time is that of children that ended: known in steps of 10 ms, the rest to the nanosecond.
    pub ended_children_us: u64,
    /// Highest resident memory, KiB.
    pub peak_kib: u64,
    /// Resident memory as it began, KiB.
    pub start_kib: u64,
    /// Live threads at the end.
    pub threads: u32,
    /// Open descriptors at the end.
    pub descriptors: u32,
    /// Threads seen at all, those that ended included.
    pub threads_seen: u32,
    /// Starved time was filled in for threads that ended.
    pub starved_inferred: bool,
    /// Most of the work was done by threads that ended unseen: nothing is known of their waits.
    pub threads_unseen: bool,
    /// The peaks were not reset at the start, or children ended and took theirs with them.
    pub peak_sampled: bool,
    /// When the last look came, microseconds after the beginning, where the end itself could not be read.
    pub last_look_us: Option<u64>,
    /// `/tmp` in use at the end, KiB; zero when unknown.
    pub tmp_used_kib: u64,
}

/// The share of CPU time that may belong to ended threads before starved time counts as inferred.
const UNSEEN_SHARE: f64 = 0.05;

/// The share of CPU time that must have been seen for the threads seen to stand for all.
const TELLING_SHARE: f64 = 0.25;

#[derive(Default)]
struct Sums {
    cpu_ns: u64,
    system_ns: u64,
    run_ns: u64,
    run_squared: f64,
    wait_ns: u64,
    top_run_ns: u64,
    top_wait_ns: u64,
}

/// What the processes did between `start` and `end`.
///
/// Processes and threads that appear only in `end` began in between and count whole; those only in `start`
/// ended, and their CPU time is found in what their parent says of its ended children (in steps of 10 ms).
#[must_use]
pub fn between(start: &Snapshot, end: &Snapshot) -> Measured {
    let fresh = Reading::default();
    let before = |process: &Reading| start.named(process.identity).unwrap_or(&fresh);
    let mut sums = Sums::default();
    let mut work = Work::default();
    let mut children_ended = false;
    // Of those that were there before, and of those begun since.
    let (mut old_peaks_kib, mut new_peaks_kib) = (0u64, 0u64);
    let (mut threads, mut threads_seen, mut descriptors) = (0usize, 0usize, 0u64);
    for process in &end.processes {
        let mut earlier = before(process);
        let as_found;
        if let (true, Some(cpu_ns)) = (earlier.identity != process.identity, process.found_late_ns) {
            // It has nothing to compare with but its clock, and begins here.
            as_found = Reading { cpu_ns, ..Reading::clone(process) };
            earlier = &as_found;
        }
        sums.cpu_ns += process.cpu_ns.saturating_sub(earlier.cpu_ns);
        sums.system_ns += process.system_ns.saturating_sub(earlier.system_ns);
        children_ended |= process.ended_children_faults > earlier.ended_children_faults;
        let is_new = earlier.identity != process.identity;
        *(if is_new { &mut new_peaks_kib } else { &mut old_peaks_kib }) += process.peak_kib;
        work.minor_faults += process.minor_faults.saturating_sub(earlier.minor_faults);
        work.major_faults += process.major_faults.saturating_sub(earlier.major_faults);
        work.disk_read_bytes += process.disk_read_bytes.saturating_sub(earlier.disk_read_bytes);
        work.disk_written_bytes += process.disk_written_bytes.saturating_sub(earlier.disk_written_bytes);
        threads += process.live_threads;
        threads_seen += process.threads.len().max(process.live_threads);
        descriptors += process.descriptors;
        if !earlier.passed_over && !process.passed_over {
            add_threads(earlier, process, &mut sums, &mut work);
        }
    }
    let ended_children_ns = of_ended_children(start, end);
    sums.cpu_ns += ended_children_ns;
    let seen = fill_unseen_waits(&mut sums);

    let cpu_us = sums.cpu_ns / 1_000;
    work.system_us = (sums.system_ns / 1_000).min(cpu_us);
    work.user_us = cpu_us - work.system_us;
    work.starved_us = sums.wait_ns / 1_000;
    let are_unmet = start.are_unmet || end.are_unmet;
    let (before, after) = (&start.machine, &end.machine);
    work.network_rx_bytes = after.received_bytes.saturating_sub(before.received_bytes);
    work.network_tx_bytes = after.sent_bytes.saturating_sub(before.sent_bytes);
    work.sockets_opened = after.connections.saturating_sub(before.connections);
    work.top_busy_us = sums.top_run_ns / 1_000;
    work.top_starved_us = sums.top_wait_ns / 1_000;
    work.effective_threads_milli = effective_threads_milli(&sums);
    Measured {
        work,
        ended_children_us: ended_children_ns / 1_000,
        peak_kib: old_peaks_kib + new_peaks_kib.max(end.newcomers_peak_kib),
        start_kib: start.resident_kib(),
        threads: u32::try_from(threads).unwrap_or(u32::MAX),
        descriptors: u32::try_from(descriptors).unwrap_or(u32::MAX),
        threads_seen: u32::try_from(threads_seen).unwrap_or(u32::MAX),
        starved_inferred: seen != Seen::All || are_unmet,
        threads_unseen: seen == Seen::Few,
        peak_sampled: !end.peaks_reset || children_ended || are_unmet,
        tmp_used_kib: after.tmp_used_kib,
        last_look_us: None,
    }
}

/// CPU time of the children that ended in between, as those tell who waited for them.
///
/// Whoever waits for a child is told of its whole life and of its own ended children; what was counted of that
/// before is not new. A child that ended together with its parent is found with the nearest forebear that lives;
/// of one that nobody here waited for, as a daemon, nobody is told, and nothing may be taken off.
fn of_ended_children(start: &Snapshot, end: &Snapshot) -> u64 {
    let lives = |identity| end.named(identity).is_some();
    // Ids rise with identities, and of two processes of one id the later lives.
    let of_id = |pid| {
        let after = start.processes.partition_point(|process| process.identity.0 <= pid);
        start.processes[..after].last().filter(|process| process.identity.0 == pid)
    };
    let mut counted_ns: HashMap<i32, u64> = HashMap::new();
    for gone in start.processes.iter().filter(|earlier| !lives(earlier.identity)) {
        let mut heir = gone.parent;
        // Each step is to another process, or round in circles should ids have been given again meanwhile.
        for _ in 0..start.processes.len() {
            match of_id(heir) {
                Some(forebear) if !lives(forebear.identity) => heir = forebear.parent,
                _ => break,
            }
        }
        *counted_ns.entry(heir).or_default() += gone.cpu_ns + gone.ended_children_ns;
    }
    let told = |process: &Rc<Reading>| {
        let before_ns = match (start.named(process.identity), process.found_late_ns) {
            (Some(earlier), _) => earlier.ended_children_ns,
            (None, Some(_)) => process.ended_children_ns,
            (None, None) => 0,
        };
        let counted_ns = counted_ns.get(&process.identity.0).copied().unwrap_or_default();
        process.ended_children_ns.saturating_sub(before_ns).saturating_sub(counted_ns)
    };
    end.processes.iter().map(told).sum()
}

fn add_threads(earlier: &Reading, process: &Reading, sums: &mut Sums, work: &mut Work) {
    for thread in &process.threads {
        let then = earlier
            .threads
            .binary_search_by_key(&thread.tid, |thread| thread.tid)
            .map(|index| earlier.threads[index])
            .unwrap_or_default();
        if thread.is_baseless {
            // What it did, it may have done in an invocation before. It counts as not seen.
            continue;
        }
        let run_ns = thread.run_ns.saturating_sub(then.run_ns);
        let wait_ns = thread.wait_ns.saturating_sub(then.wait_ns);
        sums.run_ns += run_ns;
        sums.run_squared += run_ns as f64 * run_ns as f64;
        sums.wait_ns += wait_ns;
        if run_ns > sums.top_run_ns {
            (sums.top_run_ns, sums.top_wait_ns) = (run_ns, wait_ns);
        }
        work.timeslices += thread.timeslices.saturating_sub(then.timeslices);
        // Zero means that the file was not read this time, not that the counter fell.
        work.voluntary_switches += thread.voluntary_switches.saturating_sub(then.voluntary_switches);
        work.involuntary_switches += thread.involuntary_switches.saturating_sub(then.involuntary_switches);
    }
}

/// How much of the work the threads that were seen did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// All that matters.
    All,
    /// Enough to stand for the rest.
    Some,
    /// Too little to say anything.
    Few,
}

/// Threads that ended took their waits with them, but not their CPU time: assume they waited in proportion
/// to it, as the threads that were seen did, where those did enough to stand for all.
fn fill_unseen_waits(sums: &mut Sums) -> Seen {
    let seen = sums.run_ns as f64 / (sums.cpu_ns as f64).max(1.0);
    if seen >= 1.0 - UNSEEN_SHARE {
        return Seen::All;
    }
    if seen < TELLING_SHARE {
        return Seen::Few;
    }
    let (cpu_ns, run_ns) = (u128::from(sums.cpu_ns), u128::from(sums.run_ns.max(1)));
    let scaled = |ns: u64| u64::try_from(u128::from(ns) * cpu_ns / run_ns).unwrap_or(u64::MAX);
    sums.wait_ns = scaled(sums.wait_ns);
    sums.top_run_ns = scaled(sums.top_run_ns);
    sums.top_wait_ns = scaled(sums.top_wait_ns);
    Seen::Some
}

/// `(Σ run)² / Σ run²` in thousandths: 1000 for one busy thread, n × 1000 for n equally busy ones.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "at most the thread count × 1000"
)]
fn effective_threads_milli(sums: &Sums) -> u64 {
    if sums.run_squared <= 0.0 {
        return 0;
    }
    (sums.run_ns as f64 * sums.run_ns as f64 / sums.run_squared * 1_000.0).round() as u64
}

#[cfg(test)]
mod tests {
    use super::super::{Processes, ThreadReading};
    use super::*;
    use crate::settings::Peak;

    fn process(pid: i32, cpu_ms: u64, threads: &[(i32, u64, u64)]) -> Reading {
        Reading {
            identity: (pid, 1),
            cpu_ns: cpu_ms * 1_000_000,
            threads: threads
                .iter()
                .map(|&(tid, run_ms, wait_ms)| ThreadReading {
                    tid,
                    run_ns: run_ms * 1_000_000,
                    wait_ns: wait_ms * 1_000_000,
                    ..ThreadReading::default()
                })
                .collect(),
            live_threads: threads.len(),
            ..Reading::default()
        }
    }

    fn snapshot(processes: Vec<Reading>) -> Snapshot {
        Snapshot {
            processes: processes.into_iter().map(Rc::new).collect(),
            peaks_reset: true,
            ..Snapshot::default()
        }
    }

    #[test]
    fn only_what_happened_in_between_counts() {
        let start = snapshot(vec![process(7, 100, &[(7, 90, 5)])]);
        let end =
            snapshot(vec![process(7, 140, &[(7, 110, 25), (9, 20, 1)]), process(30, 10, &[(30, 10, 0)])]);
        let measured = between(&start, &end);
        assert_eq!(measured.work.busy_us(), 50_000);
        assert_eq!(measured.work.starved_us, 21_000);
        assert_eq!((measured.work.top_busy_us, measured.work.top_starved_us), (20_000, 20_000));
        // Runs of 20, 20 and 10 ms: 50² / (400 + 400 + 100).
        assert_eq!(measured.work.effective_threads_milli, 2_778);
        assert!(!measured.starved_inferred);
        assert_eq!(measured.threads, 3);
    }

    #[test]
    fn threads_that_ended_are_charged_the_waits_of_their_like() {
        let start = snapshot(vec![process(7, 0, &[(7, 0, 0)])]);
        let end = snapshot(vec![process(7, 30, &[(7, 10, 40)])]);
        let measured = between(&start, &end);
        assert_eq!(measured.work.starved_us, 120_000);
        assert_eq!(measured.work.top_busy_us, 30_000);
        assert!(measured.starved_inferred);
        // One tenth seen says nothing of which thread was the busiest.
        let end = snapshot(vec![process(7, 100, &[(7, 10, 40)])]);
        let measured = between(&start, &end);
        assert!(measured.threads_unseen);
        assert_eq!((measured.work.top_busy_us, measured.work.starved_us), (10_000, 40_000));
    }

    #[test]
    fn a_child_that_ended_is_counted_once() {
        let start = snapshot(vec![member(7, 1, 100, 0), member(8, 7, 25, 0)]);
        let measured = between(&start, &snapshot(vec![member(7, 1, 101, 60)]));
        // 1 ms of the parent, and 60 - 25 ms of the child.
        assert_eq!((measured.work.busy_us(), measured.ended_children_us), (36_000, 35_000));
    }

    /// A process of 7's family: `ended_ms` of its own children ended before.
    fn member(pid: i32, parent: i32, cpu_ms: u64, ended_ms: u64) -> Reading {
        Reading { parent, ended_children_ns: ended_ms * 1_000_000, ..process(pid, cpu_ms, &[]) }
    }

    #[test]
    fn the_children_of_a_child_that_ended_are_counted_once() {
        // A worker whose jobs took 500 ms in invocations before this one.
        let start = snapshot(vec![member(7, 1, 100, 0), member(8, 7, 2, 500)]);
        let end = snapshot(vec![member(7, 1, 101, 510)]);
        assert_eq!(between(&start, &end).work.busy_us(), 9_000, "1 ms of 7, and 510 - 502 ms of its worker");
    }

    #[test]
    fn a_process_that_nobody_waited_for_takes_nothing_from_others() {
        // A daemon with 300 ms behind it ends while another child does 100 ms.
        let start = snapshot(vec![member(7, 1, 100, 0), member(8, 1, 300, 0)]);
        let end = snapshot(vec![member(7, 1, 101, 100)]);
        assert_eq!(between(&start, &end).work.busy_us(), 101_000);
        // And one parent's children take nothing from another's.
        let start = snapshot(vec![member(7, 1, 0, 0), member(8, 7, 0, 0), member(9, 8, 300, 0)]);
        let end = snapshot(vec![member(7, 1, 0, 100), member(8, 7, 0, 310)]);
        assert_eq!(between(&start, &end).work.busy_us(), 110_000);
    }

    #[test]
    fn a_family_that_ended_together_is_counted_once() {
        // 9 was waited for by 8, and 8 by 7, which is told of both.
        let start = snapshot(vec![member(7, 1, 0, 0), member(8, 7, 20, 0), member(9, 8, 300, 40)]);
        let end = snapshot(vec![member(7, 1, 0, 400)]);
        assert_eq!(between(&start, &end).work.busy_us(), 40_000);
    }

    #[test]
    fn what_children_held_before_they_ended_counts_for_the_peak() {
        let at = |pid, peak_kib| Reading { peak_kib, ..process(pid, 1, &[]) };
        let start = snapshot(vec![at(7, 900)]);
        let mut end = snapshot(vec![at(7, 1_000), at(8, 300)]);
        end.newcomers_peak_kib = 2_000;
        assert_eq!(between(&start, &end).peak_kib, 3_000, "they held 2,000 together, of which 300 are left");
        end.newcomers_peak_kib = 0;
        assert_eq!(between(&start, &end).peak_kib, 1_300);
        assert!(!between(&start, &end).peak_sampled);
        Rc::make_mut(&mut end.processes[0]).ended_children_faults = 1;
        assert!(between(&start, &end).peak_sampled, "one may have ended between two looks");
    }

    /// Real processes: a child of the test's own parent is what the runtime is to the extension.
    #[test]
    fn a_real_spinning_child_is_measured() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "read go; i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; read stop"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let mut processes = Processes::new(Peak::Reset);
        let probe = super::super::probe::Probe::open(pid, None, &processes.allowance);
        processes.probes.push(probe.unwrap());
        processes.reset_peaks();
        let read = |processes: &mut Processes| {
            let mut snapshot = processes.read();
            snapshot.processes.retain(|process| process.identity.0 == pid);
            snapshot
        };
        let start = read(&mut processes);
        let mut stdin = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, b"go\n").unwrap();
        // The child blocks on its second read when it is done; ask the kernel, not the clock.
        let end = loop {
            std::thread::sleep(std::time::Duration::from_millis(20));
            let snapshot = read(&mut processes);
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            if between(&start, &snapshot).work.busy_us() > 10_000 && state.contains(") S ") {
                break snapshot;
            }
        };
        let measured = between(&start, &end);
        let work = measured.work;
        assert!(work.busy_us() >= work.top_busy_us, "{work:?}");
        assert!(work.top_busy_us * 100 >= work.busy_us() * 95, "one thread did it all: {work:?}");
        assert!(measured.peak_kib > 100 && !measured.peak_sampled, "{measured:?}");
        drop(stdin);
        child.wait().unwrap();
        assert!(read(&mut processes).processes.is_empty(), "an ended process is dropped");
    }
}
