//! Why a question to BTF has no answer.

use thiserror::Error;

/// Why a question to BTF has no answer.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BtfError {
    /// The data breaks the format.
    #[error("malformed BTF: {0}")]
    Malformed(&'static str),
    /// This kernel has no such structure.
    #[error("this kernel's BTF has no struct {0}")]
    NoStruct(String),
    /// The structure has no such field, or it is a bit-field.
    #[error("this kernel's struct {strukt} has no field {path}")]
    NoField {
        /// Name of the structure asked for.
        strukt: String,
        /// Path within it.
        path: String,
    },
    /// There is no such function, or no such type of one.
    #[error("this kernel's BTF has no function {0}")]
    NoFunction(String),
    /// No enum has such a member.
    #[error("this kernel's BTF has no {1} in enum {0}")]
    NoEnumerator(String, String),
    /// It is not in the part of the data that can be read.
    #[error("{error} before {unread}")]
    Unread {
        /// What was looked for in that part.
        error: Box<Self>,
        /// Where that part ends, and why.
        unread: Unread,
    },
}

/// Where reading BTF has to stop: at a type whose length is not known, since only the length leads to
/// the next one.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("type {id}, where reading it stops: this version of tcptrace does not know kind {kind}")]
pub struct Unread {
    /// The first type that was not read.
    pub id: u32,
    /// Its kind (`BTF_INFO_KIND()`).
    pub kind: u32,
}
