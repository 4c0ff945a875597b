//! Packs the relocations of a static build: 24 bytes each become a bit each, a thirtieth of the binary.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
    let variable = |name| std::env::var(name).unwrap_or_default();
    // musl unpacks them itself since 1.2.4; glibc would want a newer one than some of Lambda's images have.
    let is_static = variable("CARGO_CFG_TARGET_ENV") == "musl";
    // Zig's compiler refuses options it does not know; GNU's and LLVM's linkers know this one or say that
    // they ignore it.
    if is_static && !variable("RUSTC_LINKER").contains("zig") {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
