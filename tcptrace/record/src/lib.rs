//! Recordings: [`Input`](tcptrace_model::Input)s in a file, before any analysis.
//!
//! docs/RECORDING.md describes the format. What is read is not trusted: every length is checked
//! before anything is allocated, and no bytes make the reader panic. Must not interpret what it
//! keeps: better analysis is to improve old recordings.

mod context;
mod decode;
mod encode;
mod facts;
mod frame;
mod layout;
pub mod outfile;
mod rare;
mod reader;
mod scene;
mod snap_info;
mod tap;
mod task;
mod wire;
mod writer;

pub use context::{Context, lasts};
pub use decode::{Decoder, Item, Memory};
pub use frame::{BlockHead, FIXED_BYTES, Header, HookInForce, VERSION};
pub use outfile::{OutError, OutFile};
pub use reader::{Block, Contents, Found, ReadError, Reader, Torn};
pub use tap::{Saved, Tap};
pub use wire::Malformed;
pub use writer::{Every, FileError, Files, NewFile, Rotation, parts};
