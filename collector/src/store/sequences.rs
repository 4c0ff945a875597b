//! Which batches of one environment were stored: the highest sequence, and the gaps below it.

/// Maximum number of gaps that are kept of one environment. An environment sends in order, so a gap is a batch that was
/// given up; more gaps than this only cost memory.
const MAX_GAPS: usize = 64;

/// Sequences that did not arrive before a later one did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Gap {
    first: u64,
    last: u64,
    /// When the later batch arrived, microseconds since the Unix epoch.
    noticed_at_us: u64,
}

impl Gap {
    const fn len(&self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }
}

/// The stored sequences of one environment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sequences {
    highest: u64,
    /// In rising order, without overlaps.
    gaps: Vec<Gap>,
    /// Sequences of gaps that were closed because there were too many: missing, and no longer accepted.
    closed: u64,
}

impl Sequences {
    /// All sequences up to `highest`, without gaps.
    #[must_use]
    pub const fn up_to(highest: u64) -> Self {
        Self { highest, gaps: Vec::new(), closed: 0 }
    }

    /// The highest stored sequence; 0 when there is none.
    #[must_use]
    pub const fn highest(&self) -> u64 {
        self.highest
    }

    /// Whether a batch with this sequence was stored, or is treated as stored because its gap was closed.
    #[must_use]
    pub fn contains(&self, sequence: u64) -> bool {
        let in_gap = |gap: &Gap| (gap.first..=gap.last).contains(&sequence);
        sequence <= self.highest && !self.gaps.iter().any(in_gap)
    }

    /// Adds a sequence that was received at `at_us`, microseconds since the Unix epoch. Returns `false` when it was
    /// there before.
    pub fn insert(&mut self, sequence: u64, at_us: u64) -> bool {
        if self.contains(sequence) {
            return false;
        }
        if sequence > self.highest {
            if sequence - self.highest > 1 {
                self.gaps.push(Gap { first: self.highest + 1, last: sequence - 1, noticed_at_us: at_us });
            }
            self.highest = sequence;
        } else if let Some(index) = self.gaps.iter().position(|gap| gap.last >= sequence) {
            let gap = self.gaps[index];
            let parts = [(gap.first, sequence - 1), (sequence + 1, gap.last)];
            let parts = parts.into_iter().filter(|(first, last)| first <= last);
            self.gaps.splice(index..=index, parts.map(|(first, last)| Gap { first, last, ..gap }));
        }
        while self.gaps.len() > MAX_GAPS {
            self.closed = self.closed.saturating_add(self.gaps.remove(0).len());
        }
        true
    }

    /// Batches that were missing when a later one arrived at `from_us` or later, and that did not arrive since.
    /// Closed gaps always count.
    #[must_use]
    pub fn missing_since(&self, from_us: u64) -> u64 {
        let noticed = self.gaps.iter().filter(|gap| gap.noticed_at_us >= from_us);
        noticed.map(Gap::len).fold(self.closed, u64::saturating_add)
    }

    /// The sequences as bytes to store.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let gaps = self.gaps.iter().flat_map(|gap| [gap.first, gap.last, gap.noticed_at_us]);
        [self.highest, self.closed].into_iter().chain(gaps).flat_map(u64::to_le_bytes).collect()
    }

    /// Reads what [`Self::encode`] wrote; `None` for anything else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (numbers, rest) = bytes.as_chunks::<8>();
        let [highest, closed, gaps @ ..] =
            &numbers.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect::<Vec<_>>()[..]
        else {
            return None;
        };
        let (gaps, remainder) = gaps.as_chunks::<3>();
        let gaps: Vec<Gap> =
            gaps.iter().map(|&[first, last, noticed_at_us]| Gap { first, last, noticed_at_us }).collect();
        let is_valid = rest.is_empty()
            && remainder.is_empty()
            && gaps.iter().all(|gap| 0 < gap.first && gap.first <= gap.last && gap.last < *highest)
            && gaps.is_sorted_by(|a, b| a.last < b.first);
        is_valid.then_some(Self { highest: *highest, gaps, closed: *closed })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_sequence_is_new_once_in_any_order(sequences in prop::collection::vec(1u64..80, 0..200)) {
            let (mut stored, mut expected) = (Sequences::default(), BTreeSet::new());
            for (at_us, sequence) in (0..).zip(sequences) {
                prop_assert_eq!(stored.insert(sequence, at_us), expected.insert(sequence));
                prop_assert!(stored.contains(sequence));
                stored = Sequences::decode(&stored.encode()).unwrap();
            }
            let highest = expected.last().copied().unwrap_or(0);
            prop_assert_eq!((stored.highest(), stored.missing_since(0)), (highest, highest - expected.len() as u64));
        }

        #[test]
        fn with_too_many_gaps_a_sequence_is_never_new_twice(
            sequences in prop::collection::vec(prop_oneof![1u64..2_000, (u64::MAX - 9)..=u64::MAX], 0..600),
        ) {
            let (mut stored, mut accepted) = (Sequences::default(), BTreeSet::new());
            for sequence in sequences {
                let is_new = stored.insert(sequence, 0);
                prop_assert!(!is_new || accepted.insert(sequence));
                prop_assert!(stored.gaps.len() <= MAX_GAPS);
                prop_assert!(stored.contains(sequence));
            }
            let total = stored.highest();
            prop_assert_eq!(stored.missing_since(0), total - accepted.len() as u64);
        }

        #[test]
        fn other_bytes_are_rejected(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Some(sequences) = Sequences::decode(&bytes) {
                prop_assert_eq!(sequences.encode(), bytes);
            }
        }
    }

    #[test]
    fn a_gap_counts_from_when_it_was_noticed() {
        let mut stored = Sequences::default();
        for (sequence, at_us) in [(1, 10), (3, 20), (7, 30)] {
            assert!(stored.insert(sequence, at_us));
        }
        assert_eq!((stored.missing_since(0), stored.missing_since(25), stored.missing_since(31)), (4, 3, 0));
        assert!(stored.insert(5, 40) && !stored.insert(5, 41));
        assert_eq!(stored.missing_since(25), 2);
    }
}
