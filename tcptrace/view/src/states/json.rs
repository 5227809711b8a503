//! `{"v":2,"type":"states",…}`: an object an interval.

use std::fmt::Write as _;

use bytes::{BufMut as _, BytesMut};

use super::line::Line;
use crate::time::WallClock;

pub(super) fn line(line: &Line, wall: &mut WallClock, out: &mut BytesMut) {
    out.put_slice(br#"{"v":2,"type":"states","time":"#);
    wall.put_json(out, line.mono_ns);
    // Writing to memory does not fail.
    let _ = write!(
        out,
        r#","mono_ns":"{}","seconds":{},"corrected":{},"rows":["#,
        line.mono_ns,
        number(line.seconds()),
        line.corrected
    );
    for (index, row) in line.rows.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let (entered, left) = (row.entered(), row.left());
        let _ = write!(
            out,
            r#"{comma}{{"state":"{}","count":{},"change":{},"in":{},"out":{},"in_per_s":{},"out_per_s":{}}}"#,
            row.state,
            number(row.flow.map(|flow| flow.now)),
            number(row.change()),
            number(entered),
            number(left),
            rate(line.per_second(entered)),
            rate(line.per_second(left))
        );
    }
    out.put_slice(b"]}\n");
}

fn number(number: Option<impl ToString>) -> String {
    number.map_or("null".to_owned(), |number| number.to_string())
}

fn rate(rate: Option<f64>) -> String {
    rate.map_or("null".to_owned(), |rate| format!("{rate:.1}"))
}
