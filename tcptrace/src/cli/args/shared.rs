//! Arguments that several commands have: what to keep, what to show, how to listen, recordings, and
//! the formats.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use tcptrace_model::{
    Initiator,
    filter::{Net, PortSet},
    moment::Moment,
    select::HowSet,
};
use tcptrace_probe::{AcceptChoice, Backend, TimeWaitChoice};

/// A recording to read.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Recordings")]
pub struct ReadArgs {
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
}

/// A recording to read, or to make beside what is shown.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Recordings")]
pub struct RecordingArgs {
    /// What to read.
    #[command(flatten)]
    pub from: ReadArgs,
    /// Record all that is listened to, beside what is shown
    #[arg(long, value_name = "FILE", conflicts_with = "read")]
    pub save: Option<PathBuf>,
    /// Overwrite the files of --save and --out
    #[arg(long)]
    pub force: bool,
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

pub(super) const SELECT_HEADING: &str =
    "Selection (what is not known of a connection does not match)";

/// What to show of what was kept. Within one option any must hold, of several all.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = SELECT_HEADING)]
pub struct SelectArgs {
    /// Of these processes: opened, accepted, closed or held open by them
    #[arg(short, long, value_name = "PID", value_delimiter = ',')]
    pub pid: Vec<u32>,
    /// Of processes with this name (of the thread-group leader, as in `ps -o comm`; at most 15
    /// bytes); may be repeated
    #[arg(long, value_name = "NAME")]
    pub comm: Vec<String>,
    /// Of processes of these users
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
        _ => word
            .parse()
            .map(TimeWaitChoice::Only)
            .map_err(|error: String| format!("{error}, auto, off")),
    }
}

fn hook(word: &str) -> Result<HookChoice, String> {
    match word {
        "auto" => Ok(HookChoice(None)),
        _ => word
            .parse()
            .map(|backend| HookChoice(Some(backend)))
            .map_err(|error: String| format!("{error}, auto")),
    }
}

pub(super) fn at_least_one(word: &str) -> Result<u64, String> {
    match word.parse() {
        Ok(0) | Err(_) => Err("give a number of at least 1".to_owned()),
        Ok(number) => Ok(number),
    }
}
