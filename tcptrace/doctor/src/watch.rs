//! Judges a window, not its two ends: all rules are asked at each scan of the sockets, about the time
//! since the scan before and about the last minute, and at the end about the whole. What was found at
//! any of them is a finding, with when it began, when it was worst, and whether it is over.
//!
//! So what is said of an hour has all that would have been said of each of its minutes, and a rule is
//! fine only where it never found anything. Must not judge by itself: that is [`crate::rules`].

use std::{collections::BTreeMap, time::Duration};

use super::{
    Diagnosis,
    collect::{Collector, Setup, Window},
    facts::HostFacts,
    finding::{About, Finding, Outcome, When},
    rules,
};
use tcptrace_model::{Change, Input};
use tcptrace_track::Tracker;

/// What waits for longer is not work that is just being finished.
pub const LASTING: Duration = Duration::from_millis(4500);

/// Rates are also those of so long: what comes in gusts, some seconds apart, is seen in it.
const MINUTE_NS: u64 = 60_000_000_000;

/// Scans are not to the millisecond.
const SLACK_NS: u64 = 2_000_000_000;

/// Namespaces and rules of which a finding is kept: beyond, what is over is forgotten first.
const FINDINGS: usize = 10_000;

/// For how long, and what counts as lasting.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// A finding that is over is forgotten after this; `None`: never, and the whole window is judged
    /// at its end too.
    pub forget: Option<Duration>,
    /// What waits for so long is lasting, see [`LASTING`].
    pub lasting: Duration,
}

impl Span {
    /// All that is seen is one window.
    pub const WHOLE: Self = Self { forget: None, lasting: LASTING };

    /// The last minutes of something that does not end.
    pub const RECENT: Self = Self { forget: Some(Duration::from_mins(10)), lasting: LASTING };

    /// One window of about `length`.
    pub fn of(length: Duration) -> Self {
        Self { lasting: LASTING.min(length.mul_f64(0.9)), ..Self::WHOLE }
    }
}

/// What a rule found in a namespace, by now.
#[derive(Clone, Debug)]
struct Kept {
    /// At its worst.
    about: About,
    when: When,
    /// When it was last found.
    last_ns: u64,
    /// What the namespace was called then.
    netns_name: Option<Box<str>>,
    called: String,
}

/// What a rule said of a namespace at the last scan, where it found nothing.
#[derive(Clone, Debug)]
enum Last {
    Fine,
    Unseen(String),
}

/// Watches.
pub struct Watch {
    collector: Collector,
    span: Span,
    /// A scan is over: at the next tick it is looked at.
    due: bool,
    host: Option<HostFacts>,
    /// By rule and namespace.
    kept: BTreeMap<(usize, u32), Kept>,
    /// Those that found nothing.
    last: BTreeMap<(usize, u32), Last>,
    looked_ns: u64,
    /// What was found before, when it was looked at last: a look at the end may come twice.
    looks: u64,
}

impl Watch {
    /// One that has seen nothing yet.
    pub fn new(setup: Setup, span: Span) -> Self {
        let keep_ns = MINUTE_NS + SLACK_NS;
        Self {
            collector: Collector::new(setup, keep_ns, span.forget.is_none()),
            span,
            due: false,
            host: None,
            kept: BTreeMap::new(),
            last: BTreeMap::new(),
            looked_ns: 0,
            looks: 0,
        }
    }

    /// Takes in what is not an event. Says whether there is more to say since.
    pub fn input(&mut self, input: &Input, tracker: &Tracker) -> bool {
        self.due |= self.collector.input(input);
        match input {
            Input::Tick { mono_ns } if self.due => self.look(*mono_ns, tracker),
            Input::End(accounts) => {
                // A scan that was over at the very end was not looked at yet; what is judged as a
                // whole is whole only now.
                let now_ns = accounts.mono_ns.max(self.looked_ns);
                if !self.due && self.looks == 0 {
                    return false;
                }
                if self.due {
                    self.look(now_ns, tracker);
                }
                self.finish(now_ns);
            }
            _ => return false,
        }
        true
    }

    /// It is over at `now_ns`: judges the whole, unless only the last minutes are of interest.
    pub fn finish(&mut self, now_ns: u64) {
        if self.span.forget.is_none() && self.looks > 0 {
            self.judge(now_ns, Window::All);
        }
    }

    /// Takes in a change.
    pub fn change(&mut self, change: &Change) {
        self.collector.change(change);
    }

    /// From when to when it has watched, `CLOCK_MONOTONIC`, nanoseconds; `None`: no scan of all sockets
    /// is over yet.
    pub fn watched(&self) -> Option<(u64, u64)> {
        self.collector.watched()
    }

    /// For how long.
    pub fn length(&self) -> Duration {
        let (from_ns, to_ns) = self.watched().unwrap_or_default();
        Duration::from_nanos(to_ns.saturating_sub(from_ns))
    }

    /// How often there was something to judge.
    pub fn looks(&self) -> u64 {
        self.looks
    }

    /// The facts as of the last look, of the window that was judged last.
    pub fn host(&self) -> Option<&HostFacts> {
        self.host.as_ref()
    }

    fn look(&mut self, now_ns: u64, tracker: &Tracker) {
        self.due = false;
        let lasting_ns = u64::try_from(self.span.lasting.as_nanos()).unwrap_or(u64::MAX);
        self.host = Some(self.collector.look(now_ns, lasting_ns, tracker));
        self.looked_ns = now_ns;
        self.looks += 1;
        self.last.clear();
        self.judge(now_ns, Window::Step);
        self.judge(now_ns, Window::Since(now_ns.saturating_sub(MINUTE_NS + SLACK_NS)));
        self.kept.retain(|_, kept| !kept.about.is_forecast || kept.last_ns == now_ns);
        if let Some(forget) = self.span.forget {
            let forget_ns = u64::try_from(forget.as_nanos()).unwrap_or(u64::MAX);
            self.kept.retain(|_, kept| kept.last_ns.saturating_add(forget_ns) >= now_ns);
        }
    }

    /// Asks all rules about `window`, which ends with the last scan.
    fn judge(&mut self, now_ns: u64, window: Window) {
        let Some(mut host) = self.host.take() else { return };
        self.collector.fit(&mut host, window);
        let began_ns = now_ns.saturating_sub((host.watched.seconds * 1e9) as u64);
        for space in &host.spaces {
            for (index, (_, rule)) in rules::ALL.iter().enumerate() {
                let key = (index, space.netns);
                match rule(&host, space) {
                    Outcome::Found(about) => {
                        self.found(key, about, window, began_ns, now_ns);
                        if let Some(kept) = self.kept.get_mut(&key) {
                            kept.netns_name.clone_from(&space.name);
                            kept.called.clone_from(&space.called);
                        }
                    }
                    Outcome::Fine => {
                        self.last.entry(key).or_insert(Last::Fine);
                    }
                    Outcome::Unseen(why) => {
                        self.last.insert(key, Last::Unseen(why));
                    }
                }
            }
        }
        self.host = Some(host);
    }

    fn found(
        &mut self,
        key: (usize, u32),
        about: About,
        window: Window,
        began_ns: u64,
        now_ns: u64,
    ) {
        let Some(kept) = self.kept.get_mut(&key) else {
            if self.kept.len() < FINDINGS {
                let when = When { began_ns, worst_ns: now_ns, over_ns: None };
                let (netns_name, called) = (None, String::new());
                let kept = Kept { about, when, last_ns: now_ns, netns_name, called };
                self.kept.insert(key, kept);
            }
            return;
        };
        // What the whole window adds up to says nothing of its end.
        if window != Window::All {
            kept.last_ns = now_ns;
        }
        let weight = |about: &About| (about.severity, about.amount);
        // Of two that are alike the later one says more, and the one of the shorter window.
        let (new, worst) = (weight(&about), weight(&kept.about));
        if new > worst || window == Window::Step && new == worst {
            kept.about = about;
            kept.when.worst_ns = now_ns;
        }
    }

    /// What all rules say of what was seen by now.
    pub fn diagnosis(&self) -> Diagnosis {
        let (findings, fine, unseen) = (Vec::new(), Vec::new(), Vec::new());
        let window = self.watched().unwrap_or_default();
        let mut diagnosis = Diagnosis { findings, fine, unseen, window };
        for (index, (name, _)) in rules::ALL.iter().enumerate() {
            let of_rule = (index, 0)..=(index, u32::MAX);
            let mut is_fine = false;
            let mut is_bad = false;
            for ((_, netns), kept) in self.kept.range(of_rule.clone()) {
                is_bad = true;
                let over_ns = (kept.last_ns < self.looked_ns).then_some(kept.last_ns);
                diagnosis.findings.push(Finding {
                    rule: name,
                    netns: *netns,
                    netns_name: kept.netns_name.clone(),
                    called: kept.called.clone(),
                    about: kept.about.clone(),
                    when: When { over_ns, ..kept.when },
                });
            }
            for ((_, netns), last) in self.last.range(of_rule) {
                if self.kept.contains_key(&(index, *netns)) {
                    continue;
                }
                match last {
                    Last::Fine => is_fine = true,
                    Last::Unseen(why) => {
                        is_bad = true;
                        diagnosis.unseen.push((name, *netns, why.clone()));
                    }
                }
            }
            if is_fine && !is_bad {
                diagnosis.fine.push(name);
            }
        }
        // Stable: within a severity those that go on first, then in the order of the rules, and of
        // the namespaces.
        diagnosis.findings.sort_by_key(|finding| {
            (std::cmp::Reverse(finding.about.severity), finding.when.over_ns.is_some())
        });
        diagnosis
    }
}

#[cfg(test)]
mod tests;
