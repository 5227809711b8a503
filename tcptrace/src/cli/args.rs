//! The arguments of each command as clap parses them. Names follow bcc's tools, tcpdump and ss. What
//! several commands have is in `shared`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, CommandFactory as _, Parser, Subcommand};

pub(in crate::cli) use self::not_built::not_built;
#[cfg(not(all(feature = "export", feature = "report", feature = "serve", feature = "top")))]
pub use self::not_built::*;
pub use self::recordings::RecordArgs;
#[cfg(feature = "report")]
pub use self::recordings::ReportArgs;
#[cfg(feature = "export")]
pub use self::recordings::{ExportArgs, ExportFormat, TableChoice};
#[cfg(feature = "serve")]
pub use self::serve::{ExportDirArgs, OtlpArgs, ServeArgs};
pub use self::shared::{
    ColorChoice, FilterArgs, HookChoice, OutputFormat, ProbeArgs, ReadArgs, RecordingArgs,
    ReportFormat, SelectArgs,
};
use self::shared::{SELECT_HEADING, at_least_one};
use super::duration;
use tcptrace_model::StateSet;
use tcptrace_stats::group::By;
use tcptrace_view::closers::Sort;

mod not_built;
mod recordings;
#[cfg(feature = "serve")]
mod serve;
mod shared;

/// Traces TCP state transitions: who closed first, how, and how long it lingered.
///
/// Without a command: `live`. Durations are in ms; `≥` marks a lower bound, where the start was
/// not seen; `-` is what cannot be known.
#[derive(Debug, Parser)]
#[command(name = "tcptrace", version, args_conflicts_with_subcommands = true, max_term_width = 100)]
pub struct Cli {
    /// The question.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The arguments of `live`.
    #[command(flatten)]
    pub live: LiveArgs,
}

/// One question each.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Every transition as it happens, with the time spent in the state left
    Live(LiveArgs),
    /// How long connections stay in a state: histograms, TIME_WAIT by why it ended
    Hist(HistArgs),
    /// One line for each connection that ended: whose, how long, how much, who closed first and how
    Conns(ConnsArgs),
    /// How many connections are in each state, now or over time: what `ss -tan` counts
    States(StatesArgs),
    /// Who closes connections first, how (FIN, RST, timeout), and what TIME_WAIT that costs
    Closers(ClosersArgs),
    /// When connect() will find no local port: ephemeral ports by peer, taken, in TIME_WAIT, free
    Ports(PortsArgs),
    /// What has been too long in a state that should pass (CLOSE_WAIT …): whose, and whose bug
    Stuck(StuckArgs),
    /// What is wrong and what helps: sysctls, counters, sockets and some seconds of events, judged
    Doctor(DoctorArgs),
    /// All of it on one screen: counts, lifetimes, who closes, what is stuck, ports, the doctor
    Top(TopArgs),
    /// Record what happens, to be looked at later (-r), elsewhere, without root
    Record(RecordArgs),
    /// A recording as a table for engines that query files (DuckDB, ClickHouse, Spark): Parquet
    Export(ExportArgs),
    /// A recording as one HTML page, to be read top to bottom and attached to a ticket
    Report(ReportArgs),
    /// For ever: metrics for Prometheus, and the answers of other commands as JSON, by HTTP
    Serve(Box<ServeArgs>),
    /// What this kernel allows, which hooks attach, and what that costs in truth
    Check(CheckArgs),
    /// What a state, an end reason or a column means, and what to do about it
    Explain(ExplainArgs),
    /// Print the manual page of tcptrace or of one command, or write all pages to a directory
    Man(ManArgs),
    /// What completes the command line, for a shell to read
    Completions(CompletionsArgs),
}

/// `tcptrace man`
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The page of this command (default: the page of tcptrace itself)
    #[arg(conflicts_with = "out")]
    pub command: Option<String>,
    /// Write the pages of all commands to this directory
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// `tcptrace completions`
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Which shell
    pub shell: clap_complete::Shell,
}

/// `tcptrace explain`
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// A word of the output, in any spelling (time-wait or TIME_WAIT); none lists them
    pub word: Option<String>,
}

/// `tcptrace live`
#[derive(Debug, Args)]
pub struct LiveArgs {
    /// What to keep.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Which connections to show.
    #[command(flatten)]
    pub select: SelectArgs,
    /// How to listen.
    #[command(flatten)]
    pub probe: ProbeArgs,
    /// A recording to read, or to make.
    #[command(flatten)]
    pub recording: RecordingArgs,
    /// Transitions out of or into these states (time-wait or TIME_WAIT; ss's groups: all,
    /// connected, synchronized, bucket, big); may be repeated
    #[arg(long, value_name = "STATE", value_delimiter = ',')]
    pub state: Vec<StateSet>,
    /// Format
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: OutputFormat,
    /// Same as -o csv, as bcc's tools have it
    #[arg(short = 's', long, conflicts_with = "output")]
    pub csv: bool,
    /// Write to a file instead of stdout
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// All columns: socket, namespace, owner, SO_LINGER, error, who closed first and how. On a
    /// terminal of at least 104 columns the owner is always there
    #[arg(short, long)]
    pub wide: bool,
    /// A column with the time of day
    #[arg(short = 'T', long)]
    pub time: bool,
    /// A column with the seconds since the start
    #[arg(short = 't', long)]
    pub timestamp: bool,
    /// No header line
    #[arg(short = 'H', long)]
    pub no_header: bool,
    /// At most so many lines a second; says how many it left out
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub rate_limit: Option<u64>,
    /// End after so long: 10, 10s, 5m
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub duration: Option<Duration>,
    /// End after so many lines
    #[arg(short, long, value_name = "N", value_parser = at_least_one)]
    pub count: Option<u64>,
    /// Colours
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub color: ColorChoice,
}

/// `tcptrace hist`
#[derive(Debug, Args)]
#[command(override_usage = "tcptrace hist [OPTIONS] [STATE]... [INTERVAL [COUNT]]")]
pub struct HistArgs {
    /// States (default: those of a connection that is being closed; also life, from connect() or
    /// the end of the handshake to the end), then an interval and how many of them. Each interval
    /// prints what ended in it; without one, all is printed at the end. p50, p90 and p99 are right
    /// to three digits; what began before is a lower bound and in none of them
    #[arg(value_name = "STATE")]
    pub words: Vec<String>,
    /// Group by reason (why TIME_WAIT or an orphan's FIN_WAIT2 ended), owner (process that opened or
    /// accepted), closer (process whose FIN or RST left first from here), port (of the service: the
    /// local port of accepted connections, the peer's of outgoing ones, else the lower), peer, netns
    /// or unit (cgroup: systemd unit, container, pod)
    #[arg(long, value_name = "KEY")]
    pub by: Option<By>,
    /// The graceful close step by step: who is waited for, and how long
    #[arg(long, conflicts_with = "by")]
    pub steps: bool,
    /// What to keep.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// How to listen.
    #[command(flatten)]
    pub probe: ProbeArgs,
    /// A recording to read, or to make.
    #[command(flatten)]
    pub recording: RecordingArgs,
    /// Format; json has the buckets
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: OutputFormat,
    /// Write to a file instead of stdout
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// No header line (csv)
    #[arg(short = 'H', long)]
    pub no_header: bool,
    /// End after so long: 10, 10s, 5m
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub duration: Option<Duration>,
}

/// `tcptrace conns`
#[derive(Debug, Args)]
pub struct ConnsArgs {
    /// What to keep.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// What to show of it.
    #[command(flatten)]
    pub select: SelectArgs,
    /// Connections that lived for at least so long: 10, 10s, 5m
    #[arg(long, value_name = "TIME", value_parser = duration::parse, help_heading = SELECT_HEADING)]
    pub min_life: Option<Duration>,
    /// How to listen.
    #[command(flatten)]
    pub probe: ProbeArgs,
    /// A recording to read, or to make.
    #[command(flatten)]
    pub recording: RecordingArgs,
    /// Do not wait for the end of TIME_WAIT: print when a connection is closed, as tcplife does.
    /// Without it, those still in TIME_WAIT when the run ends are printed then, with ≥
    #[arg(long)]
    pub no_time_wait: bool,
    /// First, print those that are open, as far as they are known; then those that end
    #[arg(long)]
    pub open: bool,
    /// Format
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: OutputFormat,
    /// Same as -o csv, as bcc's tools have it
    #[arg(short = 's', long, conflicts_with = "output")]
    pub csv: bool,
    /// Write to a file instead of stdout
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// All columns: both ends, exact bytes, RTT, retransmits, handshake, the time in each closing
    /// state, how TIME_WAIT ended
    #[arg(short, long)]
    pub wide: bool,
    /// A column with the time of day at which it was closed
    #[arg(short = 'T', long)]
    pub time: bool,
    /// The same in seconds since the start
    #[arg(short = 't', long)]
    pub timestamp: bool,
    /// No header line
    #[arg(short = 'H', long)]
    pub no_header: bool,
    /// End after so long: 10, 10s, 5m
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub duration: Option<Duration>,
    /// End after so many lines
    #[arg(short, long, value_name = "N", value_parser = at_least_one)]
    pub count: Option<u64>,
}

/// `tcptrace states`
#[derive(Debug, Args)]
pub struct StatesArgs {
    /// Between two lines: 1, 0.5, 10s, 5m. Without it the counts of now are printed once, from
    /// the kernel's tables alone, which needs no hooks (nor root, for one's own namespace)
    #[arg(value_parser = duration::parse)]
    pub interval: Option<Duration>,
    /// End after so many lines
    #[arg(value_parser = at_least_one)]
    pub count: Option<u64>,
    /// Group by owner (process that opened or accepted), holder (process that has the socket open),
    /// port (of the service), peer, netns or unit (cgroup: systemd unit, container, pod)
    #[arg(long, value_name = "KEY")]
    pub by: Option<By>,
    /// What to keep.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// How to listen.
    #[command(flatten)]
    pub probe: ProbeArgs,
    /// A recording to read, or to make.
    #[command(flatten)]
    pub recording: RecordingArgs,
    /// Format
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: OutputFormat,
    /// Write to a file instead of stdout
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// No header line
    #[arg(short = 'H', long)]
    pub no_header: bool,
}

/// `tcptrace closers`
#[derive(Debug, Args)]
pub struct ClosersArgs {
    /// Between two rankings, each of what ended in between: 1, 0.5, 10s, 5m. Without it there is
    /// one of the whole run, at its end (Ctrl-C or --duration)
    #[arg(value_parser = duration::parse)]
    pub interval: Option<Duration>,
    /// End after so many rankings
    #[arg(value_parser = at_least_one)]
    pub count: Option<u64>,
    /// Group by closer (process whose FIN or RST left first from here), owner (process that opened or
    /// accepted), port (of the service), peer, netns or unit (cgroup: systemd unit, container, pod).
    /// Default: closer (owner if no process here closed it) and port: `nginx :80` if the service is
    /// here, `curl →:443` if it is at the peer
    #[arg(long, value_name = "KEY")]
    pub by: Option<By>,
    /// So many groups, and the others as one (default: 20 in a table, else all)
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub top: Option<u64>,
    /// What comes first: closed, local, remote, else, failed (connects), tw-now, tw-sec
    #[arg(long, value_name = "COLUMN", default_value = "closed")]
    pub sort: Sort,
    /// What to keep.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// How to listen.
    #[command(flatten)]
    pub probe: ProbeArgs,
    /// A recording to read, or to make.
    #[command(flatten)]
    pub recording: RecordingArgs,
    /// Format; json has each way to end by who closed first
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: OutputFormat,
    /// Write to a file instead of stdout
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// No header lines
    #[arg(short = 'H', long)]
    pub no_header: bool,
    /// End after so long: 10, 10s, 5m
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub duration: Option<Duration>,
}

/// `tcptrace ports`
#[derive(Debug, Args)]
pub struct PortsArgs {
    /// Between two reports: 1, 0.5, 10s, 5m. Without it: listens for 2 seconds, for the rates, and
    /// reports once
    #[arg(value_parser = duration::parse)]
    pub interval: Option<Duration>,
    /// End after so many reports
    #[arg(value_parser = at_least_one)]
    pub count: Option<u64>,
    /// Rows of a report: those that run out first, then those that take most
    #[arg(long, value_name = "N", default_value = "20", value_parser = at_least_one)]
    pub top: u64,
    /// What to keep. Only -N is for the kernel to see to here: to tell what was accepted, the
    /// listeners must be seen. -L is refused: which local port it will be is not known before.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// How to listen.
    #[command(flatten)]
    pub probe: ProbeArgs,
    /// A recording to read, or to make.
    #[command(flatten)]
    pub recording: RecordingArgs,
    /// Format
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: OutputFormat,
    /// Write to a file instead of stdout
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// No header line
    #[arg(short = 'H', long)]
    pub no_header: bool,
}

/// `tcptrace stuck`
#[derive(Debug, Args)]
pub struct StuckArgs {
    /// Between two reports: 1, 0.5, 10s, 5m; shows what grows. Without it what there is now is
    /// reported once, from the kernel's tables alone, which needs no hooks (nor root, for one's own
    /// namespace and processes); times are lower bounds then
    #[arg(value_parser = duration::parse)]
    pub interval: Option<Duration>,
    /// End after so many reports
    #[arg(value_parser = at_least_one)]
    pub count: Option<u64>,
    /// Those that have been in their state for so long, 0 for all. Without it: 3s in SYN_SENT (two
    /// SYNs unanswered), 10s in FIN_WAIT1, CLOSING and LAST_ACK (which an acknowledgement ends),
    /// 60s in CLOSE_WAIT and FIN_WAIT2 (which a program ends; the kernel waits so long for a peer)
    #[arg(long, value_name = "TIME", value_parser = duration::parse_or_zero)]
    pub older: Option<Duration>,
    /// Only these states
    #[arg(long, value_name = "STATE", value_delimiter = ',')]
    pub state: Vec<StateSet>,
    /// Group by holder (process that has the socket open), owner (process that opened or accepted),
    /// port (of the service), peer, netns or unit
    #[arg(long, value_name = "KEY", default_value = "holder")]
    pub by: By,
    /// So many groups of each state, and so many connections
    #[arg(long, value_name = "N", default_value = "10", value_parser = at_least_one)]
    pub top: u64,
    /// What to keep.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// How to listen.
    #[command(flatten)]
    pub probe: ProbeArgs,
    /// A recording to read, or to make.
    #[command(flatten)]
    pub recording: RecordingArgs,
    /// Format; csv has the groups alone
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: OutputFormat,
    /// Write to a file instead of stdout
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// No header lines
    #[arg(short = 'H', long)]
    pub no_header: bool,
}

/// `tcptrace doctor`
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 nothing above info, 1 a warning, 2 a critical finding, 3 could not \
                  run or was misused."
)]
pub struct DoctorArgs {
    /// How long it watches: 5, 30s, 5m. Rates are of this time; what is seldom needs longer
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration::parse)]
    pub duration: Duration,
    /// Network namespace: a name of `ip netns`, a path, a process, or an inode number (default: all
    /// that can be reached)
    #[arg(short = 'N', long, value_name = "NETNS")]
    pub netns: Option<String>,
    /// All sysctls, and not only those that differ from their defaults
    #[arg(long)]
    pub sysctls: bool,
    /// Colours
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub color: ColorChoice,
    /// Judges a sysctl.conf line by line instead: what each would do on this kernel, which tries
    /// it in an empty network namespace. Changes nothing
    #[arg(long, value_name = "PATH")]
    pub sysctl_file: Option<PathBuf>,
    /// What was recorded, or is to be.
    #[command(flatten)]
    pub recording: RecordingArgs,
    /// How to listen.
    #[command(flatten)]
    pub probe: ProbeArgs,
    /// Format
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: ReportFormat,
}

/// `tcptrace top`
#[cfg(feature = "top")]
#[derive(Debug, Args)]
pub struct TopArgs {
    /// What to keep.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Which connections to show.
    #[command(flatten)]
    pub select: SelectArgs,
    /// How to listen.
    #[command(flatten)]
    pub probe: ProbeArgs,
    /// A recording to read, or to make.
    #[command(flatten)]
    pub recording: RecordingArgs,
    /// Nothing but ASCII on the screen
    #[arg(long)]
    pub ascii: bool,
}

/// A filter line of `tcptrace top`.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
pub(super) struct FilterLine {
    /// Their ends.
    #[command(flatten)]
    pub(super) filter: FilterArgs,
    /// Whose they are, and how they ended.
    #[command(flatten)]
    pub(super) select: SelectArgs,
}

/// `tcptrace check`
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Format
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: ReportFormat,
}

/// The command as clap has it, for what is made from it: completions, a man page.
pub fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_well_formed() {
        command().debug_assert();
    }
}
