//! The only user of aya: what this kernel offers, the kernel object, and the way out of the ring.
//!
//! Must not interpret events; that is [`tcptrace_track`]'s.

mod accept;
mod attach;
mod backend;
pub mod btf;
mod error;
mod facts;
mod files;
mod format;
mod globals;
mod known;
mod loader;
mod minisock;
mod offsets;
mod options;
mod reader;
mod reset;
mod ring;
mod set_state;
mod time_wait;
mod tracefs;

pub use attach::{Names, Probe, RuledOut, Totals};
pub use backend::{AcceptBackend, AcceptChoice, Backend, TimeWaitBackend, TimeWaitChoice};
pub use error::{ProbeError, Refusal};
pub use facts::{Fact, Unobservable};
pub use files::{SocketFile, SocketFiles};
pub use known::Known;
pub use minisock::Who;
pub use offsets::sock_offsets;
pub use options::Options;
pub use reader::Reserved;
pub use ring::{
    BadRingSize, DEFAULT_RING_BYTES, RING_UNIT_HINT, page_bytes, parse_ring_size, ring_supported,
};
pub use tracefs::{mounted as tracefs_mounted, with_tracefs};
