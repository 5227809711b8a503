//! tcptrace: a live tracer of TCP state transitions.
//!
//! The library is everything but the argument parser's entry point, so that tests and the
//! benchmark drive the same code as the command. See ARCHITECTURE.md for the data flow.

pub mod check;
pub mod cli;
pub mod doctor;
pub mod explain;
pub mod export;
mod hash;
pub mod host;
pub mod model;
pub mod output;
pub mod pipeline;
pub mod probe;
pub mod record;
pub mod report;
pub mod serve;
pub mod source;
pub mod stats;
pub mod terminal;
pub mod track;
pub mod view;
