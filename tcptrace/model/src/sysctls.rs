//! The sysctls of a network namespace that decide how its TCP behaves, as values.
//!
//! What is read is text that anybody with the right to write there may have chosen, or that a
//! recording brought: it is parsed strictly, and what is not as the kernel would print it is kept
//! as unreadable, with why. What a value means is not said here.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// One sysctl.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sysctl<T> {
    /// Its value.
    Is(T),
    /// There is no such file: this kernel has no such sysctl, or only its first network namespace
    /// has (`tcp_max_orphans`).
    #[default]
    Absent,
    /// It is there, or may be, and could not be read: why. May hold untrusted text, escaped.
    Unreadable(Box<str>),
}

impl<T> Sysctl<T> {
    /// The value, if it is known.
    pub fn value(&self) -> Option<&T> {
        match self {
            Self::Is(value) => Some(value),
            Self::Absent | Self::Unreadable(_) => None,
        }
    }

    /// The value, or in words why there is none.
    pub fn known(&self) -> Result<&T, &str> {
        match self {
            Self::Is(value) => Ok(value),
            Self::Absent => Err("there is no such sysctl"),
            Self::Unreadable(why) => Err(why),
        }
    }
}

/// The sysctls of one network namespace. Numbers are as the kernel prints them, in the unit that is
/// said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sysctls {
    /// 0 never, 1 when the SYN queue is full, 2 always.
    pub tcp_syncookies: Sysctl<i64>,
    /// 0 no, 1 yes, 2 on loopback only (4.19).
    pub tcp_tw_reuse: Sysctl<i64>,
    /// Milliseconds (6.14).
    pub tcp_tw_reuse_delay: Sysctl<i64>,
    /// Gone since 4.12.
    pub tcp_tw_recycle: Sysctl<i64>,
    /// Seconds.
    pub tcp_fin_timeout: Sysctl<i64>,
    /// Seconds.
    pub tcp_keepalive_time: Sysctl<i64>,
    /// Seconds.
    pub tcp_keepalive_intvl: Sysctl<i64>,
    /// How many.
    pub tcp_keepalive_probes: Sysctl<i64>,
    /// Both ends are part of it.
    pub ip_local_port_range: Sysctl<PortRange>,
    /// In order; none is none.
    pub ip_local_reserved_ports: Sysctl<Vec<PortRange>>,
    /// Sockets.
    pub tcp_max_syn_backlog: Sysctl<i64>,
    /// `net.core.somaxconn`, connections.
    pub somaxconn: Sysctl<i64>,
    /// Minisocks.
    pub tcp_max_tw_buckets: Sysctl<i64>,
    /// Sockets, of the whole host.
    pub tcp_max_orphans: Sysctl<i64>,
    /// Tries; 0 stands for 8.
    pub tcp_orphan_retries: Sysctl<i64>,
    /// A number that stands for a time: see `tcp_model_timeout()`.
    pub tcp_retries2: Sysctl<i64>,
    /// Tries.
    pub tcp_syn_retries: Sysctl<i64>,
    /// Tries with the same timeout before it is doubled (6.5).
    pub tcp_syn_linear_timeouts: Sysctl<i64>,
    /// Milliseconds (6.15).
    pub tcp_rto_max_ms: Sysctl<i64>,
    /// 1: a RST does not end a TIME_WAIT.
    pub tcp_rfc1337: Sysctl<i64>,
    /// 1: a full accept queue answers with a RST.
    pub tcp_abort_on_overflow: Sysctl<i64>,
    /// 0 no, 1 with a random offset, 2 without.
    pub tcp_timestamps: Sysctl<i64>,
}

/// The sysctls of a namespace at a moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetnsSysctls {
    /// When they were read: `CLOCK_MONOTONIC`, nanoseconds.
    pub mono_ns: u64,
    /// Inode of the namespace.
    pub netns: u32,
    /// What was read.
    pub sysctls: Sysctls,
}

/// Ports from `low` to `high`, both part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortRange {
    /// The first.
    pub low: u16,
    /// The last, not below the first.
    pub high: u16,
}

impl PortRange {
    /// Whether `port` is in it.
    pub fn contains(&self, port: u16) -> bool {
        (self.low..=self.high).contains(&port)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.low == self.high {
            write!(f, "{}", self.low)
        } else {
            write!(f, "{}-{}", self.low, self.high)
        }
    }
}

/// Text that is no value of the sysctl. Escaped and cut.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("'{0}' is not what the kernel would print there")]
pub struct BadValue(String);

impl BadValue {
    const SHOWN: usize = 40;

    fn of(text: &str) -> Self {
        Self(text.chars().take(Self::SHOWN).flat_map(char::escape_default).collect())
    }
}

/// A number, as the kernel prints it: with nothing around it but blanks.
pub fn number(text: &str) -> Result<i64, BadValue> {
    let text = text.trim_ascii();
    strict(text).ok_or_else(|| BadValue::of(text))
}

/// `ip_local_port_range`: two ports with blanks between them.
pub fn range(text: &str) -> Result<PortRange, BadValue> {
    let mut words = text.split_ascii_whitespace();
    let (low, high) = (words.next().and_then(strict), words.next().and_then(strict));
    match (low, high, words.next()) {
        (Some(low), Some(high), None) if low <= high => Ok(PortRange { low, high }),
        _ => Err(BadValue::of(text.trim_ascii())),
    }
}

/// `ip_local_reserved_ports`: `80,8000-8100`, or nothing; in order.
pub fn ports(text: &str) -> Result<Vec<PortRange>, BadValue> {
    let text = text.trim_ascii();
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let mut ranges: Vec<PortRange> = Vec::new();
    for item in text.split(',') {
        let (low, high) = item.split_once('-').unwrap_or((item, item));
        match (strict(low), strict(high)) {
            (Some(low), Some(high))
                if low <= high && ranges.last().is_none_or(|last| last.high < low) =>
            {
                ranges.push(PortRange { low, high });
            }
            _ => return Err(BadValue::of(item)),
        }
    }
    Ok(ranges)
}

/// Digits and a minus sign alone: `FromStr` would also take a plus.
fn strict<T: FromStr>(text: &str) -> Option<T> {
    if text.starts_with('+') { None } else { text.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_the_kernel_prints_them() {
        assert_eq!(number("60\n"), Ok(60));
        assert_eq!(number("-1\n"), Ok(-1));
        assert_eq!(range("32768\t60999\n"), Ok(PortRange { low: 32768, high: 60999 }));
        assert_eq!(range("1 1"), Ok(PortRange { low: 1, high: 1 }));
        assert_eq!(ports("\n"), Ok(vec![]));
        let ranges = ports("0,80,8000-8100,65535\n").unwrap();
        let shown: Vec<_> = ranges.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["0", "80", "8000-8100", "65535"]);
        assert!(ranges[2].contains(8100) && !ranges[2].contains(8101));
    }

    #[test]
    fn nonsense_is_refused_and_shown_escaped() {
        for text in ["", "+1", "1 2", "0x1", "1.0", "99999999999999999999", "one"] {
            assert!(number(text).is_err(), "{text}");
        }
        for text in ["", "1", "2 1", "1 2 3", "1 65536", "-1 5", "1-5"] {
            assert!(range(text).is_err(), "{text}");
        }
        for text in [",", "1,", "5-4", "1 2", "65536", "2,1", "1-5,5", "+1", "1--2"] {
            assert!(ports(text).is_err(), "{text}");
        }
        let error = number(&format!("\x1b[2J{}", "x".repeat(9999))).unwrap_err().to_string();
        assert!(error.starts_with("'\\u{1b}[2Jxx") && error.len() < 120, "{error}");
    }

    #[test]
    fn what_is_not_there_is_told_from_what_cannot_be_read() {
        assert_eq!(Sysctl::Is(5).known(), Ok(&5));
        assert_eq!(Sysctl::<i64>::Absent.known(), Err("there is no such sysctl"));
        let unreadable: Sysctl<i64> = Sysctl::Unreadable("permission denied".into());
        assert_eq!((unreadable.known(), unreadable.value()), (Err("permission denied"), None));
    }
}
