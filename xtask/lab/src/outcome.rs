//! How a step of `cargo xtask test` ended, and when a test that failed is tried again. It runs nothing.

/// With more failures than these it is not the machine's moment: nothing is tried again. Some kernels run a
/// few softirqs without any of their tracepoints (docs/SERVE.md): of nearly 300 tests, five have met that
/// at once, beside the compilers of a cold build. So twice as many and a few.
pub const TRIED_AGAIN: usize = 12;

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It proved what it is for.
    Passed,
    /// It could not run, or not all of it: why.
    Skipped(String),
    /// What it is to prove is open, through no fault of the product: why.
    NotProved(String),
    /// What it is to prove does not hold: why.
    Failed(String),
}
