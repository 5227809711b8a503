//! The side that asks: a round at a time, and names of cgroups beside that.
//!
//! What does not answer in time, or not in a way that makes sense, is ended and asked no more.

use std::{
    io,
    os::{fd::AsRawFd as _, unix::net::UnixStream},
    sync::{
        Arc, Mutex, PoisonError, TryLockError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv},
};

use super::{
    super::dump::{Order, Round, Space},
    wire::{CgroupAsked, Frames, MAX_ROUND, Piece, Used, WireError},
};
use tcptrace_host::{cgroup::Answer, child::Child};

/// How long a round may keep one waiting: the dumps of a million sockets take a second, a search
/// for owners two and a half.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a name may: the ring is not read meanwhile.
const PATIENCE_FOR_A_NAME: Duration = Duration::from_secs(1);

/// Namespaces of a round: as many as are looked for (`netns::namespaces()`).
const SPACES: usize = 4096;

/// Remarks of a round that are kept.
const REMARKS: usize = 2048;

/// What the helper uses, as of its last answer, and whether it lives.
#[derive(Debug, Default)]
pub struct Tally {
    gone: AtomicBool,
    cpu_us: AtomicU64,
    resident_bytes: AtomicU64,
}

impl Tally {
    /// Whether it lives, as far as is known.
    pub fn lives(&self) -> bool {
        !self.gone.load(Ordering::Relaxed)
    }

    /// CPU time since its start, seconds.
    pub fn cpu_s(&self) -> f64 {
        self.cpu_us.load(Ordering::Relaxed) as f64 / 1e6
    }

    /// What is in memory of it, bytes; 0 once it is gone.
    pub fn resident_bytes(&self) -> u64 {
        self.resident_bytes.load(Ordering::Relaxed)
    }

    fn take(&self, used: Used) {
        // Each stands for itself.
        self.cpu_us.store((used.cpu_s * 1e6) as u64, Ordering::Relaxed);
        self.resident_bytes.store(used.resident_bytes, Ordering::Relaxed);
    }

    fn end(&self) {
        self.gone.store(true, Ordering::Relaxed);
        self.resident_bytes.store(0, Ordering::Relaxed);
    }
}

/// The way to the helper for rounds.
#[derive(Debug)]
pub struct Link {
    /// `None` once it is given up.
    frames: Mutex<Option<Frames<UnixStream>>>,
    child: Arc<Child>,
    tally: Arc<Tally>,
    is_of_one: bool,
    /// That it is gone, until it has been said.
    farewell: Mutex<Option<String>>,
}

impl Link {
    pub(super) fn new(
        stream: UnixStream,
        child: Arc<Child>,
        tally: Arc<Tally>,
        is_of_one: bool,
    ) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let frames = Mutex::new(Some(Frames::new(stream)));
        Ok(Self { frames, child, tally, is_of_one, farewell: Mutex::new(None) })
    }

    /// Whether only one namespace is read, which was asked for.
    pub(in super::super) fn is_of_one(&self) -> bool {
        self.is_of_one
    }

    /// Whether it is asked no more.
    pub(in super::super) fn is_gone(&self) -> bool {
        !self.tally.lives()
    }

    /// Has the helper read what `order` says. What it could not be had to is in the remarks.
    pub(in super::super) fn read(&self, order: &Order) -> Round {
        let mut guard = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(frames) = &mut *guard else { return Round::nothing(order) };
        match exchange(frames, order, MAX_ROUND) {
            Ok((round, used)) => {
                self.tally.take(used);
                round
            }
            Err(error) => {
                *guard = None;
                self.give_up(&error);
                Round::nothing(order)
            }
        }
    }

    /// Looks whether it is still there, unless it is just being asked; and gives what is to be said
    /// if it is not, once.
    pub(in super::super) fn farewell(&self) -> Option<String> {
        let guard = match self.frames.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        if let Some(mut guard) = guard
            && let Some(frames) = &*guard
            && has_closed(frames.stream())
        {
            *guard = None;
            self.give_up(&WireError::Closed);
        }
        self.farewell.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn give_up(&self, error: &WireError) {
        let ended = self.child.end();
        self.tally.end();
        let why = match error {
            WireError::Closed => ended,
            error => format!("it was of no use any more: {error}"),
        };
        let says = format!(
            "the helper process that reads the socket tables has ended ({why}): no more snapshots, \
             so what only they tell stays as it was (SYN queues, sysctls, the kernel's own \
             counters, owners and connections that no event tells of); a restart brings them back"
        );
        *self.farewell.lock().unwrap_or_else(PoisonError::into_inner) = Some(says);
    }
}

/// Nothing is sent that was not asked for: what there is to read while nothing is asked is the end.
fn has_closed(stream: &UnixStream) -> bool {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    !matches!(recv(stream.as_raw_fd(), &mut [0], flags), Err(Errno::EAGAIN | Errno::EINTR))
}

/// Asks for a round and takes it, of so many bytes at most.
pub(super) fn exchange(
    frames: &mut Frames<impl io::Read + io::Write>,
    order: &Order,
    longest: usize,
) -> Result<(Round, Used), WireError> {
    frames.send(order)?;
    let mut round = Round::nothing(order);
    let mut open = false;
    let mut bytes = 0;
    let used = loop {
        let (piece, more) = frames.receive()?;
        bytes += more;
        if bytes > longest {
            return Err(WireError::TooMuch);
        }
        let last = round.spaces.last_mut().filter(|_| open);
        match (piece, last) {
            (Piece::Space { netns, began_ns, name, path, sysctls, counters }, None) => {
                if round.spaces.len() >= SPACES {
                    return Err(WireError::TooMuch);
                }
                open = true;
                let space = Space {
                    began_ns,
                    name,
                    path,
                    sysctls,
                    counters,
                    ..Space::gone(netns, began_ns)
                };
                round.spaces.push(space);
            }
            (Piece::Sockets(mut sockets), Some(space)) => space.sockets.append(&mut sockets),
            (Piece::Infos(mut infos), Some(space)) => space.infos.append(&mut infos),
            (Piece::SynQueues(queues), Some(space)) => {
                space.syn_queues.extend(queues.into_iter().map(|queue| (queue.lport, queue)));
            }
            (Piece::Bound(ports), Some(space)) => {
                space.bound.extend(ports.into_iter().map(|port| (port.lport, port.into())));
            }
            (Piece::End(end), Some(space)) => {
                space.end = end;
                open = false;
            }
            (Piece::Remark(remark), None) if round.remarks.len() < REMARKS => {
                round.remarks.push(remark);
            }
            (Piece::Over { all, over_ns, cpu_ns, there, used }, None) => {
                round.there = there;
                (round.all, round.over_ns, round.cpu_ns) = (all, over_ns, cpu_ns);
                break used;
            }
            _ => return Err(WireError::Misplaced),
        }
    };
    frames.rest();
    Ok((round, used))
}

/// The way to the helper for names of cgroups.
#[derive(Debug)]
pub struct Names(Frames<UnixStream>);

impl Names {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE_FOR_A_NAME))?;
        stream.set_write_timeout(Some(PATIENCE_FOR_A_NAME))?;
        Ok(Self(Frames::new(stream)))
    }

    /// The path of a cgroup, as [`tcptrace_host::cgroup::Hierarchy::path`] gives it; `None`: it
    /// cannot be asked, and is not to be asked again, since a late answer would be taken for that to
    /// the next question.
    pub(in super::super) fn path(&mut self, id: u64, now: u64) -> Option<Answer> {
        self.0.send(&CgroupAsked { id, now }).ok()?;
        Some(self.0.receive().ok()?.0)
    }
}
