//! The kernel's text files: `/proc/PID/stat`, `status`, `schedstat`, `/proc/net/dev` and `/proc/net/snmp`.

#![no_main]
#![allow(dead_code, reason = "the parsers' file is included whole; their module is private in the extension")]

#[path = "../../extension/src/measure/parse.rs"]
mod parse;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = parse::stat(text).map(|stat| stat.cpu_ns());
    let _ = parse::values(text, ["VmHWM:", "VmRSS:", "Threads:", "nonvoluntary_ctxt_switches:"]);
    let _ = parse::schedstat(text);
    let _ = parse::last_id(text);
    let _ = parse::interface_bytes(text, "vint");
    let _ = parse::active_opens(text);
});
