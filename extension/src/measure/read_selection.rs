//! Which processes are read in full when too many ran.

/// The highest cost of one reading, in processes whose files are open: a few hundred microseconds, a fifth of the CPU
/// time of 128 MB in one period. Few functions have more busy processes.
const MAX_READ_COST: usize = 24;

/// The cost of a process whose files have to be opened each time.
const UNOPENED_COST: usize = 3;

/// A process that ran since it was read in full.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    /// Its index in the caller's list.
    pub(super) index: usize,
    /// It waited, or may have waited, for a process that ended, so its counters of ended children may have changed.
    pub(super) may_inherit: bool,
    /// CPU time since it was read in full, nanoseconds.
    pub(super) ran_ns: u64,
    /// Its files are open.
    pub(super) is_open: bool,
}

/// The indices of the processes to read, in ascending order.
pub(super) fn select(mut candidates: Vec<Candidate>) -> Vec<usize> {
    let cost = |candidate: &Candidate| if candidate.is_open { 1 } else { UNOPENED_COST };
    if candidates.iter().map(cost).sum::<usize>() > MAX_READ_COST {
        candidates
            .sort_unstable_by_key(|candidate| std::cmp::Reverse((candidate.may_inherit, candidate.ran_ns)));
        let mut left = MAX_READ_COST;
        candidates.retain(|candidate| match left.checked_sub(cost(candidate)) {
            Some(rest) => {
                left = rest;
                true
            }
            None => false,
        });
    }
    let mut selected: Vec<usize> = candidates.iter().map(|candidate| candidate.index).collect();
    selected.sort_unstable();
    selected
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(index: usize, ran_ns: u64) -> Candidate {
        Candidate { index, may_inherit: false, ran_ns, is_open: true }
    }

    #[test]
    fn few_are_all_read() {
        let few = (0..MAX_READ_COST).map(|index| candidate(index, 1)).collect();
        assert_eq!(select(few), (0..MAX_READ_COST).collect::<Vec<_>>());
    }

    #[test]
    fn of_many_processes_the_busiest_and_the_parents_of_ended_ones_are_read() {
        let mut many: Vec<_> = (0..1_000).map(|index| candidate(index, index as u64)).collect();
        many[3].may_inherit = true;
        let selected = select(many.clone());
        assert_eq!(selected.len(), MAX_READ_COST);
        assert!(
            selected[0] == 3 && selected[1..] == Vec::from_iter(1_000 - MAX_READ_COST + 1..1_000),
            "{selected:?}"
        );
        many.iter_mut().for_each(|candidate| candidate.is_open = false);
        assert_eq!(select(many).len(), MAX_READ_COST / UNOPENED_COST);
    }
}
