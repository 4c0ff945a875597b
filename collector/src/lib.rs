//! The collector: stores what the extensions send, shows it, recommends a memory size and, opt-in, applies it.
//!
//! [`ingest`] takes batches and answers when they are in the [`store`]; [`report`] turns stored rollups into
//! what [`api`], [`web`] and [`cli`] show; [`tuner`] acts on it. [`http`] serves all of it on one port.

pub mod api;
pub mod cli;
pub mod clock;
pub mod http;
pub mod ingest;
pub mod keys;
pub mod report;
pub mod store;
pub mod tuner;
pub mod web;
