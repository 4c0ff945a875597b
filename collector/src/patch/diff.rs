//! Unified diffs.

use similar::TextDiff;

/// The diff of one file, for `patch -p1` and `git apply`.
pub(super) fn unified(path: &str, before: &str, after: &str) -> String {
    // A path with a space ends at a tab.
    let end = if path.contains(' ') { "\t" } else { "" };
    TextDiff::from_lines(before, after)
        .unified_diff()
        .context_radius(3)
        .header(&format!("a/{path}{end}"), &format!("b/{path}{end}"))
        .to_string()
}
