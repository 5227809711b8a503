//! Where inputs come from. After this module nothing knows whether they are live.

mod ages;
pub mod cgroups;
mod dump;
pub mod helper;
mod infos;
pub mod live;
mod names;
pub mod owners;
pub mod reconcile;
pub mod recording;
mod refilter;
pub mod self_test;
pub mod snapshot;
mod tables;
