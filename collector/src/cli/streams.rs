//! Standard output and standard error, whose readers may close them before the end, as `head` does.
//!
//! The macros of the standard library would then end the program with a panic and its work half done, so this crate does not
//! use them.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use anyhow::Context;

/// Writes a text to standard output. The result is `false` when its reader has closed it, which is not an error.
///
/// # Errors
/// It cannot be written for another reason, such as a full disk.
pub(super) fn output(text: &str) -> anyhow::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("cannot write the output"),
    }
}

/// Writes a line to standard error. Where that is not possible, it cannot be shown, and the command goes on.
pub(super) fn note(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Requests a confirmation of a person: `y` or `yes`.
///
/// # Errors
/// The answer cannot be read.
pub(super) fn confirm(question: &str) -> anyhow::Result<bool> {
    let _ = write!(io::stderr(), "{question} [y/N] ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).context("cannot read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Whether a failure is only that a reader closed a pipe.
pub(super) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let is_closed = |cause: &io::Error| cause.kind() == ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref().is_some_and(is_closed))
}
