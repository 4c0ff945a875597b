//! The duration model: from the telemetry of some memory sizes to the expected duration at every size.
//!
//! [`profile`] reads one size's telemetry, [`cfs_simulation`] simulates the kernel's CPU quota, [`hypotheses`] weighs
//! possible kinds of work, and [`predict`] combines them. [`uncertainty`] and [`interval`] give the interval of a
//! prediction, [`enforcement`] infers the kernel of a fleet, [`memory_floor`] finds the smallest safe size, and
//! [`accounting`] judges the CPU time that no process accounts for, and `collection` has what garbage collection adds at small sizes.

pub mod accounting;
pub mod cfs_simulation;
mod collection;
pub mod curve;
pub mod enforcement;
pub mod hypotheses;
pub mod interval;
pub mod memory_floor;
pub mod predict;
pub mod profile;
mod quantile;
pub mod uncertainty;
