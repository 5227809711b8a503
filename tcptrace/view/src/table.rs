//! Columns for people: 80 characters, unless asked for more or the terminal has more.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

use bytes::{BufMut as _, BytesMut};

use super::{number::age_within, time::WallClock, wrap::cut};
use tcptrace_model::{EndReason, How, Linger, Moved, Task, TcpState, Timeout};
use tcptrace_track::namespaces::Namespaces;

/// How many characters a row takes with [`Columns::owner`] and nothing else.
pub const WIDTH_WITH_OWNER: u16 = 104;

/// What the table shows beside the transition.
#[derive(Clone, Copy, Debug, Default)]
pub struct Columns {
    /// Everything there is.
    pub wide: bool,
    /// Whose the socket is: 24 characters more.
    pub owner: bool,
    /// The time of day (bcc's `-T`).
    pub time: bool,
    /// Seconds since the start (bcc's `-t`).
    pub timestamp: bool,
    /// Colours.
    pub color: bool,
}

/// Characters of a network namespace: a container with twelve digits of its id, or a host's unit.
pub(super) const NETNS: usize = 19;

/// A network namespace as a column has it: its name, else its inode.
pub(super) fn netns(netns: Option<u32>, names: &Namespaces) -> String {
    netns.map_or("-".to_owned(), |netns| cut(&names.short(netns), NETNS))
}

/// Writes the rows of the `live` view.
pub struct Table {
    columns: Columns,
    wall: WallClock,
    started_ns: u64,
    hz: u32,
}

impl Table {
    pub(super) fn new(columns: Columns) -> Self {
        Self { columns, wall: WallClock::local_time_of_day(), started_ns: 0, hz: 0 }
    }

    pub(super) fn wall(&mut self) -> &mut WallClock {
        &mut self.wall
    }

    /// When the hooks came into force, and ticks a second.
    pub(super) fn begin(&mut self, mono_ns: u64, hz: u32) {
        self.started_ns = mono_ns;
        self.hz = hz;
    }

    pub(super) fn header(&self, out: &mut BytesMut) {
        let Columns { wide, owner, time, timestamp, .. } = self.columns;
        let mut line = String::new();
        if time {
            line.push_str("TIME     ");
        }
        if timestamp {
            line.push_str("TIME(s)    ");
        }
        if wide {
            let _ = write!(line, "{:18} {:NETNS$} ", "SKADDR", "NETNS");
        }
        if owner || wide {
            let _ = write!(line, "{:>7} {:15} ", "PID", "COMM");
        }
        if wide {
            let _ = write!(line, "{:8} {:15} ", "FROM", "THREAD");
        }
        let _ = write!(
            line,
            "{:21} {:21} {:11}    {:11} {:>9}",
            "LADDR:LPORT", "RADDR:RPORT", "OLDSTATE", "NEWSTATE", "MS"
        );
        if wide {
            let _ = write!(line, " {:6} {:12} {:6} {:23} HOW", "LINGER", "ERR", "FIRST", "CLOSER");
        }
        put_line(out, &line);
    }

    pub(super) fn transition(&mut self, moved: &Moved, names: &Namespaces, out: &mut BytesMut) {
        let Columns { wide, owner, time, timestamp, .. } = self.columns;
        let mut line = String::with_capacity(160);
        if time {
            let text = self.wall.at(moved.mono_ns).map_or("-", |(text, _)| text);
            let _ = write!(line, "{text:8} ");
        }
        if timestamp {
            let us = moved.mono_ns.saturating_sub(self.started_ns) / 1000;
            let _ = write!(line, "{:<10} ", format!("{}.{:06}", us / 1_000_000, us % 1_000_000));
        }
        if wide {
            let netns = netns(moved.sock.map(|sock| sock.netns), names);
            let _ = write!(line, "0x{:<16x} {netns:NETNS$} ", moved.skaddr);
        }
        if owner || wide {
            let _ = match &moved.owner {
                Some(owner) => {
                    write!(line, "{:>7} {:15} ", owner.task.pid_text(), owner.task.name())
                }
                None => write!(line, "{:>7} {:15} ", "-", "-"),
            };
        }
        if wide {
            let from = moved.owner.map_or("-", |owner| owner.from.name());
            let thread = moved.owner.map_or("-".to_owned(), |owner| owner.task.thread.to_string());
            let _ = write!(line, "{from:8} {thread:15} ");
        }
        let tuple = &moved.tuple;
        let local = end(tuple.local_ip(), tuple.lport);
        let listening = moved.new == TcpState::Listen
            || moved.old == TcpState::Listen && moved.new == TcpState::Close;
        let remote = if listening { "*".to_owned() } else { end(tuple.remote_ip(), tuple.rport) };
        let age = |width| age_within(moved.in_old, width);
        let (on, off) = if self.columns.color { color(moved.new) } else { ("", "") };
        let word = match (moved.end_reason, moved.verdict.how) {
            (Some(reason), _) => Some(short_reason(reason)),
            (None, Some(how)) if moved.new == TcpState::Close => Some(short_how(how)),
            _ => None,
        };
        match word {
            None => {
                let _ = write!(
                    line,
                    "{local:21} {remote:21} {:11} -> {on}{:11}{off} {:>9}",
                    moved.old,
                    moved.new,
                    age(9)
                );
            }
            // The word takes the room that CLOSE leaves, and if need be some of the time's.
            Some(word) => {
                let states = format!("{} -> {} {word}", moved.old, moved.new);
                let states_width = states.len().max(26);
                let room = 35_usize.saturating_sub(states_width);
                let age = age(room.max(2));
                let _ = write!(
                    line,
                    "{local:21} {remote:21} {on}{states}{off}{:pad$} {age:>room$}",
                    "",
                    pad = states_width - states.len()
                );
            }
        }
        if wide {
            let linger = match moved.linger() {
                None => "-".to_owned(),
                Some(Linger::Off) => "off".to_owned(),
                Some(Linger::Jiffies(jiffies)) => format!("{}s", jiffies / self.hz.max(1)),
            };
            let err = match moved.sock {
                None => "-".to_owned(),
                Some(sock) if sock.err == 0 => "0".to_owned(),
                Some(sock) => format!("{:?}", nix::errno::Errno::from_raw(sock.err.into())),
            };
            let first = moved.verdict.initiator.map_or("-", |initiator| initiator.name());
            let closer = process(moved.closer.map(|closer| closer.task).as_ref());
            let _ = write!(line, " {linger:6} {err:12} {first:6} {closer:23} ");
            let _ = match moved.verdict.in_full() {
                Some(how) => write!(line, "{how}"),
                None => write!(line, "-"),
            };
        }
        put_line(out, &line);
    }

    /// A line between the rows.
    pub(super) fn remark(&self, text: &str, out: &mut BytesMut) {
        put_line(out, &format!("... {text}"));
    }
}

pub(super) fn put_line(out: &mut BytesMut, line: &str) {
    out.put_slice(line.trim_end().as_bytes());
    out.put_u8(b'\n');
}

/// `812/nginx`, as netstat(8) has it; `-` for one that is not known.
pub fn process(task: Option<&Task>) -> String {
    task.map_or("-".to_owned(), |task| format!("{}/{}", task.pid_text(), task.name()))
}

/// `10.0.0.1:443`, `[2001:db8::1]:443`; `-` for a port that is not known.
pub fn end(ip: IpAddr, port: u16) -> String {
    if port != 0 {
        return SocketAddr::new(ip, port).to_string();
    }
    match ip {
        IpAddr::V4(v4) => format!("{v4}:-"),
        IpAddr::V6(v6) => format!("[{v6}]:-"),
    }
}

/// How a connection ended, in eight characters at the most.
pub fn short_how(how: How) -> &'static str {
    match how {
        How::RstLinger0 => "linger0",
        How::RstUnreadData => "unread",
        How::RstReceived => "rst-in",
        How::RstSent(_) => "rst-out",
        How::Unreachable => "unreach",
        How::Timeout(Timeout::Syn) => "tmo-syn",
        How::Timeout(Timeout::SynAck) => "tmo-3whs",
        How::Timeout(Timeout::Retransmit) => "tmo-rtx",
        How::Timeout(Timeout::Keepalive) => "tmo-keep",
        How::Timeout(Timeout::User) => "tmo-user",
        How::OrphanGaveUp => "gave-up",
        How::OrphanLimit => "orphans",
        How::SockDestroy => "killed",
        How::NetnsExit => "netns",
        How::ConnectAbandoned => "abandon",
        How::NoLocalPort => "no-port",
        How::Dropped(_) => "dropped",
        How::Fin | How::Refused | How::Unknown => how.name(),
    }
}

/// An end reason in eight characters at the most.
pub fn short_reason(reason: EndReason) -> &'static str {
    match reason {
        EndReason::ReusedByConnect => "connect",
        EndReason::ReusedBySyn => "syn",
        EndReason::NetnsExit => "netns",
        EndReason::NeverCreated => "never",
        EndReason::Expired
        | EndReason::Reset
        | EndReason::RstSent
        | EndReason::Killed
        | EndReason::Unknown => reason.name(),
    }
}

/// The states that an incident is about stand out.
fn color(state: TcpState) -> (&'static str, &'static str) {
    match state {
        TcpState::Established => ("\x1b[32m", "\x1b[0m"),
        TcpState::TimeWait => ("\x1b[36m", "\x1b[0m"),
        TcpState::CloseWait | TcpState::FinWait2 | TcpState::LastAck | TcpState::Closing => {
            ("\x1b[33m", "\x1b[0m")
        }
        TcpState::Close => ("\x1b[2m", "\x1b[0m"),
        _ => ("", ""),
    }
}
