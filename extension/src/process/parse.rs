//! Reading the kernel's text files. Lines that are missing read as zero: kernels differ in what they show.

/// The fields of `/proc/PID/stat` that are used; times in clock ticks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) parent: i32,
    pub(super) minor_faults: u64,
    pub(super) major_faults: u64,
    pub(super) user_ticks: u64,
    pub(super) system_ticks: u64,
    /// CPU time of children that ended and were waited for.
    pub(super) ended_children_ticks: u64,
    /// Live threads.
    pub(super) threads: u64,
    pub(super) started_ticks: u64,
}

/// Parses `/proc/PID/stat`; `None` when it is not one.
pub(super) fn stat(text: &str) -> Option<Stat> {
    // The command name may hold spaces and parentheses; everything after its last one is numbers.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(1);
    let parent = fields.next()?.parse().ok()?;
    // proc(5) numbers fields from 1; the parent is field 4, so field n is at n - 5 here. Fields that hold
    // negative numbers are none of those used.
    let mut numbers = [0u64; 18];
    for number in &mut numbers {
        *number = fields.next()?.parse().unwrap_or_default();
    }
    let field = |number: usize| numbers[number - 5];
    Some(Stat {
        parent,
        minor_faults: field(10),
        major_faults: field(12),
        user_ticks: field(14),
        system_ticks: field(15),
        ended_children_ticks: field(16).saturating_add(field(17)),
        threads: field(20),
        started_ticks: field(22),
    })
}

/// The value of `key` (with its colon) in a `key: value [kB]` file; zero when there is none.
pub(super) fn value(text: &str, key: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(key))
        .and_then(|rest| rest.split_ascii_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or_default()
}

/// `/proc/PID/task/TID/schedstat`: nanoseconds on CPU, nanoseconds runnable without one, times put on one.
pub(super) fn schedstat(text: &str) -> Option<[u64; 3]> {
    let mut fields = text.split_ascii_whitespace().map(|field| field.parse().ok());
    Some([fields.next()??, fields.next()??, fields.next()??])
}

/// The last field of `/proc/loadavg`: the id given last to a process or thread.
pub(super) fn last_id(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().nth(4)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_with_a_hostile_command_name() {
        let line = "17 (a) b (c)) S 3 17 17 0 -1 4194560 101 202 11 22 301 302 401 402 20 0 5 0 99887 1 2";
        let parsed = stat(line).unwrap();
        assert_eq!(
            parsed,
            Stat {
                parent: 3,
                minor_faults: 101,
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
    fn status_and_schedstat() {
        let status = "Name:\tpython3\nVmHWM:\t   12345 kB\nVmRSS:\t 999 kB\n";
        assert_eq!(value(status, "VmHWM:"), 12_345);
        assert_eq!(value(status, "VmSwap:"), 0);
        assert_eq!(schedstat("480162 17 3\n"), Some([480_162, 17, 3]));
        assert_eq!(schedstat("480162"), None);
        assert_eq!(last_id("0.10 0.05 0.01 1/123 4567\n"), Some(4_567));
    }
}
