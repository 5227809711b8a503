//! Connections whose programs ask for MPTCP. What a tracer of TCP sees of each is its one subflow, with
//! the same ports; the kernel's own counters say that it was MPTCP, and whether a RST was sent.

use std::io::Write as _;

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    scenario::{
        conn::{Ends, Family, bound_in_time, expect_end, expect_error, local_address},
        place::{Place, Side},
        quiet::Quiet,
    },
    unsupported::supported,
    wait,
    witness::{Counters, State, find},
};

/// A connection, and the programs' two ends of it.
struct Opened {
    place: Place,
    client: Socket,
    server: Socket,
    ends: Ends,
}

fn socket(place: &Place, side: Side, protocol: i32) -> Result<Socket> {
    let domain = if place.family == Family::V4 { Domain::IPV4 } else { Domain::IPV6 };
    let protocol = Protocol::from(protocol);
    let made = place.at(side, || Socket::new(domain, Type::STREAM, Some(protocol)));
    let refusals = [libc::EPROTONOSUPPORT, libc::ENOPROTOOPT, libc::EAFNOSUPPORT];
    let socket = supported("MPTCP socket", &refusals, made)?;
    if place.family == Family::Mapped {
        socket.set_only_v6(false)?;
    }
    bound_in_time(&socket)?;
    Ok(socket)
}

/// The client asks for MPTCP, and the listener speaks `protocol`.
fn open(place: Place, protocol: i32) -> Result<Opened> {
    let listener = socket(&place, Side::Server, protocol)?;
    listener.bind(&place.address(Side::Server, 0).into())?;
    listener.listen(1)?;
    let server_address = local_address(&listener)?;
    let client = socket(&place, Side::Client, libc::IPPROTO_MPTCP)?;
    let counters = || place.at(Side::Server, Counters::read);
    let before = counters()?;
    client.connect(&server_address.into()).context("connect")?;
    let (server, peer) = listener.accept().context("accept")?;
    bound_in_time(&server)?;
    let ends = Ends {
        client: peer.as_socket().context("a peer without an address")?,
        server: server_address,
    };
    let capable = place.at(Side::Server, || before.growth("MPTcpExt:MPCapableACKRX"))?;
    ensure!(capable == i64::from(protocol == libc::IPPROTO_MPTCP), "{capable} of MPTCP");
    Ok(Opened { place, client, server, ends })
}

/// Closes `first`, then the other end, which has read the end of the stream; returns when nothing
/// but a TIME_WAIT is left of either. No RST is sent.
fn close(opened: Opened, first: Side) -> Result<Ends> {
    let Opened { place, client, server, ends } = opened;
    let quiet = Quiet::from_here(&place)?;
    let (first, second) = match first {
        Side::Client => (client, server),
        Side::Server => (server, client),
    };
    drop(first);
    expect_end(&second)?;
    drop(second);
    for side in [Side::Client, Side::Server] {
        wait::until(&format!("the {side:?}'s subflow to end"), || {
            let row = place.at(side, || find(ends.of(side)))?;
            Ok(row.is_none_or(|row| row.state == State::TimeWait).then_some(()))
        })?;
    }
    quiet.no_rst(&place)?;
    Ok(ends)
}

/// An MPTCP connection is closed in order, by `first` and then by the other end.
///
/// # Errors
/// `Unsupported` where the kernel has no MPTCP; a step that did not come about.
pub fn closed(place: Place, first: Side) -> Result<Ends> {
    close(open(place, libc::IPPROTO_MPTCP)?, first)
}

/// The same where the listener speaks plain TCP, so that the client falls back to it.
///
/// # Errors
/// As [`closed`].
pub fn fallen_back(place: Place, first: Side) -> Result<Ends> {
    close(open(place, libc::IPPROTO_TCP)?, first)
}

/// The client closes with data unread: a fast close, which resets the subflow.
///
/// # Errors
/// As [`closed`].
pub fn fast_close(place: Place) -> Result<Ends> {
    let opened = open(place, libc::IPPROTO_MPTCP)?;
    let Opened { place, client, server, ends } = opened;
    (&server).write_all(b"unread")?;
    let mut peeked = [std::mem::MaybeUninit::uninit(); 1];
    ensure!(client.peek(&mut peeked)? == 1, "nothing there to leave unread");
    let before = place.at(Side::Client, Counters::read)?;
    drop(client);
    let errno = expect_error(&server)?;
    ensure!(errno == libc::ECONNRESET, "errno {errno}");
    place.both_gone(ends)?;
    place.at(Side::Client, || -> Result<()> {
        let sent = before.growth("Tcp:OutRsts")?;
        ensure!(sent >= 1, "{sent} RSTs");
        let fast = before.growth("MPTcpExt:MPFastcloseTx")?;
        ensure!(fast >= 1, "{fast} fast closes");
        Ok(())
    })?;
    Ok(ends)
}
