//! TCP made to happen for real: one function a scenario. Each runs in the network namespace of the
//! calling thread (see `net::Netns::run`), waits for each step by the kernel's own word, and returns
//! the facts: who had which port, and when each step began and ended.
//!
//! Nothing here looks at what a tracer saw.

pub mod again;
pub mod churn;
pub mod close;
pub mod conn;
pub mod ending;
pub mod linger;
pub mod mptcp;
pub mod noise;
pub mod open;
pub mod orphan;
pub mod place;
pub mod quiet;
pub mod reuse;
pub mod segment;
pub mod simultaneous;
pub mod time_wait;
pub mod unusual;
