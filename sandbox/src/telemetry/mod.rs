//! Telemetry: the events that the platform sends to its subscribers.
//!
//! - [`event`]: one event and how each schema writes it;
//! - [`subscription`]: a validated subscription request;
//! - [`queue`]: the bounded buffer between the platform and one subscriber;
//! - [`delivery`]: batches over HTTP or TCP, with retries;
//! - [`hub`]: one environment's events, their history during Init, and its subscribers;
//! - [`logs`]: reads the lines of processes.

pub mod delivery;
pub mod event;
mod faults;
pub mod hub;
pub mod logs;
pub mod queue;
pub mod subscription;
