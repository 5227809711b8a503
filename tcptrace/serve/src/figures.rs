//! What is published once a second: all that anybody may ask for, complete in itself.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use tcptrace_common::counters::Hook;

use super::pages::Report;
use tcptrace_model::TcpState;
use tcptrace_record::Header;
use tcptrace_report::facts::Facts;
use tcptrace_stats::{
    group::By,
    since_start::{End, SinceStart},
    stuck::Cause,
};
use tcptrace_track::Counts;

/// A label's value, or none where there is no label.
pub(super) type Label = Option<Box<str>>;

/// How many connections are stuck of each label, state and cause.
pub(super) type Stuck = Vec<(Label, TcpState, Cause, u64)>;

/// How things stand at a moment.
#[derive(Clone, Debug)]
pub struct Figures {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub(super) mono_ns: u64,
    /// All is known that was there before: the first round of snapshots is over.
    pub(super) whole: bool,
    /// Connections in each state, CLOSE left out; by label, if there is one.
    pub(super) connections: Vec<(Label, TcpState, u64)>,
    /// Transitions and times.
    pub(super) since: SinceStart,
    /// What tells ends and connections apart.
    pub(super) label: Option<By>,
    /// Ends since the start.
    pub(super) ends: BTreeMap<(Label, End), u64>,
    /// Of those, how many were of groups that cannot get a label, since too many wait for one.
    pub(super) unranked: u64,
    /// What the kernel counted since the start; `None` where it does not tell.
    pub(super) time_wait_overflow: Option<u64>,
    /// How many connections are stuck; `None`: not scanned yet.
    pub(super) stuck: Option<Stuck>,
    /// The peers to which at least half of the ports are taken, and which part.
    pub(super) peers: Vec<(Box<str>, f64)>,
    /// As [`tcptrace_stats::ports::Interval::worst_used`].
    pub(super) ports_used: Option<f64>,
    /// Since the start, in the order of [`Hook::ALL`].
    pub(super) lost: [u64; Hook::ALL.len()],
    /// Since the start.
    pub(super) missed: u64,
    /// The tracker's.
    pub(super) counts: Counts,
    /// The last of each report, in the order of [`Report::ALL`]; `None`: there was none yet.
    pub(super) reports: [Option<Bytes>; Report::ALL.len()],
    /// What the page at `/` is made of, of some seconds ago where nobody has asked for it lately;
    /// `None`: nothing is attached yet.
    pub(super) page: Option<Arc<Facts>>,
}

/// What is known once the hooks are attached, and does not change.
#[derive(Clone, Debug, Default)]
pub struct Attached {
    /// What is listened to.
    pub hooks: Vec<HookBy>,
    /// Where and how, as a recording would begin with it.
    pub header: Header,
    /// The kernel counts events that it skipped (since 5.12).
    pub missed_counted: bool,
}

/// One of the things to listen to.
#[derive(Clone, Debug)]
pub struct HookBy {
    /// Which.
    pub hook: Hook,
    /// By what; `None`: it is not listened to.
    pub backend: Option<String>,
}
