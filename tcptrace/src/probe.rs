//! The only user of aya.
pub mod btf;
pub mod format;
pub mod offsets;
