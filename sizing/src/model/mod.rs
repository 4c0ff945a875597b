//! The duration model: from the telemetry of some memory sizes to the expected duration at every size.
//!
//! [`profile`] reads one size's telemetry, [`cfs_simulation`] simulates the kernel's CPU quota, [`hypotheses`] weighs
//! possible kinds of work, and [`predict`] combines them. [`uncertainty`] and [`interval`] give the interval of a
//! prediction, [`enforcement`] infers the kernel of a fleet, and [`memory_floor`] finds the smallest safe size.

pub mod cfs_simulation;
pub mod curve;
pub mod enforcement;
pub mod hypotheses;
pub mod interval;
pub mod memory_floor;
pub mod predict;
pub mod profile;
mod quantile;
pub mod uncertainty;
