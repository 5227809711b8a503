//! Comma-separated values: the columns of the JSON objects, one header line.

use std::{borrow::Cow, fmt::Write as _};

use bytes::{BufMut as _, BytesMut};

use super::{
    json::put_ip,
    loss,
    number::{put_hex, put_ms, put_u64},
    time::WallClock,
};
use tcptrace_model::{
    Age, Closer, EndReason, How, Initiator, Input, Linger, Moved, UnknownBecause, text::harmless,
};

/// The header, in the order in which [`Csv::transition`] writes.
pub(super) const HEADER: &str = "time,mono_ns,skaddr,cookie,netns,family,mapped,laddr,lport,raddr,\
    rport,old,new,ms,at_least,pid,comm,owner_from,linger,initiator,how,end_reason,within_ms,\
    tid,thread,closer_pid,closer_comm,closer_from,unknown_because,mptcp,netns_name,lost,gap_ms\n";

/// Writes the rows of the `live` view. What is not known is empty.
pub struct Csv {
    wall: WallClock,
    hz: u32,
}

impl Csv {
    pub(super) fn new() -> Self {
        Self { wall: WallClock::utc(), hz: 0 }
    }

    pub(super) fn wall(&mut self) -> &mut WallClock {
        &mut self.wall
    }

    /// Ticks a second, for `SO_LINGER`.
    pub(super) fn set_hz(&mut self, hz: u32) {
        self.hz = hz;
    }

    pub(super) fn transition(
        &mut self,
        moved: &Moved,
        netns_name: Option<&str>,
        out: &mut BytesMut,
    ) {
        let tuple = &moved.tuple;
        self.wall.put_rfc3339(out, moved.mono_ns);
        out.put_u8(b',');
        put_u64(out, moved.mono_ns);
        out.put_slice(b",0x");
        put_hex(out, moved.skaddr);
        number(out, moved.sock.and_then(|sock| sock.cookie));
        number(out, moved.sock.map(|sock| sock.netns.into()));
        text(out, tuple.family().name());
        text(out, if tuple.mapped() { "true" } else { "false" });
        out.put_u8(b',');
        put_ip(out, tuple.local_ip());
        number(out, (tuple.lport != 0).then_some(tuple.lport.into()));
        out.put_u8(b',');
        put_ip(out, tuple.remote_ip());
        number(out, (tuple.rport != 0).then_some(tuple.rport.into()));
        text(out, moved.old.name());
        text(out, moved.new.name());
        out.put_u8(b',');
        match moved.in_old {
            Age::Unknown => out.put_slice(b",false"),
            Age::AtLeast(ns) => {
                put_ms(out, ns);
                out.put_slice(b",true");
            }
            Age::Exactly(ns) | Age::About { ns, .. } => {
                put_ms(out, ns);
                out.put_slice(b",false");
            }
        }
        match &moved.owner {
            Some(owner) => {
                number(out, owner.task.pid().map(u64::from));
                // Writing to memory does not fail.
                let _ = write!(out, ",{}", quoted(&owner.task.name().to_string()));
                text(out, owner.from.name());
            }
            None => out.put_slice(b",,,"),
        }
        out.put_u8(b',');
        match moved.linger() {
            None => {}
            Some(Linger::Off) => out.put_slice(b"off"),
            Some(Linger::Jiffies(jiffies)) => {
                put_u64(out, u64::from(jiffies) / u64::from(self.hz.max(1)));
                out.put_u8(b's');
            }
        }
        text(out, moved.verdict.initiator.map_or("", Initiator::name));
        text(out, moved.verdict.how.map_or("", How::name));
        text(out, moved.end_reason.map_or("", EndReason::name));
        out.put_u8(b',');
        if let Age::About { within_ns, .. } = moved.in_old {
            put_ms(out, within_ns);
        }
        let task = moved.owner.map(|owner| owner.task);
        put_field(out, task.map(|task| task.tid));
        put_field(out, task.map(|task| quoted(&task.thread.to_string())));
        put_closer(out, moved.closer.as_ref());
        text(out, moved.verdict.unknown_because.map_or("", UnknownBecause::name));
        put_field(out, moved.mptcp());
        put_field(out, netns_name.map(quoted));
        out.put_slice(b",,\n");
    }

    /// A row of a loss: when it was noticed, and how many events or how long.
    pub(super) fn loss(&mut self, input: &Input, out: &mut BytesMut) {
        put_loss(input, HEADER, &mut self.wall, out);
    }
}

/// Appends a row of a loss, if `input` is one, under `header`, of which the first columns are the time
/// and the last are `lost` and `gap_ms`.
pub(super) fn put_loss(input: &Input, header: &str, wall: &mut WallClock, out: &mut BytesMut) {
    let (Some((lost, gap_ns)), Some(at)) = (loss::fields(input), input.mono_ns()) else { return };
    wall.put_rfc3339(out, at);
    put_field(out, Some(at));
    for _ in header.split(',').skip(4) {
        out.put_u8(b',');
    }
    put_field(out, lost);
    out.put_u8(b',');
    if let Some(ns) = gap_ns {
        put_ms(out, ns);
    }
    out.put_u8(b'\n');
}

/// Appends the columns of a closer: `closer_pid`, `closer_comm` and `closer_from`.
pub(super) fn put_closer(out: &mut BytesMut, closer: Option<&Closer>) {
    put_field(out, closer.and_then(|closer| closer.task.pid()));
    put_field(out, closer.map(|closer| quoted(&closer.task.name().to_string())));
    put_field(out, closer.map(|closer| closer.from.name()));
}

fn number(out: &mut BytesMut, number: Option<u64>) {
    out.put_u8(b',');
    if let Some(number) = number {
        put_u64(out, number);
    }
}

/// Appends a comma and a number or plain word, or nothing for what is not known.
pub(super) fn put_field(out: &mut BytesMut, value: Option<impl std::fmt::Display>) {
    out.put_u8(b',');
    if let Some(value) = value {
        // Writing to memory does not fail.
        let _ = write!(out, "{value}");
    }
}

fn text(out: &mut BytesMut, text: &str) {
    out.put_u8(b',');
    out.put_slice(text.as_bytes());
}

/// The text of a field. A leading `=`, `+`, `-` or `@` would make it a formula in a spreadsheet, so such
/// a name has a leading apostrophe; what would harm a terminal is escaped.
pub fn field(text: &str) -> Cow<'_, str> {
    let text = harmless(text);
    if text.starts_with(['=', '+', '-', '@']) { Cow::Owned(format!("'{text}")) } else { text }
}

/// A [`field`] as it stands in a line: quoted where RFC 4180 wants it.
pub fn quoted(text: &str) -> String {
    let field = field(text);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-:@".contains(&byte);
    if field.bytes().all(plain) {
        // Nearly all; also an empty one, which stands for nothing here.
        return field.into_owned();
    }
    let mut line = csv::WriterBuilder::new().from_writer(Vec::new());
    // Memory takes everything.
    let written = line.write_record([&*field]).and_then(|()| Ok(line.flush()?));
    let bytes = written.ok().and_then(|()| line.into_inner().ok()).unwrap_or_default();
    let line = String::from_utf8(bytes).unwrap_or_default();
    line.trim_end_matches('\n').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcptrace_model::{Change, script};
    use tcptrace_track::Tracker;

    #[test]
    fn a_row_has_a_field_for_each_column() {
        let (mut tracker, mut csv, mut out) = (Tracker::default(), Csv::new(), BytesMut::new());
        csv.set_hz(250);
        let text = "0ms begin\n\
            1ms sk=a CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 pid=812 comm=a,b linger=500\n\
            2ms sk=a SYN_SENT>CLOSE 10.0.0.1:7 10.0.0.2:443 classic\n";
        for input in script::inputs(text).unwrap() {
            tracker.apply(&input, &mut |change| {
                if let Change::Moved(moved) = change {
                    csv.transition(&moved, Some("=1,\"x"), &mut out);
                }
            });
        }
        assert_eq!(
            std::str::from_utf8(&out).unwrap(),
            ",1000000,0xa,,0,ipv4,false,10.0.0.1,,10.0.0.2,443,CLOSE,SYN_SENT,,false,812,\"a,b\",\
             connect,2s,,,,,812,\"a,b\",,,,,,\"'=1,\"\"x\",,\n\
             ,2000000,0xa,,,ipv4,false,10.0.0.1,7,10.0.0.2,443,SYN_SENT,CLOSE,1.000,false,812,\
             \"a,b\",connect,,,unknown,,,812,\"a,b\",,,,classic-hook,,\"'=1,\"\"x\",,\n"
        );
        let columns = HEADER.matches(',').count();
        assert_eq!(
            std::str::from_utf8(&out).unwrap().lines().nth(1).unwrap().matches(',').count(),
            columns + 3,
            "a comma in each name"
        );
    }

    #[test]
    fn a_name_cannot_become_a_formula() {
        assert_eq!(quoted("curl"), "curl");
        assert_eq!(quoted("=1+1"), "'=1+1");
        assert_eq!(quoted("a\nb\r\u{202e}"), "a\\x0ab\\x0d\\u{202e}");
        assert_eq!(quoted("=a,b"), "\"'=a,b\"");
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
    }
}
