//! A local AWS Lambda.
//!
//! Functions run as real processes in execution environments that start, freeze, thaw, fail and shut down the
//! way Lambda's do, under Lambda's CPU and memory limits, behind Lambda's APIs. Read in this order:
//!
//! - [`config`]: the configuration of a function, and functions in folders;
//! - [`layers`]: the contents of `/opt`;
//! - [`cgroup`]: CPU quota, memory limit, freezer and accounting;
//! - [`supervisor`]: the process that is pid 1 of an environment;
//! - [`environment`]: the life of one environment, from Init to Shutdown;
//! - [`api`]: the Runtime, Extensions and Telemetry APIs of its processes;
//! - [`telemetry`]: delivery of platform events and logs to subscribers;
//! - [`fleet`]: all environments of all functions, and the choice of one for an invocation;
//! - [`network`]: connections into an environment's network and out of it;
//! - [`control`]: the AWS API for SDKs and the CLI;
//! - [`machine_setup`]: finds out what the machine allows, and cleans up at the end;
//! - [`faults`]: faults on request;
//! - [`trace`]: all events, as JSON lines.
//!
//! Not supported: IAM, event source mappings, function URLs and container images.

pub mod api;
pub mod cgroup;
pub mod cli;
pub mod config;
pub mod control;
pub mod environment;
pub mod faults;
pub mod fleet;
pub mod layers;
pub mod machine_setup;
pub mod network;
pub mod supervisor;
pub mod telemetry;
pub mod time;
pub mod trace;
