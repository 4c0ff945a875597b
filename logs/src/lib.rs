//! Reads the log lines that Lambda's platform writes, and makes invocations of them.
//!
//! A log is read in three steps. [`Reader`] finds the platform's lines in text, JSON documents, CSV and compressed data, and
//! removes what other programs put around them. Each line becomes a [`Record`]. [`Assembler`] joins the records of one request
//! to an [`ImportedInvocation`].
//!
//! The crate opens no file and no connection: its input is a [`std::io::Read`]. It needs a constant amount of memory, and no
//! input makes it fail: what cannot be read is counted in [`Problems`].

mod assemble;
mod decode;
mod event;
mod numbers;
mod origin;
mod pending;
mod prefix;
mod problems;
mod reader;
mod record;
mod row;
mod text;
pub mod timestamp;

pub use assemble::{Assembler, ImportedInvocation, SAME_REPORT_US};
pub use origin::Origin;
pub use problems::{MAX_EXAMPLE_BYTES, Problem, ProblemCount, Problems};
pub use reader::{Reader, Source};
pub use record::{Entry, Init, InitReport, LogBytes, Record, Report, Runtime};
