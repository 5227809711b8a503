//! Inputs that are few, and new ones as they come.
//!
//! Each has a tag, says how long it is, and needs nothing of what came before. So a reader passes
//! over a tag that it does not know, and over what a later version put at the end of one it does.
//! To add an input: a tag of its own, never used before, and its two sides here. To add a field:
//! at the end, read only if there is more.

use tcptrace_common::counters::Hook;

use super::{
    snap_info,
    task::{get_whole, put_whole},
    wire::{Cursor, Malformed, put_bytes, put_i64, put_u64},
};
use tcptrace_model::{
    Accounts, BoundPort, Clock, Exited, Gap, GapBecause, Gaps, Holder, Input, Lost, MinisocksBy,
    NetStat, NetnsCounters, NetnsName, NetnsSysctls, PortRange, Snapshot, SnapshotEnd, SockStat,
    SynQueue, Sysctl, Sysctls, Unseen, counters::Counters, text::harmless,
};

/// The first of the tags that this module has; the last is 0x7f.
const FIRST: u8 = 0x40;
const BEGIN: u8 = 0x40;
const CLOCK: u8 = 0x41;
const LOST: u8 = 0x42;
const MISSED: u8 = 0x43;
const CGROUP: u8 = 0x44;
const SNAP_OPEN: u8 = 0x45;
const SNAP_OPEN_MINISOCKS: u8 = 0x46;
const SNAP_BEGIN: u8 = 0x47;
const SNAP_END: u8 = 0x48;
const SNAP_OVER: u8 = 0x49;
const SYSCTLS: u8 = 0x4a;
const END: u8 = 0x4b;
const SNAP_SYN_QUEUE: u8 = 0x4c;
const COUNTERS: u8 = 0x4d;
const SNAP_INFO: u8 = 0x4e;
// 0x50 and 0x53 are those of `task`, 0x51 that of `facts`.
const EXITED: u8 = 0x52;
const SNAP_BOUND: u8 = 0x54;
const NETNS_NAME: u8 = 0x55;
const GAP: u8 = 0x58;

/// Of the path of a cgroup, more is not kept: a path in the kernel is not longer.
const PATH_BYTES: usize = 4096;

/// Of a reason why something could not be read, more is not kept.
const REASON_BYTES: usize = 256;

/// Of the kernel's counters, more are not kept; there are some 250. Nor are longer names.
const COUNTERS_KEPT: usize = 1024;
const COUNTER_NAME_BYTES: usize = 64;

/// Writes `input`, which must be one that is not written in another way.
pub(super) fn put(out: &mut Vec<u8>, input: &Input) {
    let mut body = Vec::with_capacity(64);
    let tag = body_of(&mut body, input);
    out.push(tag);
    put_bytes(out, &body);
}

fn body_of(out: &mut Vec<u8>, input: &Input) -> u8 {
    match input {
        Input::Begin { mono_ns, hz, minisocks, resets } => {
            put_u64(out, *mono_ns);
            put_u64(out, u64::from(*hz));
            out.push(match minisocks {
                MinisocksBy::Hooks => 0,
                MinisocksBy::Looks => 1,
                MinisocksBy::Nothing => 2,
            });
            out.push(u8::from(*resets));
            BEGIN
        }
        Input::Clock(Clock { mono_ns, realtime_offset_ns }) => {
            put_u64(out, *mono_ns);
            put_i64(out, *realtime_offset_ns);
            CLOCK
        }
        Input::Lost(Lost { hook, count, mono_ns }) => {
            out.push(*hook as u8);
            put_u64(out, *count);
            put_u64(out, *mono_ns);
            LOST
        }
        Input::Missed { count, mono_ns } => {
            put_u64(out, *count);
            put_u64(out, *mono_ns);
            MISSED
        }
        Input::Gap(Gap { from_ns, mono_ns, because }) => {
            put_u64(out, *from_ns);
            put_u64(out, *mono_ns);
            out.push(match because {
                GapBecause::Missing => 0,
                GapBecause::Damaged => 1,
                GapBecause::SlowDisk => 2,
            });
            GAP
        }
        Input::Cgroup { id, path } => {
            put_u64(out, *id);
            put_bytes(out, path.as_bytes().get(..PATH_BYTES).unwrap_or(path.as_bytes()));
            CGROUP
        }
        Input::Exited(Exited { mono_ns, tgid, started }) => {
            put_u64(out, *mono_ns);
            put_u64(out, u64::from(*tgid));
            put_u64(out, u64::from(*started));
            EXITED
        }
        Input::Sysctls(sysctls) => {
            put_u64(out, sysctls.mono_ns);
            put_u64(out, u64::from(sysctls.netns));
            put_sysctls(out, &sysctls.sysctls);
            SYSCTLS
        }
        Input::NetnsName(named) => {
            put_u64(out, named.mono_ns);
            put_u64(out, u64::from(named.netns));
            out.push(u8::from(named.gone));
            put_bytes(out, named.name().unwrap_or_default().as_bytes());
            put_bytes(out, named.path().unwrap_or_default().as_bytes());
            NETNS_NAME
        }
        Input::Counters(counters) => {
            put_u64(out, counters.mono_ns);
            put_u64(out, u64::from(counters.netns));
            match &counters.counters {
                Ok(counters) => {
                    out.push(0);
                    put_netstat(out, counters);
                }
                Err(why) => {
                    out.push(1);
                    put_bytes(out, why.as_bytes());
                }
            }
            COUNTERS
        }
        Input::End(accounts) => {
            put_accounts(out, accounts);
            END
        }
        Input::Snapshot(snapshot) => match snapshot {
            Snapshot::Open => SNAP_OPEN,
            Snapshot::OpenMinisocks => SNAP_OPEN_MINISOCKS,
            Snapshot::Begin { mono_ns, netns } => {
                put_u64(out, *mono_ns);
                put_u64(out, u64::from(*netns));
                SNAP_BEGIN
            }
            Snapshot::SynQueue(SynQueue { lport, waiting, resent }) => {
                let numbers = [u32::from(*lport), *waiting, *resent];
                numbers.into_iter().for_each(|n| put_u64(out, u64::from(n)));
                SNAP_SYN_QUEUE
            }
            Snapshot::Info(info) => {
                snap_info::put(out, info);
                SNAP_INFO
            }
            Snapshot::Bound(port) => {
                put_bound(out, port);
                SNAP_BOUND
            }
            Snapshot::End(SnapshotEnd { mono_ns, lacks_some, unseen, lists_bound }) => {
                put_u64(out, *mono_ns);
                out.push(u8::from(*lacks_some));
                let Unseen { syn_queue, fin_wait2, time_wait } = unseen;
                let counts = [syn_queue, fin_wait2, time_wait];
                counts.into_iter().for_each(|n| put_u64(out, u64::from(*n)));
                out.push(u8::from(*lists_bound));
                SNAP_END
            }
            Snapshot::Over { mono_ns, all } => {
                put_u64(out, *mono_ns);
                out.push(u8::from(*all));
                SNAP_OVER
            }
            Snapshot::Socket(_) => unreachable_tag(),
        },
        Input::Event(_) | Input::Tick { .. } => unreachable_tag(),
    }
}

/// What has a way of its own in [`super::encode`] does not come here; if it did, a reader would
/// pass over it.
fn unreachable_tag() -> u8 {
    debug_assert!(false, "an input with a way of its own");
    0x7f
}

/// Reads what follows `tag`; `None` if this version does not know it.
pub(super) fn get(tag: u8, from: &mut Cursor<'_>) -> Result<Option<Input>, Malformed> {
    if tag < FIRST {
        return Err(Malformed("no such kind"));
    }
    let mut body = Cursor::new(from.bytes()?);
    let from = &mut body;
    Ok(Some(match tag {
        BEGIN => Input::Begin {
            mono_ns: from.u64()?,
            hz: from.u32()?,
            minisocks: match from.u8()? {
                0 => MinisocksBy::Hooks,
                1 => MinisocksBy::Looks,
                2 => MinisocksBy::Nothing,
                _ => return Err(Malformed("no such way to follow minisocks")),
            },
            resets: from.is_empty() || from.bool()?,
        },
        CLOCK => Input::Clock(Clock { mono_ns: from.u64()?, realtime_offset_ns: from.i64()? }),
        LOST => {
            let hook = usize::from(from.u8()?);
            // A hook of a later version: what it tells of is not known here either.
            let Some(&hook) = Hook::ALL.get(hook) else { return Ok(None) };
            Input::Lost(Lost { hook, count: from.u64()?, mono_ns: from.u64()? })
        }
        MISSED => Input::Missed { count: from.u64()?, mono_ns: from.u64()? },
        GAP => Input::Gap(Gap {
            from_ns: from.u64()?,
            mono_ns: from.u64()?,
            because: match from.u8()? {
                0 => GapBecause::Missing,
                1 => GapBecause::Damaged,
                2 => GapBecause::SlowDisk,
                _ => return Err(Malformed("no such reason for a gap")),
            },
        }),
        CGROUP => Input::Cgroup { id: from.u64()?, path: from.text_of(PATH_BYTES)? },
        SYSCTLS => Input::Sysctls(Box::new(NetnsSysctls {
            mono_ns: from.u64()?,
            netns: from.u32()?,
            sysctls: get_sysctls(from)?,
        })),
        COUNTERS => Input::Counters(Box::new(NetnsCounters {
            mono_ns: from.u64()?,
            netns: from.u32()?,
            counters: match from.u8()? {
                0 => Ok(get_netstat(from)?),
                1 => Err(harmless(&from.text_of(REASON_BYTES)?).into()),
                _ => return Err(Malformed("no such answer")),
            },
        })),
        NETNS_NAME => {
            let (mono_ns, netns, gone) = (from.u64()?, from.u32()?, from.bool()?);
            let name = from.text()?;
            let path = if from.is_empty() { Default::default() } else { from.text()? };
            let named = NetnsName::new(mono_ns, netns, Some(&name), gone).at(Some(&path));
            Input::NetnsName(Box::new(named))
        }
        EXITED => {
            Input::Exited(Exited { mono_ns: from.u64()?, tgid: from.u32()?, started: from.u32()? })
        }
        END => Input::End(get_accounts(from)?),
        SNAP_OPEN => Input::Snapshot(Snapshot::Open),
        SNAP_OPEN_MINISOCKS => Input::Snapshot(Snapshot::OpenMinisocks),
        SNAP_BEGIN => Input::Snapshot(Snapshot::Begin { mono_ns: from.u64()?, netns: from.u32()? }),
        SNAP_SYN_QUEUE => Input::Snapshot(Snapshot::SynQueue(SynQueue {
            lport: from.u16()?,
            waiting: from.u32()?,
            resent: from.u32()?,
        })),
        SNAP_INFO => Input::Snapshot(Snapshot::Info(Box::new(snap_info::get(from)?))),
        SNAP_END => Input::Snapshot(Snapshot::End(SnapshotEnd {
            mono_ns: from.u64()?,
            lacks_some: from.bool()?,
            unseen: Unseen {
                syn_queue: from.u32()?,
                fin_wait2: from.u32()?,
                time_wait: from.u32()?,
            },
            lists_bound: !from.is_empty() && from.bool()?,
        })),
        SNAP_BOUND => Input::Snapshot(Snapshot::Bound(Box::new(get_bound(from)?))),
        SNAP_OVER => Input::Snapshot(Snapshot::Over { mono_ns: from.u64()?, all: from.bool()? }),
        _ => return Ok(None),
    }))
}

fn put_bound(out: &mut Vec<u8>, port: &BoundPort) {
    let BoundPort { lport, sockets, holder } = port;
    put_u64(out, u64::from(*lport));
    put_u64(out, u64::from(*sockets));
    out.push(u8::from(holder.is_some()));
    if let Some(Holder { task, first, holders }) = holder {
        put_whole(out, task);
        out.push(u8::from(first != task));
        if first != task {
            put_whole(out, first);
        }
        put_u64(out, u64::from(*holders));
    }
}

fn get_bound(from: &mut Cursor<'_>) -> Result<BoundPort, Malformed> {
    let (lport, sockets) = (from.u16()?, from.u32()?);
    let holder = if from.bool()? {
        let task = get_whole(from)?;
        let first = if from.bool()? { get_whole(from)? } else { task };
        Some(Holder { task, first, holders: from.u32()? })
    } else {
        None
    };
    Ok(BoundPort { lport, sockets, holder })
}

fn put_accounts(out: &mut Vec<u8>, accounts: &Accounts) {
    let Accounts { mono_ns, seconds, seen, delivered, filtered, lost, missed, malformed, .. } =
        accounts;
    put_u64(out, *mono_ns);
    out.extend_from_slice(&seconds.to_bits().to_le_bytes());
    let counts = [seen, delivered, filtered, lost, malformed];
    counts.into_iter().for_each(|n| put_u64(out, *n));
    out.push(u8::from(missed.is_some()));
    put_u64(out, missed.unwrap_or(0));
}

fn get_accounts(from: &mut Cursor<'_>) -> Result<Accounts, Malformed> {
    let mono_ns = from.u64()?;
    let seconds = f64::from_bits(u64::from_le_bytes(from.array()?));
    if !seconds.is_finite() || seconds < 0.0 {
        return Err(Malformed("a run of no length"));
    }
    let mut n = || from.u64();
    let (seen, delivered, filtered, lost, malformed) = (n()?, n()?, n()?, n()?, n()?);
    let missed = if from.bool()? { Some(from.u64()?) } else { None };
    // What the file that is read has lost, its reader knows.
    let gaps = Gaps::default();
    Ok(Accounts { mono_ns, seconds, seen, delivered, filtered, lost, missed, malformed, gaps })
}

fn put_netstat(out: &mut Vec<u8>, stat: &NetStat) {
    let NetStat { tcp, tcp_ext, sockets } = stat;
    for counters in [tcp, tcp_ext] {
        put_u64(out, counters.len() as u64);
        for (name, value) in counters {
            put_bytes(out, name.as_bytes());
            put_i64(out, *value);
        }
    }
    let SockStat { inuse, inuse6, tw, orphan, alloc, mem } = sockets;
    out.push(u8::from(inuse6.is_some()));
    let numbers = [*inuse, inuse6.unwrap_or(0), *tw, *orphan, *alloc, *mem];
    numbers.into_iter().for_each(|n| put_i64(out, n));
}

fn get_netstat(from: &mut Cursor<'_>) -> Result<NetStat, Malformed> {
    let (tcp, tcp_ext) = (get_counters(from)?, get_counters(from)?);
    let v6 = from.bool()?;
    let mut n = || from.i64();
    let (inuse, inuse6, tw, orphan, alloc, mem) = (n()?, n()?, n()?, n()?, n()?, n()?);
    let inuse6 = v6.then_some(inuse6);
    let sockets = SockStat { inuse, inuse6, tw, orphan, alloc, mem };
    Ok(NetStat { tcp, tcp_ext, sockets })
}

fn get_counters(from: &mut Cursor<'_>) -> Result<Counters, Malformed> {
    let mut counters = Counters::new();
    // Each takes bytes of what is there, so that their number bounds nothing else.
    for _ in 0..from.u64()? {
        let name = harmless(&from.text_of(COUNTER_NAME_BYTES)?).into_owned();
        let value = from.i64()?;
        if counters.len() < COUNTERS_KEPT {
            counters.insert(name, value);
        }
    }
    Ok(counters)
}

/// A value of a sysctl.
trait Value: Sized {
    fn put(&self, out: &mut Vec<u8>);
    fn get(from: &mut Cursor<'_>) -> Result<Self, Malformed>;
}

impl Value for i64 {
    fn put(&self, out: &mut Vec<u8>) {
        put_i64(out, *self);
    }

    fn get(from: &mut Cursor<'_>) -> Result<Self, Malformed> {
        from.i64()
    }
}

impl Value for PortRange {
    fn put(&self, out: &mut Vec<u8>) {
        put_u64(out, u64::from(self.low));
        put_u64(out, u64::from(self.high));
    }

    fn get(from: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let (low, high) = (from.u16()?, from.u16()?);
        if low > high {
            return Err(Malformed("a range of ports that ends before it begins"));
        }
        Ok(Self { low, high })
    }
}

impl Value for Vec<PortRange> {
    fn put(&self, out: &mut Vec<u8>) {
        put_u64(out, self.len() as u64);
        self.iter().for_each(|range| range.put(out));
    }

    fn get(from: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let count = from.u64()?;
        // Not reserved beforehand: each takes two bytes at least of what is there.
        let mut ranges: Self = Vec::new();
        for _ in 0..count {
            let range = PortRange::get(from)?;
            if ranges.last().is_some_and(|last| last.high >= range.low) {
                return Err(Malformed("ranges of ports that are not in order"));
            }
            ranges.push(range);
        }
        Ok(ranges)
    }
}

impl<T: Value> Value for Sysctl<T> {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Is(value) => {
                out.push(0);
                value.put(out);
            }
            Self::Absent => out.push(1),
            Self::Unreadable(why) => {
                out.push(2);
                put_bytes(out, why.as_bytes());
            }
        }
    }

    fn get(from: &mut Cursor<'_>) -> Result<Self, Malformed> {
        Ok(match from.u8()? {
            0 => Self::Is(T::get(from)?),
            1 => Self::Absent,
            2 => Self::Unreadable(harmless(&from.text_of(REASON_BYTES)?).into()),
            _ => return Err(Malformed("no such value of a sysctl")),
        })
    }
}

/// Each sysctl by its name, so that one that comes or goes needs no new version.
macro_rules! sysctls {
    ($($name:ident),* $(,)?) => {
        fn put_sysctls(out: &mut Vec<u8>, sysctls: &Sysctls) {
            let Sysctls { $($name),* } = sysctls;
            $(
                put_bytes(out, stringify!($name).as_bytes());
                let mut value = Vec::new();
                $name.put(&mut value);
                put_bytes(out, &value);
            )*
        }

        fn get_sysctls(from: &mut Cursor<'_>) -> Result<Sysctls, Malformed> {
            let mut sysctls = Sysctls::default();
            while !from.is_empty() {
                let (name, mut value) = (from.bytes()?, Cursor::new(from.bytes()?));
                match name {
                    $(name if name == stringify!($name).as_bytes() => {
                        sysctls.$name = Value::get(&mut value)?;
                    })*
                    _ => {} // one of a later version
                }
            }
            Ok(sysctls)
        }
    };
}

sysctls!(
    tcp_syncookies,
    tcp_tw_reuse,
    tcp_tw_reuse_delay,
    tcp_tw_recycle,
    tcp_fin_timeout,
    tcp_keepalive_time,
    tcp_keepalive_intvl,
    tcp_keepalive_probes,
    ip_local_port_range,
    ip_local_reserved_ports,
    tcp_max_syn_backlog,
    somaxconn,
    tcp_max_tw_buckets,
    tcp_max_orphans,
    tcp_orphan_retries,
    tcp_retries2,
    tcp_syn_retries,
    tcp_syn_linear_timeouts,
    tcp_rto_max_ms,
    tcp_rfc1337,
    tcp_abort_on_overflow,
    tcp_timestamps,
);
