//! Telemetry: what the platform tells its subscribers.
//!
//! - [`event`]: one event and how each schema writes it;
//! - [`subscription`]: a subscriber's request, checked;
//! - [`queue`]: the bounded buffer between the platform and one subscriber;
//! - [`delivery`]: batches over HTTP or TCP, with retries;
//! - [`hub`]: one environment's events, their history during Init, and its subscribers;
//! - [`logs`]: lines of processes on their way to events.

pub mod delivery;
pub mod event;
mod faults;
pub mod hub;
pub mod logs;
pub mod queue;
pub mod subscription;
