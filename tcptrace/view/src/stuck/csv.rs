//! Comma-separated values: a row for each group. The connections are in the JSON objects alone.

use bytes::{BufMut as _, BytesMut};

use super::moment::Moment;
use crate::{
    csv::{put_field, quoted},
    number::put_ms,
    time::WallClock,
};
use tcptrace_model::Age;
use tcptrace_stats::{
    conns::least_ns,
    stuck::{Count, Whose},
};

pub(super) const HEADER: &str = "time,mono_ns,seconds,state,by,group,kind,stuck,all,change,\
    oldest_ms,at_least,looked_at,unread,unsent,eof_unread,cause,\
    older_ms\n";

pub(super) fn print(moment: &Moment<'_>, wall: &mut WallClock, out: &mut BytesMut) {
    for of in &moment.report.sections {
        let mut row = |label: Option<String>, kind: &str, count: &Count| {
            wall.put_rfc3339(out, moment.mono_ns);
            put_field(out, Some(moment.mono_ns));
            put_field(out, moment.seconds());
            put_field(out, Some(of.state));
            put_field(out, Some(moment.wanted.by.name()));
            put_field(out, label.map(|label| quoted(&label)));
            put_field(out, Some(kind));
            put_field(out, Some(count.stuck));
            put_field(out, Some(count.all));
            put_field(out, count.change());
            out.put_u8(b',');
            if let Some(age) = count.oldest.filter(|age| *age != Age::Unknown) {
                put_ms(out, least_ns(age));
            }
            put_field(out, Some(matches!(count.oldest, Some(Age::AtLeast(_)))));
            put_field(out, Some(count.looked_at));
            let looked = |sum| (count.looked_at > 0).then_some(sum);
            put_field(out, looked(count.unread));
            put_field(out, looked(count.unsent));
            put_field(out, looked(count.eof_unread));
            put_field(out, Some(of.cause.name()));
            put_field(out, Some(of.older.as_millis()));
            out.put_u8(b'\n');
        };
        for (whose, count) in &of.groups {
            row(whose.label(), whose.kind(), count);
        }
        if of.rest.0 > 0 {
            row(None, Whose::REST, &of.rest.1);
        }
    }
}
