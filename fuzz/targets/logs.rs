//! Logs of any format and wrapper: nothing panics, and what is passed on is within Lambda's limits.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tailor_logs::{Assembler, Origin, Problems, Reader, Source};

fuzz_target!(|bytes: &[u8]| {
    let origin = Origin { region: "eu-west-1".into(), function: "pay".into(), ..Origin::default() };
    let source = Source { name: "input".into(), origin };
    let (mut reader, mut assembler, mut problems) =
        (Reader::default(), Assembler::default(), Problems::default());
    let mut check = |found: tailor_logs::ImportedInvocation| {
        assert!((128..=10_240).contains(&found.memory.0));
        assert!(found.invocation.billed_ms <= 16 * 60 * 1_000);
        assert!(!found.origin.function.is_empty() && !found.region.is_empty() && !found.version.is_empty());
    };
    reader.read(&source, bytes, &mut |entry| assembler.add(entry, 0, &mut problems, &mut check));
    assembler.finish(&mut problems, &mut check);
});
