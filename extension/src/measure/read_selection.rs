//! Which processes are read in full when more ran than is cheap to read.

/// What one look may cost, in processes whose files are held: a few hundred microseconds, a fifth of what 128 MB
/// buys in a period of its quota. Functions that have more busy processes are rare.
const MOST: usize = 24;

/// What a process costs whose files have to be opened each time.
const DEAR: usize = 3;

/// A process that ran since it was read in full.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    /// Which one, in the caller's order.
    pub(super) index: usize,
    /// It waited, or may have waited, for one that is gone: what it tells of its children belongs to now.
    pub(super) is_heir: bool,
    /// CPU time since it was read in full, nanoseconds.
    pub(super) ran_ns: u64,
    /// Its files are held.
    pub(super) is_held: bool,
}

/// The indices of those to read, rising.
pub(super) fn choose(mut candidates: Vec<Candidate>) -> Vec<usize> {
    let cost = |candidate: &Candidate| if candidate.is_held { 1 } else { DEAR };
    if candidates.iter().map(cost).sum::<usize>() > MOST {
        candidates.sort_unstable_by_key(|candidate| std::cmp::Reverse((candidate.is_heir, candidate.ran_ns)));
        let mut left = MOST;
        candidates.retain(|candidate| match left.checked_sub(cost(candidate)) {
            Some(rest) => {
                left = rest;
                true
            }
            None => false,
        });
    }
    let mut chosen: Vec<usize> = candidates.iter().map(|candidate| candidate.index).collect();
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(index: usize, ran_ns: u64) -> Candidate {
        Candidate { index, is_heir: false, ran_ns, is_held: true }
    }

    #[test]
    fn few_are_all_read() {
        let few = (0..MOST).map(|index| candidate(index, 1)).collect();
        assert_eq!(choose(few), (0..MOST).collect::<Vec<_>>());
    }

    #[test]
    fn of_many_those_that_ran_most_and_those_that_inherit() {
        let mut many: Vec<_> = (0..1_000).map(|index| candidate(index, index as u64)).collect();
        many[3].is_heir = true;
        let chosen = choose(many.clone());
        assert_eq!(chosen.len(), MOST);
        assert!(chosen[0] == 3 && chosen[1..] == Vec::from_iter(1_000 - MOST + 1..1_000), "{chosen:?}");
        many.iter_mut().for_each(|candidate| candidate.is_held = false);
        assert_eq!(choose(many).len(), MOST / DEAR);
    }
}
