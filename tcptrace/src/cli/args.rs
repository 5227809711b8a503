//! The arguments as clap parses them. Names follow bcc's tools, tcpdump and ss.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::{duration, record};
use crate::{
    model::{
        Initiator, StateSet,
        filter::{Net, PortSet},
        select::HowSet,
    },
    probe::{AcceptChoice, Backend, TimeWaitChoice},
    record::Every,
    source::moment::Moment,
    stats::group::By,
    view::closers::Sort,
};

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
    /// Record what happens, to be looked at later (-r), elsewhere, without root
    Record(RecordArgs),
    /// What this kernel allows, which hooks attach, and what that costs in truth
    Check(CheckArgs),
    /// What a state, an end reason or a column means, and what to do about it
    Explain(ExplainArgs),
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
    /// Tell groups apart by reason (why TIME_WAIT or an orphan's FIN_WAIT2 ended), owner (the
    /// task's name), port (of the service: the local one where the connection was accepted, the
    /// peer's where it was made from here, else the lower), peer, netns or unit (the cgroup: a
    /// systemd unit, a container, a pod)
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
    /// Count groups apart: owner (the task's name), port (of the service), peer, netns or unit (the
    /// cgroup: a systemd unit, a container, a pod)
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
    /// Rank by owner (the task's name), port (of the service), peer, netns or unit (the cgroup: a
    /// systemd unit, a container, a pod) (default: by owner and port together: `nginx :80` where
    /// the service is here, `curl →:443` where the peer is it)
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
    /// Tell groups apart by owner (the task's name), port (of the service), peer or netns
    #[arg(long, value_name = "KEY", default_value = "owner")]
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

/// `tcptrace record`
#[derive(Debug, Args)]
pub struct RecordArgs {
    /// Where to: what is there is not overwritten (--force does). With --rotate its name is the
    /// beginning of theirs: FILE.000001, FILE.000002, …
    pub file: PathBuf,
    /// Go on in another file when one has this size (100M, 1G) or age (10m, 1h)
    #[arg(long, value_name = "SIZE|TIME", value_parser = record::every)]
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

/// A recording to read, or to make beside what is shown.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Recordings")]
pub struct RecordingArgs {
    /// Read this recording instead of listening; may be repeated for the files of one run, and the
    /// name that --rotate was given stands for all of them
    #[arg(short = 'r', long = "read", value_name = "FILE")]
    pub read: Vec<PathBuf>,
    /// Of a recording, show what came from then on: 12:00:05, 2026-11-22T12:00:00Z, 90s (after its
    /// beginning), -30s (before its end)
    #[arg(long, value_name = "WHEN", requires = "read", allow_hyphen_values = true)]
    pub since: Option<Moment>,
    /// Of a recording, show what came up to then
    #[arg(long, value_name = "WHEN", requires = "read", allow_hyphen_values = true)]
    pub until: Option<Moment>,
    /// Record all that is listened to, beside what is shown
    #[arg(long, value_name = "FILE", conflicts_with = "read")]
    pub save: Option<PathBuf>,
    /// Overwrite the file of --save
    #[arg(long, requires = "save")]
    pub force: bool,
}

/// `tcptrace check`
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Format
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: ReportFormat,
}

/// What to keep. Conditions of different kinds must all hold.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Filters (in the kernel; a connection passes whole or not at all)")]
pub struct FilterArgs {
    /// Local ports: 443 or 80,8000-8100
    #[arg(short = 'L', long, value_name = "PORTS", value_parser = ports)]
    pub localport: Option<PortSet>,
    /// Peer's ports
    #[arg(short = 'D', long, value_name = "PORTS", value_parser = ports)]
    pub remoteport: Option<PortSet>,
    /// IPv4 only, v4-mapped IPv6 included
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    pub ipv4: bool,
    /// IPv6 only
    #[arg(short = '6', long)]
    pub ipv6: bool,
    /// Network namespace: a name of `ip netns`, a path, a process, or an inode number
    #[arg(short = 'N', long, value_name = "NETNS")]
    pub netns: Option<String>,
    /// Either end in this prefix (10.0.0.0/8, 2001:db8::/32, an address); may be repeated
    #[arg(long, value_name = "CIDR")]
    pub net: Vec<Net>,
}

const SELECT_HEADING: &str = "Selection (what is not known of a connection does not match)";

/// What to show of what was kept. Within one option any must hold, of several all.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = SELECT_HEADING)]
pub struct SelectArgs {
    /// Owned by these processes
    #[arg(short, long, value_name = "PID", value_delimiter = ',')]
    pub pid: Vec<u32>,
    /// Owned by a task of this name, of which the kernel keeps 15 bytes; may be repeated
    #[arg(long, value_name = "NAME")]
    pub comm: Vec<String>,
    /// Owned by these users
    #[arg(long, value_name = "UID", value_delimiter = ',')]
    pub uid: Vec<u32>,
    /// In these cgroups (v2): a path (/system.slice/nginx.service, or to the directory) or an id,
    /// which is the inode of the directory; not in those below them
    #[arg(long, value_name = "CGROUP", value_delimiter = ',')]
    pub cgroup: Vec<String>,
    /// Who closed first: local, remote, both (at the same time), none
    #[arg(long, value_name = "SIDE", value_delimiter = ',')]
    pub closed_by: Vec<Initiator>,
    /// How it ended, or how that begins: fin, rst, rst-sent, refused, timeout, timeout-syn, …
    #[arg(long, value_name = "HOW", value_delimiter = ',')]
    pub how: Vec<HowSet>,
}

/// How to listen.
#[derive(Debug, Args)]
#[command(next_help_heading = "Kernel side")]
pub struct ProbeArgs {
    /// How to listen to sock:inet_sock_set_state: auto, tp_btf, tracepoint
    #[arg(long, value_name = "HOOK", default_value = "auto", value_parser = hook)]
    pub hook: HookChoice,
    /// How to learn of TIME_WAIT: auto (the best of these), functions, timers, sampling (no hook,
    /// but a look each second: a TIME_WAIT that lives shorter is not seen, ends are dated to that,
    /// and other reasons than expired are unknown), off (a hand-over looks like an end)
    #[arg(long, value_name = "HOOK", default_value = "auto", value_parser = time_wait_hook)]
    pub time_wait_hook: TimeWaitChoice,
    /// How to learn which task accepts a connection: auto, function, syscall (accept() and
    /// accept4() as they return, which costs every system call of the host some 10 ns), off
    #[arg(long, value_name = "HOOK", default_value = "auto")]
    pub accept_hook: AcceptChoice,
    /// Do not try the hooks on a connection of its own first, in a private namespace
    #[arg(long)]
    pub no_self_test: bool,
    /// Size of the ring: a power of two of at least a page, as 4096, 512K, 8M
    #[arg(long, value_name = "BYTES", default_value = "8M")]
    pub ring_size: String,
    /// Let the kernel side's error paths speak
    #[arg(short, long)]
    pub verbose: bool,
}

/// A forced way to listen, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HookChoice(pub Option<Backend>);

/// `-o`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// Columns for people
    Table,
    /// One JSON object a line
    Json,
    /// Comma-separated values
    Csv,
}

/// `-o` of a command that answers once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// Columns for people
    Table,
    /// One JSON object
    Json,
}

/// `--color`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

fn ports(list: &str) -> Result<PortSet, String> {
    let mut set = PortSet::default();
    set.add(list).map_err(|error| error.to_string())?;
    Ok(set)
}

fn time_wait_hook(word: &str) -> Result<TimeWaitChoice, String> {
    match word {
        "auto" => Ok(TimeWaitChoice::Auto),
        "off" => Ok(TimeWaitChoice::Off),
        _ => word.parse().map(TimeWaitChoice::Only),
    }
}

fn at_least_one(word: &str) -> Result<u64, String> {
    match word.parse() {
        Ok(0) | Err(_) => Err("give a number of at least 1".to_owned()),
        Ok(number) => Ok(number),
    }
}

fn hook(word: &str) -> Result<HookChoice, String> {
    match word {
        "auto" => Ok(HookChoice(None)),
        _ => word.parse().map(|backend| HookChoice(Some(backend))),
    }
}
