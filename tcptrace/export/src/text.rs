//! Rows as text: CSV and NDJSON.

use bytes::{BufMut as _, BytesMut};
use jiff::Timestamp;

use super::column::{Column, Row, Value};
use tcptrace_view::csv::quoted;

/// RFC 3339 with nanoseconds, UTC.
fn shown(ns: i64) -> String {
    Timestamp::from_nanosecond(ns.into()).map_or_else(|_| String::new(), |at| format!("{at:.9}"))
}

/// The names of the columns.
pub(super) fn csv_header<T>(columns: &[Column<T>], out: &mut BytesMut) {
    let names: Vec<_> = columns.iter().map(Column::name).collect();
    out.put_slice(names.join(",").as_bytes());
    out.put_u8(b'\n');
}

/// Comma-separated values; what is not known is empty.
pub(super) fn csv<T>(columns: &[Column<T>], rows: &[Row<'_, T>], out: &mut BytesMut) {
    let (mut text, mut line) = (String::new(), String::new());
    for row in rows {
        line.clear();
        for (at, column) in columns.iter().enumerate() {
            if at > 0 {
                line.push(',');
            }
            text.clear();
            match column.value(row, &mut text) {
                None => {}
                Some(Value::Number(n)) => line.push_str(itoa::Buffer::new().format(n)),
                Some(Value::Time(ns)) => line.push_str(&shown(ns)),
                Some(Value::Bool(is)) => line.push_str(if is { "true" } else { "false" }),
                Some(Value::Text(text)) => line.push_str(&quoted(text)),
            }
        }
        line.push('\n');
        out.put_slice(line.as_bytes());
    }
}

/// One JSON object a line; what is not known is `null`.
pub(super) fn ndjson<T>(columns: &[Column<T>], rows: &[Row<'_, T>], out: &mut BytesMut) {
    let (mut text, mut line) = (String::new(), String::new());
    for row in rows {
        line.clear();
        for (at, column) in columns.iter().enumerate() {
            line.push_str(if at > 0 { ",\"" } else { "{\"" });
            line.push_str(column.name());
            line.push_str("\":");
            text.clear();
            match column.value(row, &mut text) {
                None => line.push_str("null"),
                Some(Value::Number(n)) => line.push_str(itoa::Buffer::new().format(n)),
                Some(Value::Time(ns)) => {
                    line.push('"');
                    line.push_str(&shown(ns));
                    line.push('"');
                }
                Some(Value::Bool(is)) => line.push_str(if is { "true" } else { "false" }),
                Some(Value::Text(text)) => {
                    line.push_str(&serde_json::Value::from(text).to_string());
                }
            }
        }
        line.push_str("}\n");
        out.put_slice(line.as_bytes());
    }
}
