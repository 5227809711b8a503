//! What the tracker concludes from its inputs.

use super::{
    event::{Linger, SockFacts},
    state::TcpState,
    task::Task,
    tuple::Tuple,
};

/// How long a socket was in the state that it left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// The kernel does not tell: CLOSE, where a socket merely exists; the LISTEN that a child of
    /// a listener never was in; a state entered while events were lost.
    Unknown,
    /// At least so many nanoseconds: the start was not seen.
    AtLeast(u64),
    /// So many nanoseconds.
    Exactly(u64),
}

/// How an owner is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerFrom {
    /// The task that called connect().
    Connect,
    /// The task that called listen().
    Listener,
    /// The task that closed or shut down the socket.
    Close,
}

impl OwnerFrom {
    /// The word for outputs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Listener => "listener",
            Self::Close => "close",
        }
    }
}

/// Whose socket it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The task, caught in a system call on this socket.
    pub task: Task,
    /// Which call.
    pub from: OwnerFrom,
}

/// A true transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub mono_ns: u64,
    /// Address of the `struct sock`.
    pub skaddr: u64,
    /// The state left.
    pub old: TcpState,
    /// The state entered.
    pub new: TcpState,
    /// The two ends, completed from earlier events of the connection.
    pub tuple: Tuple,
    /// Time in the state left.
    pub in_old: Age,
    /// Whose socket it is, if that is known.
    pub owner: Option<Owner>,
    /// What only BTF tells.
    pub sock: Option<SockFacts>,
}

impl Moved {
    /// The `SO_LINGER` setting, if the hook could see it.
    pub fn linger(&self) -> Option<Linger> {
        self.sock.map(|sock| sock.linger)
    }
}

/// Something to show or to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A connection changed its state.
    Moved(Moved),
}
