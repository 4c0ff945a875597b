//! The exit codes.

/// The command did what it should.
pub const SUCCESS: u8 = 0;

/// The command failed, or the store is damaged. The reason is on standard error.
pub const FAILURE: u8 = 1;

/// The arguments are not valid.
pub const USAGE: u8 = 2;

/// There is nothing to show: no such function, or no invocations in the window.
pub const NOTHING: u8 = 3;

/// A condition of `--fail-on` is met, or the threshold of `tailor reconcile` is exceeded.
pub const CONDITION: u8 = 4;

/// The codes and what they mean, as the help and the documentation list them.
pub const TABLE: [(u8, &str); 5] = [
    (SUCCESS, "success"),
    (FAILURE, "the command failed, or found damage"),
    (USAGE, "the arguments are not valid"),
    (NOTHING, "nothing to show: no such function, or no invocations in the window"),
    (CONDITION, "a condition of --fail-on is met, or the threshold of reconcile is exceeded"),
];

/// The table as text.
pub(super) fn text() -> String {
    let lines = TABLE.iter().map(|(code, meaning)| format!("  {code}  {meaning}"));
    format!("Exit codes:\n{}", lines.collect::<Vec<_>>().join("\n"))
}
