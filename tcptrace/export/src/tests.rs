//! Rows of scripts, in each format.

use std::fmt::Write as _;

use bytes::Bytes;
use parquet::{
    file::reader::{FileReader as _, SerializedFileReader},
    record::{Field, Row},
};

use super::*;
use tcptrace_model::script;
use tcptrace_pipeline::Analysis;

const SCRIPT: &str = include_str!("../../tests/recordings/v1.script");

fn exported(table: Table, format: Format, script: &str) -> (Vec<u8>, u64) {
    let header =
        Header { host: "web1".to_owned(), run: "b00t/1/2".to_owned(), ..Header::default() };
    let mut analysis =
        Analysis::new(Tracker::default(), ExportView::new(table, format, header, true));
    let mut bytes = Vec::new();
    for input in script::inputs(script).unwrap() {
        analysis.feed(&input);
        bytes.extend_from_slice(&analysis.take_output());
    }
    let accounts =
        Accounts { mono_ns: 61_040_000_000, lost: 17, missed: Some(2), ..Accounts::default() };
    analysis.feed(&Input::End(accounts));
    bytes.extend_from_slice(&analysis.take_output());
    assert!(analysis.view().finished().unwrap());
    (bytes, analysis.view().count())
}

fn text(table: Table, format: Format) -> String {
    String::from_utf8(exported(table, format, SCRIPT).0).unwrap()
}

/// All rows, as the text formats have them.
fn rows(table: Table, bytes: Vec<u8>) -> Vec<Vec<serde_json::Value>> {
    let file = SerializedFileReader::new(Bytes::from(bytes)).unwrap();
    let kinds: Vec<_> = table.columns().iter().map(|column| column.kind).collect();
    let row = |row: Row| row.get_column_iter().zip(&kinds).map(shown).collect();
    file.get_row_iter(None).unwrap().map(|read| row(read.unwrap())).collect()
}

/// A value of a column of this kind, as the text formats have it.
fn shown(((_, value), kind): ((&String, &Field), &&'static str)) -> serde_json::Value {
    match (value, *kind) {
        (Field::Null, _) => serde_json::Value::Null,
        (Field::UShort(n), "uint16") => (*n).into(),
        (Field::UInt(n), "uint32") => (*n).into(),
        (Field::Long(n), "int64") => (*n).into(),
        (Field::Bool(is), "bool") => (*is).into(),
        (Field::Str(text), "string") => text.as_str().into(),
        (Field::TimestampMicros(us), "timestamp (µs, UTC)") => {
            format!("{:.9}", jiff::Timestamp::from_microsecond(*us).unwrap()).into()
        }
        other => panic!("{other:?}"),
    }
}

const WIDE: [&str; 4] = ["time_ns", "mono_ns", "conn", "cookie"];
const TIMES: [&str; 3] = ["time", "begin", "closed"];

#[test]
fn all_formats_say_the_same() {
    for table in Table::ALL {
        let (bytes, count) = exported(table, Format::Parquet, SCRIPT);
        let read = rows(table, bytes);
        let lines = text(table, Format::Ndjson);
        let csv = text(table, Format::Csv);
        assert_eq!((read.len() as u64, lines.lines().count() as u64), (count, count));
        assert_eq!(csv.lines().count() as u64, count + 1);
        let names: Vec<_> = table.columns().iter().map(|column| column.name).collect();
        assert_eq!(csv.lines().next().unwrap(), names.join(","));
        for (row, (line, fields)) in lines.lines().zip(csv.lines().skip(1)).enumerate() {
            let object: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(line).unwrap();
            let mut expected = String::new();
            for (column, name) in names.iter().enumerate() {
                let value = read[row][column].clone();
                // JSON has numbers of 64 bits as text, and a time to the nanosecond.
                let there = &object[*name];
                match (&value, there) {
                    (serde_json::Value::Number(n), serde_json::Value::String(text)) => {
                        assert_eq!(
                            (text.clone(), WIDE.contains(name)),
                            (n.to_string(), true),
                            "{name}"
                        );
                    }
                    (serde_json::Value::String(us), serde_json::Value::String(ns))
                        if TIMES.contains(name) =>
                    {
                        assert_eq!(us[..26], ns[..26], "{name}");
                    }
                    _ => assert_eq!(
                        (there, WIDE.contains(name) && !there.is_null()),
                        (&value, false),
                        "{name}"
                    ),
                }
                let value = if TIMES.contains(name) { there.clone() } else { value };
                let comma = if column > 0 { "," } else { "" };
                match value {
                    serde_json::Value::Null => write!(expected, "{comma}").unwrap(),
                    serde_json::Value::String(text) => {
                        write!(expected, "{comma}{}", tcptrace_view::csv::quoted(&text)).unwrap();
                    }
                    other => write!(expected, "{comma}{other}").unwrap(),
                }
            }
            assert_eq!(fields, expected);
        }
    }
}

#[test]
fn a_connection_is_one_row_whether_it_ended_or_not() {
    let lines = text(Table::Connections, Format::Ndjson);
    let rows: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut ids: Vec<_> = rows.iter().map(|row| row["conn"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), rows.len());
    let of = |cookie: u64| {
        let cookie = serde_json::Value::from(cookie.to_string());
        rows.iter().find(|row| row["cookie"] == cookie).unwrap()
    };
    let curl = of(0xa1);
    assert_eq!(
        (&curl["comm"], &curl["time_wait_ns"], &curl["end_reason"], &curl["opened"]),
        (&"curl".into(), &60_000_000_000_u64.into(), &"expired".into(), &"connect".into())
    );
    assert_eq!((&curl["host"], &curl["boot_id"]), (&"web1".into(), &"b00t".into()));
    assert_eq!((&curl["service_port"], &curl["failed"]), (&443.into(), &false.into()));
    let open = rows.iter().find(|row| row["state"] == "CLOSE_WAIT").unwrap();
    assert_eq!((&open["unit"], &open["closed"]), (&"app.service".into(), &().into()));
}

#[test]
fn many_rows_are_row_groups_and_lose_none() {
    let mut script = "0ms begin\n0ms clock 1795330800000000000\n".to_owned();
    const PAIRS: u64 = 80_000;
    for i in 0..PAIRS {
        let (sk, ms) = (i + 1, i + 1);
        writeln!(script, "{ms}ms sk={sk:x} CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 comm=x").unwrap();
        writeln!(script, "{ms}.5ms sk={sk:x} SYN_SENT>CLOSE 10.0.0.1:7 10.0.0.2:443").unwrap();
    }
    let (bytes, count) = exported(Table::Transitions, Format::Parquet, &script);
    assert_eq!(count, 2 * PAIRS);
    let reader = SerializedFileReader::new(Bytes::from(bytes.clone())).unwrap();
    let metadata = reader.metadata();
    assert_eq!(metadata.num_row_groups(), 2);
    let value = |key: &str| {
        let pairs = metadata.file_metadata().key_value_metadata().unwrap();
        pairs.iter().find(|pair| pair.key == key).and_then(|pair| pair.value.clone())
    };
    assert_eq!(value("tcptrace.lost").as_deref(), Some("17"));
    assert_eq!(value("tcptrace.missed").as_deref(), Some("2"));
    assert!(value("tcptrace.recording").unwrap().contains("\"host\":\"web1\""));
    let read = rows(Table::Transitions, bytes);
    assert_eq!(read.len() as u64, count);
    // Nothing moved from one row group to another, or from one column to another.
    let at = |name| Table::Transitions.columns().iter().position(|c| c.name == name).unwrap();
    for (row, number) in read.iter().zip(0u64..) {
        let connection = number / 2 + 1;
        let new = if number % 2 == 0 { "SYN_SENT" } else { "CLOSE" };
        assert_eq!(
            (&row[at("skaddr")], &row[at("new")]),
            (&format!("0x{connection:x}").into(), &new.into())
        );
    }
}

#[test]
fn the_documentation_lists_the_columns() {
    let document = include_str!("../../../docs/RECIPES.md");
    for table in Table::ALL {
        let mut expected = String::new();
        for ColumnDoc { name, kind, says } in table.columns() {
            writeln!(expected, "| `{name}` | {kind} | {says} |").unwrap();
        }
        assert!(document.contains(&expected), "{}:\n{expected}", table.name());
    }
}
