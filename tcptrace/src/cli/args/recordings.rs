//! The arguments of what makes recordings, and of what makes files of them.

use std::{path::PathBuf, time::Duration};

use clap::Args;
#[cfg(feature = "export")]
use clap::ValueEnum;
use tcptrace_record::Every;

#[cfg(any(feature = "export", feature = "report"))]
use super::ReadArgs;
use super::{FilterArgs, ProbeArgs, shared::at_least_one};
use crate::cli::{duration, rotation};

/// `tcptrace record`
#[derive(Debug, Args)]
pub struct RecordArgs {
    /// Where to: what is there is not overwritten (--force does). With --rotate its name is the
    /// beginning of theirs: FILE.000001, FILE.000002, …
    pub file: PathBuf,
    /// Go on in another file when one has this size (100M, 1G) or age (10m, 1h)
    #[arg(long, value_name = "SIZE|TIME", value_parser = rotation::every)]
    pub rotate: Option<Every>,
    /// Of the files of --rotate, keep so many, the newest
    #[arg(long, value_name = "N", requires = "rotate", value_parser = at_least_one)]
    pub keep: Option<u64>,
    /// Overwrite what is there
    #[arg(long)]
    pub force: bool,
    /// What to keep.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// How to listen.
    #[command(flatten)]
    pub probe: ProbeArgs,
    /// End after so long: 10, 10s, 5m
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub duration: Option<Duration>,
}

/// `tcptrace export`
#[cfg(feature = "export")]
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// What to read.
    #[command(flatten)]
    pub from: ReadArgs,
    /// Where to: what ends in .parquet, .csv, .ndjson or .jsonl is in that format
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// One row a transition (what live prints), or one a connection (what conns prints)
    #[arg(long, value_name = "TABLE", default_value = "transitions")]
    pub table: TableChoice,
    /// Format, where the name does not say it
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<ExportFormat>,
    /// Write the addresses of kernel objects (skaddr), which help whoever attacks this host: without it
    /// that column is empty
    #[arg(long)]
    pub kernel_addresses: bool,
    /// Overwrite what is there
    #[arg(long)]
    pub force: bool,
    /// What to keep.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// `tcptrace report`
#[cfg(feature = "report")]
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// What to read.
    #[command(flatten)]
    pub from: ReadArgs,
    /// Where to
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Overwrite what is there
    #[arg(long)]
    pub force: bool,
    /// What to keep.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// `--table`
#[cfg(feature = "export")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TableChoice {
    /// One row a transition
    Transitions,
    /// One row a connection
    Connections,
}

/// `--format`
#[cfg(feature = "export")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// Apache Parquet
    Parquet,
    /// Comma-separated values
    Csv,
    /// One JSON object a line
    Ndjson,
}
