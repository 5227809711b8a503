//! The book: a view that shows nothing, but keeps what metrics and reports are made of, and leaves
//! it on the shelf once a second.
//!
//! Time is that of the inputs. Must not wait for anybody, read a clock or format a metric.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bytes::BytesMut;
use tcptrace_common::counters::Hook;

use super::{
    figures::{Figures, Label, Stuck},
    labels::{LabelOptions, Labels, OTHER, UNKNOWN},
    pages::Pages,
    shelf::Shelf,
    trouble::{self, Peers},
};
use tcptrace_doctor::collect::Setup;
use tcptrace_model::{Change, Input, StateSet, TcpState};
use tcptrace_report::{Looked, Recent, facts::Facts};
use tcptrace_stats::{
    counts::{COUNTED, StateCounts},
    group::Key,
    named::{Group, named},
    since_start::{End, SinceStart},
    stuck::{Survey, Wanted},
};
use tcptrace_track::Tracker;
use tcptrace_view::View;

/// How often what is known is left on the shelf.
const EVERY_NS: u64 = 1_000_000_000;

/// How long the page is kept up to date after somebody has looked at it.
const WATCHED_NS: u64 = 30_000_000_000;

/// How often who closes is counted for the page, at least.
const COUNTED_NS: u64 = 60_000_000_000;

/// The kernel's name of what it counts when there is no room for a TIME_WAIT.
const OVERFLOW: &str = "TCPTimeWaitOverflow";

/// Network namespaces whose counters are compared with their last reading.
const SPACES: usize = 1 << 16;

/// The book.
pub struct Book {
    shelf: Arc<Shelf>,
    every_ns: u64,
    counts: StateCounts,
    since: SinceStart,
    ends: BTreeMap<(Label, End), u64>,
    labels: Option<Labels>,
    /// Of each label and state, as of the last census, and when that was.
    connections: (Option<u64>, Vec<(Label, TcpState, u64)>),
    /// What is stuck by label, if there is one, as of the same moment.
    survey: Option<(Survey, Stuck)>,
    peers: Peers,
    /// By namespace, as last read.
    overflow: HashMap<u32, i64>,
    overflows: Option<u64>,
    /// There was no room for the counters of a namespace.
    overflow_crowded: bool,
    /// Namespaces whose counters were read in this round.
    overflow_read: HashSet<u32>,
    lost: [u64; Hook::ALL.len()],
    missed: u64,
    whole: bool,
    pages: Pages,
    recent: Recent,
    /// The facts of the page, as of when, and until when they are wanted each second.
    page: (Option<Arc<Facts>>, u64),
    watched_until_ns: u64,
    counted_ns: u64,
    /// The next publication.
    due_ns: Option<u64>,
}

impl Book {
    /// A book that is published on `shelf`, with reports of each `every`.
    pub fn new(
        shelf: Arc<Shelf>,
        label: Option<LabelOptions>,
        every: Duration,
        setup: Setup,
    ) -> Self {
        Self {
            shelf,
            every_ns: u64::try_from(every.as_nanos()).unwrap_or(u64::MAX),
            counts: StateCounts::default(),
            since: SinceStart::new(label.map(|label| label.by)),
            ends: BTreeMap::new(),
            labels: label.map(|label| Labels::new(label.top)),
            connections: (None, Vec::new()),
            survey: label.map(|label| (survey(label), Vec::new())),
            peers: Peers::default(),
            overflow: HashMap::new(),
            overflows: None,
            overflow_crowded: false,
            overflow_read: HashSet::new(),
            lost: [0; Hook::ALL.len()],
            missed: 0,
            whole: false,
            pages: Pages::new(every, setup),
            recent: Recent::default(),
            page: (None, 0),
            watched_until_ns: 0,
            counted_ns: 0,
            due_ns: None,
        }
    }

    fn count_overflow(&mut self, netns: u32, now: i64) {
        let overflows = self.overflows.get_or_insert(0);
        if self.overflow_read.len() < SPACES {
            self.overflow_read.insert(netns);
        }
        if let Some(before) = self.overflow.get_mut(&netns) {
            // An inode is reused: then it begins at 0 again.
            *overflows += u64::try_from(now - *before).unwrap_or(0);
            *before = now;
        } else if self.overflow.len() < SPACES {
            self.overflow.insert(netns, now);
        } else {
            // Of one of them it will not be known by how much it has grown.
            self.overflow_crowded = true;
        }
    }

    fn publish(&mut self, now: u64, tracker: &Tracker) {
        self.name_ends(tracker);
        let fresh = self.connections.0.is_some_and(|at| now.saturating_sub(at) < self.every_ns);
        if !fresh {
            self.count_connections(now, tracker);
            self.count_stuck(now, tracker);
        }
        let counts =
            COUNTED.into_iter().filter_map(|of| Some((None, of, self.counts.get(of)?.now)));
        let connections = match self.labels {
            Some(_) => self.connections.1.clone(),
            None => counts.collect(),
        };
        self.renew_page(now, tracker);
        // Nothing is known of ages before the first scan.
        let stuck = self.pages.stuck().map(|(_, report)| match &self.survey {
            Some((_, stuck)) => stuck.clone(),
            None => trouble::stuck(report),
        });
        let peers = self.peers.of(self.pages.ports()).to_vec();
        let figures = Figures {
            mono_ns: now,
            whole: self.whole,
            connections,
            since: self.since.clone(),
            label: self.since.label(),
            ends: self.ends.clone(),
            unranked: self.labels.as_ref().map_or(0, Labels::unranked),
            time_wait_overflow: self.overflows.filter(|_| !self.overflow_crowded),
            stuck,
            peers,
            ports_used: self.pages.ports_used(),
            lost: self.lost,
            missed: self.missed,
            counts: tracker.counts(),
            reports: self.pages.last().clone(),
            page: self.page.0.clone(),
        };
        // Where somebody is just taking the last one, the next tick tries again.
        if self.shelf.leave(Arc::new(figures)).is_ok() {
            self.due_ns = Some(now.saturating_add(EVERY_NS));
        }
    }

    /// Makes the facts of the page anew, where they are old or somebody looks at it.
    fn renew_page(&mut self, now: u64, tracker: &Tracker) {
        let Some(attached) = self.shelf.attached() else { return };
        if self.shelf.was_watched() {
            self.watched_until_ns = now.saturating_add(WATCHED_NS);
        }
        // A walk over all connections: not each second.
        let since = now.saturating_sub(self.counted_ns);
        if since >= self.every_ns.clamp(EVERY_NS, COUNTED_NS) {
            self.counted_ns = now;
            self.recent.count(now, tracker);
        }
        let (page, made_ns) = &mut self.page;
        let old = now.saturating_sub(*made_ns) >= self.every_ns;
        if page.is_some() && !old && now > self.watched_until_ns {
            return;
        }
        let looked = Looked {
            header: attached.header.clone(),
            diagnosis: self.pages.diagnosis(),
            stuck: self.pages.stuck().map(|(at, report)| (at, report.clone())),
            ports: self.pages.ports().map(|(at, interval)| (at, interval.clone())),
            lost: self.lost.iter().sum(),
            missed: attached.missed_counted.then_some(self.missed),
            snapshots_ended: self.shelf.helper().is_some_and(|helper| !helper.lives()),
            doubts: tracker.counts(),
        };
        *page = Some(Arc::new(self.recent.facts(now, looked)));
        *made_ns = now;
    }

    /// Counts the ends since the last time by the labels of their groups.
    fn name_ends(&mut self, tracker: &Tracker) {
        let Some(labels) = &mut self.labels else {
            for (_, end, count) in self.since.take_ends() {
                *self.ends.entry((None, end)).or_default() += count;
            }
            return;
        };
        let ends: Vec<_> = self.since.take_ends().collect();
        let keyed = ends.into_iter().map(|(key, end, count)| (name(key, tracker), end, count));
        let keyed: Vec<_> = keyed.collect();
        keyed.iter().for_each(|(name, _, count)| labels.add(name, *count));
        labels.promote();
        for (name, end, count) in keyed {
            let label = Some(labels.of(&name).into());
            *self.ends.entry((label, end)).or_default() += count;
        }
    }

    /// Counts connections anew by label and state.
    fn count_connections(&mut self, now: u64, tracker: &Tracker) {
        let (Some(labels), Some(by)) = (&mut self.labels, self.since.label()) else { return };
        let mut keyed: HashMap<(Key, TcpState), u64> = HashMap::new();
        for found in tracker.census() {
            let mut key = by.key(&found);
            if keyed.len() >= tcptrace_stats::closers::DEFAULT_LIMIT
                && !keyed.contains_key(&(key, found.state))
            {
                key = Key::Other;
            }
            *keyed.entry((key, found.state)).or_default() += 1;
        }
        let mut by_name: BTreeMap<(String, TcpState), u64> = BTreeMap::new();
        for ((key, state), count) in keyed {
            *by_name.entry((name(key, tracker), state)).or_default() += count;
        }
        // What is merely there is as good a reason for a label as what has ended.
        for ((name, _), count) in &by_name {
            labels.add(name, *count);
        }
        labels.promote();
        let mut counts: BTreeMap<(Label, TcpState), u64> = BTreeMap::new();
        for ((name, state), count) in by_name {
            *counts.entry((Some(labels.of(&name).into()), state)).or_default() += count;
        }
        // Zeros too; and what only snapshots count has no group.
        for state in COUNTED {
            let known: u64 =
                counts.iter().filter(|((_, of), _)| *of == state).map(|(_, count)| count).sum();
            let all = self.counts.get(state).map_or(0, |flow| flow.now);
            *counts.entry((Some(UNKNOWN.into()), state)).or_default() += all.saturating_sub(known);
        }
        let counts = counts.into_iter().map(|((label, state), count)| (label, state, count));
        self.connections = (Some(now), counts.collect());
    }

    /// Counts what is stuck anew by label.
    fn count_stuck(&mut self, now: u64, tracker: &Tracker) {
        if let (Some(labels), Some((survey, stuck))) = (&mut self.labels, &mut self.survey) {
            let report = survey.report(now, tracker);
            *stuck = trouble::stuck_by(&report, labels, |key| name(key, tracker));
        }
    }
}

/// Groups of a state that are told apart before their labels are known.
const SURVEYED: usize = 1000;

/// What is stuck, by the groups of a label.
fn survey(label: LabelOptions) -> Survey {
    Survey::new(Wanted { states: StateSet::all(), older: None, by: label.by, top: SURVEYED })
}

/// What a group is called in a label.
fn name(key: Key, tracker: &Tracker) -> String {
    if key == Key::Other {
        return OTHER.to_owned();
    }
    // A namespace gets its name after its first events, and may get another: a label must stay.
    if let Key::Netns(netns) = key {
        return netns.map_or_else(|| UNKNOWN.to_owned(), |netns| netns.to_string());
    }
    let groups = named([(key, ())], tracker, |(), ()| {});
    let label = groups.first().and_then(|(group, ())| Group::label(group));
    label.unwrap_or_else(|| UNKNOWN.to_owned())
}

impl View for Book {
    fn begin(&mut self, _out: &mut BytesMut) {}

    fn input(&mut self, input: &Input, tracker: &Tracker, _out: &mut BytesMut) {
        self.counts.input(input);
        self.pages.input(input, tracker);
        self.recent.input(input);
        if let Some((survey, _)) = &mut self.survey {
            survey.input(input);
        }
        match input {
            Input::Lost(lost) => self.lost[lost.hook as usize] += lost.count,
            Input::Missed { count, .. } => self.missed += count,
            Input::Counters(counters) => {
                let read = counters.counters.as_ref().ok();
                if let Some(&now) = read.and_then(|stat| stat.tcp_ext.get(OVERFLOW)) {
                    self.count_overflow(counters.netns, now);
                }
            }
            Input::Snapshot(tcptrace_model::Snapshot::Over { all: true, .. }) => {
                self.whole = true;
                // Of a namespace that is gone nothing will be read.
                let read = std::mem::take(&mut self.overflow_read);
                self.overflow.retain(|netns, _| read.contains(netns));
            }
            Input::Tick { mono_ns } if self.due_ns.is_none_or(|due| due <= *mono_ns) => {
                self.publish(*mono_ns, tracker);
            }
            Input::End(accounts) => self.publish(accounts.mono_ns, tracker),
            _ => {}
        }
    }

    fn change(&mut self, change: &Change, _out: &mut BytesMut) {
        self.counts.change(change);
        if let Change::Moved(moved) = change {
            self.since.add(moved);
        }
        self.pages.change(change);
        self.recent.change(change);
    }

    fn due_ns(&self) -> Option<u64> {
        self.due_ns.into_iter().chain(self.pages.due_ns()).min()
    }

    /// Nobody sees a transition before the next second.
    fn patience(&self) -> Duration {
        Duration::from_nanos(EVERY_NS)
    }

    fn is_done(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        metrics,
        tests::{begun, moment, shelf_with},
    };
    use tcptrace_model::How;
    use tcptrace_stats::group::By;

    /// What metrics say after `text`.
    fn metrics(text: &str, label: Option<LabelOptions>) -> String {
        let figures = shelf_with(text, label).take().unwrap();
        metrics::openmetrics(moment(figures)).unwrap()
    }

    /// Connections of tasks of these names, each opened and reset here.
    fn resets(names: &[&str]) -> String {
        let mut text = "0ms begin\n".to_owned();
        for (at, name) in names.iter().enumerate() {
            let port = 1000 + at;
            text += &format!(
                "1ms sk={port:x} CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 comm={name} cookie={port}\n\
                 2ms sk={port:x} SYN_SENT>ESTABLISHED 10.0.0.1:{port} 10.0.0.2:443 cookie={port}\n\
                 3ms sk={port:x} ESTABLISHED>CLOSE 10.0.0.1:{port} 10.0.0.2:443 cookie={port}\n"
            );
        }
        text + "1001ms tick\n"
    }

    /// Connections that process `name` opened and whose peer closed two minutes ago.
    fn leak(name: &str, count: u16) -> String {
        let mut text = begun().to_owned();
        for port in 1000..1000 + count {
            text += &format!(
                "3ms sk={port:x} CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 comm={name} cookie={port}\n\
                 4ms sk={port:x} SYN_SENT>ESTABLISHED 10.0.0.1:{port} 10.0.0.2:443 cookie={port}\n\
                 5ms sk={port:x} ESTABLISHED>CLOSE_WAIT 10.0.0.1:{port} 10.0.0.2:443 cookie={port}\n"
            );
        }
        (1..=120).fold(text, |text, second| text + &format!("{second}000ms tick\n"))
    }

    #[test]
    fn what_is_stuck_has_the_label_of_whose_it_is() {
        let close_waits = |text: &str| -> Vec<(String, u64)> {
            let lines = text.lines().filter(|line| {
                line.starts_with("tcptrace_stuck_sockets{") && line.contains("\"close_wait\"")
            });
            let split = lines.map(|line| line.rsplit_once(' ').unwrap());
            let parsed = split.map(|(name, count)| (name.to_owned(), count.parse().unwrap()));
            parsed.filter(|(_, count)| *count > 0).collect()
        };
        let told = close_waits(&metrics(&leak("leaky", 12), None));
        assert!(told.len() == 1 && told[0].1 == 12, "{told:?}");
        for (by, owner) in [(By::Owner, "owner=\"leaky\""), (By::Port, "port=\"443\"")] {
            let label = LabelOptions { by, top: 3 };
            let told = close_waits(&metrics(&leak("leaky", 12), Some(label)));
            assert!(told.len() == 1 && told[0].1 == 12 && told[0].0.contains(owner), "{told:?}");
        }
    }

    #[test]
    fn every_end_that_there_may_be_is_zero_from_the_start() {
        let label = Some(LabelOptions { by: By::Owner, top: 3 });
        for (text, owner) in [
            (metrics("0ms begin\n1ms tick\n", None), ""),
            (metrics("0ms begin\n1ms tick\n", label), ",owner=\"(unknown)\""),
            // One that has just got its label, too.
            (metrics(&resets(&["a"]), label), ",owner=\"a\""),
        ] {
            for (name, how) in [("no-local-port", 0), ("timeout-syn", 0), ("refused", 0)] {
                let line =
                    format!("tcptrace_connects_failed_total{{how=\"{name}\"{owner}}} {how}\n");
                assert!(text.contains(&line), "{line}{text}");
            }
            for how in How::ALL.into_iter().filter(|how| how.is_of_a_connection()) {
                for initiator in ["local", "remote", "both", "none", "unknown"] {
                    let of = format!("initiator=\"{initiator}\",how=\"{}\"", how.name());
                    let line = format!("tcptrace_closes_total{{{of}{owner}}} ");
                    assert!(text.contains(&line), "{line}{text}");
                }
            }
        }
    }

    fn total(text: &str, name: &str) -> u64 {
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
    }

    #[test]
    fn losses_are_told_by_their_hook() {
        let text = metrics("0ms begin\n1ms lost 17\n2ms tick\n", None);
        assert!(text.contains("tcptrace_events_lost_total{hook=\"set_state\"} 17\n"), "{text}");
        assert!(text.contains("tcptrace_events_lost_total{hook=\"time_wait\"} 0\n"), "{text}");
        assert!(!text.contains("tcptrace_events_missed"), "not known to be counted");
    }

    #[test]
    fn without_a_label_there_is_none() {
        let text = metrics(&resets(&["a", "b", "a"]), None);
        assert_eq!(total(&text, "tcptrace_closes_total"), 3, "{text}");
        assert!(!text.contains("owner="), "{text}");
        let address = ["10.0.0", "cookie", "pid="];
        assert!(address.iter().all(|part| !text.contains(part)), "{text}");
    }

    #[test]
    fn the_rest_is_other_and_nothing_is_lost_or_told_twice() {
        let label = LabelOptions { by: By::Owner, top: 1 };
        let text = metrics(&resets(&["a", "b", "a", "c"]), Some(label));
        assert_eq!(total(&text, "tcptrace_closes_total"), 4, "{text}");
        let of = |owner: &str| {
            let lines = text.lines().filter(|line| line.starts_with("tcptrace_closes_total{"));
            let of = lines.filter(|line| line.contains(&format!("owner=\"{owner}\"")));
            of.filter(|line| !line.ends_with(" 0")).count()
        };
        assert_eq!([of("a"), of("b"), of("c"), of(OTHER)], [1, 0, 0, 1], "{text}");
    }

    #[test]
    fn a_hostile_name_stays_within_its_label() {
        let label = LabelOptions { by: By::Owner, top: 9 };
        let text = metrics(&resets(&["x\"}\\evil"]), Some(label));
        let mut closes = text.lines().filter(|line| line.starts_with("tcptrace_closes_total"));
        let line = closes.find(|line| !line.ends_with(" 0")).unwrap();
        assert!(line.contains(r#"owner="x\"}"#) && line.ends_with("} 1"), "{line}");
    }

    #[test]
    fn what_the_kernel_counts_begins_with_the_first_reading() {
        let shelf = Shelf::new();
        let setup = Setup {
            defaults: Err(String::new()),
            files: Vec::new(),
            events: Ok(()),
            own_netns: None,
        };
        let mut book = Book::new(shelf, None, Duration::from_secs(10), setup);
        assert_eq!(book.overflows, None, "not known is not 0");
        for (netns, now) in [(1, 100), (1, 103), (2, 50), (2, 50), (1, 2)] {
            book.count_overflow(netns, now);
        }
        assert_eq!(book.overflows, Some(3));
    }
}
