//! Figures as families of metrics: the names, the help and the labels, in one place, whatever the
//! format that they are sent in.
//!
//! No label is an address, a peer's port, a process or a cookie: their number is the network's to
//! choose. The one exception are peers to which ports run out, of which few get a label ([`trouble`]).
//! A series does not begin with what it is to warn of: whoever takes differences would not see its
//! first step, so what may come is there as 0. Must not know a format.
//!
//! [`trouble`]: super::trouble

use std::{collections::BTreeSet, sync::Arc};

use tcptrace_common::counters::Hook;

use super::{
    figures::{Attached, Figures, Label},
    shelf::Shelf,
    tally::Pushes,
};
use tcptrace_export::{Table, Tally};
use tcptrace_host::own::OwnUse;
use tcptrace_model::{How, Initiator};
use tcptrace_source::helper;
use tcptrace_stats::{buckets::Buckets, since_start::End};

/// What all families of a moment are made of.
#[derive(Debug)]
pub(super) struct Moment {
    pub(super) figures: Arc<Figures>,
    pub(super) attached: Option<Attached>,
    pub(super) own: OwnUse,
    /// Pushes of metrics by their outcome, if there are any.
    pub(super) pushes: Option<[(&'static str, u64); 3]>,
    /// Files of tables, if they are written.
    pub(super) export: Option<Arc<Tally>>,
    /// The helper process, if there is one.
    pub(super) helper: Option<Arc<helper::Tally>>,
}

impl Moment {
    /// What `shelf` has as of now: `figures`, which were taken from it.
    pub(super) fn of(shelf: &Shelf, figures: Arc<Figures>) -> Self {
        let pushes = shelf.pushes().map(Pushes::outcomes);
        let (attached, export) = (shelf.attached().cloned(), shelf.exported().cloned());
        let helper = shelf.helper().cloned();
        Self { figures, attached, own: OwnUse::read(), pushes, export, helper }
    }
}

/// One label of a sample.
pub(super) type Pair<'a> = (&'static str, &'a str);

/// What the samples of a family are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// What is now.
    Gauge,
    /// What only grows, from the start of tcptrace.
    Counter,
    /// How many were how long, from the start of tcptrace.
    Histogram,
}

/// A value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Whole(u64),
    Real(f64),
    Buckets(&'a Buckets),
}

/// The samples of one name.
#[derive(Clone, Debug)]
pub(super) struct Family<'a> {
    /// As OpenMetrics has it: that of a counter does not end in `_total`. A unit is its last part.
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: Kind,
    pub(super) samples: Vec<(Vec<Pair<'a>>, Value<'a>)>,
}

impl<'a> Family<'a> {
    fn is(&mut self, labels: &[Pair<'a>], value: u64) {
        self.samples.push((labels.to_vec(), Value::Whole(value)));
    }

    fn real(&mut self, labels: &[Pair<'a>], value: f64) {
        self.samples.push((labels.to_vec(), Value::Real(value)));
    }

    fn histogram(&mut self, labels: &[Pair<'a>], buckets: &'a Buckets) {
        self.samples.push((labels.to_vec(), Value::Buckets(buckets)));
    }
}

/// Where families are put.
struct To<'a>(Vec<Family<'a>>);

impl<'a> To<'a> {
    fn family(&mut self, kind: Kind, name: &'static str, help: &'static str) -> &mut Family<'a> {
        // A reference to what was just pushed.
        let at = self.0.len();
        self.0.push(Family { name, help, kind, samples: Vec::new() });
        &mut self.0[at]
    }

    fn gauge(&mut self, name: &'static str, help: &'static str) -> &mut Family<'a> {
        self.family(Kind::Gauge, name, help)
    }

    fn counter(&mut self, name: &'static str, help: &'static str) -> &mut Family<'a> {
        self.family(Kind::Counter, name, help)
    }
}

/// `pair` and the label by which groups are told apart, if there is one.
fn labelled<'a>(pairs: &[Pair<'a>], by: Option<&'static str>, label: &'a Label) -> Vec<Pair<'a>> {
    let more = by.zip(label.as_deref());
    pairs.iter().copied().chain(more).collect()
}

impl Moment {
    /// All families, in the order in which they are read best.
    pub(super) fn families(&self) -> Vec<Family<'_>> {
        let mut to = To(Vec::new());
        self.connections(&mut to);
        self.times(&mut to);
        self.ends(&mut to);
        self.trouble(&mut to);
        self.truth(&mut to);
        self.beside(&mut to);
        self.own(&mut to);
        to.0
    }

    fn by(&self) -> Option<&'static str> {
        self.figures.label.map(|by| by.name())
    }

    fn connections<'a>(&'a self, to: &mut To<'a>) {
        let name = "tcptrace_connections";
        let family = to.gauge(name, "TCP connections in each state, as ss counts them");
        for (label, state, count) in &self.figures.connections {
            family.is(&labelled(&[("state", state.label())], self.by(), label), *count);
        }
        let name = "tcptrace_transitions";
        let help = "Transitions from one state to another, those into and out of TIME_WAIT too";
        let family = to.counter(name, help);
        for (old, new, count) in self.figures.since.transitions() {
            family.is(&[("from", old.label()), ("to", new.label())], count);
        }
    }

    fn times<'a>(&'a self, to: &mut To<'a>) {
        let since = &self.figures.since;
        let name = "tcptrace_state_duration_seconds";
        let help = "Time that connections were in a state when they left it, where it is known";
        let family = to.family(Kind::Histogram, name, help);
        for (state, buckets) in since.durations() {
            family.histogram(&[("state", state.label())], buckets);
        }
        let name = "tcptrace_state_durations_left_out";
        let help = "Connections that left a state whose time in it is not known, \
                    as for those from before: they are in no bucket";
        let family = to.counter(name, help);
        for (state, buckets) in since.durations() {
            family.is(&[("state", state.label())], buckets.left_out());
        }
        let name = "tcptrace_time_wait_lifetime_seconds";
        let help = "How long TIME_WAITs lived, by why they ended";
        let family = to.family(Kind::Histogram, name, help);
        for (reason, buckets) in since.time_waits() {
            family.histogram(&[("end_reason", reason.name())], buckets);
        }
    }

    fn ends<'a>(&'a self, to: &mut To<'a>) {
        let name = "tcptrace_closes";
        let help = "Connections that ended, by who closed first and how";
        let family = to.counter(name, help);
        let labels = self.labels();
        let known = How::ALL.into_iter().filter(|how| how.is_of_a_connection());
        let initiators = || Initiator::ALL.into_iter().map(Some).chain([None]);
        let known: Vec<_> =
            known.flat_map(|how| initiators().map(move |who| End::Closed(who, how))).collect();
        for (label, end, count) in self.with_zeros(&labels, &known) {
            if let End::Closed(initiator, how) = end {
                let initiator = initiator.map_or("unknown", Initiator::name);
                let pairs = [("initiator", initiator), ("how", how.name())];
                family.is(&labelled(&pairs, self.by(), label), count);
            }
        }
        let name = "tcptrace_connects_failed";
        let help = "Calls of connect() that came to no connection, by why";
        let family = to.counter(name, help);
        let known = How::ALL.map(End::Failed);
        for (label, end, count) in self.with_zeros(&labels, &known) {
            if let End::Failed(how) = end {
                family.is(&labelled(&[("how", how.name())], self.by(), label), count);
            }
        }
    }

    /// All labels that there are of connections and their ends; the one of none where there are no
    /// labels.
    fn labels(&self) -> BTreeSet<&Label> {
        let ends = self.figures.ends.keys().map(|(label, _)| label);
        let labels: BTreeSet<_> =
            ends.chain(self.figures.connections.iter().map(|(label, ..)| label)).collect();
        if labels.is_empty() { BTreeSet::from([&None]) } else { labels }
    }

    /// The ends that there were and, as 0, those of `known` that were not, with each label.
    fn with_zeros<'a>(
        &'a self,
        labels: &BTreeSet<&'a Label>,
        known: &[End],
    ) -> Vec<(&'a Label, End, u64)> {
        let ends = &self.figures.ends;
        let there = ends.iter().map(|((label, end), count)| (label, *end, *count));
        let zeros = labels.iter().flat_map(|label| known.iter().map(move |end| (*label, *end)));
        let zeros = zeros.filter(|(label, end)| !ends.contains_key(&((*label).clone(), *end)));
        there.chain(zeros.map(|(label, end)| (label, end, 0))).collect()
    }

    fn trouble<'a>(&'a self, to: &mut To<'a>) {
        if let Some(count) = self.figures.time_wait_overflow {
            let name = "tcptrace_time_wait_overflow";
            let help = "TIME_WAITs that the kernel did not make for want of room \
                        (tcp_max_tw_buckets), by its own counter";
            to.counter(name, help).is(&[], count);
        }
        if let Some(stuck) = &self.figures.stuck {
            let name = "tcptrace_stuck_sockets";
            let help = "Connections that are stuck, by state and by what they wait for";
            let family = to.gauge(name, help);
            for (label, state, cause, count) in stuck {
                let pairs = [("state", state.label()), ("cause", cause.name())];
                family.is(&labelled(&pairs, self.by(), label), *count);
            }
        }
        if let Some(used) = self.figures.ports_used {
            let name = "tcptrace_ephemeral_ports_used_ratio";
            let help = "Part of the ephemeral ports that are taken, to the peer where most are";
            to.gauge(name, help).real(&[], used);
            let name = "tcptrace_peer_ephemeral_ports_used_ratio";
            let help = "Part of the ephemeral ports that are taken to a peer, from a half on";
            let family = to.gauge(name, help);
            for (peer, used) in &self.figures.peers {
                family.real(&[("peer", peer)], *used);
            }
        }
    }

    /// How far the others are to be believed.
    fn truth<'a>(&'a self, to: &mut To<'a>) {
        let help = "Events that a hook saw and that a full ring had no room for";
        let family = to.counter("tcptrace_events_lost", help);
        for (hook, lost) in Hook::ALL.into_iter().zip(self.figures.lost) {
            family.is(&[("hook", hook.name())], lost);
        }
        if self.attached.as_ref().is_some_and(|attached| attached.missed_counted) {
            let help = "Events that no hook saw, since the kernel skips a program that is running";
            to.counter("tcptrace_events_missed", help).is(&[], self.figures.missed);
        }
        let counts = self.figures.counts;
        let help = "Transitions that did not follow from what was known";
        to.counter("tcptrace_anomalies", help).is(&[], counts.anomalies);
        let help = "Connections that were otherwise in the kernel's tables than events told";
        to.counter("tcptrace_state_corrections", help).is(&[], counts.corrected);
        let help = "TIME_WAITs of whose end no event told: their timers were due, and the kernel's \
                    tables had them no more";
        to.counter("tcptrace_unobserved_expiries", help).is(&[], counts.unobserved_expiries);
        let help = "Connections forgotten to bound memory";
        to.counter("tcptrace_evicted", help).is(&[], counts.evicted);
        if self.figures.label.is_some() {
            let help = "Connections of groups that cannot get a label of their own: too many groups \
                        wait for one";
            to.counter("tcptrace_unranked", help).is(&[], self.figures.unranked);
        }
        let Some(attached) = &self.attached else { return };
        let help = "Whether a hook is attached, and by what way";
        let family = to.gauge("tcptrace_hook_attached", help);
        for of in &attached.hooks {
            let backend = of.backend.as_deref().unwrap_or("none");
            let pairs = [("hook", of.hook.name()), ("backend", backend)];
            family.is(&pairs, u64::from(of.backend.is_some()));
        }
    }

    /// What is done beside answering.
    fn beside<'a>(&'a self, to: &mut To<'a>) {
        if let Some(tally) = &self.export {
            let by_table = |family: &mut Family<'a>, counts: [u64; 2]| {
                for (table, count) in Table::ALL.into_iter().zip(counts) {
                    family.is(&[("table", table.name())], count);
                }
            };
            let help = "Files of --export-dir that are there as a whole";
            by_table(to.counter("tcptrace_export_files", help), tally.files());
            let help = "Rows in these files";
            by_table(to.counter("tcptrace_export_rows", help), tally.rows());
            let help = "Rows that are in no file, since the disk was full or too slow";
            by_table(to.counter("tcptrace_export_rows_lost", help), tally.lost());
            let help = "How often something could not be written to --export-dir";
            to.counter("tcptrace_export_failures", help).is(&[], tally.failures());
        }
        let Some(pushes) = &self.pushes else { return };
        let help = "Pushes of metrics by OTLP, by whether they were accepted, refused, or came to \
                    no answer";
        let family = to.counter("tcptrace_otlp_pushes", help);
        for (outcome, count) in pushes {
            family.is(&[("outcome", outcome)], *count);
        }
    }

    fn own<'a>(&'a self, to: &mut To<'a>) {
        let kernel = self.attached.as_ref().map_or("", |attached| &attached.header.kernel);
        let help = "What is running: always 1";
        let pairs = [("version", env!("CARGO_PKG_VERSION")), ("kernel", kernel)];
        to.gauge("tcptrace_build_info", help).is(&pairs, 1);
        let own = &self.own;
        let help = "CPU time that tcptrace itself has used, its programs in the kernel and its \
                    helper process left out";
        to.counter("process_cpu_seconds", help).real(&[], own.cpu_s);
        let help = "Memory of tcptrace itself";
        to.gauge("process_resident_memory_bytes", help).is(&[], own.resident_bytes);
        let help = "Files that tcptrace itself has open";
        to.gauge("process_open_fds", help).is(&[], own.open_fds);
        let help = "When tcptrace was started, seconds since 1970";
        to.gauge("process_start_time_seconds", help).real(&[], own.started_s);
        let Some(helper) = &self.helper else { return };
        let help = "Whether the helper process that reads the socket tables lives: without it \
                    there are no snapshots any more";
        to.gauge("tcptrace_helper_up", help).is(&[], u64::from(helper.lives()));
        let help = "CPU time that the helper process had used by its last answer";
        to.counter("tcptrace_helper_cpu_seconds", help).real(&[], helper.cpu_s());
        let help = "Memory of the helper process by its last answer, what it shares with tcptrace \
                    itself among it";
        to.gauge("tcptrace_helper_resident_memory_bytes", help).is(&[], helper.resident_bytes());
    }
}
