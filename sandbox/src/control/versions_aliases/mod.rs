//! Published versions of a function, and the aliases that point to them.

pub(in crate::control) mod aliases;
pub mod versions;
