//! The stage on which the real binaries are started, for the demo, the tests and the benchmarks: example
//! functions in the languages of the machine, a slow server for them to wait for, the sandbox and the
//! collector as child processes.

pub mod build;
pub mod functions;
pub mod process;
pub mod puppet;
pub mod sandbox;
pub mod server;
pub mod shipped;
pub mod stage;
