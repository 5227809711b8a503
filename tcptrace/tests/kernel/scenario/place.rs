//! Where the two ends of a scenario are: on loopback, or in two namespaces with a veth pair between.
//!
//! A socket stays in the namespace that it was made in, so only making one, reading /proc and sending
//! a segment by hand are done inside; all else works from anywhere.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use anyhow::Result;
use socket2::Socket;

use crate::{
    net::{Netns, Pair},
    scenario::conn::{Ends, Family},
    witness::{Row, State, wait_gone, wait_state},
};

/// Which end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

/// Which addresses, and whether there is a network between them. A scenario runs in the client's
/// namespace.
#[derive(Clone)]
pub struct Place {
    pub family: Family,
    /// The server's namespace, where it is not the client's.
    far: Option<Arc<Netns>>,
}

impl From<Family> for Place {
    /// On loopback.
    fn from(family: Family) -> Self {
        Self { family, far: None }
    }
}

impl Place {
    /// The client in the left namespace of a pair, the server in the right one, which is `far`.
    pub fn across(family: Family, far: Arc<Netns>) -> Self {
        Self { family, far: Some(far) }
    }

    /// The address of one end, with a port.
    pub fn address(&self, side: Side, port: u16) -> SocketAddr {
        let (v4, v6) = match (&self.far, side) {
            (None, _) => return self.family.address(port),
            (Some(_), Side::Client) => (Pair::LEFT, Pair::LEFT6),
            (Some(_), Side::Server) => (Pair::RIGHT, Pair::RIGHT6),
        };
        let host = match self.family {
            Family::V4 => IpAddr::V4(v4),
            Family::V6 => IpAddr::V6(v6),
            Family::Mapped => IpAddr::V6(v4.to_ipv6_mapped()),
        };
        SocketAddr::new(host, port)
    }

    /// A socket for one end.
    ///
    /// # Errors
    /// As [`Family::socket`].
    pub fn socket(&self, side: Side) -> Result<Socket> {
        self.at(side, || self.family.socket())
    }

    /// Runs `work` in the namespace of one end.
    pub fn at<T: Send>(&self, side: Side, work: impl FnOnce() -> T + Send) -> T {
        match (&self.far, side) {
            (Some(far), Side::Server) => far.run(work),
            _ => work(),
        }
    }

    /// Waits until one end is in `state`.
    ///
    /// # Errors
    /// As [`wait_state`].
    pub fn wait(&self, side: Side, ends: Ends, state: State) -> Result<Row> {
        self.at(side, || wait_state(ends.of(side), state))
    }

    /// Waits until no socket is left of one end.
    ///
    /// # Errors
    /// As [`wait_gone`].
    pub fn gone(&self, side: Side, ends: Ends) -> Result<()> {
        self.at(side, || wait_gone(ends.of(side)))
    }

    /// Waits until no socket is left of either end.
    ///
    /// # Errors
    /// As [`wait_gone`].
    pub fn both_gone(&self, ends: Ends) -> Result<()> {
        self.gone(Side::Client, ends)?;
        self.gone(Side::Server, ends)
    }
}
