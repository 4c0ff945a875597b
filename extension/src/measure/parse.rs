//! Parsers of the kernel's text files. A missing line is zero, because kernels differ.

/// Length of the kernel's clock tick in `/proc/PID/stat`: `USER_HZ` is 100 on every Linux Lambda runs on.
pub(super) const TICK_NS: u64 = 10_000_000;

/// The used fields of `/proc/PID/stat`; times in clock ticks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) parent: i32,
    pub(super) minor_faults: u64,
    /// Of children that ended and were waited for. Every process has at least one.
    pub(super) ended_children_faults: u64,
    pub(super) major_faults: u64,
    pub(super) user_ticks: u64,
    pub(super) system_ticks: u64,
    /// CPU time of children that ended and were waited for.
    pub(super) ended_children_ticks: u64,
    /// Live threads.
    pub(super) threads: u64,
    pub(super) started_ticks: u64,
}

impl Stat {
    /// CPU time, in steps of a clock tick.
    pub(super) const fn cpu_ns(&self) -> u64 {
        self.user_ticks.saturating_add(self.system_ticks).saturating_mul(TICK_NS)
    }
}

/// Parses `/proc/PID/stat`; `None` for other text.
pub(super) fn stat(text: &str) -> Option<Stat> {
    // The command name may have spaces and parentheses. After its last parenthesis there are only numbers.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(1);
    let parent = fields.next()?.parse().ok()?;
    // proc(5) counts fields from 1. The parent is field 4, so field n is at n - 5 here. No used field is negative.
    let mut numbers = [0u64; 18];
    for number in &mut numbers {
        *number = fields.next()?.parse().unwrap_or_default();
    }
    let field = |number: usize| numbers[number - 5];
    Some(Stat {
        parent,
        minor_faults: field(10),
        ended_children_faults: field(11),
        major_faults: field(12),
        user_ticks: field(14),
        system_ticks: field(15),
        ended_children_ticks: field(16).saturating_add(field(17)),
        threads: field(20),
        started_ticks: field(22),
    })
}

/// The value of `key` (with its colon) in a `key: value [kB]` file; zero when it is missing.
pub(super) fn value(text: &str, key: &str) -> u64 {
    let [value] = values(text, [key]);
    value
}

/// The values of `keys`, in the order of the file; zero for a missing one.
pub(super) fn values<const N: usize>(text: &str, keys: [&str; N]) -> [u64; N] {
    let mut lines = text.lines();
    keys.map(|key| {
        let number = |line: &str| line.strip_prefix(key)?.split_ascii_whitespace().next()?.parse().ok();
        let mut ahead = lines.clone();
        // After a missing key the search continues for the others.
        ahead.find_map(number).inspect(|_| lines = ahead).unwrap_or_default()
    })
}

/// `/proc/PID/task/TID/schedstat`: nanoseconds on a CPU, nanoseconds runnable without a CPU, and time slices.
pub(super) fn schedstat(text: &str) -> Option<[u64; 3]> {
    let mut fields = text.split_ascii_whitespace().map(|field| field.parse().ok());
    Some([fields.next()??, fields.next()??, fields.next()??])
}

/// The first line of `/proc/stat`: CPU time of all processes and of the kernel, nanoseconds. The time that the hypervisor
/// took is not part of it, and that of guests is part of the user time.
pub(super) fn busy_ns(text: &str) -> Option<u64> {
    let mut fields = text.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace();
    let mut next = || fields.next().and_then(|field| field.parse::<u64>().ok());
    let (user, nice, system) = (next()?, next()?, next()?);
    let (_idle, _io_wait, interrupts, soft_interrupts) = (next(), next(), next(), next());
    let ticks = [nice, system, interrupts.unwrap_or_default(), soft_interrupts.unwrap_or_default()];
    Some(ticks.into_iter().fold(user, u64::saturating_add).saturating_mul(TICK_NS))
}

/// `/proc/pressure/cpu`: the time in which at least one thread waited for a CPU, microseconds.
pub(super) fn some_pressure_us(text: &str) -> Option<u64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    some.split_ascii_whitespace().find_map(|field| field.strip_prefix("total="))?.parse().ok()
}

/// The last field of `/proc/loadavg`: the newest id of a process or thread.
pub(super) fn last_id(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().nth(4)?.parse().ok()
}

/// `/proc/net/dev`: bytes received and sent over the interfaces whose names begin with `prefix`; `None` without such
/// an interface.
pub(super) fn interface_bytes(text: &str, prefix: &str) -> Option<[u64; 2]> {
    let interfaces = text.lines().filter_map(|line| line.trim_start().strip_prefix(prefix)?.split_once(':'));
    interfaces.fold(None, |sum, (_, counters)| {
        let [received, sent] = sum.unwrap_or([0u64; 2]);
        let mut counters = counters.split_ascii_whitespace().map(|number| number.parse().unwrap_or(0));
        let more_received = counters.next().unwrap_or(0);
        Some([received.saturating_add(more_received), sent.saturating_add(counters.nth(7).unwrap_or(0))])
    })
}

/// `/proc/net/snmp`: TCP connections opened from this side.
pub(super) fn active_opens(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp:"));
    let place = lines.next()?.split_ascii_whitespace().position(|name| name == "ActiveOpens")?;
    lines.next()?.split_ascii_whitespace().nth(place)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by fuzzing: the sum over interfaces overflowed.
    #[test]
    fn impossible_interface_counters_saturate() {
        let line = format!("vinternal_1: {0} 0 0 0 0 0 0 0 {0}\n", u64::MAX);
        assert_eq!(interface_bytes(&line.repeat(2), "vinternal"), Some([u64::MAX, u64::MAX]));
    }

    /// Found by fuzzing: the sum and the conversion to nanoseconds overflowed.
    #[test]
    fn impossible_cpu_times_saturate() {
        let stat = Stat { user_ticks: u64::MAX, system_ticks: 1, ..Stat::default() };
        assert_eq!(stat.cpu_ns(), u64::MAX);
    }

    #[test]
    fn stat_with_parentheses_in_the_command_name() {
        let line = "17 (a) b (c)) S 3 17 17 0 -1 4194560 101 202 11 22 301 302 401 402 20 0 5 0 99887 1 2";
        let parsed = stat(line).unwrap();
        assert_eq!(
            parsed,
            Stat {
                parent: 3,
                minor_faults: 101,
                ended_children_faults: 202,
                major_faults: 11,
                user_ticks: 301,
                system_ticks: 302,
                ended_children_ticks: 803,
                threads: 5,
                started_ticks: 99_887,
            }
        );
        assert_eq!(stat("17 (short) S 3 1"), None);
        assert_eq!(stat(""), None);
    }

    #[test]
    fn the_cpu_time_of_the_whole_environment() {
        let text = "cpu  10 2 30 4000 50 6 7 800 9 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(busy_ns(text), Some((10 + 2 + 30 + 6 + 7) * TICK_NS));
        assert_eq!(busy_ns("cpu  10 2 30\n"), Some(42 * TICK_NS), "the first fields of an early kernel");
        assert_eq!(busy_ns(&format!("cpu  {} 2 30 4", u64::MAX)), Some(u64::MAX));
        assert_eq!((busy_ns(""), busy_ns("cpu0 1 2 3")), (None, None));
    }

    #[test]
    fn status_and_schedstat() {
        let status = "Name:\tpython3\nVmHWM:\t   12345 kB\nVmRSS:\t 999 kB\n";
        assert_eq!(value(status, "VmHWM:"), 12_345);
        assert_eq!(value(status, "VmSwap:"), 0);
        assert_eq!(schedstat("480162 17 3\n"), Some([480_162, 17, 3]));
        assert_eq!(schedstat("480162"), None);
        assert_eq!(last_id("0.10 0.05 0.01 1/123 4567\n"), Some(4_567));
    }

    #[test]
    fn values_by_their_keys() {
        let status = "Name:\tVmRSS:\nVmHWM:\t  300 kB\nVmRSS:\t  200 kB\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t1\n";
        let keys = ["VmHWM:", "VmSwap:", "VmRSS:", "voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"];
        assert_eq!(values(status, keys), [300, 0, 200, 7, 1]);
        assert_eq!((value(status, "VmRSS:"), value("", "VmRSS:")), (200, 0));
    }

    #[test]
    fn contention() {
        let pressure = "some avg10=97.14 avg60=87.79 avg300=43.05 total=8247037007\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n";
        assert_eq!(some_pressure_us(pressure), Some(8_247_037_007));
        assert_eq!((some_pressure_us(""), some_pressure_us("some avg10=1")), (None, None));
        let quota = "usage_usec 5\nnr_periods 7\nnr_throttled 3\nthrottled_usec 90\n";
        assert_eq!(values(quota, ["nr_periods", "nr_throttled"]), [7, 3]);
    }

    #[test]
    fn network() {
        let dev = "Inter-| Receive | Transmit\n face |bytes packets|bytes packets\n    lo: 9 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\nvinternal_1: 100 2 0 0 0 0 0 0 30 4 0 0 0 0 0 0\n  vint_runtime:1 2 0 0 0 0 0 0 3 4 0 0 0 0 0 0\n";
        assert_eq!(interface_bytes(dev, "vint"), Some([101, 33]));
        assert_eq!(interface_bytes(dev, "lo"), Some([9, 9]));
        assert_eq!(interface_bytes(dev, "eth"), None);
        let snmp = "Ip: Forwarding\nIp: 1\nTcp: RtoAlgorithm ActiveOpens PassiveOpens\nTcp: 1 63911 49960\n";
        assert_eq!(active_opens(snmp), Some(63_911));
        assert_eq!(active_opens("Tcp: Other\nTcp: 1\n"), None);
    }
}
