//! The formats of a table, and why one could not be written.

use thiserror::Error;

/// How it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Apache Parquet: zstd, row groups of at most 131,072 rows.
    Parquet,
    /// Comma-separated values with a header; what is not known is empty.
    Csv,
    /// One JSON object a line; what is not known is `null`.
    Ndjson,
}

/// Why nothing more could be written.
#[derive(Clone, Debug, Error)]
#[error("cannot write the table: {0}")]
pub struct ExportError(pub(super) String);
