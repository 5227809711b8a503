//! What the kernel itself says about the connections of the calling thread's network namespace, in
//! /proc: an independent witness of what the scenarios did.
//!
//! It must stay independent: nothing of tcptrace's own (its state names, its parsers) belongs here.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::wait;

/// The states of include/net/tcp_states.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Established,
    SynSent,
    SynRecv,
    FinWait1,
    FinWait2,
    TimeWait,
    Close,
    CloseWait,
    LastAck,
    Listen,
    Closing,
    NewSynRecv,
}

impl State {
    fn from_number(number: u8) -> Result<Self> {
        Ok(match number {
            1 => Self::Established,
            2 => Self::SynSent,
            3 => Self::SynRecv,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            7 => Self::Close,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            10 => Self::Listen,
            11 => Self::Closing,
            12 => Self::NewSynRecv,
            other => bail!("no TCP state has the number {other}"),
        })
    }
}

/// A connection as one end of it sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    pub local: SocketAddr,
    pub remote: SocketAddr,
}

/// One line of /proc/net/tcp or tcp6.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub tuple: Tuple,
    pub state: State,
    /// Which timer runs; 3 is that of a minisock (`get_timewait4_sock`).
    pub timer: u8,
    /// Until that timer fires, in steps of 10 ms (`USER_HZ`).
    pub expires: Duration,
    /// 0 for a minisock and for an orphan.
    pub inode: u64,
}

impl Row {
    /// A `struct inet_timewait_sock`, whatever state it is shown in.
    pub fn is_minisock(&self) -> bool {
        self.timer == 3
    }
}

/// Every TCP socket of the namespace, both families.
///
/// # Errors
/// An unreadable /proc, or a line that is not as documented.
pub fn rows() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for file in ["tcp", "tcp6"] {
        let path = format!("/proc/thread-self/net/{file}");
        let text = match read_at_once(&path) {
            Ok(text) => text,
            // A kernel without IPv6.
            Err(error) if file == "tcp6" && error.kind() == std::io::ErrorKind::NotFound => {
                continue;
            }
            Err(error) => return Err(error).with_context(|| format!("read {path}")),
        };
        for line in text.lines().skip(1) {
            rows.push(row(line).with_context(|| format!("{path}: {line:?}"))?);
        }
    }
    Ok(rows)
}

/// Reads a file of /proc with large reads: at each one the kernel goes through its table of sockets,
/// of a quarter of a million buckets, from the start (`tcp_seq_start`), and tests wait by reading it.
fn read_at_once(path: &str) -> io::Result<String> {
    let mut text = String::with_capacity(1 << 16);
    File::open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

/// How many sockets are in `state`.
///
/// # Errors
/// As [`rows`].
pub fn count(state: State) -> Result<usize> {
    Ok(rows()?.iter().filter(|row| row.state == state).count())
}

/// The line of one connection's end.
///
/// # Errors
/// As [`rows`].
pub fn find(tuple: Tuple) -> Result<Option<Row>> {
    Ok(rows()?.into_iter().find(|row| row.tuple == tuple))
}

/// Waits until one end of a connection is in `state`.
///
/// # Errors
/// As [`rows`], or where it was stuck at the deadline.
pub fn wait_state(tuple: Tuple, state: State) -> Result<Row> {
    let mut last = None;
    wait::until(&format!("{tuple:?} to be {state:?}"), || {
        last = find(tuple)?;
        Ok(last.filter(|row| row.state == state))
    })
    .with_context(|| format!("last seen as {last:?}"))
}

/// Waits until no socket is left of one end of a connection.
///
/// # Errors
/// As [`rows`], or where it was stuck at the deadline.
pub fn wait_gone(tuple: Tuple) -> Result<()> {
    wait::until(&format!("{tuple:?} to be gone"), || Ok(find(tuple)?.is_none().then_some(())))
        .with_context(|| format!("last seen as {:?}", find(tuple)))
}

/// The gauge of minisocks in this namespace: `tw` in /proc/net/sockstat.
///
/// # Errors
/// An unreadable /proc, or a format that is not as documented.
pub fn minisocks() -> Result<u64> {
    let path = "/proc/thread-self/net/sockstat";
    let text = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    let tcp = text.lines().find(|line| line.starts_with("TCP:")).context("no TCP line")?;
    let mut words = tcp.split_whitespace().skip_while(|word| *word != "tw");
    Ok(words.nth(1).with_context(|| format!("{path}: no tw in {tcp:?}"))?.parse()?)
}

/// The namespace's counters in /proc/net/netstat and /proc/net/snmp, as they were when read.
pub struct Counters(HashMap<String, i64>);

impl Counters {
    /// Reads them.
    ///
    /// # Errors
    /// An unreadable /proc.
    pub fn read() -> Result<Self> {
        let mut counters = HashMap::new();
        for path in ["/proc/thread-self/net/netstat", "/proc/thread-self/net/snmp"] {
            let text = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
            let mut lines = text.lines();
            // Pairs of lines with the same prefix: the names, then the values.
            while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
                let mut names = names.split_whitespace();
                let prefix = names.next().unwrap_or_default();
                for (name, value) in names.zip(values.split_whitespace().skip(1)) {
                    counters.insert(format!("{prefix}{name}"), value.parse()?);
                }
            }
        }
        Ok(Self(counters))
    }

    /// How much `name` (as in `TcpExt:TWRecycled`) has grown since these were read.
    ///
    /// # Errors
    /// An unreadable /proc, or a counter that this kernel does not have.
    pub fn growth(&self, name: &str) -> Result<i64> {
        let now = Self::read()?;
        let [before, after] = [self, &now].map(|counters| counters.0.get(name).copied());
        Ok(after.with_context(|| format!("no counter {name}"))? - before.unwrap_or(0))
    }
}

fn row(line: &str) -> Result<Row> {
    // sl local remote st tx:rx tr:when retrnsmt uid timeout inode …
    let words: Vec<&str> = line.split_whitespace().collect();
    ensure!(words.len() >= 10, "too few columns");
    let (timer, expires) = words[5].split_once(':').context("no timer")?;
    Ok(Row {
        tuple: Tuple { local: address(words[1])?, remote: address(words[2])? },
        state: State::from_number(u8::from_str_radix(words[3], 16)?)?,
        timer: u8::from_str_radix(timer, 16)?,
        expires: Duration::from_millis(u64::from_str_radix(expires, 16)? * 10),
        inode: words[9].parse()?,
    })
}

/// Addresses are printed as 32-bit words in host order, ports in network order.
fn address(text: &str) -> Result<SocketAddr> {
    let (host, port) = text.split_once(':').context("no port")?;
    let mut bytes = Vec::new();
    for start in (0..host.len()).step_by(8) {
        let word = host.get(start..start + 8).context("a cut address")?;
        bytes.extend(u32::from_str_radix(word, 16)?.to_ne_bytes());
    }
    let host = if let Ok(v4) = <[u8; 4]>::try_from(bytes.as_slice()) {
        IpAddr::V4(Ipv4Addr::from(v4))
    } else {
        let v6: [u8; 16] = bytes.as_slice().try_into().context("an odd address")?;
        IpAddr::V6(Ipv6Addr::from(v6))
    };
    Ok(SocketAddr::new(host, u16::from_str_radix(port, 16)?))
}

/// A process, as `/proc` has it.
pub struct Process {
    /// Name of its first thread.
    pub comm: Vec<u8>,
    /// Clock ticks from boot to its start.
    pub started: u64,
}

/// What `/proc` says of a process.
///
/// # Errors
/// There is none, or `/proc` is not as it should be.
pub fn process(pid: u32) -> Result<Process> {
    let comm = fs::read(format!("/proc/{pid}/comm"))?;
    let comm = comm.strip_suffix(b"\n").context("no newline")?.to_owned();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(") ").context("no name")?;
    // The third field is the first after the name, and `starttime` the 22nd.
    let started = fields.split(' ').nth(19).context("too few fields")?.parse()?;
    Ok(Process { comm, started })
}
