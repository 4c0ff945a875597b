//! What the collector sends to others: metrics as OTLP, and events to a webhook. This crate has the content of the messages,
//! the rules of retries and the queue; it opens no connection and reads no clock.

pub mod backoff;
pub mod otlp;
pub mod webhook;
