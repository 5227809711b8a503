//! The bytes of a block to inputs: the way back from [`super::encode`]. Takes any bytes.

use std::{net::Ipv6Addr, num::NonZeroU64};

use super::{
    facts::{FACTS, Facts},
    layout::{
        ACCEPT, BUCKETS_FULL, CGROUP, DEAD, EXPIRES, FULL, HAS_COOKIE, HAS_SOCK, HAS_TOTALS,
        HOLDER, IN_STATE, KEY_UNKNOWN, LINGERS, MINISOCK, OWN_PORTS, PEER_FIN, REASONS, RESET,
        SAME_COOKIE, SAME_ENDS, SAME_PLACE, SAME_SOCK, SAME_TASK, SAME_TUPLE, SOCKET, STOPPERS,
        TICK, TIMESTAMPS, TIMESTAMPS_TOLD, TRANSITION, UNACCEPTED,
    },
    rare,
    scene::{LIMIT, Place, Scene, listed},
    task::{FIRST_HOLDER, MORE, More, get_first_holder},
    wire::{Cursor, Malformed},
};
use tcptrace_model::{
    Accept, Comm, Event, Holder, Input, Linger, Minisock, MinisockEvent, Queues, Reset,
    ResetDirection, SnapFull, SnapSocket, Snapshot, SockFacts, Task, TcpState, Totals, Transition,
    Tuple,
};

/// One thing in a block.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are inputs, which a box would cost an allocation each"
)]
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// An input.
    Input(Input),
    /// Something that a later version of tcptrace wrote, and this one does not know.
    Unknown,
}

/// A socket or minisock by its address in the kernel, as the last event had it.
#[derive(Clone, Copy, Debug)]
struct Slot {
    addr: u64,
    tuple: Option<Tuple>,
    /// Index of the task.
    task: Option<u32>,
    sock: Option<SockFacts>,
    cookie: Option<u64>,
    place: Option<Place>,
}

impl Slot {
    fn new(addr: u64) -> Self {
        Self { addr, tuple: None, task: None, sock: None, cookie: None, place: None }
    }
}

/// Reads what is in a block.
#[derive(Debug)]
pub struct Decoder<'a> {
    from: Cursor<'a>,
    len: usize,
    at: &'a mut usize,
    marked: &'a mut bool,
    scene: &'a mut Scene<Slot>,
    /// Of the next task that is new.
    more: Option<More>,
    /// Of the next socket, where several processes hold it.
    first_holder: Option<Task>,
}

/// Where in a block a reader is, and what it remembers of it.
#[derive(Debug, Default)]
pub struct Memory {
    at: usize,
    /// The mark of [`super::facts`] has been read in this block.
    marked: bool,
    scene: Scene<Slot>,
}

impl Memory {
    /// At the beginning of a block, whose times count from `first_ns`.
    pub fn begin(&mut self, first_ns: u64) {
        self.at = 0;
        self.marked = false;
        self.scene.clear(first_ns);
    }
}

fn state(number: u8) -> Result<TcpState, Malformed> {
    TcpState::from_kernel(number).ok_or(Malformed("no such state"))
}

fn numbered<T: Copy>(list: &[T], number: u8) -> Result<Option<T>, Malformed> {
    let Some(index) = number.checked_sub(1) else { return Ok(None) };
    list.get(usize::from(index)).copied().map(Some).ok_or(Malformed("no such reason"))
}

impl<'a> Decoder<'a> {
    /// Reads on in the block `bytes`, from where `memory` is in it.
    pub fn new(bytes: &'a [u8], memory: &'a mut Memory) -> Self {
        let Memory { at, marked, scene } = memory;
        let from = Cursor::new(bytes.get(*at..).unwrap_or_default());
        Self { from, len: bytes.len(), at, marked, scene, more: None, first_holder: None }
    }

    /// The next one; `None` at the end.
    ///
    /// # Errors
    /// These are no bytes of a block. Nothing after them can be read.
    pub fn next_item(&mut self) -> Result<Option<Item>, Malformed> {
        if self.from.is_empty() {
            return Ok(None);
        }
        let item = self.item()?;
        *self.at = self.len - self.from.len();
        Ok(Some(item))
    }

    fn item(&mut self) -> Result<Item, Malformed> {
        let mut tag = self.from.u8()?;
        (self.more, self.first_holder) = (None, None);
        let mut facts = Facts::default();
        loop {
            match tag {
                MORE => self.more = Some(More::get(&mut self.from)?),
                FIRST_HOLDER => self.first_holder = Some(get_first_holder(&mut self.from)?),
                FACTS => match Facts::get(&mut self.from)? {
                    Some(read) => facts = read,
                    None => *self.marked = true,
                },
                _ => break,
            }
            tag = self.from.u8()?;
        }
        let event = match tag {
            MINISOCK => Event::Minisock(self.minisock()?),
            RESET => Event::Reset(self.reset()?),
            ACCEPT => Event::Accept(self.accept()?),
            TICK => return Ok(Item::Input(Input::Tick { mono_ns: self.time()? })),
            SOCKET => {
                let socket = self.socket()?;
                return Ok(Item::Input(Input::Snapshot(Snapshot::Socket(socket))));
            }
            tag if tag & TRANSITION != 0 => {
                let mut event = self.transition(tag)?;
                facts.complete(&mut event, *self.marked);
                Event::Transition(event)
            }
            tag => {
                let input = rare::get(tag, &mut self.from)?;
                return Ok(input.map_or(Item::Unknown, Item::Input));
            }
        };
        Ok(Item::Input(Input::Event(event)))
    }

    #[inline]
    fn time(&mut self) -> Result<u64, Malformed> {
        let now = self.from.step(self.scene.now)?;
        self.scene.now = now;
        Ok(now)
    }

    #[inline]
    fn slot(&mut self) -> Result<usize, Malformed> {
        let back = self.from.u64()?;
        let scene = &mut *self.scene;
        if back == 0 {
            if scene.slots.len() >= LIMIT {
                return Err(Malformed("too many things in a block"));
            }
            scene.addr = self.from.step(scene.addr)?;
            scene.slots.push(Slot::new(scene.addr));
            return Ok(scene.slots.len() - 1);
        }
        let back = usize::try_from(back).ok();
        back.and_then(|back| scene.slots.len().checked_sub(back))
            .ok_or(Malformed("a reference to nothing"))
    }

    fn addr(&mut self) -> Result<Ipv6Addr, Malformed> {
        let read = |from: &mut Cursor<'a>| Ok(Ipv6Addr::from(from.array::<16>()?));
        Ok(listed(&mut self.from, &mut self.scene.addrs, read)?.1)
    }

    fn tuple(&mut self) -> Result<Tuple, Malformed> {
        Ok(Tuple {
            laddr: self.addr()?,
            raddr: self.addr()?,
            lport: u16::from_le_bytes(self.from.array()?),
            rport: u16::from_le_bytes(self.from.array()?),
            v6_socket: self.from.bool()?,
        })
    }

    fn task(&mut self) -> Result<(u32, Task), Malformed> {
        let more = self.more.take();
        listed(&mut self.from, &mut self.scene.tasks, |from| {
            let (tgid, tid, uid) = (from.u32()?, from.u32()?, from.u32()?);
            let task = Task::thread(tgid, tid, uid, Comm::new(from.array()?));
            Ok(more.map_or(task, |more| more.of(task)))
        })
    }

    fn place(&mut self) -> Result<Place, Malformed> {
        let read = |from: &mut Cursor<'a>| {
            let netns = from.u32()?;
            Ok((netns, if from.bool()? { Some(from.u64()?) } else { None }))
        };
        Ok(listed(&mut self.from, &mut self.scene.places, read)?.1)
    }

    fn cookie(&mut self) -> Result<u64, Malformed> {
        let cookie = self.from.step(self.scene.cookie)?;
        self.scene.cookie = cookie;
        Ok(cookie)
    }

    /// A cookie as the flags of a sock or minisock say.
    fn cookie_of(&mut self, flags: u8, index: usize) -> Result<Option<u64>, Malformed> {
        Ok(match flags & (SAME_COOKIE | HAS_COOKIE) {
            0 => None,
            HAS_COOKIE => Some(self.cookie()?),
            _ => self.scene.slots[index].cookie,
        })
    }

    fn place_of(&mut self, flags: u8, index: usize) -> Result<Place, Malformed> {
        if flags & SAME_PLACE == 0 {
            return self.place();
        }
        self.scene.slots[index].place.ok_or(Malformed("a reference to nothing"))
    }

    fn transition(&mut self, tag: u8) -> Result<Transition, Malformed> {
        let nothing = Malformed("a reference to nothing");
        let mono_ns = self.time()?;
        // Within the list: it was found there, or put there.
        let index = self.slot()?;
        let states = self.from.u8()?;
        let tuple = if tag & SAME_TUPLE == 0 {
            self.tuple()?
        } else {
            self.scene.slots[index].tuple.ok_or(nothing)?
        };
        let task = if tag & SAME_TASK == 0 {
            let (at, task) = self.task()?;
            self.scene.slots[index].task = Some(at);
            task
        } else {
            let at = self.scene.slots[index].task.ok_or(nothing)?;
            *self.scene.tasks.get(at as usize).ok_or(nothing)?
        };
        let sock = match tag & (HAS_SOCK | SAME_SOCK) {
            0 => None,
            HAS_SOCK => Some(self.sock(index)?),
            _ => Some(self.scene.slots[index].sock.ok_or(nothing)?),
        };
        let totals = if tag & HAS_TOTALS == 0 { None } else { Some(self.totals()?) };
        let slot = &mut self.scene.slots[index];
        slot.tuple = Some(tuple);
        Ok(Transition {
            mono_ns,
            skaddr: slot.addr,
            old: state(states >> 4)?,
            new: state(states & 15)?,
            tuple,
            task,
            sock,
            key_unknown: tag & KEY_UNKNOWN != 0,
            buckets_full: tag & BUCKETS_FULL != 0,
            totals,
        })
    }

    fn sock(&mut self, index: usize) -> Result<SockFacts, Malformed> {
        let flags = self.from.u8()?;
        let cookie = self.cookie_of(flags, index)?;
        let (netns, cgroup) = self.place_of(flags, index)?;
        let err = self.from.u16()?;
        let shutdown = self.from.u8()?;
        let linger =
            if flags & LINGERS == 0 { Linger::Off } else { Linger::Jiffies(self.from.u32()?) };
        let sock = SockFacts {
            cookie,
            netns,
            cgroup,
            err,
            shutdown,
            dead: flags & DEAD != 0,
            unaccepted: flags & UNACCEPTED != 0,
            peer_fin: flags & PEER_FIN != 0,
            own_ports: flags & OWN_PORTS != 0,
            linger,
            mptcp: None,
        };
        let slot = &mut self.scene.slots[index];
        (slot.sock, slot.cookie, slot.place) = (Some(sock), cookie, Some((netns, cgroup)));
        Ok(sock)
    }

    fn totals(&mut self) -> Result<Totals, Malformed> {
        let from = &mut self.from;
        Ok(Totals {
            bytes_acked: from.u64()?,
            bytes_received: from.u64()?,
            srtt_us8: from.u32()?,
            retransmits: from.u32()?,
            unread: from.u32()?,
            unacked: from.u32()?,
            user_timeout_ms: from.u32()?,
            linger2: from.i64()?.try_into().map_err(|_| Malformed("a number too large"))?,
            at_close: None,
        })
    }

    fn minisock(&mut self) -> Result<Minisock, Malformed> {
        let mono_ns = self.time()?;
        let index = self.slot()?;
        let what = self.from.u8()?;
        let by = numbered(&STOPPERS, what >> 4)?;
        let event = match what & 7 {
            0 => MinisockEvent::Started,
            1 => MinisockEvent::Stopped { may_run: what & 8 != 0, by },
            2 => MinisockEvent::Expired,
            3 => MinisockEvent::Peeked,
            4 => MinisockEvent::Restarted,
            5 => MinisockEvent::Ended { by },
            _ => return Err(Malformed("no such event")),
        };
        let substate = state(self.from.u8()?)?;
        if !matches!(substate, TcpState::FinWait2 | TcpState::TimeWait) {
            return Err(Malformed("no such state of a minisock"));
        }
        let flags = self.from.u8()?;
        let tuple = if flags & SAME_ENDS == 0 {
            self.tuple()?
        } else {
            self.scene.slots[index].tuple.ok_or(Malformed("a reference to nothing"))?
        };
        let cookie = self.cookie_of(flags, index)?;
        let place = self.place_of(flags, index)?;
        let jiffies = self.from.step(self.scene.jiffies)?;
        let expires = self.from.step(jiffies)?;
        self.scene.jiffies = jiffies;
        let slot = &mut self.scene.slots[index];
        (slot.tuple, slot.cookie, slot.place) = (Some(tuple), cookie, Some(place));
        let (addr, netns) = (slot.addr, place.0);
        let timestamps = (flags & TIMESTAMPS_TOLD != 0).then_some(flags & TIMESTAMPS != 0);
        Ok(Minisock {
            mono_ns,
            addr,
            event,
            substate,
            tuple,
            netns,
            cookie,
            expires,
            jiffies,
            timestamps,
        })
    }

    fn reset(&mut self) -> Result<Reset, Malformed> {
        let mono_ns = self.time()?;
        let index = self.slot()?;
        let what = self.from.u8()?;
        let direction = match what >> 4 {
            0 => ResetDirection::Sent,
            1 => ResetDirection::Received,
            _ => return Err(Malformed("no such direction")),
        };
        let state = if what & 15 == 0 { None } else { Some(state(what & 15)?) };
        let reason = numbered(&REASONS, self.from.u8()?)?;
        Ok(Reset { mono_ns, skaddr: self.scene.slots[index].addr, direction, state, reason })
    }

    fn accept(&mut self) -> Result<Accept, Malformed> {
        let mono_ns = self.time()?;
        let index = self.slot()?;
        let (netns, _) = self.place()?;
        let (_, task) = self.task()?;
        Ok(Accept { mono_ns, skaddr: self.scene.slots[index].addr, netns, task })
    }

    fn socket(&mut self) -> Result<SnapSocket, Malformed> {
        let state = state(self.from.u8()?)?;
        let flags = self.from.u8()?;
        let tuple = self.tuple()?;
        let cookie = self.cookie()?;
        let minisock_expires_ms = if flags & EXPIRES == 0 { None } else { Some(self.from.u32()?) };
        let full = if flags & FULL == 0 { None } else { Some(Box::new(self.full(flags)?)) };
        Ok(SnapSocket { state, tuple, cookie, minisock_expires_ms, full })
    }

    fn full(&mut self, flags: u8) -> Result<SnapFull, Malformed> {
        Ok(SnapFull {
            inode: self.from.u32()?,
            uid: self.from.u32()?,
            queues: Queues { unread: self.from.u32()?, unsent: self.from.u32()? },
            cgroup: if flags & CGROUP == 0 { None } else { NonZeroU64::new(self.from.u64()?) },
            holder: if flags & HOLDER == 0 {
                None
            } else {
                let (_, task) = self.task()?;
                let first = self.first_holder.unwrap_or(task);
                Some(Holder { task, first, holders: self.from.u32()? })
            },
            in_state_ms: if flags & IN_STATE == 0 {
                None
            } else {
                NonZeroU64::new(self.from.u64()?)
            },
        })
    }
}
