//! Conformance to Lambda: one test for each fact about the Extensions, Runtime and Telemetry APIs and the life of an
//! environment. The comment of each test names the fact; facts come from AWS's documentation and emulator.
//!
//! Most tests use a fake runtime and fake extensions ([`fakes`]), so that they control the order of calls;
//! variables, freezing, signals and limits need real processes, which are shell scripts.

#![allow(clippy::unwrap_used, reason = "a failed assumption fails the test")]
#![expect(unreachable_pub, reason = "modules of one test program")]

mod command_line;
mod control;
mod event_stream;
mod extensions;
mod fakes;
mod faults;
mod file_system;
mod http;
mod init;
mod invoke;
mod limits;
mod modes;
mod network;
mod proc_view;
mod processes;
mod sandbox;
mod shutdown;
mod streaming;
mod telemetry;
mod tenants;
mod versions;
