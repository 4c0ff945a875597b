//! Stored rollups, damaged: one that decodes must encode and decode to the same rollup.

#![no_main]

use agent_proto::rollup::{decode, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(rollup) = decode(bytes) else { return };
    assert_eq!(decode(&encode(&rollup)).ok().as_ref(), Some(&rollup));
});
