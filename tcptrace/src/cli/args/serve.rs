//! The arguments of `tcptrace serve`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;

use super::shared::{FilterArgs, ProbeArgs, at_least_one};
use crate::cli::duration;
use tcptrace_serve::otlp::Endpoint;
use tcptrace_stats::group::By;

/// `tcptrace serve`
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Where to listen: an address and a port; port 0 is any (default: 127.0.0.1:9718, or nowhere
    /// if --unix is given)
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Allow another address than one of loopback: whoever reaches it may ask (--token-file)
    #[arg(long)]
    pub allow_remote: bool,
    /// Listen at a Unix socket, for its owner and group
    #[arg(long, value_name = "PATH")]
    pub unix: Option<PathBuf>,
    /// Speak TLS at --listen, with the certificates of this file, in PEM: the own one first
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The private key of it, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Answer only who sends the token in this file (Authorization: Bearer …); /healthz and /readyz
    /// are answered all the same
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// A label more on connections and ends: owner (process name), port (of the service) or unit
    /// (the cgroup)
    #[arg(long, value_name = "KEY")]
    pub label: Option<By>,
    /// So many groups get a label, and no more than four times as many ever; the rest is (other)
    #[arg(long, value_name = "N", default_value = "20", value_parser = at_least_one)]
    pub label_top: u64,
    /// The time of which each answer under /api tells: 10s, 1m. States are told each second
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration::parse)]
    pub interval: Duration,
    /// Push metrics.
    #[command(flatten)]
    pub otlp: OtlpArgs,
    /// Write tables.
    #[command(flatten)]
    pub export: ExportDirArgs,
    /// Keep all capabilities and system calls, in one process. Without it, those that only
    /// attaching needs are given up once the hooks are on, the thread that answers has none, and
    /// only a helper process can enter network namespaces and look into other processes
    #[arg(long)]
    pub no_sandbox: bool,
    /// What to keep.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// How to listen.
    #[command(flatten)]
    pub probe: ProbeArgs,
}

/// Pushing metrics to a collector.
#[derive(Debug, Args)]
pub struct OtlpArgs {
    /// Push the metrics too, by OTLP over HTTP, to the collector at this URL, such as
    /// http://127.0.0.1:4318; /v1/metrics is added
    #[arg(long, value_name = "URL")]
    pub otlp: Option<Endpoint>,
    /// How often: 30s, 1m
    #[arg(long, value_name = "TIME", default_value = "30s", requires = "otlp",
        value_parser = duration::parse)]
    pub otlp_interval: Duration,
    /// Send the headers in this file along, one a line: Authorization: Bearer …
    #[arg(long, value_name = "FILE", requires = "otlp")]
    pub otlp_headers_file: Option<PathBuf>,
    /// Trust the certificates of this file, in PEM, where the URL has https (default: those that
    /// the host trusts)
    #[arg(long, value_name = "FILE", requires = "otlp")]
    pub otlp_ca: Option<PathBuf>,
}

/// Writing tables as it goes on.
#[derive(Debug, Args)]
pub struct ExportDirArgs {
    /// Write transitions and connections as Parquet, as export does, into this directory: each file
    /// is there once it is whole, named by host and time
    #[arg(long, value_name = "DIR")]
    pub export_dir: Option<PathBuf>,
    /// Begin other files so often: 10m, 1h
    #[arg(long, value_name = "TIME", default_value = "10m", requires = "export_dir",
        value_parser = duration::parse)]
    pub export_every: Duration,
    /// Write the addresses of kernel objects (skaddr) there too, as export does
    #[arg(long, requires = "export_dir")]
    pub export_kernel_addresses: bool,
    /// Keep the last N files of each table of this host there, and remove those before (default:
    /// all stay)
    #[arg(long, value_name = "N", requires = "export_dir", value_parser = at_least_one)]
    pub export_keep: Option<u64>,
}
