//! Batches of rows as bytes, in one of three formats.

use std::sync::Arc;

use bytes::BytesMut;
use parquet::{
    basic::{Compression, Encoding, ZstdLevel},
    errors::ParquetError,
    file::{metadata::KeyValue, properties::WriterProperties},
    schema::types::ColumnPath,
};

use super::{
    column::{Column, Row, schema},
    format::{ExportError, Format},
    groups::Groups,
    text,
};
use tcptrace_model::{Accounts, Gap, Gaps};
use tcptrace_record::Header;

impl From<ParquetError> for ExportError {
    fn from(error: ParquetError) -> Self {
        Self(error.to_string())
    }
}

impl From<csv::Error> for ExportError {
    fn from(error: csv::Error) -> Self {
        Self(error.to_string())
    }
}

/// Events of its time that a table has nothing of; `None`: not known.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Absent {
    pub(super) lost: u64,
    pub(super) missed: Option<u64>,
    pub(super) filtered: Option<u64>,
    /// What a recording has lost; `None` of what goes on.
    pub(super) gaps: Option<Gaps>,
}

impl Absent {
    /// All that `accounts` tell of.
    pub(super) fn of(accounts: &Accounts) -> Self {
        let Accounts { lost, missed, filtered, gaps, .. } = *accounts;
        Self { lost, missed, filtered: Some(filtered), gaps: Some(gaps) }
    }
}

/// Where batches go.
pub(super) enum Sink {
    Parquet(Box<Groups>),
    /// Whether the header was written.
    Csv(bool),
    Ndjson,
}

impl Sink {
    /// One for rows of `columns`, from the recording with this `header`.
    pub(super) fn new<T>(
        format: Format,
        columns: &[Column<T>],
        header: &Header,
    ) -> Result<Self, ExportError> {
        Ok(match format {
            Format::Csv => Self::Csv(false),
            Format::Ndjson => Self::Ndjson,
            Format::Parquet => {
                let properties = Arc::new(properties(columns, header)?);
                Self::Parquet(Box::new(Groups::new(schema(columns)?, properties)?))
            }
        })
    }

    /// Writes rows; `out` may get them later.
    pub(super) fn write<T>(
        &mut self,
        columns: &[Column<T>],
        rows: &[Row<'_, T>],
        out: &mut BytesMut,
    ) -> Result<(), ExportError> {
        match self {
            Self::Parquet(groups) => groups.write(columns, rows, out)?,
            Self::Csv(headed) => {
                if !std::mem::replace(headed, true) {
                    text::csv_header(columns, out)?;
                }
                text::csv(columns, rows, out)?;
            }
            Self::Ndjson => text::ndjson(columns, rows, out),
        }
        Ok(())
    }

    /// Writes what is left, and the end, with what is not in it.
    pub(super) fn finish(
        &mut self,
        absent: &Absent,
        spans: &[Gap],
        out: &mut BytesMut,
    ) -> Result<(), ExportError> {
        if let Self::Parquet(groups) = self {
            if let Some(gaps) = absent.gaps {
                // The first of them with their time: `CLOCK_MONOTONIC`, as in the column mono_ns.
                let spans: Vec<_> = spans
                    .iter()
                    .map(|gap| {
                        serde_json::json!({
                            "from_mono_ns": gap.from_ns.to_string(),
                            "mono_ns": gap.mono_ns.to_string(),
                            "because": gap.because.name(),
                        })
                    })
                    .collect();
                for (name, value) in [
                    ("tcptrace.gaps", gaps.count.to_string()),
                    ("tcptrace.gap_seconds", format!("{:.3}", gaps.ns as f64 / 1e9)),
                    ("tcptrace.complete", gaps.complete().to_string()),
                    ("tcptrace.gap_spans", serde_json::Value::from(spans).to_string()),
                ] {
                    groups.say(KeyValue::new(name.to_owned(), value));
                }
            }
            for (name, value) in [
                ("tcptrace.lost", Some(absent.lost)),
                ("tcptrace.missed", absent.missed),
                ("tcptrace.filtered", absent.filtered),
            ] {
                let value = value.map(|value| value.to_string());
                groups.say(KeyValue::new(name.to_owned(), value));
            }
            groups.finish(out)?;
        }
        Ok(())
    }
}

fn properties<T>(columns: &[Column<T>], header: &Header) -> Result<WriterProperties, ExportError> {
    let about = serde_json::to_string(header).map_err(|error| ExportError(error.to_string()))?;
    let metadata = vec![KeyValue::new("tcptrace.recording".to_owned(), about)];
    let created_by = concat!("tcptrace version ", env!("CARGO_PKG_VERSION"));
    let mut builder = WriterProperties::builder()
        .set_created_by(created_by.to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_key_value_metadata(Some(metadata));
    // Each is near to the one before, and hardly any comes twice.
    for column in columns.iter().filter(|column| column.grows()) {
        let path = ColumnPath::from(column.name());
        builder = builder
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
    }
    Ok(builder.build())
}
