//! Holds back events whose filter key the kernel had not set yet.
//!
//! The kernel side filters, but at CLOSE→SYN_SENT an autobound socket has no local port, and up
//! to 6.12 a child's LISTEN→SYN_RECV has no peer. Such an event waits here for the next one of
//! its socket: that comes only if the connection passes, since the kernel side decides on the
//! same rule. If a new connection shows up at the same address instead, the held event belonged
//! to one that was filtered.

use super::table::Table;
use tcptrace_model::Transition;

/// Events that may be held at a time; the oldest then counts as filtered.
const LIMIT: usize = 65_536;

/// The place where such events wait.
pub struct Gate {
    held: Table<Transition>,
    filtered: u64,
}

impl Default for Gate {
    fn default() -> Self {
        Self { held: Table::new(LIMIT), filtered: 0 }
    }
}

impl Gate {
    /// Whether [`Self::pass`] may do anything but hand this event on.
    #[inline]
    pub fn concerns(&self, event: &Transition) -> bool {
        event.key_unknown || !self.held.is_empty()
    }

    /// Takes one event in and hands out, in order, what is now known to pass.
    pub fn pass(&mut self, event: Transition, mut out: impl FnMut(Transition)) {
        if event.key_unknown {
            if self.held.remove(event.skaddr).is_some() {
                self.filtered += 1;
            }
            if self.held.insert(event.skaddr, event).is_some() {
                self.filtered += 1;
            }
            return;
        }
        if !self.held.is_empty()
            && let Some(first) = self.held.remove(event.skaddr)
        {
            if first.new == event.old {
                out(first);
            } else {
                self.filtered += 1;
            }
        }
        out(event);
    }

    /// How many events turned out not to pass, those included that still wait: what cannot be
    /// shown to pass is not shown.
    pub fn filtered(&self) -> u64 {
        self.filtered + self.held.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcptrace_model::{TcpState::*, script};

    fn run(lines: &str) -> (Vec<(u64, tcptrace_model::TcpState)>, u64) {
        let mut gate = Gate::default();
        let mut passed = Vec::new();
        for event in script::transitions(lines).unwrap() {
            gate.pass(event, |t| passed.push((t.skaddr, t.new)));
        }
        (passed, gate.filtered())
    }

    #[test]
    fn a_held_event_follows_its_connection() {
        let (passed, filtered) = run("1ms sk=a CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 unknown\n\
             2ms sk=b CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 unknown\n\
             3ms sk=a SYN_SENT>ESTABLISHED 10.0.0.1:7 10.0.0.2:443\n");
        assert_eq!(passed, [(0xa, SynSent), (0xa, Established)]);
        assert_eq!(filtered, 1, "b is still waiting");
    }

    #[test]
    fn a_new_connection_at_the_address_settles_the_old_one() {
        let (passed, filtered) = run("1ms sk=a CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 unknown\n\
             9ms sk=a CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 unknown\n\
             9ms sk=a SYN_SENT>CLOSE 10.0.0.1:7 10.0.0.2:443\n\
             10ms sk=a CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 unknown\n\
             11ms sk=a CLOSE>LISTEN 10.0.0.1:7 0.0.0.0:0\n");
        assert_eq!(passed, [(0xa, SynSent), (0xa, Close), (0xa, Listen)]);
        assert_eq!(filtered, 2);
    }
}
