//! Deliveries of the Telemetry API.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tailor_extension::lambda::telemetry;

fuzz_target!(|bytes: &[u8]| {
    let _ = telemetry::decode(bytes);
});
