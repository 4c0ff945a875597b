//! A local AWS Lambda.
//!
//! Functions run as real processes in execution environments that start, freeze, thaw, fail and shut down the
//! way Lambda's do, under Lambda's CPU and memory limits, behind Lambda's own APIs. Read in this order:
//!
//! - [`config`]: what a function is, and how a folder becomes one;
//! - [`layers`]: what appears at `/opt`;
//! - [`cgroup`]: CPU quota, memory limit, freezer and accounting;
//! - [`supervisor`]: the process that is pid 1 of an environment;
//! - [`environment`]: the life of one environment, from Init to Shutdown;
//! - [`api`]: what its processes see (Runtime, Extensions and Telemetry APIs);
//! - [`telemetry`]: platform events and logs on their way to subscribers;
//! - [`fleet`]: all environments of all functions, and which one takes an invocation;
//! - [`control`]: the AWS API that SDKs and the CLI talk to;
//! - [`machine_setup`]: finds out what the machine allows, and cleans up at the end;
//! - [`faults`]: what goes wrong on request;
//! - [`trace`]: everything that happened, as JSON lines.
//!
//! Left out on purpose: IAM, event source mappings, function URLs, container images and the network isolation
//! of real Lambda (functions reach servers on the host's loopback).

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
pub mod supervisor;
pub mod telemetry;
pub mod time;
pub mod trace;
