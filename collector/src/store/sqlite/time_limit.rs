//! The latest time that is taken from the clock when old measurements are deleted.
//!
//! A clock that is ahead would delete measurements that are not old. Each batch has the time of its environment, which AWS
//! sets. The time is limited to one day after that of the newest batch. The limit advances while the program runs, so that
//! measurements are also deleted when nothing is received.

use std::time::Instant;

use agent_proto::batch::BatchHeader;
use rusqlite::Connection;

use super::rows::{FUNCTION, blob};
use crate::clock::DAY_US;
use crate::store::rows::column;
use crate::store::{HOUR_US, NewBatch, StoreError};

/// How far the clock may be ahead of the newest batch, microseconds.
const TOLERANCE_US: u64 = DAY_US;

/// The limit, and what is known of the clock.
pub(super) struct TimeLimit {
    /// The limit at `since`, microseconds since the Unix epoch; 0 while no batch is known.
    limit_us: u64,
    since: Instant,
    /// Whether a batch arrived since the start. Without one, an old limit does not mean that the clock is wrong.
    has_batch: bool,
    is_logged: bool,
}

impl TimeLimit {
    /// With the time of the newest stored batch, by its environment's clock; 0 without one.
    pub(super) fn new(newest_sent_us: u64, now: Instant) -> Self {
        let limit_us = if newest_sent_us == 0 { 0 } else { newest_sent_us.saturating_add(TOLERANCE_US) };
        Self { limit_us, since: now, has_batch: false, is_logged: false }
    }

    /// Takes the time from a batch that was stored.
    pub(super) fn add(&mut self, batch: &NewBatch, now: Instant) {
        let started_us = if batch.invocations > 0 { batch.last_at_us } else { 0 };
        self.add_time(batch.header.sent_at_us.max(started_us), now);
    }

    fn add_time(&mut self, sent_us: u64, now: Instant) {
        if sent_us == 0 {
            return;
        }
        self.has_batch = true;
        let limit_us = sent_us.saturating_add(TOLERANCE_US);
        if limit_us > self.at(now) {
            (self.limit_us, self.since) = (limit_us, now);
        }
    }

    fn at(&self, now: Instant) -> u64 {
        if self.limit_us == 0 {
            return 0;
        }
        let elapsed_us = now.saturating_duration_since(self.since).as_micros();
        self.limit_us.saturating_add(u64::try_from(elapsed_us).unwrap_or(u64::MAX))
    }

    /// The time of the clock, limited. A clock that is beyond the limit is logged once.
    pub(super) fn apply(&mut self, clock_us: u64, now: Instant) -> u64 {
        let limit_us = self.at(now);
        if clock_us > limit_us && self.has_batch && !self.is_logged {
            self.is_logged = true;
            let newest_us = limit_us.saturating_sub(TOLERANCE_US);
            tracing::error!(
                "the clock is {} hours ahead of the newest batch, whose time is that of AWS: set the clock. Measurements \
                 are deleted by the time of the batches meanwhile",
                clock_us.saturating_sub(newest_us) / HOUR_US
            );
        }
        clock_us.min(limit_us)
    }
}

/// The time of the newest stored batch by its environment's clock, microseconds since the Unix epoch; 0 without one. What cannot be
/// read is left out: the store must open without it.
pub(super) fn newest_sent_us(connection: &Connection) -> u64 {
    let mut newest_us = 0;
    if let Err(error) = visit_functions(connection, |sent_us| newest_us = newest_us.max(sent_us)) {
        tracing::debug!(%error, "cannot read the time of the newest batch");
    }
    newest_us
}

fn visit_functions(connection: &Connection, mut visit: impl FnMut(u64)) -> Result<(), StoreError> {
    let mut statement = connection.prepare(&FUNCTION.select)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if FUNCTION.is_valid(row)?
            && let Ok(header) = BatchHeader::decode(blob(row, column::function::header)?)
        {
            visit(header.sent_at_us);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NEWEST_US: u64 = 20_000 * DAY_US;
    const AHEAD_US: u64 = NEWEST_US + 3_650 * DAY_US;

    #[test]
    fn the_time_is_at_most_a_day_after_the_newest_batch() {
        let now = Instant::now();
        let mut limit = TimeLimit::new(NEWEST_US, now);
        assert_eq!(limit.apply(NEWEST_US + HOUR_US, now), NEWEST_US + HOUR_US);
        assert_eq!(limit.apply(NEWEST_US - HOUR_US, now), NEWEST_US - HOUR_US);
        assert_eq!(limit.apply(AHEAD_US, now), NEWEST_US + DAY_US);
        // Without a batch since the start, a long time without traffic is as likely as a wrong clock.
        assert!(!limit.is_logged);
        limit.add_time(NEWEST_US + 2 * HOUR_US, now);
        assert_eq!(limit.apply(AHEAD_US, now), NEWEST_US + DAY_US + 2 * HOUR_US);
        assert!(limit.is_logged);
        // An older batch does not set it back.
        limit.add_time(NEWEST_US, now);
        assert_eq!(limit.apply(AHEAD_US, now), NEWEST_US + DAY_US + 2 * HOUR_US);
    }

    #[test]
    fn the_limit_advances_without_batches() {
        let start = Instant::now();
        let mut limit = TimeLimit::new(NEWEST_US, start);
        let month = Duration::from_secs(30 * 86_400);
        assert_eq!(limit.apply(AHEAD_US, start + month), NEWEST_US + 31 * DAY_US);
        // A collector that receives nothing for long, with a correct clock, deletes what is old.
        let clock_us = NEWEST_US + 30 * DAY_US;
        assert_eq!(limit.apply(clock_us, start + month), clock_us);
        // A batch that is older than the limit is no evidence against the clock.
        limit.add_time(NEWEST_US + 29 * DAY_US, start + month);
        assert_eq!(limit.apply(clock_us, start + month), clock_us);
        assert!(!limit.is_logged);
    }

    #[test]
    fn without_any_batch_nothing_is_old() {
        let start = Instant::now();
        let mut limit = TimeLimit::new(0, start);
        assert_eq!(limit.apply(AHEAD_US, start + Duration::from_secs(86_400)), 0);
        limit.add_time(0, start);
        assert_eq!(limit.apply(AHEAD_US, start), 0);
        assert!(!limit.is_logged);
        limit.add_time(NEWEST_US, start);
        assert_eq!(limit.apply(AHEAD_US, start), NEWEST_US + DAY_US);
    }
}
