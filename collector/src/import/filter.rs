//! A set of keys that answers "certainly not" or "perhaps", in constant memory: a Bloom filter of blocks.

/// Bits of a key that select its block: 262,144 blocks of 64 bytes are 16 MB.
const BLOCK_BITS: u32 = 18;

/// Bits of a key that select one bit of its block.
const PLACE_BITS: u32 = 9;

/// Bits that are set for a key. With ten million keys, one of a hundred unknown keys is perhaps in the set.
const PLACES: u32 = 4;

/// A set of keys of 64 random bits.
#[derive(Debug)]
pub(super) struct Filter {
    blocks: Vec<[u64; 8]>,
}

impl Filter {
    /// The empty set.
    pub(super) fn new() -> Self {
        Self { blocks: vec![[0; 8]; 1 << BLOCK_BITS] }
    }

    /// Adds a key.
    pub(super) fn insert(&mut self, key: i64) {
        let block = block(key);
        for (word, bit) in places(key) {
            self.blocks[block][word] |= bit;
        }
    }

    /// Whether the key may have been added. `false` is certain.
    pub(super) fn may_have(&self, key: i64) -> bool {
        let block = &self.blocks[block(key)];
        places(key).all(|(word, bit)| block[word] & bit != 0)
    }
}

/// The block of a key: the highest bits, so that sorted keys have neighbouring blocks.
fn block(key: i64) -> usize {
    low_bits(key.cast_unsigned() >> (u64::BITS - BLOCK_BITS), BLOCK_BITS)
}

/// The word and the bit of each place.
fn places(key: i64) -> impl Iterator<Item = (usize, u64)> {
    (0..PLACES).map(move |place| {
        let place = low_bits(key.cast_unsigned() >> (place * PLACE_BITS), PLACE_BITS);
        (place / 64, 1 << (place % 64))
    })
}

fn low_bits(value: u64, bits: u32) -> usize {
    usize::try_from(value & ((1 << bits) - 1)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_found_and_few_others_are() {
        let key = |index: i64| {
            let mixed = index.wrapping_mul(-7_046_029_254_386_353_131);
            (mixed ^ (mixed >> 29)).wrapping_mul(-4_658_895_280_553_007_687)
        };
        let mut filter = Filter::new();
        (0..1_000_000).for_each(|index| filter.insert(key(index)));
        assert!((0..1_000_000).all(|index| filter.may_have(key(index))));
        let others = (1_000_000..1_100_000).filter(|index| filter.may_have(key(*index))).count();
        assert!(others < 1_000, "{others} of 100,000 other keys");
    }
}
