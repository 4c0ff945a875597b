//! Conformance to Lambda: one test a fact of the Extensions, Runtime and Telemetry APIs and of the life of an
//! environment. The comment of each test names the fact; facts come from AWS's documentation and emulator.
//!
//! Most tests play runtime and extensions themselves ([`fakes`]), so that every order of calls is theirs to
//! choose; what only processes can show (variables, freezing, signals, limits) is shown by shell scripts.

#![allow(clippy::unwrap_used, reason = "a failed assumption fails the test")]
#![expect(unreachable_pub, reason = "modules of one test program")]

mod control;
mod event_stream;
mod extensions;
mod fakes;
mod faults;
mod http;
mod init;
mod invoke;
mod limits;
mod modes;
mod processes;
mod sandbox;
mod shutdown;
mod streaming;
mod telemetry;
mod tenants;
mod versions;
