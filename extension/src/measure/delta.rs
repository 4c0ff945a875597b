//! The difference between two snapshots.

use std::collections::HashMap;
use std::rc::Rc;

use tailor_sizing::telemetry::invocation::{ClassWork, ThreadClass, Work};
use tailor_sizing::units::round_to_u64;

use super::peaks::Peaks;
use super::{EnvironmentCounters, Reading, Snapshot};

/// The work and memory of one invocation, from its two snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Measured {
    /// Counters. `idle_us` is zero: it follows from the duration, which the platform reports later.
    pub work: Work,
    /// The part of the CPU time that belongs to ended children, microseconds: in steps of 10 ms. The rest is exact.
    pub ended_children_us: u64,
    /// Highest resident memory, KiB.
    pub peak_kib: u64,
    /// The peak is the sum over several processes, and pages that they share count once for each. The value is the highest
    /// peak of one process, KiB, which is a lower bound.
    pub peak_is_sum_above_kib: Option<u64>,
    /// Resident memory at the start, KiB.
    pub start_kib: u64,
    /// Live threads at the end.
    pub threads: u32,
    /// Open descriptors at the end.
    pub descriptors: u32,
    /// All threads that were read, ended ones included.
    pub threads_seen: u32,
    /// Starved time was inferred for threads that ended.
    pub starved_inferred: bool,
    /// Most of the work was done by threads that were never read: their waits are unknown.
    pub threads_unseen: bool,
    /// The peaks were not reset at the start, or children ended whose peak is unknown.
    pub peak_sampled: bool,
    /// When the end could not be read: the time of the last sample, microseconds after the start.
    pub sampled_at_us: Option<u64>,
    /// `/tmp` in use at the end, KiB; zero when unknown.
    pub tmp_used_kib: u64,
}

/// The fraction of CPU time of unread threads above which starved time counts as inferred.
const UNSEEN_SHARE: f64 = 0.05;

/// The fraction of CPU time that the read threads must have to represent all threads.
const MIN_SEEN_SHARE: f64 = 0.25;

#[derive(Default)]
struct Sums {
    cpu_ns: u64,
    system_ns: u64,
    run_ns: u64,
    run_squared: f64,
    wait_ns: u64,
    top_run_ns: u64,
    top_wait_ns: u64,
    /// CPU and wait time in nanoseconds, and number of threads that ran, by class in the order of `ThreadClass::ALL`.
    classes: [[u64; 3]; ThreadClass::ALL.len()],
}

/// The work of the processes between `start` and `end`.
///
/// Processes and threads that are only in `end` began in between and count in full. Those that are only in `start` ended;
/// their CPU time is in their parent's counter of ended children (in steps of 10 ms).
#[must_use]
pub fn between(start: &Snapshot, end: &Snapshot) -> Measured {
    let fresh = Reading::default();
    let before = |process: &Reading| start.find(process.identity).unwrap_or(&fresh);
    let mut sums = Sums::default();
    let mut work = Work::default();
    let main = main_process(start, end);
    let mut children_ended = false;
    let mut peaks = Peaks::default();
    let (mut threads, mut threads_seen, mut descriptors) = (0usize, 0usize, 0u64);
    for process in &end.processes {
        let mut earlier = before(process);
        let as_found;
        if let (true, Some(cpu_ns)) = (earlier.identity != process.identity, process.cpu_when_found_ns) {
            // Only its clock is known from before, so it begins here.
            as_found = Reading { cpu_ns, ..Reading::clone(process) };
            earlier = &as_found;
        }
        sums.cpu_ns += process.cpu_ns.saturating_sub(earlier.cpu_ns);
        sums.system_ns += process.system_ns.saturating_sub(earlier.system_ns);
        children_ended |= process.ended_children_faults > earlier.ended_children_faults;
        peaks.add(process, earlier.identity != process.identity);
        work.minor_faults += process.minor_faults.saturating_sub(earlier.minor_faults);
        work.major_faults += process.major_faults.saturating_sub(earlier.major_faults);
        work.disk_read_bytes += process.disk_read_bytes.saturating_sub(earlier.disk_read_bytes);
        work.disk_written_bytes += process.disk_written_bytes.saturating_sub(earlier.disk_written_bytes);
        threads += process.live_threads;
        threads_seen += process.threads.len().max(process.live_threads);
        descriptors += process.descriptors;
        if !earlier.clock_only && !process.clock_only {
            add_threads(earlier, process, main == Some(process.identity), &mut sums, &mut work);
        }
    }
    let ended_children_ns = ended_children_ns_between(start, end);
    sums.cpu_ns += ended_children_ns;
    work.unseen_busy_us = sums.cpu_ns.saturating_sub(sums.run_ns) / 1_000;
    for (class, [run_ns, wait_ns, threads]) in ThreadClass::ALL.into_iter().zip(sums.classes) {
        *work.class_mut(class) = ClassWork { busy_us: run_ns / 1_000, starved_us: wait_ns / 1_000, threads };
    }
    let seen = infer_unseen_waits(&mut sums);

    let cpu_us = sums.cpu_ns / 1_000;
    work.system_us = (sums.system_ns / 1_000).min(cpu_us);
    work.user_us = cpu_us - work.system_us;
    work.starved_us = sums.wait_ns / 1_000;
    let is_incomplete = start.is_incomplete || end.is_incomplete;
    add_environment(&start.environment, &end.environment, &mut work);
    work.top_busy_us = sums.top_run_ns / 1_000;
    work.top_starved_us = sums.top_wait_ns / 1_000;
    work.effective_threads_milli = effective_threads_milli(&sums);
    let (peak_kib, peak_is_sum_above_kib) = peaks.of_all(end);
    Measured {
        work,
        ended_children_us: ended_children_ns / 1_000,
        peak_kib,
        peak_is_sum_above_kib,
        start_kib: start.resident_kib(),
        threads: u32::try_from(threads).unwrap_or(u32::MAX),
        descriptors: u32::try_from(descriptors).unwrap_or(u32::MAX),
        threads_seen: u32::try_from(threads_seen).unwrap_or(u32::MAX),
        starved_inferred: seen != ThreadCoverage::All || is_incomplete,
        threads_unseen: seen == ThreadCoverage::Few,
        peak_sampled: !end.peaks_reset || children_ended || is_incomplete,
        tmp_used_kib: end.environment.tmp_used_kib,
        sampled_at_us: None,
    }
}

/// Adds the counters of the environment between two readings.
fn add_environment(before: &EnvironmentCounters, after: &EnvironmentCounters, work: &mut Work) {
    work.network_rx_bytes = after.received_bytes.saturating_sub(before.received_bytes);
    work.network_tx_bytes = after.sent_bytes.saturating_sub(before.sent_bytes);
    work.sockets_opened = after.connections.saturating_sub(before.connections);
    work.pressure_us = after.pressure_us.saturating_sub(before.pressure_us);
    work.quota_periods = after.quota_periods.saturating_sub(before.quota_periods);
    work.throttled_periods = after.throttled_periods.saturating_sub(before.throttled_periods);
}

/// CPU time of the children that ended in between, in nanoseconds, from the counters of the processes that waited for
/// them.
///
/// The kernel adds the whole CPU time of a child, and of its own ended children, to the process that waits for it. What
/// was counted of them before `start` is subtracted. If the parent ended, too, it is subtracted from the nearest ancestor
/// that is alive. If no process waited for the child, as for a daemon, no counter has it and nothing is subtracted.
fn ended_children_ns_between(start: &Snapshot, end: &Snapshot) -> u64 {
    let is_alive = |identity| end.find(identity).is_some();
    // Processes are sorted by identity. Of two with the same id, the later one is alive.
    let of_id = |pid| {
        let after = start.processes.partition_point(|process| process.identity.0 <= pid);
        start.processes[..after].last().filter(|process| process.identity.0 == pid)
    };
    let mut counted_ns: HashMap<i32, u64> = HashMap::new();
    for ended in start.processes.iter().filter(|earlier| !is_alive(earlier.identity)) {
        let mut ancestor = ended.parent;
        // The limit ends a loop that reused ids could cause.
        for _ in 0..start.processes.len() {
            match of_id(ancestor) {
                Some(earlier) if !is_alive(earlier.identity) => ancestor = earlier.parent,
                _ => break,
            }
        }
        *counted_ns.entry(ancestor).or_default() += ended.cpu_ns + ended.ended_children_ns;
    }
    let ended_ns = |process: &Rc<Reading>| {
        let before_ns = match (start.find(process.identity), process.cpu_when_found_ns) {
            (Some(earlier), _) => earlier.ended_children_ns,
            (None, Some(_)) => process.ended_children_ns,
            (None, None) => 0,
        };
        let counted_ns = counted_ns.get(&process.identity.0).copied().unwrap_or_default();
        process.ended_children_ns.saturating_sub(before_ns).saturating_sub(counted_ns)
    };
    end.processes.iter().map(ended_ns).sum()
}

/// The fraction of the CPU time, one part in this many, that a process must have used to be the main one. A shell or a
/// supervisor that waits for the runtime uses less.
const MAIN_PART: u64 = 50;

/// The identity of the process whose first thread is the main thread: the oldest one that existed at the start and used a
/// relevant part of the CPU time, or else the oldest one.
fn main_process(start: &Snapshot, end: &Snapshot) -> Option<(i32, u64)> {
    let ran_ns = |process: &Reading| {
        let earlier_ns = start.find(process.identity).map(|earlier| earlier.cpu_ns);
        process.cpu_ns.saturating_sub(earlier_ns.or(process.cpu_when_found_ns).unwrap_or_default())
    };
    let total_ns: u64 = end.processes.iter().map(|process| ran_ns(process)).sum();
    let is_idle = |process: &Reading| ran_ns(process).saturating_mul(MAIN_PART) < total_ns.max(1);
    let order = |process: &&Rc<Reading>| {
        let existed = start.find(process.identity).is_some();
        (!existed, is_idle(process), process.identity.1, process.identity.0)
    };
    end.processes.iter().min_by_key(order).map(|process| process.identity)
}

/// Adds what the threads of one process did. `is_main` states whether it is the main process.
fn add_threads(earlier: &Reading, process: &Reading, is_main: bool, sums: &mut Sums, work: &mut Work) {
    for thread in &process.threads {
        let then = earlier
            .threads
            .binary_search_by_key(&thread.tid, |thread| thread.tid)
            .map(|index| earlier.threads[index])
            .unwrap_or_default();
        if thread.has_no_baseline {
            // Its times may belong to an earlier invocation, so it counts as not read.
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
        let class = match thread.class.unwrap_or(ThreadClass::Other) {
            ThreadClass::Main if !is_main => ThreadClass::Pool,
            class => class,
        };
        let [class_run_ns, class_wait_ns, threads] = &mut sums.classes[class as usize];
        *class_run_ns += run_ns;
        *class_wait_ns += wait_ns;
        *threads += u64::from(run_ns > 0);
        work.timeslices += thread.timeslices.saturating_sub(then.timeslices);
        // Zero means that the file was not read this time.
        work.voluntary_switches += thread.voluntary_switches.saturating_sub(then.voluntary_switches);
        work.involuntary_switches += thread.involuntary_switches.saturating_sub(then.involuntary_switches);
    }
}

/// How much of the CPU time the read threads have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ThreadCoverage {
    /// All that is relevant.
    All,
    /// Enough to represent the rest.
    Some,
    /// Too little for any conclusion.
    Few,
}

/// The wait times of ended threads are lost, but their CPU time is not. If the read threads represent all threads, the
/// others are assumed to have waited in proportion to their CPU time.
fn infer_unseen_waits(sums: &mut Sums) -> ThreadCoverage {
    let seen = sums.run_ns as f64 / (sums.cpu_ns as f64).max(1.0);
    if seen >= 1.0 - UNSEEN_SHARE {
        return ThreadCoverage::All;
    }
    if seen < MIN_SEEN_SHARE {
        return ThreadCoverage::Few;
    }
    let (cpu_ns, run_ns) = (u128::from(sums.cpu_ns), u128::from(sums.run_ns.max(1)));
    let scaled = |ns: u64| u64::try_from(u128::from(ns) * cpu_ns / run_ns).unwrap_or(u64::MAX);
    sums.wait_ns = scaled(sums.wait_ns);
    sums.top_run_ns = scaled(sums.top_run_ns);
    sums.top_wait_ns = scaled(sums.top_wait_ns);
    ThreadCoverage::Some
}

/// `(Σ run)² / Σ run²` in thousandths: 1000 for one busy thread, n × 1000 for n equally busy ones.
fn effective_threads_milli(sums: &Sums) -> u64 {
    if sums.run_squared <= 0.0 {
        return 0;
    }
    round_to_u64(sums.run_ns as f64 * sums.run_ns as f64 / sums.run_squared * 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::super::{Processes, SampledPeaks, ThreadReading};
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
    fn only_the_difference_between_snapshots_counts() {
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
    fn ended_threads_are_assumed_to_wait_like_the_others() {
        let start = snapshot(vec![process(7, 0, &[(7, 0, 0)])]);
        let end = snapshot(vec![process(7, 30, &[(7, 10, 40)])]);
        let measured = between(&start, &end);
        assert_eq!(measured.work.starved_us, 120_000);
        assert_eq!(measured.work.top_busy_us, 30_000);
        assert!(measured.starved_inferred);
        // With one tenth read, the busiest thread is unknown.
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

    #[test]
    fn threads_count_for_their_class() {
        let classes = [Some(ThreadClass::Main), Some(ThreadClass::Collector), None];
        let with_classes = |mut process: Reading| {
            process.threads.iter_mut().zip(classes).for_each(|(thread, class)| thread.class = class);
            process
        };
        let supervisor =
            |cpu_ms| Reading { identity: (3, 0), ..with_classes(process(3, cpu_ms, &[(3, cpu_ms, 0)])) };
        let start = snapshot(vec![supervisor(50), process(7, 0, &[])]);
        let runtime = with_classes(process(7, 60, &[(7, 30, 4), (8, 10, 5), (9, 5, 6)]));
        let worker = with_classes(process(9, 40, &[(9, 40, 7)]));
        let work = between(&start, &snapshot(vec![supervisor(51), runtime, worker])).work;
        let class = |class| {
            let work: &ClassWork = work.class(class);
            (work.busy_us / 1_000, work.starved_us / 1_000, work.threads)
        };
        assert_eq!(class(ThreadClass::Main), (30, 4, 1), "the supervisor only waits");
        assert_eq!(class(ThreadClass::Pool), (41, 7, 2), "main threads of other processes");
        assert_eq!(class(ThreadClass::Collector), (10, 5, 1));
        assert_eq!(class(ThreadClass::Other), (5, 6, 1), "not classified");
        assert_eq!(work.unseen_busy_us, 15_000, "60 ms of which the threads have 45");
    }

    /// A process whose ended children used `ended_ms`.
    fn member(pid: i32, parent: i32, cpu_ms: u64, ended_ms: u64) -> Reading {
        Reading { parent, ended_children_ns: ended_ms * 1_000_000, ..process(pid, cpu_ms, &[]) }
    }

    #[test]
    fn the_children_of_a_child_that_ended_are_counted_once() {
        // A worker whose children used 500 ms in earlier invocations.
        let start = snapshot(vec![member(7, 1, 100, 0), member(8, 7, 2, 500)]);
        let end = snapshot(vec![member(7, 1, 101, 510)]);
        assert_eq!(between(&start, &end).work.busy_us(), 9_000, "1 ms of 7, and 510 - 502 ms of its worker");
    }

    #[test]
    fn a_process_that_no_process_waited_for_is_not_subtracted() {
        // A daemon with 300 ms of CPU time ends, and another child uses 100 ms.
        let start = snapshot(vec![member(7, 1, 100, 0), member(8, 1, 300, 0)]);
        let end = snapshot(vec![member(7, 1, 101, 100)]);
        assert_eq!(between(&start, &end).work.busy_us(), 101_000);
        // The children of one process are not subtracted from another.
        let start = snapshot(vec![member(7, 1, 0, 0), member(8, 7, 0, 0), member(9, 8, 300, 0)]);
        let end = snapshot(vec![member(7, 1, 0, 100), member(8, 7, 0, 310)]);
        assert_eq!(between(&start, &end).work.busy_us(), 110_000);
    }

    #[test]
    fn a_parent_and_child_that_ended_together_are_counted_once() {
        // 8 waited for 9, and 7 for 8, so the counter of 7 has both.
        let start = snapshot(vec![member(7, 1, 0, 0), member(8, 7, 20, 0), member(9, 8, 300, 40)]);
        let end = snapshot(vec![member(7, 1, 0, 400)]);
        assert_eq!(between(&start, &end).work.busy_us(), 40_000);
    }

    #[test]
    fn the_memory_of_ended_children_counts_for_the_peak() {
        let at = |pid, peak_kib| Reading { peak_kib, ..process(pid, 1, &[]) };
        let start = snapshot(vec![at(7, 900)]);
        let mut end = snapshot(vec![at(7, 1_000), at(8, 300)]);
        end.sampled_peaks.new_processes_kib = 2_000;
        assert_eq!(
            between(&start, &end).peak_kib,
            3_000,
            "new processes had 2,000 together, of which 300 are left"
        );
        end.sampled_peaks.new_processes_kib = 0;
        assert_eq!(between(&start, &end).peak_kib, 1_300);
        assert!(!between(&start, &end).peak_sampled);
        Rc::make_mut(&mut end.processes[0]).ended_children_faults = 1;
        assert!(between(&start, &end).peak_sampled, "a child may have ended between two samples");
    }

    /// A parent with 300 MB, and children that read it and end.
    #[test]
    fn shared_pages_count_once() {
        let at = |pid, kib| Reading { peak_kib: kib, resident_kib: kib, ..process(pid, 1, &[]) };
        let start = snapshot(vec![at(7, 300)]);
        let mut end = snapshot(vec![at(7, 310)]);
        end.sampled_peaks = SampledPeaks { new_processes_kib: 1_240, new_process_kib: 305, used_kib: 0 };
        let measured = between(&start, &end);
        assert_eq!(
            (measured.peak_kib, measured.peak_is_sum_above_kib),
            (1_550, Some(310)),
            "the sum, if no more is known"
        );
        end.sampled_peaks.used_kib = 330;
        let measured = between(&start, &end);
        assert_eq!((measured.peak_kib, measured.peak_is_sum_above_kib), (330, None));
        // Memory that was released before the reading counts.
        let mut released = at(7, 310);
        released.resident_kib = 100;
        let end = Snapshot { used_kib: Some(150), ..snapshot(vec![released, at(8, 305)]) };
        assert_eq!(between(&start, &end).peak_kib, 150 + 210);
    }

    /// With a real process.
    #[test]
    fn a_real_spinning_child_is_measured() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "read go; i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; read stop"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let mut processes = Processes::new(Peak::Reset);
        let probe = super::super::probe::Probe::open(pid, None, &processes.descriptor_budget);
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
        // The child blocks in its second read when it is done; the kernel shows that as state S.
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
        assert!(work.top_busy_us * 100 >= work.busy_us() * 95, "one thread did all the work: {work:?}");
        assert!(measured.peak_kib > 100 && !measured.peak_sampled, "{measured:?}");
        drop(stdin);
        child.wait().unwrap();
        assert!(read(&mut processes).processes.is_empty(), "an ended process is dropped");
    }
}
