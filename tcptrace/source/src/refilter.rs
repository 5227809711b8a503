//! Applies a filter to what was recorded: the same rule as in the kernel, event by event.
//!
//! What the recording's own filter kept out is not in it, so a filter can only narrow. The number
//! of connections that a snapshot merely counts (the SYN queue) is of all of them.

use tcptrace_common::filter::{Rules as _, Verdict};

use tcptrace_model::{Accounts, Event, Input, Snapshot, Transition, filter::Filter};
use tcptrace_track::{Table, gate::Gate};

/// Sockets whose last transition did not pass that are kept in mind.
const LIMIT: usize = 1 << 20;

/// The filter, and what it must remember.
pub(super) struct Refilter {
    filter: Filter,
    gate: Gate,
    /// Sockets that are not asked for: a RST or an accept does not say what it is of.
    dropped: Table<()>,
    /// The namespace whose snapshot is being told.
    netns: u32,
    /// Events that did not pass, those of the gate not counted.
    filtered: u64,
}

impl Refilter {
    pub(super) fn new(filter: Filter) -> Self {
        Self { filter, gate: Gate::default(), dropped: Table::new(LIMIT), netns: 0, filtered: 0 }
    }

    /// Events that did not pass.
    pub(super) fn filtered(&self) -> u64 {
        if self.is_empty() { 0 } else { self.filtered + self.gate.filtered() }
    }

    fn is_empty(&self) -> bool {
        self.filter.conditions() == 0
    }

    /// Hands on what passes.
    pub(super) fn pass(&mut self, input: Input, sink: &mut dyn FnMut(Input)) {
        if self.is_empty() {
            return sink(input);
        }
        match input {
            Input::Event(Event::Transition(event)) => self.transition(event, sink),
            Input::Event(Event::Minisock(event)) => {
                if self.filter.keeps(&event.tuple, event.netns) {
                    sink(input);
                } else {
                    self.filtered += 1;
                }
            }
            Input::Event(Event::Reset(event)) => self.of_socket(event.skaddr, input, sink),
            Input::Event(Event::Accept(event)) => self.of_socket(event.skaddr, input, sink),
            Input::Snapshot(Snapshot::Begin { netns, .. }) => {
                self.netns = netns;
                sink(input);
            }
            Input::Snapshot(Snapshot::Socket(ref socket)) => {
                if self.filter.keeps(&socket.tuple, self.netns) {
                    sink(input);
                }
            }
            Input::End(accounts) => {
                let filtered = self.filtered();
                sink(Input::End(Accounts {
                    delivered: accounts.delivered.saturating_sub(filtered),
                    filtered: accounts.filtered + filtered,
                    ..accounts
                }));
            }
            _ => sink(input),
        }
    }

    fn transition(&mut self, event: Transition, sink: &mut dyn FnMut(Input)) {
        let verdict = self.filter.verdict(&event);
        if verdict == Verdict::Drop {
            self.filtered += 1;
            self.dropped.insert(event.skaddr, ());
            return;
        }
        self.dropped.remove(event.skaddr);
        // As the kernel side would have marked it. The mark is of no use after the gate.
        let event = Transition { key_unknown: verdict == Verdict::Unknown, ..event };
        self.gate.pass(event, |event| sink(Input::Event(Event::Transition(event))));
    }

    fn of_socket(&mut self, skaddr: u64, input: Input, sink: &mut dyn FnMut(Input)) {
        if self.dropped.get(skaddr).is_some() {
            self.filtered += 1;
        } else {
            sink(input);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcptrace_model::script;

    fn pass(filter: &str, text: &str) -> (Vec<Input>, u64) {
        let mut lports = tcptrace_model::filter::PortSet::default();
        lports.add(filter).unwrap();
        let mut refilter = Refilter::new(Filter { lports: Some(lports), ..Filter::default() });
        let mut passed = Vec::new();
        for input in script::inputs(text).unwrap() {
            refilter.pass(input, &mut |input| passed.push(input));
        }
        (passed, refilter.filtered())
    }

    #[test]
    fn a_connection_passes_whole_or_not_at_all() {
        let text = "0ms begin\n\
            1ms sk=a CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443\n\
            1ms sk=b CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443\n\
            2ms sk=a SYN_SENT>ESTABLISHED 10.0.0.1:7 10.0.0.2:443\n\
            3ms sk=b SYN_SENT>ESTABLISHED 10.0.0.1:8 10.0.0.2:443\n\
            4ms sk=b ESTABLISHED>CLOSE 10.0.0.1:8 10.0.0.2:443\n\
            4ms sk=b reset-sent CLOSE abort-on-data\n\
            5ms sk=a ESTABLISHED>CLOSE 10.0.0.1:7 10.0.0.2:443\n\
            5ms sk=a reset-sent CLOSE abort-on-data\n";
        let (passed, filtered) = pass("7", text);
        let whole: Vec<_> = text.lines().filter(|line| !line.contains("sk=b")).collect();
        // Marked as the kernel side would have.
        let whole = whole.join("\n").replacen("10.0.0.2:443", "10.0.0.2:443 unknown", 1);
        assert_eq!(passed, script::inputs(&whole).unwrap());
        assert_eq!(filtered, 4);
    }

    #[test]
    fn sockets_of_snapshots_pass_by_the_same_rule() {
        let text = "1ms snapshot open\n1ms snapshot 5\n\
            1ms socket TIME_WAIT 9b2d 10.0.0.1:7 10.0.0.2:443 12000\n\
            1ms socket TIME_WAIT 9b2e 10.0.0.1:8 10.0.0.2:443 12000\n\
            1ms snapshot end\n1ms snapshot over\n\
            2ms tw=1 expired TIME_WAIT 10.0.0.1:7 10.0.0.2:443\n\
            2ms tw=2 expired TIME_WAIT 10.0.0.1:8 10.0.0.2:443\n";
        let (passed, filtered) = pass("7", text);
        assert_eq!((passed.len(), filtered), (6, 1), "{passed:?}");
    }
}
