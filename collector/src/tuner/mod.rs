//! Moves functions to better sizes, where it is told to.

pub mod change;
