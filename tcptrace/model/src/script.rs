//! Inputs from text, so that everything after the source is tested without a kernel.
//!
//! One input a line, `#` for comments:
//!
//! ```text
//! 0ms begin                          (or: begin hooked, sampled or unfollowed, then no-resets)
//! 1ms sk=a CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 pid=812 comm=curl cookie=1 netns=5 linger=0
//! 2ms sk=a reset-sent CLOSE abort-on-data
//! 2ms sk=b accept pid=813 comm=nginx netns=5
//! 60000ms tw=b expired TIME_WAIT 10.0.0.1:7 10.0.0.2:443 cookie=1 netns=5 expires=60000ms
//! 1ms snapshot open                  (or: minisocks)
//! 1ms snapshot 5
//! 1ms socket TIME_WAIT 9b2d 10.0.0.1:7 10.0.0.2:443 12000
//! 1ms socket CLOSE_WAIT 9b2e 10.0.0.1:8 10.0.0.2:443 pid=812 comm=app unread=1 cgroup=7
//! 1ms info 9b2e CLOSE_WAIT timer=on expires=292 unacked=1000 retransmits=3 backoff=3 rto=1632
//! 1ms syn-queue 443 12 3            (12 wait, to 3 of them the SYN-ACK was sent again)
//! 1ms exited 812 77               (the process that was started at 77)
//! 1ms cgroup 7 /system.slice/app.service
//! 1ms snapshot end syn-queue=3 time-wait=9 lacks-some
//! 1ms snapshot over
//! 1ms sysctls 5 ip_local_port_range=40000-40099 tcp_tw_reuse=0 tcp_timestamps=1
//! 1ms counters 5 ListenOverflows=3 tw=7   (and the gauges tw and orphan)
//! 2ms lost 17
//! 3ms clock 1000000000
//! 4ms tick
//! ```
//!
//! A process has `pid=`, `uid=`, `comm=`, `started=` (in units of 10 ms) and `execs=`, its thread
//! `tid=` and `thread=`, which come after `pid=` and `comm=`; `kernel=true` is a thread of the kernel,
//! and `led=false` one whose process is not named.
//!
//! Times are in ms (with decimals) from 0; `sk=` and `cookie=` are hexadecimal; `linger=` is off
//! or a number of jiffies; `classic` is an event of the classic tracepoint, which knows no more
//! than its own record; `unknown` marks an event whose filter key was not set. `mptcp` and `plain`
//! say whether it is a subflow. `unsent=`, `soft=`, `probes=`, `repair`, `nothing-sent`, `queued` and
//! `at-close` alone say how a socket stood at its close, which recordings of the first versions do
//! not have.

mod late_leak;

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};
use tcptrace_common::counters::Hook;

pub use late_leak::late_leak;

use crate::{
    Accept, AtClose, BoundPort, Clock, Comm, Event, Exited, Holder, Input, Linger, Lost, Minisock,
    MinisockEvent, MinisocksBy, NetStat, NetnsCounters, NetnsName, NetnsSysctls, PortRange, Reset,
    ResetDirection, RstReason, SnapFull, SnapInfo, SnapSocket, Snapshot, SnapshotEnd, SockFacts,
    StateSet, Stopper, SynQueue, Sysctl, Sysctls, Task, TcpInfo, TcpState, Timer, Totals,
    Transition, Tuple, sysctls,
};

/// A connection that is closed here, expires after 60 s, and was opened at 1 ms.
pub const ACTIVE: &str = "0ms begin\n\
    1ms sk=a CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 comm=curl cookie=1 netns=5\n\
    3ms sk=a SYN_SENT>ESTABLISHED 10.0.0.1:7 10.0.0.2:443 cookie=1 netns=5\n\
    5ms sk=a ESTABLISHED>FIN_WAIT1 10.0.0.1:7 10.0.0.2:443 comm=curl cookie=1 netns=5\n\
    6ms sk=a FIN_WAIT1>FIN_WAIT2 10.0.0.1:7 10.0.0.2:443 cookie=1 netns=5\n\
    9ms tw=b started TIME_WAIT 10.0.0.1:7 10.0.0.2:443 cookie=1 netns=5 expires=60008ms\n\
    9.01ms sk=a FIN_WAIT2>CLOSE 10.0.0.1:0 10.0.0.2:443 cookie=1 netns=5\n\
    60009ms tw=b expired TIME_WAIT 10.0.0.1:7 10.0.0.2:443 cookie=1 netns=5 expires=60008ms\n";

/// The sysctls of a network namespace that was just made, by the kernel's defaults.
pub fn fresh_sysctls() -> Sysctls {
    Sysctls {
        tcp_syncookies: Sysctl::Is(1),
        tcp_tw_reuse: Sysctl::Is(2),
        tcp_tw_reuse_delay: Sysctl::Is(1000),
        tcp_tw_recycle: Sysctl::Absent,
        tcp_fin_timeout: Sysctl::Is(60),
        tcp_keepalive_time: Sysctl::Is(7200),
        tcp_keepalive_intvl: Sysctl::Is(75),
        tcp_keepalive_probes: Sysctl::Is(9),
        ip_local_port_range: Sysctl::Is(PortRange { low: 32768, high: 60999 }),
        ip_local_reserved_ports: Sysctl::Is(Vec::new()),
        tcp_max_syn_backlog: Sysctl::Is(1024),
        somaxconn: Sysctl::Is(4096),
        tcp_max_tw_buckets: Sysctl::Is(100_000),
        tcp_max_orphans: Sysctl::Is(100_000),
        tcp_orphan_retries: Sysctl::Is(0),
        tcp_retries2: Sysctl::Is(15),
        tcp_syn_retries: Sysctl::Is(6),
        tcp_syn_linear_timeouts: Sysctl::Is(4),
        tcp_rto_max_ms: Sysctl::Is(120_000),
        tcp_rfc1337: Sysctl::Is(0),
        tcp_abort_on_overflow: Sysctl::Is(0),
        tcp_timestamps: Sysctl::Is(1),
    }
}

/// `script` on a host that has been up for three years, so that no age is cut by its start. A line
/// whose time is not a whole number of ms stays as it is, for [`inputs`] to refuse.
pub fn later(script: &str) -> String {
    let later = |line: &str| {
        let moved = line.split_once("ms ").and_then(|(ms, rest)| {
            let ms = ms.parse::<u64>().ok()?.checked_add(100_000_000_000)?;
            Some(format!("{ms}ms {rest}\n"))
        });
        moved.unwrap_or_else(|| format!("{line}\n"))
    };
    script.lines().map(later).collect()
}

/// Reads a script.
pub fn inputs(text: &str) -> Result<Vec<Input>> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
        .map(|(number, line)| input(line).with_context(|| format!("line {}: {line}", number + 1)))
        .collect()
}

/// Reads a script of nothing but transitions.
pub fn transitions(text: &str) -> Result<Vec<Transition>> {
    inputs(text)?
        .into_iter()
        .map(|input| match input {
            Input::Event(Event::Transition(event)) => Ok(event),
            other => bail!("not a transition: {other:?}"),
        })
        .collect()
}

fn input(line: &str) -> Result<Input> {
    let mut words = line.split_whitespace();
    let mono_ns = time(words.next().unwrap_or_default())?;
    let mut word = || words.next().context("the line ends too early");
    let keyword = word()?;
    Ok(match keyword {
        "begin" => {
            let minisocks = match words.next() {
                None => MinisocksBy::Hooks,
                Some("hooked") => MinisocksBy::Hooks,
                Some("sampled") => MinisocksBy::Looks,
                Some("unfollowed") => MinisocksBy::Nothing,
                Some(word) => bail!("unknown detail {word}"),
            };
            let resets = match words.next() {
                None => true,
                Some("no-resets") => false,
                Some(word) => bail!("unknown detail {word}"),
            };
            Input::Begin { mono_ns, hz: 250, minisocks, resets }
        }
        "tick" => Input::Tick { mono_ns },
        "snapshot" => match word()? {
            "open" => Input::Snapshot(Snapshot::Open),
            "minisocks" => Input::Snapshot(Snapshot::OpenMinisocks),
            "end" => Input::Snapshot(Snapshot::End(end(mono_ns, words)?)),
            "over" => Input::Snapshot(Snapshot::Over { mono_ns, all: true }),
            netns => Input::Snapshot(Snapshot::Begin { mono_ns, netns: netns.parse()? }),
        },
        "socket" => {
            let (name, cookie) = (word()?, word()?);
            let tuple = tuple(word()?.parse()?, word()?.parse()?);
            let mut socket = SnapSocket {
                state: state(name)?,
                tuple,
                cookie: u64::from_str_radix(cookie, 16)?,
                minisock_expires_ms: None,
                full: None,
            };
            for word in words {
                match word.split_once('=') {
                    None => socket.minisock_expires_ms = Some(word.parse()?),
                    Some((key, value)) => full(socket.full.get_or_insert_default(), key, value)?,
                }
            }
            Input::Snapshot(Snapshot::Socket(socket))
        }
        "info" => Input::Snapshot(Snapshot::Info(Box::new(info(word()?, word()?, words)?))),
        "syn-queue" => Input::Snapshot(Snapshot::SynQueue(SynQueue {
            lport: word()?.parse()?,
            waiting: word()?.parse()?,
            resent: word()?.parse()?,
        })),
        "bound" => Input::Snapshot(Snapshot::Bound(Box::new(bound(word()?, words)?))),
        "exited" => {
            let (tgid, started) = (word()?.parse()?, word()?.parse()?);
            Input::Exited(Exited { mono_ns, tgid, started })
        }
        "cgroup" => Input::Cgroup { id: word()?.parse()?, path: word()?.into() },
        "netns" => {
            let (netns, name) = (word()?.parse()?, word()?);
            let gone = match words.next() {
                None => false,
                Some("gone") => true,
                Some(word) => bail!("unknown detail {word}"),
            };
            Input::NetnsName(Box::new(NetnsName::new(mono_ns, netns, Some(name), gone)))
        }
        "sysctls" => {
            let netns = word()?.parse()?;
            let mut sysctls = Sysctls::default();
            for word in words {
                sysctl(&mut sysctls, word)?;
            }
            Input::Sysctls(Box::new(NetnsSysctls { mono_ns, netns, sysctls }))
        }
        "counters" => {
            let netns = word()?.parse()?;
            let mut counters = NetStat::default();
            for word in words {
                let (name, number) = word.split_once('=').context("no NAME=NUMBER")?;
                let number = number.parse()?;
                match name {
                    "tw" => counters.sockets.tw = number,
                    "orphan" => counters.sockets.orphan = number,
                    _ => drop(counters.tcp_ext.insert(name.to_owned(), number)),
                }
            }
            Input::Counters(Box::new(NetnsCounters { mono_ns, netns, counters: Ok(counters) }))
        }
        "missed" => Input::Missed { count: word()?.parse()?, mono_ns },
        "lost" => Input::Lost(Lost { hook: Hook::SetState, count: word()?.parse()?, mono_ns }),
        "clock" => Input::Clock(Clock { mono_ns, realtime_offset_ns: word()?.parse()? }),
        _ if keyword.starts_with("tw=") => minisock(mono_ns, keyword, words)?,
        _ => {
            let skaddr = u64::from_str_radix(
                keyword.strip_prefix("sk=").context("neither sk= nor a keyword")?,
                16,
            )?;
            let what = word()?;
            match what {
                "accept" => return accept(mono_ns, skaddr, words),
                "reset-sent" => return reset(mono_ns, skaddr, ResetDirection::Sent, words),
                "reset-received" => return reset(mono_ns, skaddr, ResetDirection::Received, words),
                _ => {}
            }
            let (old, new) = what.split_once('>').context("no OLD>NEW")?;
            let (local, remote) = (word()?.parse()?, word()?.parse()?);
            let mut event = Transition {
                mono_ns,
                skaddr,
                old: state(old)?,
                new: state(new)?,
                tuple: tuple(local, remote),
                task: NOBODY,
                sock: Some(SockFacts {
                    cookie: None,
                    netns: 0,
                    cgroup: None,
                    err: 0,
                    shutdown: 0,
                    dead: false,
                    unaccepted: false,
                    peer_fin: false,
                    own_ports: false,
                    linger: Linger::Off,
                    mptcp: None,
                }),
                key_unknown: false,
                buckets_full: false,
                totals: None,
            };
            for word in words {
                detail(&mut event, word)?;
            }
            Input::Event(Event::Transition(event))
        }
    })
}

/// `[netns=N]` and of the task
fn accept<'a>(mono_ns: u64, skaddr: u64, words: impl Iterator<Item = &'a str>) -> Result<Input> {
    let task = NOBODY;
    let mut accept = Accept { mono_ns, skaddr, netns: 0, task };
    for word in words {
        match word.split_once('=').context("no key=value")? {
            ("netns", netns) => accept.netns = netns.parse()?,
            (key, value) if task_detail(&mut accept.task, key, value)? => {}
            _ => bail!("unknown detail {word}"),
        }
    }
    Ok(Input::Event(Event::Accept(accept)))
}

/// `STATE [REASON]`
fn reset<'a>(
    mono_ns: u64,
    skaddr: u64,
    direction: ResetDirection,
    mut words: impl Iterator<Item = &'a str>,
) -> Result<Input> {
    let state = state(words.next().context("no state")?)?;
    let reason = words.next().map(|word| {
        Ok(match word {
            "abort-on-data" => RstReason::AbortOnData,
            "abort-on-close" => RstReason::AbortOnClose,
            "abort-on-linger" => RstReason::AbortOnLinger,
            "abort-on-memory" => RstReason::AbortOnMemory,
            "tcp-state" => RstReason::TcpState,
            "keepalive" => RstReason::KeepaliveTimeout,
            "other" => RstReason::Other,
            _ => bail!("unknown reason {word}"),
        })
    });
    let reason = reason.transpose()?;
    Ok(Input::Event(Event::Reset(Reset { mono_ns, skaddr, direction, state: Some(state), reason })))
}

/// The process of an event that names none.
const NOBODY: Task = Task::process(0, 0, 0, Comm::new([0; 16]));

/// A detail of a task; false if it is not one.
fn task_detail(task: &mut Task, key: &str, value: &str) -> Result<bool> {
    match key {
        "pid" => {
            task.tgid = value.parse()?;
            task.tid = task.tgid;
        }
        "tid" => task.tid = value.parse()?,
        "uid" => task.uid = value.parse()?,
        "started" => task.started = value.parse()?,
        "execs" => task.execs = value.parse()?,
        "comm" => (task.comm, task.thread) = (Comm::from(value), Comm::from(value)),
        "thread" => task.thread = Comm::from(value),
        "kernel" => task.is_kernel = value.parse()?,
        "led" => task.is_led = value.parse()?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// `[inode=N] [user=N] [unread=N] [unsent=N] [cgroup=N] [in-state-ms=N]`, and of who holds it
/// what tells of a task and `[holders=N]`; then, with `first-` in front, of the one that was started
/// first.
fn full(full: &mut SnapFull, key: &str, value: &str) -> Result<()> {
    match key {
        "inode" => full.inode = value.parse()?,
        "user" => full.uid = value.parse()?,
        "unread" => full.queues.unread = value.parse()?,
        "unsent" => full.queues.unsent = value.parse()?,
        "cgroup" => full.cgroup = Some(value.parse()?),
        "in-state-ms" => full.in_state_ms = Some(value.parse()?),
        _ => {
            let holder = full.holder.get_or_insert(Holder::one(NOBODY));
            let first = key.strip_prefix("first-");
            match first.unwrap_or(key) {
                "holders" => holder.holders = value.parse()?,
                key if first.is_some() && task_detail(&mut holder.first, key, value)? => {}
                key if task_detail(&mut holder.task, key, value)? => {
                    task_detail(&mut holder.first, key, value)?;
                }
                _ => bail!("unknown detail {key}"),
            }
        }
    }
    Ok(())
}

/// `COOKIE STATE [timer=on|keepalive|persist] [mptcp] [KEY=NUMBER…]`; times are in ms.
fn info<'a>(cookie: &str, name: &str, words: impl Iterator<Item = &'a str>) -> Result<SnapInfo> {
    let mut info = SnapInfo {
        cookie: u64::from_str_radix(cookie, 16)?,
        state: state(name)?,
        timer: Timer::None,
        expires_ms: 0,
        unacked: 0,
        mptcp: false,
        tcp: TcpInfo { segs_out: 1, ..TcpInfo::default() },
    };
    for word in words {
        let tcp = &mut info.tcp;
        match word.split_once('=') {
            None if word == "mptcp" => info.mptcp = true,
            Some(("timer", "on")) => info.timer = Timer::Retransmit,
            Some(("timer", "keepalive")) => info.timer = Timer::KeepAlive,
            Some(("timer", "persist")) => info.timer = Timer::Probe,
            Some(("expires", ms)) => info.expires_ms = ms.parse()?,
            Some(("unacked", bytes)) => info.unacked = bytes.parse()?,
            Some(("retransmits", n)) => tcp.retransmits = n.parse()?,
            Some(("probes", n)) => tcp.probes = n.parse()?,
            Some(("backoff", n)) => tcp.backoff = n.parse()?,
            Some(("rto", ms)) => tcp.rto_us = ms.parse::<u32>()? * 1000,
            Some(("rtt-us", us)) => tcp.rtt_us = us.parse()?,
            Some(("last-sent", ms)) => tcp.last_data_sent_ms = Some(ms.parse()?),
            Some(("last-received", ms)) => tcp.last_data_recv_ms = Some(ms.parse()?),
            Some(("last-ack", ms)) => tcp.last_ack_recv_ms = ms.parse()?,
            Some(("total-retrans", n)) => tcp.total_retrans = n.parse()?,
            Some(("segs-out", n)) => tcp.segs_out = n.parse()?,
            Some(("not-sent", bytes)) => tcp.not_sent = bytes.parse()?,
            Some(("acked", bytes)) => tcp.bytes_acked = bytes.parse()?,
            Some(("received", bytes)) => tcp.bytes_received = bytes.parse()?,
            Some(("window", bytes)) => tcp.snd_wnd = Some(bytes.parse()?),
            Some(("retransmitting", ms)) => tcp.retransmitting_ms = Some(ms.parse()?),
            _ => bail!("unknown detail {word}"),
        }
    }
    Ok(info)
}

/// `NAME=VALUE`; a range is `LOW-HIGH`.
fn sysctl(sysctls: &mut Sysctls, word: &str) -> Result<()> {
    let (name, value) = word.split_once('=').context("no key=value")?;
    let number = || sysctls::number(value);
    match name {
        "tcp_tw_reuse" => sysctls.tcp_tw_reuse = Sysctl::Is(number()?),
        "tcp_tw_reuse_delay" => sysctls.tcp_tw_reuse_delay = Sysctl::Is(number()?),
        "tcp_fin_timeout" => sysctls.tcp_fin_timeout = Sysctl::Is(number()?),
        "tcp_timestamps" => sysctls.tcp_timestamps = Sysctl::Is(number()?),
        "tcp_retries2" => sysctls.tcp_retries2 = Sysctl::Is(number()?),
        "tcp_orphan_retries" => sysctls.tcp_orphan_retries = Sysctl::Is(number()?),
        "tcp_syn_retries" => sysctls.tcp_syn_retries = Sysctl::Is(number()?),
        "tcp_rto_max_ms" => sysctls.tcp_rto_max_ms = Sysctl::Is(number()?),
        "ip_local_port_range" => {
            sysctls.ip_local_port_range = Sysctl::Is(sysctls::range(&value.replace('-', " "))?);
        }
        "ip_local_reserved_ports" => {
            sysctls.ip_local_reserved_ports = Sysctl::Is(sysctls::ports(value)?);
        }
        _ => bail!("unknown sysctl {name}"),
    }
    Ok(())
}

/// `PORT [sockets=N]`, and of who holds the first of them what tells of a task
fn bound<'a>(lport: &str, words: impl Iterator<Item = &'a str>) -> Result<BoundPort> {
    let mut port = BoundPort { lport: lport.parse()?, sockets: 1, holder: None };
    for word in words {
        match word.split_once('=').context("no key=value")? {
            ("sockets", count) => port.sockets = count.parse()?,
            (key, value) => {
                let holder = port.holder.get_or_insert(Holder::one(NOBODY));
                if !task_detail(&mut holder.task, key, value)? {
                    bail!("unknown detail {word}");
                }
                holder.first = holder.task;
            }
        }
    }
    Ok(port)
}

/// `[syn-queue=N] [fin-wait2=N] [time-wait=N] [lacks-some] [lists-bound]`
fn end<'a>(mono_ns: u64, words: impl Iterator<Item = &'a str>) -> Result<SnapshotEnd> {
    let mut end = SnapshotEnd { mono_ns, ..SnapshotEnd::default() };
    for word in words {
        match word.split_once('=') {
            None if word == "lacks-some" => end.lacks_some = true,
            None if word == "lists-bound" => end.lists_bound = true,
            Some(("syn-queue", count)) => end.unseen.syn_queue = count.parse()?,
            Some(("fin-wait2", count)) => end.unseen.fin_wait2 = count.parse()?,
            Some(("time-wait", count)) => end.unseen.time_wait = count.parse()?,
            _ => bail!("unknown detail {word}"),
        }
    }
    Ok(end)
}

/// `tw=ADDR EVENT FIN_WAIT2|TIME_WAIT LOCAL REMOTE [netns=N] [cookie=C] [expires=MS] [timestamps]
/// [no-timestamps]`: the timer is to run at that time. Events: started, restarted, stopped, stopped-by-WHO, due,
/// stopping-by-WHO, expired, peeked, ended, ended-by-WHO.
fn minisock<'a>(
    mono_ns: u64,
    keyword: &str,
    mut words: impl Iterator<Item = &'a str>,
) -> Result<Input> {
    const JIFFY_NS: u64 = 4_000_000;
    let mut word = || words.next().context("the line ends too early");
    let event = match word()? {
        "started" => MinisockEvent::Started,
        "restarted" => MinisockEvent::Restarted,
        "stopped" => MinisockEvent::Stopped { may_run: false, by: None },
        "due" => MinisockEvent::Stopped { may_run: true, by: None },
        "expired" => MinisockEvent::Expired,
        "peeked" => MinisockEvent::Peeked,
        "ended" => MinisockEvent::Ended { by: None },
        word => {
            let (what, who) = word.split_once("-by-").context("unknown event")?;
            let by = Some(match who {
                "process" => Stopper::StateProcess,
                "receive" => Stopper::Receive,
                "connect" => Stopper::Connect,
                "abort" => Stopper::Abort,
                "purge" => Stopper::Purge,
                _ => bail!("unknown event {word}"),
            });
            match what {
                "stopped" => MinisockEvent::Stopped { may_run: false, by },
                "stopping" => MinisockEvent::Stopped { may_run: true, by },
                "ended" => MinisockEvent::Ended { by },
                _ => bail!("unknown event {word}"),
            }
        }
    };
    let mut minisock = Minisock {
        mono_ns,
        addr: u64::from_str_radix(keyword.trim_start_matches("tw="), 16)?,
        event,
        substate: state(word()?)?,
        tuple: tuple(word()?.parse()?, word()?.parse()?),
        netns: 0,
        cookie: None,
        expires: 0,
        jiffies: mono_ns / JIFFY_NS,
        timestamps: None,
    };
    for word in words {
        if let "timestamps" | "no-timestamps" = word {
            minisock.timestamps = Some(word == "timestamps");
            continue;
        }
        match word.split_once('=').context("no key=value")? {
            ("netns", netns) => minisock.netns = netns.parse()?,
            ("cookie", cookie) => minisock.cookie = Some(u64::from_str_radix(cookie, 16)?),
            ("expires", at) => minisock.expires = time(at)? / JIFFY_NS,
            _ => bail!("unknown detail {word}"),
        }
    }
    Ok(Input::Event(Event::Minisock(minisock)))
}

fn detail(event: &mut Transition, word: &str) -> Result<()> {
    match word {
        "unknown" => event.key_unknown = true,
        "full" => event.buckets_full = true,
        "classic" => event.sock = None,
        "at-close" => drop(at_close(event)),
        "repair" => at_close(event).repair = true,
        "nothing-sent" => at_close(event).has_sent = false,
        "queued" => at_close(event).queue_empty = false,
        "dead" | "unaccepted" | "peer-fin" | "own-ports" | "mptcp" | "plain" => {
            let sock = event.sock.as_mut().context("a classic event knows no such thing")?;
            match word {
                "dead" => sock.dead = true,
                "unaccepted" => sock.unaccepted = true,
                "mptcp" => sock.mptcp = Some(true),
                "plain" => sock.mptcp = Some(false),
                "own-ports" => sock.own_ports = true,
                _ => sock.peer_fin = true,
            }
        }
        _ => {
            let (key, value) = word.split_once('=').context("neither key=value nor a flag")?;
            match key {
                _ if task_detail(&mut event.task, key, value)? => {}
                "acked" => totals(event).bytes_acked = value.parse()?,
                "received" => totals(event).bytes_received = value.parse()?,
                "srtt-us" => totals(event).srtt_us8 = value.parse::<u32>()? * 8,
                "retransmits" => totals(event).retransmits = value.parse()?,
                "unread" => totals(event).unread = value.parse()?,
                "unacked" => totals(event).unacked = value.parse()?,
                "linger2" => totals(event).linger2 = value.parse()?,
                "user-timeout" => totals(event).user_timeout_ms = value.parse()?,
                "unsent" => at_close(event).unsent = value.parse()?,
                "soft" => at_close(event).err_soft = value.parse()?,
                "probes" => at_close(event).probes = value.parse()?,
                _ => {
                    let sock =
                        event.sock.as_mut().context("a classic event knows no such thing")?;
                    match key {
                        "cookie" => sock.cookie = Some(u64::from_str_radix(value, 16)?),
                        "netns" => sock.netns = value.parse()?,
                        "cgroup" => sock.cgroup = Some(value.parse()?),
                        "err" => sock.err = value.parse()?,
                        "shut" => sock.shutdown = value.parse()?,
                        "linger" if value == "off" => sock.linger = Linger::Off,
                        "linger" => sock.linger = Linger::Jiffies(value.parse()?),
                        _ => bail!("unknown detail {key}"),
                    }
                }
            }
        }
    }
    Ok(())
}

/// The totals of an event, which are all 0 unless said otherwise.
fn totals(event: &mut Transition) -> &mut Totals {
    event.totals.get_or_insert_default()
}

/// How the socket of an event stood at its close: as one that has sent all there was, and whose
/// receive queue close() has emptied, unless said otherwise.
fn at_close(event: &mut Transition) -> &mut AtClose {
    let usual = AtClose { has_sent: true, queue_empty: true, ..AtClose::default() };
    totals(event).at_close.get_or_insert(usual)
}

/// Milliseconds with decimals, to nanoseconds, without a detour through floating point.
fn time(word: &str) -> Result<u64> {
    let ms = word.strip_suffix("ms").context("no time in ms")?;
    let (whole, fraction) = ms.split_once('.').unwrap_or((ms, ""));
    let fraction = format!("{fraction:0<6}");
    Ok(whole.parse::<u64>()? * 1_000_000 + fraction[..6].parse::<u64>()?)
}

fn state(word: &str) -> Result<TcpState> {
    let set: StateSet = word.parse()?;
    TcpState::ALL.into_iter().find(|&s| set.contains(s)).context("no such state")
}

fn tuple(local: SocketAddr, remote: SocketAddr) -> Tuple {
    let v6 = |addr: SocketAddr| match addr {
        SocketAddr::V4(v4) => v4.ip().to_ipv6_mapped(),
        SocketAddr::V6(v6) => *v6.ip(),
    };
    Tuple {
        laddr: v6(local),
        raddr: v6(remote),
        lport: local.port(),
        rport: remote.port(),
        v6_socket: local.is_ipv6(),
    }
}
