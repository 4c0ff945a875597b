//! Kinds of functions, from the segments that the generator made them of.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;

#[derive(Deserialize)]
struct Function {
    id: u64,
    lang: String,
    segs: Vec<(String, u64)>,
}

/// Name of the kind of a function whose segments are not known.
pub const UNKNOWN: &str = "unknown";

/// The kind of each function in `functions.json` of `folder`, by id; empty without the file.
///
/// # Errors
/// When the file cannot be read as a list of functions.
pub fn read(folder: &Path) -> anyhow::Result<BTreeMap<u64, &'static str>> {
    let path = folder.join("functions.json");
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(BTreeMap::new()) };
    let functions: Vec<Function> =
        serde_json::from_str(&text).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(functions.into_iter().map(|function| (function.id, kind(&function))).collect())
}

/// The first kind of this list that applies: what makes a function harder to predict comes first.
fn kind(function: &Function) -> &'static str {
    let has = |names: &[&str]| function.segs.iter().any(|(name, _)| names.contains(&name.as_str()));
    match function.lang.as_str() {
        _ if has(&["fwrite"]) => "file writes",
        "python" if has(&["phash"]) => "threads that end",
        _ if has(&["phash", "pcompress", "kdf"]) => "parallel pool",
        "node" if has(&["compress", "decompress"]) => "sequential pool",
        "java" => "Java",
        "node" if has(&["alloc"]) => "collector",
        _ => "one thread",
    }
}
