//! What a compaction writes to the spool: the batches of a function by day, in parts of a limited size.

use std::collections::BTreeMap;

use agent_proto::batch::Batch;
use tailor_archive::{DAY_US, Totals};
use tailor_sizing::telemetry::rollup::Rollup;

use crate::store::StoreError;
use crate::store::retention::DAY_HOURS;
use crate::store::rows::damaged;

/// Largest part before it is compressed, bytes: well below what is decompressed. A larger batch has a part of its own.
const MAX_PART_BYTES: usize = 4 << 20;

/// The batches of one function by day, as they are merged into its rollups.
#[derive(Debug, Default)]
pub(in crate::store) struct Pieces(BTreeMap<u64, Vec<Piece>>);

/// Batches of one day that become one part.
#[derive(Debug, Default)]
pub(in crate::store) struct Piece {
    /// Encoded batches.
    pub(in crate::store) batches: Vec<Vec<u8>>,
    /// What they contain.
    pub(in crate::store) totals: Totals,
    /// What cannot be spooled, because the batch has no invocations any more.
    pub(in crate::store) absent: Totals,
    /// The size of the batches.
    bytes: usize,
}

impl Pieces {
    /// Adds one batch: its rollups by hour, and its encoded invocations.
    pub(in crate::store) fn add(&mut self, rollups: &[(u64, Rollup)], body: &[u8]) -> Result<(), StoreError> {
        let mut days: BTreeMap<u64, Totals> = BTreeMap::new();
        for (hour, rollup) in rollups {
            let totals = Totals { invocations: rollup.invocations, billed_ms: rollup.billed_ms };
            days.entry(hour / DAY_HOURS).or_default().add(totals);
        }
        // Most batches have one day, and are kept as they are.
        let is_split = days.len() > 1;
        let batch =
            if is_split && !body.is_empty() { Some(Batch::decode(body).map_err(damaged)?) } else { None };
        for (day, totals) in days {
            if body.is_empty() {
                self.with_space(day, 0).absent.add(totals);
                continue;
            }
            let encoded = match &batch {
                None => body.to_vec(),
                Some(batch) => {
                    let of_day = batch.invocations.iter().filter(|one| one.started_at_us / DAY_US == day);
                    let part = Batch { header: batch.header.clone(), invocations: of_day.copied().collect() };
                    part.encode().map_err(damaged)?
                }
            };
            let piece = self.with_space(day, encoded.len());
            piece.totals.add(totals);
            piece.bytes += encoded.len();
            piece.batches.push(encoded);
        }
        Ok(())
    }

    /// The last piece of a day when it has space for so many bytes, or a new one.
    fn with_space(&mut self, day: u64, bytes: usize) -> &mut Piece {
        let pieces = self.0.entry(day).or_default();
        let is_full = |piece: &Piece| piece.bytes > 0 && piece.bytes + bytes > MAX_PART_BYTES;
        if pieces.last().is_none_or(is_full) {
            pieces.push(Piece::default());
        }
        let last = pieces.len() - 1;
        &mut pieces[last]
    }

    /// The pieces with their days, in the order in which they become parts.
    pub(in crate::store) fn into_parts(self) -> impl Iterator<Item = (u64, Piece)> {
        self.0.into_iter().flat_map(|(day, pieces)| pieces.into_iter().map(move |piece| (day, piece)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::recent;

    #[test]
    fn many_batches_become_parts_that_can_be_decompressed() {
        let of_day = |day: u64| [(day * DAY_HOURS, Rollup { invocations: 1, ..Rollup::default() })];
        let mut pieces = Pieces::default();
        for day in [3, 4] {
            for _ in 0..10 {
                pieces.add(&of_day(day), &vec![7; 1 << 20]).unwrap();
            }
        }
        pieces.add(&of_day(3), &[]).unwrap();
        let mut parts = vec![];
        for (day, Piece { batches, totals, absent, .. }) in pieces.into_parts() {
            assert_eq!(recent::batches(&recent::compress(&batches).unwrap()).unwrap(), batches);
            parts.push((day, batches.len(), totals.invocations, absent.invocations));
        }
        assert_eq!(
            parts,
            [(3, 4, 4, 0), (3, 4, 4, 0), (3, 2, 2, 1), (4, 4, 4, 0), (4, 4, 4, 0), (4, 2, 2, 0)]
        );
    }
}
