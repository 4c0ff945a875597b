//! Published versions of a function, and the aliases that point to them.

pub mod aliases;
pub mod versions;
