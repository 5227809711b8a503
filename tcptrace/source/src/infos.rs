//! Timers and progress of the sockets of a dump: whose are asked for, and how.
//!
//! A dump of all sockets comes without `struct tcp_info`, which would take the lock of each and four
//! times the bytes. So it is asked for apart: of those in a state that should pass, by a dump of these
//! states; of those that are ESTABLISHED and seem to wait for their peer, one by one. What the
//! numbers mean is not decided here.

use std::num::NonZeroU64;

use tcptrace_host::sock_diag::{DiagError, DiagSocket, Family, SockDiag, StateMask};
use tcptrace_model::{SnapInfo, TcpState, Timer, hash::Map};

use super::ages;

/// Sockets of one namespace that are asked for one by one, at 5 µs each.
const ONE_BY_ONE: usize = 1 << 16;
/// As many ESTABLISHED sockets are dumped in the time that it takes to ask for one.
const DUMPED_MEANWHILE: u64 = 8;
/// A timeout of more than that was doubled, or the round trip is long.
const LONG_MS: u32 = 2_000;

/// ESTABLISHED sockets whose info is wanted.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    found: Vec<DiagSocket>,
    established: u64,
    /// There are more.
    cut: bool,
}

impl Suspects {
    /// Takes in a full socket of a dump.
    pub(super) fn look_at(&mut self, socket: &DiagSocket) {
        if socket.state != TcpState::Established as u8 {
            return;
        }
        self.established += 1;
        if !seems_to_wait(socket) {
            return;
        }
        if self.found.len() < ONE_BY_ONE {
            self.found.push(*socket);
        } else {
            self.cut = true;
        }
    }

    /// Whether a dump of all that are ESTABLISHED costs less.
    fn are_many(&self) -> bool {
        self.cut || self.found.len() as u64 * DUMPED_MEANWHILE > self.established.max(1024)
    }
}

/// Whether it may wait for its peer: all that do, and some that do not.
fn seems_to_wait(socket: &DiagSocket) -> bool {
    match socket.timer {
        // What a window that was taken back keeps is sent again without being counted.
        Timer::Retransmit => socket.retrans > 0 || socket.expires_ms > LONG_MS,
        Timer::Probe => true,
        Timer::KeepAlive => socket.retrans > 0,
        _ => false,
    }
}

/// Asks for the infos that are wanted of full sockets for which `keeps` holds; of all of them with
/// `everything`. `passing`: there are sockets in states that should pass.
pub(super) fn ask(
    diag: &mut SockDiag,
    suspects: &Suspects,
    passing: bool,
    everything: bool,
    keeps: impl Fn(&DiagSocket) -> bool,
) -> Result<Vec<SnapInfo>, DiagError> {
    let mut states = if passing { ages::mask() } else { StateMask::NONE };
    let dump_established = everything || suspects.are_many();
    if everything {
        states = StateMask::ALL;
    } else if dump_established {
        states = states.union(StateMask::of(TcpState::Established as u8));
    }
    let wanted = |socket: &DiagSocket| {
        let established = socket.state == TcpState::Established as u8;
        (everything || !established || seems_to_wait(socket)) && keeps(socket)
    };
    let mut infos = Vec::new();
    if states != StateMask::NONE {
        let dump = diag.dump_with_info(&Family::BOTH, states, Vec::new, |infos, socket| {
            if wanted(socket) {
                infos.extend(info(socket));
            }
        })?;
        infos = dump.value;
    }
    if !dump_established {
        for suspect in &suspects.found {
            // What it waited for may have come meanwhile.
            let now = diag.one_with_info(suspect)?.filter(|now| wanted(now));
            infos.extend(now.as_ref().and_then(info));
        }
    }
    Ok(infos)
}

/// `None` of a listener, and where the kernel told nothing, as of a minisock, which may have the
/// cookie of a full socket in the same state.
fn info(socket: &DiagSocket) -> Option<SnapInfo> {
    if socket.is_minisock() {
        return None;
    }
    let state = TcpState::from_kernel(socket.state).filter(|&state| state != TcpState::Listen)?;
    Some(SnapInfo {
        cookie: socket.cookie,
        state,
        timer: socket.timer,
        expires_ms: socket.expires_ms,
        unacked: socket.wqueue,
        mptcp: socket.mptcp,
        tcp: socket.info?,
    })
}

/// Since when sockets have been in their states, in milliseconds, at the least, as of `late_ms`
/// before the infos were asked for.
pub(super) fn ages(infos: &[SnapInfo], late_ms: u64) -> Map<(u64, TcpState), NonZeroU64> {
    let age = |info: &SnapInfo| {
        let ms = ages::at_least_ms(info)?.checked_sub(late_ms)?;
        Some(((info.cookie, info.state), NonZeroU64::new(ms)?))
    };
    infos.iter().filter_map(age).collect()
}
