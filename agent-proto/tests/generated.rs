//! The committed `src/wire.rs` is what the schema generates. `UPDATE_GENERATED=1` rewrites it.

use std::path::Path;

#[test]
fn generated_code_is_current() {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let schema =
        protox::compile(["tailor.v1.proto"], [crate_dir.join("proto")]).expect("the schema compiles");
    let out = tempfile::tempdir().expect("a temporary folder");
    prost_build::Config::new().out_dir(out.path()).compile_fds(schema).expect("code is generated");
    let generated = std::fs::read_to_string(out.path().join("tailor.v1.rs")).expect("one file is generated");
    let committed = crate_dir.join("src/wire.rs");
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::write(&committed, &generated).expect("src/wire.rs is writable");
    }
    assert!(
        std::fs::read_to_string(&committed).expect("src/wire.rs exists") == generated,
        "src/wire.rs is stale: run UPDATE_GENERATED=1 cargo test -p agent-proto --test generated"
    );
}
