//! tcptrace: a live tracer of TCP state transitions.
//!
//! This crate is the command line, `check` and `explain`. Everything below is a crate of its own in
//! a folder beside it, so that the compiler holds the arrows of ARCHITECTURE.md; each has its name
//! here as a module, for the tests and for whoever builds on the library.

pub mod check;
pub mod cli;
pub mod explain;
#[cfg(feature = "top")]
pub mod terminal;

pub use tcptrace_doctor as doctor;
#[cfg(feature = "export")]
pub use tcptrace_export as export;
pub use tcptrace_host as host;
pub use tcptrace_model as model;
pub use tcptrace_pipeline as pipeline;
pub use tcptrace_probe as probe;
pub use tcptrace_record as record;
#[cfg(feature = "report")]
pub use tcptrace_report as report;
#[cfg(feature = "serve")]
pub use tcptrace_serve as serve;
pub use tcptrace_source as source;
pub use tcptrace_stats as stats;
#[cfg(feature = "top")]
pub use tcptrace_top as top;
pub use tcptrace_track as track;
pub use tcptrace_view as view;
