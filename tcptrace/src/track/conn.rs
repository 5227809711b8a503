//! What is known of one connection, and how long it has been where it is.

use crate::model::{
    Age, Birth, Change, Found, Owner, OwnerFrom, SockFacts, TcpState, Transition, Tuple,
};

/// A connection in a state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conn {
    pub(super) state: TcpState,
    /// When it entered `state`, or the latest moment at which it was known to be in it already.
    pub(super) since_ns: u64,
    /// How sure `since_ns` is.
    pub(super) entered: Entered,
    pub(super) cookie: Option<u64>,
    pub(super) netns: Option<u32>,
    pub(super) birth: Option<Birth>,
    pub(super) tuple: Tuple,
    pub(super) owner: Option<Owner>,
    /// As the last event told them.
    pub(super) sock: Option<SockFacts>,
}

/// What is known of the moment at which a state was entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entered {
    /// It was seen.
    Seen,
    /// It was dated, to within so many nanoseconds.
    Within(u64),
    /// It was before.
    Before,
}

impl Conn {
    /// Time in the present state, at `now`.
    pub(super) fn age(&self, now: u64, last_loss: Option<u64>) -> Age {
        match last_loss {
            // The events of a leave and a return may be among the lost. With a cookie it is the
            // same socket, and only SYN_SENT can be entered twice in the life of one.
            Some(loss)
                if loss >= self.since_ns
                    && (self.cookie.is_none() || self.state == TcpState::SynSent) =>
            {
                at_least(loss, now)
            }
            _ => {
                let ns = now.saturating_sub(self.since_ns);
                match self.entered {
                    Entered::Seen => Age::Exactly(ns),
                    Entered::Within(within_ns) => Age::About { ns, within_ns },
                    Entered::Before => at_least(self.since_ns, now),
                }
            }
        }
    }

    /// As the values that say that it is known, or not known any more.
    pub(super) fn found(&self, mono_ns: u64) -> Found {
        Found {
            mono_ns,
            state: self.state,
            tuple: self.tuple,
            netns: self.netns,
            birth: self.birth,
            owner: self.owner,
        }
    }

    /// That it is not known any more.
    pub(super) fn gone(&self, mono_ns: u64) -> Change {
        Change::Gone(self.found(mono_ns))
    }
}

/// A lower bound, if there is one: "at least nothing" says nothing.
pub(super) fn at_least(since: u64, now: u64) -> Age {
    match now.checked_sub(since) {
        Some(ns) if ns > 0 => Age::AtLeast(ns),
        _ => Age::Unknown,
    }
}

/// Whether two cookies are known and not the same.
pub(super) fn differ(a: Option<u64>, b: Option<u64>) -> bool {
    matches!((a, b), (Some(a), Some(b)) if a != b)
}

/// The owner, where the task on the CPU is in a system call on this very socket.
pub(super) fn owner_of(event: &Transition) -> Option<Owner> {
    use TcpState::*;
    let from = match (event.old, event.new) {
        (Close, SynSent) => OwnerFrom::Connect,
        (Close, Listen) => OwnerFrom::Listener,
        (_, FinWait1) | (CloseWait, LastAck) => OwnerFrom::Close,
        _ => return None,
    };
    Some(Owner { task: event.task, from })
}
