//! Where inputs come from. After this module nothing knows whether they are live.

pub mod live;
pub mod reconcile;
pub mod script;
pub mod snapshot;
