//! Starts the real programs, example functions and fakes for the tests, the demo and the benchmarks.
//!
//! - [`deployment`]: a collector and a sandbox with the layer attached to example functions.
//! - [`fake`]: an in-process Lambda platform and collectors, for tests of the extension alone.
//! - [`postgres`]: a PostgreSQL server.
//! - [`s3`]: a server with S3's protocol; [`python`]: the packages of it and of other tools.
//! - [`random`]: pseudo-random numbers.
//! - [`build`] and [`release`]: cargo builds of the programs.

pub mod build;
pub mod delay_server;
pub mod deployment;
pub mod fake;
pub mod functions;
pub mod lambda;
pub mod postgres;
pub mod process;
pub mod python;
pub mod random;
pub mod release;
pub mod s3;
pub mod workspace;

/// When this variable is set and not empty, a skipped test fails.
pub const REQUIRE_ALL_VARIABLE: &str = "TAILOR_REQUIRE_ALL";

/// When this variable is set and not empty, the programs that tests start on this machine are in the target folder and
/// current, so that tests do not build them.
pub const PREBUILT_VARIABLE: &str = "TAILOR_TEST_PREBUILT";

/// Reports that a test is skipped, with the reason. The caller then returns.
///
/// # Panics
/// When [`REQUIRE_ALL_VARIABLE`] is set and not empty.
#[track_caller]
pub fn skip(reason: &str) {
    let test = std::thread::current().name().unwrap_or("test").to_owned();
    let is_required = std::env::var_os(REQUIRE_ALL_VARIABLE).is_some_and(|value| !value.is_empty());
    assert!(!is_required, "{test} is skipped, and {REQUIRE_ALL_VARIABLE} is set: {reason}");
    println!("skipped: {test}: {reason}");
}
