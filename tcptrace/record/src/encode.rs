//! Inputs to the bytes of a block: see docs/RECORDING.md, and [`super::decode`] for the way back.

mod known;

use std::{collections::HashMap, hash::Hash, net::Ipv6Addr};

use known::{Known, facts};

use super::{
    facts::{put as put_facts, put_mark},
    layout::{
        ACCEPT, BUCKETS_FULL, CGROUP, EXPIRES, FULL, HAS_COOKIE, HAS_SOCK, HAS_TOTALS, HOLDER,
        IN_STATE, KEY_UNKNOWN, MINISOCK, REASONS, RESET, SAME_COOKIE, SAME_ENDS, SAME_PLACE,
        SAME_SOCK, SAME_TASK, SAME_TUPLE, SOCKET, STOPPERS, TICK, TIMESTAMPS, TIMESTAMPS_TOLD,
        TRANSITION,
    },
    rare,
    scene::{Place, Scene},
    task::{put_first_holder, put_more},
    wire::{put_i64, put_step, put_u64},
};
use tcptrace_model::hash::ByAddress;
use tcptrace_model::{
    Accept, Event, Input, Linger, Minisock, MinisockEvent, Reset, ResetDirection, SnapSocket,
    Snapshot, SockFacts, Task, TcpState, Transition, Tuple, hash::Map,
};

/// A block is closed at so many bytes.
const FULL_BYTES: usize = 256 << 10;

fn number<T: PartialEq>(list: &[T], value: Option<T>) -> u8 {
    let index = value.and_then(|value| list.iter().position(|one| *one == value));
    // The lists are short.
    index.map_or(0, |index| index as u8 + 1)
}

/// Two states in a byte: the kernel's numbers end at 12.
fn states(old: TcpState, new: TcpState) -> u8 {
    (old as u8) << 4 | new as u8
}

/// Places in a list that are remembered beside the table of all.
const RECENT: usize = 4;

/// Where in a list each value is.
///
/// Peers choose the keys, so the table is hashed with a secret. That costs more than the rest of an
/// event, and mostly a value is one of the last few: these are looked at first.
#[derive(Debug)]
struct Listed<T> {
    index_of: Map<T, u32>,
    recent: [u32; RECENT],
    /// The one of `recent` that goes next.
    oldest: usize,
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self { index_of: Map::default(), recent: [u32::MAX; RECENT], oldest: 0 }
    }
}

impl<T: Copy + Eq + Hash> Listed<T> {
    fn clear(&mut self) {
        self.index_of.clear();
        self.recent = [u32::MAX; RECENT];
    }

    /// Where in `list` the value is.
    fn get(&mut self, list: &[T], value: &T) -> Option<u32> {
        let is_it = |index: &&u32| list.get(**index as usize) == Some(value);
        if let Some(&index) = self.recent.iter().find(is_it) {
            return Some(index);
        }
        let index = *self.index_of.get(value)?;
        self.remember(index);
        Some(index)
    }

    fn insert(&mut self, value: T, index: u32) {
        self.index_of.insert(value, index);
        self.remember(index);
    }

    fn remember(&mut self, index: u32) {
        self.recent[self.oldest] = index;
        self.oldest = (self.oldest + 1) % RECENT;
    }
}

/// Writes inputs one behind the other.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    scene: Scene<Known>,
    slot_of: HashMap<u64, u32, ByAddress>,
    task_of: Listed<Task>,
    addr_of: Listed<Ipv6Addr>,
    place_of: Listed<Place>,
    out: Vec<u8>,
}

/// Writes the index of `value`, or the value itself if it is new, by `write`.
fn put_listed<T: Copy + Eq + Hash>(
    out: &mut Vec<u8>,
    list: &mut Vec<T>,
    listed: &mut Listed<T>,
    value: T,
    write: impl FnOnce(&mut Vec<u8>),
) -> u32 {
    if let Some(index) = listed.get(list, &value) {
        put_u64(out, u64::from(index) + 1);
        return index;
    }
    put_u64(out, 0);
    write(out);
    // The block is closed before there are more than fit.
    let index = list.len() as u32;
    list.push(value);
    listed.insert(value, index);
    index
}

impl Encoder {
    /// Begins a block, whose times count from `now`.
    pub(super) fn begin(&mut self, now: u64) {
        self.scene.clear(now);
        self.slot_of.clear();
        self.task_of.clear();
        self.addr_of.clear();
        self.place_of.clear();
        self.out.clear();
    }

    /// Whether the block is to be closed.
    pub(super) fn is_full(&self) -> bool {
        self.out.len() >= FULL_BYTES || self.scene.is_full()
    }

    /// What was written since [`Self::begin`].
    pub(super) fn take(&mut self) -> Vec<u8> {
        let len = self.out.len();
        std::mem::replace(&mut self.out, Vec::with_capacity(len.min(FULL_BYTES)))
    }

    /// Writes one.
    pub(super) fn put(&mut self, input: &Input) {
        if self.out.is_empty() {
            put_mark(&mut self.out);
        }
        match input {
            Input::Event(Event::Transition(event)) => self.transition(event),
            Input::Event(Event::Minisock(event)) => self.minisock(event),
            Input::Event(Event::Reset(event)) => self.reset(event),
            Input::Event(Event::Accept(event)) => self.accept(event),
            Input::Tick { mono_ns } => {
                self.out.push(TICK);
                self.time(*mono_ns);
            }
            Input::Snapshot(Snapshot::Socket(socket)) => self.socket(socket),
            rare => rare::put(&mut self.out, rare),
        }
    }

    #[inline]
    fn time(&mut self, mono_ns: u64) {
        put_step(&mut self.out, self.scene.now, mono_ns);
        self.scene.now = mono_ns;
    }

    /// Writes which socket it is: how many came into the block since, or 0 and its address.
    #[inline]
    fn slot(&mut self, addr: u64) -> usize {
        if let Some(&index) = self.slot_of.get(&addr) {
            let index = index as usize;
            put_u64(&mut self.out, (self.scene.slots.len() - index) as u64);
            return index;
        }
        let index = self.scene.slots.len();
        put_u64(&mut self.out, 0);
        put_step(&mut self.out, self.scene.addr, addr);
        self.scene.addr = addr;
        self.scene.slots.push(Known::NEW);
        // The block is closed before there are more than fit.
        self.slot_of.insert(addr, index as u32);
        index
    }

    fn tuple(&mut self, tuple: &Tuple) {
        let Tuple { laddr, raddr, lport, rport, v6_socket } = tuple;
        let ([l0, l1], [r0, r1]) = (lport.to_le_bytes(), rport.to_le_bytes());
        for addr in [laddr, raddr] {
            put_listed(&mut self.out, &mut self.scene.addrs, &mut self.addr_of, *addr, |out| {
                out.extend_from_slice(&addr.octets());
            });
        }
        self.out.extend_from_slice(&[l0, l1, r0, r1, u8::from(*v6_socket)]);
    }

    /// Writes the task of the event that begins at `at`: what a new one has beside its numbers and its
    /// name goes in front of that.
    fn task(&mut self, at: usize, task: &Task) -> u32 {
        let before = self.scene.tasks.len();
        let index =
            put_listed(&mut self.out, &mut self.scene.tasks, &mut self.task_of, *task, |out| {
                let Task { tgid, tid, uid, comm, .. } = task;
                [tgid, tid, uid].into_iter().for_each(|n| put_u64(out, u64::from(*n)));
                out.extend_from_slice(comm.raw());
            });
        if self.scene.tasks.len() > before {
            let mut more = Vec::new();
            put_more(&mut more, task);
            self.out.splice(at..at, more);
        }
        index
    }

    fn place(&mut self, place: Place) -> u32 {
        let (netns, cgroup) = place;
        put_listed(&mut self.out, &mut self.scene.places, &mut self.place_of, place, |out| {
            put_u64(out, u64::from(netns));
            out.push(u8::from(cgroup.is_some()));
            if let Some(cgroup) = cgroup {
                put_u64(out, cgroup);
            }
        })
    }

    fn cookie(&mut self, cookie: Option<u64>) {
        if let Some(cookie) = cookie {
            put_step(&mut self.out, self.scene.cookie, cookie);
            self.scene.cookie = cookie;
        }
    }

    fn transition(&mut self, event: &Transition) {
        put_facts(&mut self.out, event);
        let at = self.out.len();
        self.out.push(0);
        self.time(event.mono_ns);
        let index = self.slot(event.skaddr);
        self.out.push(states(event.old, event.new));
        let known = &self.scene.slots[index];
        let bit = |on: bool, bit: u8| if on { bit } else { 0 };
        let same_tuple = known.is_between(&event.tuple);
        let same_task = self.scene.tasks.get(known.task as usize) == Some(&event.task);
        let same_sock = event.sock.as_ref().is_some_and(|sock| {
            let place = (sock.netns, sock.cgroup);
            known.is_as(sock, self.scene.places.get(known.place()) == Some(&place))
        });
        self.out[at] = TRANSITION
            | bit(same_tuple, SAME_TUPLE)
            | bit(same_task, SAME_TASK)
            | bit(event.sock.is_some(), HAS_SOCK)
            | bit(same_sock, SAME_SOCK)
            | bit(event.totals.is_some(), HAS_TOTALS)
            | bit(event.key_unknown, KEY_UNKNOWN)
            | bit(event.buckets_full, BUCKETS_FULL);
        if !same_tuple {
            self.tuple(&event.tuple);
            self.scene.slots[index].set_tuple(&event.tuple);
        }
        if !same_task {
            self.scene.slots[index].task = self.task(at, &event.task);
        }
        if let Some(sock) = &event.sock
            && !same_sock
        {
            self.sock(index, sock);
        }
        if let Some(totals) = &event.totals {
            let out = &mut self.out;
            put_u64(out, totals.bytes_acked);
            put_u64(out, totals.bytes_received);
            let numbers = [
                totals.srtt_us8,
                totals.retransmits,
                totals.unread,
                totals.unacked,
                totals.user_timeout_ms,
            ];
            numbers.into_iter().for_each(|n| put_u64(out, u64::from(n)));
            put_i64(out, i64::from(totals.linger2));
        }
    }

    fn sock(&mut self, index: usize, sock: &SockFacts) {
        let at = self.out.len();
        self.out.push(facts(sock));
        self.out[at] |= self.identity(index, sock.cookie, (sock.netns, sock.cgroup));
        put_u64(&mut self.out, u64::from(sock.err));
        self.out.push(sock.shutdown);
        if let Linger::Jiffies(jiffies) = sock.linger {
            put_u64(&mut self.out, u64::from(jiffies));
        }
        self.scene.slots[index].set_facts(sock);
    }

    /// Writes what is new of cookie and place, and gives the bits that say what that is.
    fn identity(&mut self, index: usize, cookie: Option<u64>, place: Place) -> u8 {
        let known = &self.scene.slots[index];
        let mut at = known.place();
        let same_place = self.scene.places.get(at) == Some(&place);
        let same_cookie = known.has_cookie(cookie);
        if !same_cookie {
            self.cookie(cookie);
        }
        if !same_place {
            at = self.place(place) as usize;
        }
        self.scene.slots[index].set_identity(cookie, at as u32);
        let bit = |on: bool, bit: u8| if on { bit } else { 0 };
        bit(same_cookie, SAME_COOKIE)
            | bit(cookie.is_some(), HAS_COOKIE)
            | bit(same_place, SAME_PLACE)
    }

    fn minisock(&mut self, event: &Minisock) {
        self.out.push(MINISOCK);
        self.time(event.mono_ns);
        let index = self.slot(event.addr);
        let (kind, by, may_run) = match event.event {
            MinisockEvent::Started => (0, None, false),
            MinisockEvent::Stopped { may_run, by } => (1, by, may_run),
            MinisockEvent::Expired => (2, None, false),
            MinisockEvent::Peeked => (3, None, false),
            MinisockEvent::Restarted => (4, None, false),
            MinisockEvent::Ended { by } => (5, by, false),
        };
        self.out.push(number(&STOPPERS, by) << 4 | u8::from(may_run) << 3 | kind);
        self.out.push(event.substate as u8);
        let same_ends = self.scene.slots[index].is_between(&event.tuple);
        let at = self.out.len();
        let bit = |on: bool, bit: u8| if on { bit } else { 0 };
        self.out.push(
            bit(same_ends, SAME_ENDS)
                | bit(event.timestamps.is_some(), TIMESTAMPS_TOLD)
                | bit(event.timestamps == Some(true), TIMESTAMPS),
        );
        if !same_ends {
            self.tuple(&event.tuple);
            self.scene.slots[index].set_tuple(&event.tuple);
        }
        self.out[at] |= self.identity(index, event.cookie, (event.netns, None));
        put_step(&mut self.out, self.scene.jiffies, event.jiffies);
        put_step(&mut self.out, event.jiffies, event.expires);
        self.scene.jiffies = event.jiffies;
    }

    fn reset(&mut self, event: &Reset) {
        self.out.push(RESET);
        self.time(event.mono_ns);
        self.slot(event.skaddr);
        let received = event.direction == ResetDirection::Received;
        let state = event.state.map_or(0, |state| state as u8);
        self.out.push(u8::from(received) << 4 | state);
        self.out.push(number(&REASONS, event.reason));
    }

    fn accept(&mut self, event: &Accept) {
        let at = self.out.len();
        self.out.push(ACCEPT);
        self.time(event.mono_ns);
        self.slot(event.skaddr);
        self.place((event.netns, None));
        self.task(at, &event.task);
    }

    fn socket(&mut self, socket: &SnapSocket) {
        let SnapSocket { state, tuple, cookie, minisock_expires_ms, full } = socket;
        let bit = |on: bool, bit: u8| if on { bit } else { 0 };
        if let Some(holder) = full.as_ref().and_then(|full| full.holder.as_ref()) {
            put_first_holder(&mut self.out, holder);
        }
        let at = self.out.len();
        self.out.push(SOCKET);
        self.out.push(*state as u8);
        self.out.push(
            bit(minisock_expires_ms.is_some(), EXPIRES)
                | bit(full.is_some(), FULL)
                | bit(full.as_ref().is_some_and(|full| full.cgroup.is_some()), CGROUP)
                | bit(full.as_ref().is_some_and(|full| full.holder.is_some()), HOLDER)
                | bit(full.as_ref().is_some_and(|full| full.in_state_ms.is_some()), IN_STATE),
        );
        self.tuple(tuple);
        self.cookie(Some(*cookie));
        if let Some(expires_ms) = minisock_expires_ms {
            put_u64(&mut self.out, u64::from(*expires_ms));
        }
        let Some(full) = full else { return };
        for n in [full.inode, full.uid, full.queues.unread, full.queues.unsent] {
            put_u64(&mut self.out, u64::from(n));
        }
        if let Some(cgroup) = full.cgroup {
            put_u64(&mut self.out, cgroup.get());
        }
        if let Some(holder) = &full.holder {
            self.task(at, &holder.task);
            put_u64(&mut self.out, u64::from(holder.holders));
        }
        if let Some(ms) = full.in_state_ms {
            put_u64(&mut self.out, ms.get());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_whether_it_was_used_lately_or_not() {
        let (mut listed, mut list) = (Listed::default(), Vec::new());
        for round in 0..3_u32 {
            for value in 0..10_u32 {
                let known = listed.get(&list, &value);
                assert_eq!(known, (round > 0).then_some(value));
                // One that was just used is found again without the table.
                assert_eq!(listed.get(&list, &value), known);
                if known.is_none() {
                    list.push(value);
                    listed.insert(value, value);
                }
            }
        }
        list.clear();
        listed.clear();
        assert_eq!(listed.get(&list, &9), None, "nothing of the block before");
    }
}
