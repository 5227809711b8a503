//! What tells the sockets of one moment apart.

use super::{input::SnapSocket, tuple::Tuple};

/// What tells a socket apart from all others that there are at the same moment.
///
/// A cookie is given once (`sock_gen_cookie()`), but a minisock inherits that of its full socket
/// (`inet_twsk_alloc()`). Most often that one is gone by then. A process that still holds it may
/// `connect(AF_UNSPEC)` and `connect()` again, as often as it likes: then the full socket and the
/// minisocks of all its earlier connections have one cookie, and only the ends tell these apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SockId {
    /// A full socket, by its cookie. Its ends do not belong here: they may not be known yet.
    Full(u64),
    /// A minisock, by its cookie and its ends.
    Mini(u64, Tuple),
}

impl SockId {
    /// That of a full socket, or of a minisock.
    pub fn new(cookie: u64, mini: bool, tuple: Tuple) -> Self {
        if mini { Self::Mini(cookie, tuple) } else { Self::Full(cookie) }
    }
}

impl SnapSocket {
    /// Whether it is a minisock.
    pub fn is_mini(&self) -> bool {
        self.minisock_expires_ms.is_some()
    }

    /// What tells it apart.
    pub fn id(&self) -> SockId {
        SockId::new(self.cookie, self.is_mini(), self.tuple)
    }
}
