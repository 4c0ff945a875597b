//! Small numbers that distinguish the running environments of a sandbox: their users and addresses are derived from
//! them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The numbers in use.
#[derive(Debug, Default)]
pub struct Slots(Mutex<BTreeSet<u32>>);

/// A number that no other running environment has. Dropping it makes it free.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) number: u32,
    slots: Arc<Slots>,
}

impl Slots {
    /// Takes the smallest free number.
    pub(super) fn take(self: &Arc<Slots>) -> Slot {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = (0..).find(|number| !used.contains(number)).unwrap_or_default();
        used.insert(number);
        Slot { number, slots: self.clone() }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_used_again() {
        let slots = Arc::new(Slots::default());
        let (first, second) = (slots.take(), slots.take());
        assert_eq!((first.number, second.number), (0, 1));
        drop(first);
        assert_eq!(slots.take().number, 0);
    }
}
