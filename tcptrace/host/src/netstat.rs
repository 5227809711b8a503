//! The kernel's own TCP counters of a network namespace: `netstat`, `snmp` and `sockstat` under
//! `/proc/…/net`.
//!
//! Numbers under the kernel's names, nothing computed. What a name means changes with the kernel
//! (`TW` counts at expiry on 5.10 and at creation on 6.1), and that is the reader's business.
//! `procfs` 0.18 has neither `netstat` nor names that it does not know.

use std::path::Path;
use std::{fs, io};

use super::netns::Netns;
use tcptrace_model::counters::{Counters, NetStat, SockStat};

/// The directory of the calling thread's namespace. (`/proc/net` is that of the process's first
/// thread.)
pub const OWN: &str = "/proc/thread-self/net";

/// Reads the three files in `directory`: [`OWN`], or `/proc/TID/net` for the namespace that thread
/// is in. One after another, so they are not of one instant.
///
/// # Errors
/// Which file cannot be read, or lacks its lines.
pub fn read_in(directory: &Path) -> io::Result<NetStat> {
    let file = |name: &str| {
        let path = directory.join(name);
        fs::read(&path).map_err(|error| at(&path, error))
    };
    let table = |name: &str, table: &str| {
        parse_table(&file(name)?, table).ok_or_else(|| {
            let path = directory.join(name);
            let missing = format!("it has no readable '{table}:' lines");
            at(&path, io::Error::new(io::ErrorKind::InvalidData, missing))
        })
    };
    let sockstat6 = match file("sockstat6") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        other => other?,
    };
    Ok(NetStat {
        tcp: table("snmp", "Tcp")?,
        tcp_ext: table("netstat", "TcpExt")?,
        sockets: parse_sockstat(&file("sockstat")?, &sockstat6).ok_or_else(|| {
            let missing = "it has no readable 'TCP:' line";
            at(&directory.join("sockstat"), io::Error::new(io::ErrorKind::InvalidData, missing))
        })?,
    })
}

/// Reads the counters of `netns`.
///
/// # Errors
/// If the namespace cannot be entered, or its files cannot be read.
pub fn read(netns: &Netns) -> io::Result<NetStat> {
    netns.run(|| read_in(Path::new(OWN)))?
}

fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display()))
}

/// Two lines, both beginning with `TABLE:`, the names in the first and the numbers in the second.
/// `None` without them, or if they do not match. Any bytes may be given.
fn parse_table(text: &[u8], table: &str) -> Option<Counters> {
    let text = str::from_utf8(text).ok()?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(table)?.strip_prefix(':'));
    let names = lines.next()?.split_ascii_whitespace();
    let numbers: Vec<_> = lines.next()?.split_ascii_whitespace().collect();
    if names.clone().count() != numbers.len() {
        return None;
    }
    names.zip(numbers).map(|(name, number)| Some((name.to_owned(), number.parse().ok()?))).collect()
}

/// One line, `PROTOCOL: NAME NUMBER NAME NUMBER …`: a number by its name.
fn number(text: &str, protocol: &str, name: &str) -> Option<i64> {
    let line = text.lines().find_map(|line| line.strip_prefix(protocol)?.strip_prefix(':'))?;
    let mut fields = line.split_ascii_whitespace();
    fields.find(|field| *field == name)?;
    fields.next()?.parse().ok()
}

fn parse_sockstat(sockstat: &[u8], sockstat6: &[u8]) -> Option<SockStat> {
    let text = str::from_utf8(sockstat).ok()?;
    let tcp = |name| number(text, "TCP", name);
    Some(SockStat {
        inuse: tcp("inuse")?,
        inuse6: str::from_utf8(sockstat6).ok().and_then(|text| number(text, "TCP6", "inuse")),
        tw: tcp("tw")?,
        orphan: tcp("orphan")?,
        alloc: tcp("alloc")?,
        mem: tcp("mem")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_paired() {
        let text = b"Ip: A B\nIp: 1 2\nTcp: RtoMin MaxConn\nTcp: 200 -1\nTcpExt: TW\nTcpExt: 9\n";
        let tcp = parse_table(text, "Tcp").unwrap();
        assert_eq!(tcp, Counters::from([("RtoMin".into(), 200), ("MaxConn".into(), -1)]));
        assert_eq!(parse_table(text, "TcpExt").unwrap()["TW"], 9);
    }

    #[test]
    fn what_does_not_match_is_refused() {
        for text in ["", "Tcp: A", "Tcp: A B\nTcp: 1", "Tcp: A\nTcp: x", "Tcp: A\nTcp: 1 2"] {
            assert_eq!(parse_table(text.as_bytes(), "Tcp"), None, "{text}");
        }
        assert_eq!(parse_table(b"Tcp: \xff\nTcp: 1", "Tcp"), None);
        assert_eq!(parse_table(b"Tcp: A\nTcp: 99999999999999999999", "Tcp"), None);
    }

    #[test]
    fn sockstat_is_read_by_name() {
        let text = b"sockets: used 13\nTCP: inuse 1 orphan 2 tw 3 alloc 4 mem 5\nUDP: inuse 9\n";
        let expected = SockStat { inuse: 1, inuse6: Some(7), orphan: 2, tw: 3, alloc: 4, mem: 5 };
        assert_eq!(parse_sockstat(text, b"TCP6: inuse 7\n"), Some(expected));
        let without = SockStat { inuse6: None, ..expected };
        assert_eq!(parse_sockstat(text, b""), Some(without));
        assert_eq!(parse_sockstat(b"TCP: inuse 1 orphan 2 tw", b""), None);
    }

    #[test]
    fn this_host_counts() {
        let stat = read_in(Path::new(OWN)).unwrap();
        assert!(stat.tcp.contains_key("ActiveOpens"), "{:?}", stat.tcp);
        assert!(stat.tcp_ext.contains_key("TCPTimeWaitOverflow"), "{:?}", stat.tcp_ext);
        let error = read_in(Path::new("/no/such")).unwrap_err().to_string();
        assert!(error.contains("/no/such/"), "{error}");
    }
}
