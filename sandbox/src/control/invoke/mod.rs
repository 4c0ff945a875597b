//! Invocations: with a buffered response, with a streamed response, and without HTTP from the command line.

pub(in crate::control) mod buffered;
pub(in crate::control) mod direct;
pub(in crate::control) mod event_stream;
pub(in crate::control) mod response_stream;
