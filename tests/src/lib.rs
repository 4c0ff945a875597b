//! End-to-end tests of the real programs, in `tests/`, and benchmarks, in `benches/`. The
//! crate `tailor-test-kit` starts the programs.
