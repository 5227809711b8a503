//! One JSON object a line.
//!
//! The lines of transitions are written by hand: a million of them cost what serde_json takes
//! for half as many. A test reads them back with serde_json.

use std::net::IpAddr;

use bytes::{BufMut, BytesMut};

use super::{
    number::{put_hex, put_ms, put_u64},
    time::WallClock,
};
use tcptrace_model::{
    Accounts, Age, Comm, EndReason, How, Initiator, Linger, Moved, ProcessName, TcpState,
    UnknownBecause,
};

/// Writes the objects of the `live` view.
pub struct Json {
    wall: WallClock,
    hz: u32,
    /// The line that is being written.
    line: Vec<u8>,
}

impl Json {
    pub(super) fn new() -> Self {
        Self { wall: WallClock::utc(), hz: 0, line: Vec::with_capacity(1024) }
    }

    pub(super) fn wall(&mut self) -> &mut WallClock {
        &mut self.wall
    }

    /// Ticks a second, for `SO_LINGER`.
    pub(super) fn set_hz(&mut self, hz: u32) {
        self.hz = hz;
    }

    /// `{"v":2,"type":"transition",…}`
    pub(super) fn transition(
        &mut self,
        moved: &Moved,
        netns_name: Option<&str>,
        bytes: &mut BytesMut,
    ) {
        // Many small pieces: into a vector, whose appending is inlined, and from there at once.
        let mut line = std::mem::take(&mut self.line);
        line.clear();
        let out = &mut line;
        out.put_slice(br#"{"v":2,"type":"transition","time":"#);
        self.wall.put_json(out, moved.mono_ns);
        out.put_slice(br#","mono_ns":""#);
        put_u64(out, moved.mono_ns);
        out.put_slice(br#"","skaddr":"0x"#);
        put_hex(out, moved.skaddr);
        out.put_slice(br#"","cookie":"#);
        match moved.sock.and_then(|sock| sock.cookie) {
            Some(cookie) => {
                out.put_u8(b'"');
                put_u64(out, cookie);
                out.put_u8(b'"');
            }
            None => out.put_slice(b"null"),
        }
        out.put_slice(br#","netns":"#);
        optional(out, moved.sock.map(|sock| sock.netns.into()));
        let tuple = &moved.tuple;
        out.put_slice(br#","family":""#);
        out.put_slice(tuple.family().name().as_bytes());
        out.put_slice(br#"","mapped":"#);
        out.put_slice(if tuple.mapped() { b"true" } else { b"false" });
        out.put_slice(br#","laddr":""#);
        put_ip(out, tuple.local_ip());
        out.put_slice(br#"","lport":"#);
        port(out, tuple.lport, true);
        out.put_slice(br#","raddr":"#);
        let listening = moved.old == TcpState::Listen && moved.new == TcpState::Close
            || moved.new == TcpState::Listen;
        if tuple.rport == 0 && !listening {
            out.put_slice(b"null");
        } else {
            out.put_u8(b'"');
            put_ip(out, tuple.remote_ip());
            out.put_u8(b'"');
        }
        out.put_slice(br#","rport":"#);
        port(out, tuple.rport, !listening);
        out.put_slice(br#","old":""#);
        out.put_slice(moved.old.name().as_bytes());
        out.put_slice(br#"","new":""#);
        out.put_slice(moved.new.name().as_bytes());
        out.put_slice(br#"","ms":"#);
        match moved.in_old {
            Age::Unknown => out.put_slice(br#"null,"at_least":false"#),
            Age::AtLeast(ns) => {
                put_ms(out, ns);
                out.put_slice(br#","at_least":true"#);
            }
            Age::Exactly(ns) | Age::About { ns, .. } => {
                put_ms(out, ns);
                out.put_slice(br#","at_least":false"#);
            }
        }
        match &moved.owner {
            Some(owner) => {
                out.put_slice(br#","pid":"#);
                optional(out, owner.task.pid().map(u64::from));
                out.put_slice(br#","comm":"#);
                put_name(out, owner.task.name());
                out.put_slice(br#","owner_from":""#);
                out.put_slice(owner.from.name().as_bytes());
                out.put_slice(br#"","tid":"#);
                put_u64(out, owner.task.tid.into());
                out.put_slice(br#","thread":"#);
                put_comm(out, &owner.task.thread);
            }
            None => out.put_slice(
                br#","pid":null,"comm":null,"owner_from":null,"tid":null,"thread":null"#,
            ),
        }
        match &moved.closer {
            Some(closer) => {
                out.put_slice(br#","closer_pid":"#);
                optional(out, closer.task.pid().map(u64::from));
                out.put_slice(br#","closer_comm":"#);
                put_name(out, closer.task.name());
                out.put_slice(br#","closer_from":""#);
                out.put_slice(closer.from.name().as_bytes());
                out.put_u8(b'"');
            }
            None => out.put_slice(br#","closer_pid":null,"closer_comm":null,"closer_from":null"#),
        }
        out.put_slice(br#","linger":"#);
        match moved.linger() {
            None => out.put_slice(b"null"),
            Some(Linger::Off) => out.put_slice(br#""off""#),
            Some(Linger::Jiffies(jiffies)) => {
                out.put_u8(b'"');
                put_u64(out, u64::from(jiffies) / u64::from(self.hz.max(1)));
                out.put_slice(br#"s""#);
            }
        }
        out.put_slice(br#","initiator":"#);
        word(out, moved.verdict.initiator.map(Initiator::name));
        out.put_slice(br#","how":"#);
        word(out, moved.verdict.how.map(How::name));
        out.put_slice(br#","unknown_because":"#);
        word(out, moved.verdict.unknown_because.map(UnknownBecause::name));
        out.put_slice(br#","end_reason":"#);
        word(out, moved.end_reason.map(EndReason::name));
        out.put_slice(br#","within_ms":"#);
        match moved.in_old {
            Age::About { within_ns, .. } => put_ms(out, within_ns),
            _ => out.put_slice(b"null"),
        }
        out.put_slice(br#","mptcp":"#);
        out.put_slice(match moved.mptcp() {
            None => b"null",
            Some(true) => b"true",
            Some(false) => b"false",
        });
        out.put_slice(br#","netns_name":"#);
        put_text(out, netns_name);
        out.put_u8(b'}');
        out.put_u8(b'\n');
        bytes.put_slice(&line);
        self.line = line;
    }

    /// `{"v":2,"type":"left_out",…}`: what `--rate-limit` did not print.
    pub(super) fn left_out(&self, count: u64, mono_ns: u64, out: &mut BytesMut) {
        line(
            out,
            &format_args!(r#"{{"v":2,"type":"left_out","count":{count},"mono_ns":"{mono_ns}"}}"#),
        );
    }

    /// `{"v":2,"type":"summary",…}`
    pub(super) fn summary(&self, a: &Accounts, out: &mut BytesMut) {
        let missed = a.missed.map_or("null".to_owned(), |missed| missed.to_string());
        line(
            out,
            &format_args!(
                r#"{{"v":2,"type":"summary","seconds":{:.1},"seen":{},"delivered":{},"filtered":{},"lost":{},"missed":{missed},"gaps":{},"gap_seconds":{:.3},"complete":{}}}"#,
                a.seconds,
                a.seen,
                a.delivered,
                a.filtered,
                a.lost,
                a.gaps.count,
                a.gaps.ns as f64 / 1e9,
                a.gaps.complete()
            ),
        );
    }
}

fn line(out: &mut BytesMut, text: &std::fmt::Arguments<'_>) {
    use std::fmt::Write as _;
    // Writing to memory does not fail.
    let _ = writeln!(out, "{text}");
}

/// A word of ours, which needs no escape.
fn word(out: &mut Vec<u8>, word: Option<&'static str>) {
    match word {
        Some(word) => {
            out.put_u8(b'"');
            out.put_slice(word.as_bytes());
            out.put_u8(b'"');
        }
        None => out.put_slice(b"null"),
    }
}

/// Text of others, escaped already.
fn put_text(out: &mut impl BufMut, text: Option<&str>) {
    match text {
        None => out.put_slice(b"null"),
        Some(text)
            if text.bytes().all(|c| matches!(c, b' '..=b'~') && !matches!(c, b'"' | b'\\')) =>
        {
            out.put_u8(b'"');
            out.put_slice(text.as_bytes());
            out.put_u8(b'"');
        }
        Some(text) => out.put_slice(serde_json::Value::from(text).to_string().as_bytes()),
    }
}

fn optional(out: &mut impl BufMut, number: Option<u64>) {
    match number {
        Some(number) => put_u64(out, number),
        None => out.put_slice(b"null"),
    }
}

/// A port; 0 stands for unknown, or for none where `zero_is_unknown` is false.
fn port(out: &mut impl BufMut, port: u16, zero_is_unknown: bool) {
    optional(out, (port != 0 || !zero_is_unknown).then_some(port.into()));
}

/// Appends an address as the standard library would.
pub(super) fn put_ip(out: &mut impl BufMut, ip: IpAddr) {
    match ip {
        IpAddr::V4(v4) => {
            for (i, octet) in v4.octets().into_iter().enumerate() {
                if i > 0 {
                    out.put_u8(b'.');
                }
                put_u64(out, octet.into());
            }
        }
        IpAddr::V6(v6) => out.put_slice(v6.to_string().as_bytes()),
    }
}

/// Appends what a process is called as a JSON string, in its escaped form.
fn put_name(out: &mut impl BufMut, name: ProcessName) {
    if name.is_kernel || name.comm.as_bytes().first() == Some(&b'[') {
        let text = serde_json::Value::String(name.to_string());
        out.put_slice(text.to_string().as_bytes());
    } else {
        put_comm(out, &name.comm);
    }
}

/// Appends a name as a JSON string, in its escaped form.
fn put_comm(out: &mut impl BufMut, comm: &Comm) {
    if comm.is_plain() && !comm.as_bytes().contains(&b'"') {
        out.put_u8(b'"');
        out.put_slice(comm.as_bytes());
        out.put_u8(b'"');
    } else {
        let text = serde_json::Value::String(comm.to_string());
        out.put_slice(text.to_string().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcptrace_model::{Change, Clock, script};
    use tcptrace_track::Tracker;

    /// What `live -o json` prints of a script.
    fn lines(text: &str) -> Vec<serde_json::Value> {
        let (mut tracker, mut json, mut out) = (Tracker::default(), Json::new(), BytesMut::new());
        json.set_hz(250);
        json.wall().set(Clock { mono_ns: 0, realtime_offset_ns: 1_795_330_800_000_000_000 });
        for input in script::inputs(text).unwrap() {
            crate::loss::json(&input, &mut out);
            tracker.apply(&input, &mut |change| {
                if let Change::Moved(moved) = change {
                    json.transition(&moved, None, &mut out);
                }
            });
        }
        let text = std::str::from_utf8(&out).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_transition_is_the_object_that_the_contract_names() {
        let lines = lines(
            "0ms begin\n\
             0.000123ms sk=ffff888102da40c0 CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 pid=812 comm=curl \
             cookie=9b2d netns=4026531840\n\
             5.412ms sk=ffff888102da40c0 SYN_SENT>ESTABLISHED 10.0.0.1:40001 10.0.0.2:443 pid=1 \
             comm=other cookie=9b2d netns=4026531840 linger=500\n",
        );
        let expected = serde_json::json!({
            "v": 2, "type": "transition", "time": "2026-11-22T07:00:00.005412000Z",
            "mono_ns": "5412000", "skaddr": "0xffff888102da40c0", "cookie": "39725",
            "netns": 4026531840_u32, "family": "ipv4", "mapped": false, "laddr": "10.0.0.1",
            "lport": 40001, "raddr": "10.0.0.2", "rport": 443, "old": "SYN_SENT",
            "new": "ESTABLISHED", "ms": 5.411, "at_least": false, "pid": 812, "comm": "curl",
            "owner_from": "connect", "tid": 812, "thread": "curl", "closer_pid": null,
            "closer_comm": null, "closer_from": null, "linger": "2s", "initiator": null, "how": null,
            "unknown_because": null, "end_reason": null, "within_ms": null, "mptcp": null,
            "netns_name": null
        });
        assert_eq!(lines[1], expected);
        assert_eq!(lines[0]["lport"], serde_json::Value::Null, "not bound yet");
        assert_eq!(lines[0]["ms"], serde_json::Value::Null);
    }

    #[test]
    fn the_fields_are_those_of_the_documentation_in_its_order() {
        let (mut tracker, mut json, mut out) = (Tracker::default(), Json::new(), BytesMut::new());
        for input in script::inputs("1ms sk=a CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443").unwrap() {
            tracker.apply(&input, &mut |change| {
                if let Change::Moved(moved) = change {
                    json.transition(&moved, None, &mut out);
                }
            });
        }
        let text = std::str::from_utf8(&out).unwrap();
        // The example in the documentation has all fields, in this order.
        let documented = include_str!("../../../docs/OUTPUT.md");
        let example = documented.lines().find(|line| line.starts_with("{\"v\":2")).unwrap();
        let object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(example).unwrap();
        let written: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(text).unwrap();
        assert_eq!(object.len(), written.len());
        let mut keys: Vec<&String> = object.keys().collect();
        keys.sort_by_key(|key| example.find(&format!("\"{key}\":")));
        let mut at = 0;
        for key in keys {
            let next = text[at..].find(&format!("\"{key}\":")).unwrap_or_else(|| panic!("{key}"));
            at += next + 1;
        }
    }

    #[test]
    fn text_of_others_stays_within_its_string() {
        for text in ["blue", "a\"b", "back\\\\slash", "grün", "\\x1b[2J"] {
            let mut out = BytesMut::new();
            put_text(&mut out, Some(text));
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
        let mut none = BytesMut::new();
        put_text(&mut none, None);
        assert_eq!(&none[..], b"null");
    }

    #[test]
    fn a_hostile_name_stays_within_its_string() {
        for name in ["\x1b[31m", "a\"b", "back\\slash", "\u{2028}x", "grün"] {
            let mut out = BytesMut::new();
            put_comm(&mut out, &Comm::from(name));
            let read: String = serde_json::from_slice(&out).unwrap();
            assert_eq!(read, Comm::from(name).to_string());
            assert!(!out.contains(&0x1b));
        }
    }

    #[test]
    fn what_the_classic_hook_cannot_know_is_null() {
        let lines =
            lines("1ms sk=a CLOSE>LISTEN [::]:80 [::]:0 classic pid=7 comm=nginx\n2ms lost 17\n");
        for key in ["cookie", "netns", "linger"] {
            assert_eq!(lines[0][key], serde_json::Value::Null, "{key}");
        }
        assert_eq!((&lines[0]["raddr"], &lines[0]["rport"]), (&"::".into(), &0.into()));
        assert_eq!(lines[0]["owner_from"], "listener");
        assert_eq!(lines[1]["count"], 17);
    }

    #[test]
    fn addresses_are_written_as_the_standard_library_does() {
        for ip in ["0.0.0.0", "255.255.255.255", "10.0.200.1", "::", "2001:db8::1", "fe80::a:0:0:1"]
        {
            let mut out = BytesMut::new();
            put_ip(&mut out, ip.parse().unwrap());
            assert_eq!(std::str::from_utf8(&out).unwrap(), ip);
        }
    }
}
