//! Rows as text: CSV and NDJSON.

use bytes::{BufMut as _, BytesMut};
use jiff::Timestamp;

use super::column::{Column, Row, Value};
use tcptrace_view::csv::field;

/// RFC 3339 with nanoseconds, UTC.
fn shown(ns: i64) -> String {
    Timestamp::from_nanosecond(ns.into()).map_or_else(|_| String::new(), |at| format!("{at:.9}"))
}

/// What writes records of CSV: commas, quotes where they are needed, one line feed at the end.
fn records(out: &mut BytesMut) -> csv::Writer<bytes::buf::Writer<&mut BytesMut>> {
    csv::WriterBuilder::new().from_writer(out.writer())
}

/// The names of the columns.
///
/// # Errors
/// None, since memory takes everything.
pub(super) fn csv_header<T>(columns: &[Column<T>], out: &mut BytesMut) -> Result<(), csv::Error> {
    let mut records = records(out);
    records.write_record(columns.iter().map(Column::name))?;
    Ok(records.flush()?)
}

/// Comma-separated values; what is not known is empty.
///
/// # Errors
/// None, since memory takes everything.
pub(super) fn csv<T>(
    columns: &[Column<T>],
    rows: &[Row<'_, T>],
    out: &mut BytesMut,
) -> Result<(), csv::Error> {
    let mut text = String::new();
    let mut records = records(out);
    for row in rows {
        for column in columns {
            text.clear();
            match column.value(row, &mut text) {
                None => records.write_field("")?,
                Some(Value::Number(n) | Value::Wide(n)) => {
                    records.write_field(itoa::Buffer::new().format(n))?;
                }
                Some(Value::Time(ns)) => records.write_field(shown(ns))?,
                Some(Value::Bool(is)) => records.write_field(if is { "true" } else { "false" })?,
                Some(Value::Text(text)) => records.write_field(&*field(text))?,
            }
        }
        records.write_record(None::<&[u8]>)?;
    }
    Ok(records.flush()?)
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
                Some(Value::Wide(n)) => {
                    line.push('"');
                    line.push_str(itoa::Buffer::new().format(n));
                    line.push('"');
                }
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
