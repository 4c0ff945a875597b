//! Generates `agent-proto/src/wire.rs` from `agent-proto/proto/tailor.v1.proto`.
//!
//! `cargo run -p agent-proto-codegen` after a change of the schema. This crate does not depend on `agent-proto`, so it also
//! runs while `agent-proto` does not compile.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

fn main() -> Result<()> {
    let path = wire_file();
    std::fs::write(&path, generate()?).with_context(|| format!("cannot write {}", path.display()))
}

fn agent_proto() -> &'static Path {
    // The manifest's folder is `agent-proto/codegen`.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("."))
}

fn wire_file() -> PathBuf {
    agent_proto().join("src/wire.rs")
}

fn generate() -> Result<String> {
    let schema = protox::compile(["tailor.v1.proto"], [agent_proto().join("proto")])
        .context("cannot compile the schema")?;
    let folder = tempfile::tempdir().context("cannot create a temporary folder")?;
    prost_build::Config::new()
        .out_dir(folder.path())
        .compile_fds(schema)
        .context("cannot generate the types")?;
    std::fs::read_to_string(folder.path().join("tailor.v1.rs")).context("no types were generated")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    fn the_committed_types_are_those_of_the_schema() {
        let committed = std::fs::read_to_string(wire_file()).unwrap();
        // A difference of two long files is not readable, so `assert_eq` is not used.
        assert!(committed == generate().unwrap(), "wire.rs is out of date: cargo run -p agent-proto-codegen");
    }
}
