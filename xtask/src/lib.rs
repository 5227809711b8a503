//! What `cargo xtask` and its subcommands share: running programs, becoming root, building.
//!
//! It must stay small, and std, anyhow and clap must do: everybody who types `cargo xtask run` waits
//! for it. What needs more is a module of `xtask/lab`.
#![forbid(unsafe_code)]

pub mod aside;
pub mod build;
pub mod failure;
pub mod progress;
pub mod root;
pub mod run;
pub mod sh;
pub mod subcommands;
