//! A process that keeps its socket and connects it again and again, while the minisocks of its
//! earlier connections are there.

use std::net::Shutdown;
use std::os::fd::AsRawFd;

use anyhow::{Result, ensure};
use socket2::Socket;

use crate::scenario::conn::{Ends, Family, Listener, bound_in_time, local_address};
use crate::witness::{State, wait_gone, wait_state};

/// What such a process holds.
pub struct Again {
    _listener: Listener,
    /// Connected for the last time.
    _client: Socket,
    _server: Socket,
    /// Of all its connections; the last is ESTABLISHED, the others are in TIME_WAIT.
    pub ends: Vec<Ends>,
}

/// A client closes `times` connections first, each on the same socket, and connects it once more.
///
/// # Errors
/// A step that did not come about.
pub fn connected(family: Family, times: usize) -> Result<Again> {
    let listener = Listener::open(family, 0)?;
    let client = family.socket()?;
    let mut ends = Vec::new();
    let server = loop {
        client.connect(&listener.address.into())?;
        let (server, _) = listener.socket.accept()?;
        bound_in_time(&server)?;
        let now = Ends { client: local_address(&client)?, server: listener.address };
        ends.push(now);
        if ends.len() > times {
            break server;
        }
        client.shutdown(Shutdown::Write)?;
        wait_state(now.of_server(), State::CloseWait)?;
        drop(server);
        wait_state(now.of_client(), State::TimeWait)?;
        wait_gone(now.of_server())?;
        disconnect(&client)?;
    };
    Ok(Again { _listener: listener, _client: client, _server: server, ends })
}

/// connect(AF_UNSPEC): the socket is as new, but for what was set on it, and its cookie.
///
/// # Errors
/// What the kernel answered.
pub fn disconnect(socket: &Socket) -> Result<()> {
    let nowhere =
        libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    let length = size_of_val(&nowhere) as libc::socklen_t;
    // SAFETY: the descriptor is open, and the address is as long as told.
    let done = unsafe { libc::connect(socket.as_raw_fd(), &raw const nowhere, length) };
    ensure!(done == 0, "connect(AF_UNSPEC): {}", std::io::Error::last_os_error());
    Ok(())
}
