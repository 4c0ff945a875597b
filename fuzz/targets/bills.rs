//! Billing exports as text, compressed or not: nothing panics, and the rows that are passed on can be summed up.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tailor_billing::bill::Bill;
use tailor_billing::read::Export;

fuzz_target!(|bytes: &[u8]| {
    let (mut export, mut bill) = (Export::default(), Bill::default());
    let _ = export.read_text(bytes, &mut |row| {
        assert!(row.until_s > row.from_s && row.from_s >= 0);
        bill.add(&row);
    });
    bill.resolve_architectures(|_| None);
});
