//! The code of a function: uploaded as a zip archive, or loaded from a folder at the start.

pub(in crate::control) mod folders;
pub(in crate::control) mod package;
