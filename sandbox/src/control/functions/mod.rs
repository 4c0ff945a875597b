//! Operations on the configuration of a function: reading, listing, changing, its tags and its concurrency.

pub(in crate::control) mod concurrency;
pub(in crate::control) mod configuration;
pub(in crate::control) mod tags;
