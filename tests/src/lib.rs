//! End-to-end tests of the real programs, in `tests/`, and benchmarks, in `benches/`. What starts the programs is in
//! the crate `tailor-test-kit`.
