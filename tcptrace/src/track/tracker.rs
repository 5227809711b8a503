//! One incarnation for each skaddr: how long it was in each state, and whose it is.

use super::table::Table;
use crate::model::{
    Age, Change, Event, Input, Moved, Owner, OwnerFrom, TcpState, Transition, Tuple,
};

/// Connections that are tracked at a time unless told otherwise.
pub const DEFAULT_LIMIT: usize = 1 << 20;

/// What the tracker knows of a live socket.
struct Conn {
    state: TcpState,
    /// When it entered `state`, or the latest moment at which it was known to be in it already.
    since_ns: u64,
    /// Whether the entry into `state` was seen.
    seen_entering: bool,
    cookie: Option<u64>,
    tuple: Tuple,
    owner: Option<Owner>,
}

/// What the tracker counts of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Transitions that do not follow from what was known, with nothing lost to explain it.
    pub anomalies: u64,
    /// Sockets whose state was corrected after a loss.
    pub resynchronised: u64,
    /// Sockets forgotten to keep the limit.
    pub evicted: u64,
    /// Sockets known now.
    pub tracked: u64,
}

/// Turns inputs into changes.
pub struct Tracker {
    conns: Table<Conn>,
    /// Since when no event can have been missed: an unknown socket has been in its state at
    /// least since then. `None` before the hooks are in force.
    complete_since: Option<u64>,
    /// The last time that events were noticed to be lost.
    last_loss: Option<u64>,
    anomalies: u64,
    resynchronised: u64,
}

impl Default for Tracker {
    fn default() -> Self {
        Self::new(DEFAULT_LIMIT)
    }
}

impl Tracker {
    /// A tracker of at most `limit` sockets.
    pub fn new(limit: usize) -> Self {
        Self {
            conns: Table::new(limit),
            complete_since: None,
            last_loss: None,
            anomalies: 0,
            resynchronised: 0,
        }
    }

    /// What it counts of itself.
    pub fn counts(&self) -> Counts {
        Counts {
            anomalies: self.anomalies,
            resynchronised: self.resynchronised,
            evicted: self.conns.evicted(),
            tracked: self.conns.len() as u64,
        }
    }

    /// Takes in one input and hands out what follows from it.
    pub fn apply(&mut self, input: &Input, out: &mut impl FnMut(Change)) {
        match input {
            Input::Begin { mono_ns, .. } => self.complete_since = Some(*mono_ns),
            Input::Event(Event::Transition(event)) => self.transition(event, out),
            Input::Lost(lost) => {
                self.complete_since = Some(lost.mono_ns);
                self.last_loss = Some(lost.mono_ns);
            }
            Input::Clock(_) | Input::Tick { .. } | Input::End(_) => {}
        }
    }

    fn transition(&mut self, event: &Transition, out: &mut impl FnMut(Change)) {
        if event.old == event.new {
            return; // inet_sk_state_store() is also called to stay: no transition
        }
        if !event.old.may_become(event.new) {
            self.anomalies += 1;
        }
        // A child of a listener starts here: whatever was known of its address is a former
        // socket's, and the LISTEN it leaves is the listener's.
        let born = event.old == TcpState::Listen && event.new == TcpState::SynRecv
            || event.old == TcpState::Close;
        let cookie = event.sock.and_then(|sock| sock.cookie);
        let mut known = self.conns.get_mut(event.skaddr);
        if let Some(conn) = &known
            && (born || differ(conn.cookie, cookie))
        {
            // The former socket's way to CLOSE was not seen.
            if self.last_loss.is_some_and(|loss| loss >= conn.since_ns) {
                self.resynchronised += 1;
            } else {
                self.anomalies += 1;
            }
            self.conns.remove(event.skaddr);
            known = None;
        }
        let mut age = Age::Unknown;
        let mut tuple = event.tuple;
        let mut owner = None;
        match &mut known {
            Some(conn) => {
                tuple = tuple.completed_by(&conn.tuple);
                owner = conn.owner;
                if conn.state == event.old {
                    age = conn.age(event.mono_ns, self.last_loss);
                } else if let Some(loss) = self.last_loss.filter(|&loss| loss >= conn.since_ns) {
                    self.resynchronised += 1;
                    age = at_least(loss, event.mono_ns);
                } else {
                    self.anomalies += 1;
                }
            }
            None if born => {}
            None => {
                if let Some(since) = self.complete_since {
                    age = at_least(since, event.mono_ns);
                }
            }
        }
        owner = owner.or_else(|| owner_of(event));
        out(Change::Moved(Moved {
            mono_ns: event.mono_ns,
            skaddr: event.skaddr,
            old: event.old,
            new: event.new,
            tuple,
            in_old: age,
            owner,
            sock: event.sock,
        }));
        if event.new == TcpState::Close {
            self.conns.remove(event.skaddr);
            return;
        }
        let state = event.new;
        // A connection in SYN_RECV was in the SYN queue before, unseen, as a request_sock.
        let seen_entering = state != TcpState::SynRecv || event.old != TcpState::Listen;
        let conn = Conn { state, since_ns: event.mono_ns, seen_entering, cookie, tuple, owner };
        match known {
            Some(slot) => *slot = conn,
            None => {
                if self.conns.insert(event.skaddr, conn).is_some() {
                    // An unknown socket may now be the evicted one, which was in its state
                    // before; it may also have moved before it was evicted, up to now.
                    self.complete_since = Some(event.mono_ns);
                }
            }
        }
    }
}

impl Conn {
    /// Time in the present state, at `now`.
    fn age(&self, now: u64, last_loss: Option<u64>) -> Age {
        match last_loss {
            // The events of a leave and a return may be among the lost. With a cookie it is the
            // same socket, and only SYN_SENT can be entered twice in the life of one.
            Some(loss)
                if loss >= self.since_ns
                    && (self.cookie.is_none() || self.state == TcpState::SynSent) =>
            {
                at_least(loss, now)
            }
            _ if self.seen_entering => Age::Exactly(now.saturating_sub(self.since_ns)),
            _ => at_least(self.since_ns, now),
        }
    }
}

/// A lower bound, if there is one: "at least nothing" says nothing.
fn at_least(since: u64, now: u64) -> Age {
    match now.checked_sub(since) {
        Some(ns) if ns > 0 => Age::AtLeast(ns),
        _ => Age::Unknown,
    }
}

fn differ(a: Option<u64>, b: Option<u64>) -> bool {
    matches!((a, b), (Some(a), Some(b)) if a != b)
}

/// The owner, where the task on the CPU is in a system call on this very socket.
fn owner_of(event: &Transition) -> Option<Owner> {
    use TcpState::*;
    let from = match (event.old, event.new) {
        (Close, SynSent) => OwnerFrom::Connect,
        (Close, Listen) => OwnerFrom::Listener,
        (_, FinWait1) | (CloseWait, LastAck) => OwnerFrom::Close,
        _ => return None,
    };
    Some(Owner { task: event.task, from })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::script;

    /// Runs a script and prints each change in one line, then the counts.
    fn track(limit: usize, lines: &str) -> String {
        use std::fmt::Write as _;
        let mut tracker = Tracker::new(limit);
        let mut text = String::new();
        for input in script::inputs(lines).unwrap() {
            tracker.apply(&input, &mut |Change::Moved(moved)| {
                let age = match moved.in_old {
                    Age::Unknown => "?".to_owned(),
                    Age::AtLeast(ns) => format!(">={}us", ns / 1000),
                    Age::Exactly(ns) => format!("{}us", ns / 1000),
                };
                let owner = moved
                    .owner
                    .map(|o| format!(" {} by {}", o.task.comm, o.from.name()))
                    .unwrap_or_default();
                let t = moved.tuple;
                writeln!(
                    text,
                    "{:x} {}:{} {}:{} {}>{} {age}{owner}",
                    moved.skaddr,
                    t.local_ip(),
                    t.lport,
                    t.remote_ip(),
                    t.rport,
                    moved.old,
                    moved.new
                )
                .unwrap();
            });
        }
        let Counts { anomalies, resynchronised, evicted, tracked } = tracker.counts();
        writeln!(text, "{anomalies} {resynchronised} {evicted} {tracked}").unwrap();
        text
    }

    #[test]
    fn a_connection_from_connect_to_close() {
        let out = track(
            9,
            "0ms begin\n\
             1ms sk=a CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 comm=curl\n\
             3ms sk=a SYN_SENT>ESTABLISHED 10.0.0.1:7 10.0.0.2:443 comm=swapper/0\n\
             5ms sk=a ESTABLISHED>FIN_WAIT1 10.0.0.1:7 10.0.0.2:443 comm=curl\n\
             6ms sk=a FIN_WAIT1>FIN_WAIT2 10.0.0.1:7 10.0.0.2:443 comm=nginx\n\
             9ms sk=a FIN_WAIT2>CLOSE 10.0.0.1:0 10.0.0.2:443 comm=nginx\n",
        );
        assert_eq!(
            out,
            "a 10.0.0.1:0 10.0.0.2:443 CLOSE>SYN_SENT ? curl by connect\n\
             a 10.0.0.1:7 10.0.0.2:443 SYN_SENT>ESTABLISHED 2000us curl by connect\n\
             a 10.0.0.1:7 10.0.0.2:443 ESTABLISHED>FIN_WAIT1 2000us curl by connect\n\
             a 10.0.0.1:7 10.0.0.2:443 FIN_WAIT1>FIN_WAIT2 1000us curl by connect\n\
             a 10.0.0.1:7 10.0.0.2:443 FIN_WAIT2>CLOSE 3000us curl by connect\n\
             0 0 0 0\n"
        );
    }

    #[test]
    fn an_unseen_start_is_a_lower_bound() {
        let out = track(
            9,
            "10ms begin\n\
             12ms sk=a ESTABLISHED>CLOSE_WAIT 10.0.0.1:7 10.0.0.2:443\n\
             13ms sk=a CLOSE_WAIT>LAST_ACK 10.0.0.1:7 10.0.0.2:443 comm=app\n\
             10ms sk=b LAST_ACK>CLOSE 10.0.0.1:8 10.0.0.2:443\n",
        );
        assert_eq!(
            out,
            "a 10.0.0.1:7 10.0.0.2:443 ESTABLISHED>CLOSE_WAIT >=2000us\n\
             a 10.0.0.1:7 10.0.0.2:443 CLOSE_WAIT>LAST_ACK 1000us app by close\n\
             b 10.0.0.1:8 10.0.0.2:443 LAST_ACK>CLOSE ?\n\
             0 0 0 1\n",
            "never 0"
        );
    }

    #[test]
    fn a_childs_syn_queue_time_is_not_its_own() {
        let out = track(
            9,
            "0ms begin\n\
             1ms sk=1 CLOSE>LISTEN 10.0.0.2:443 0.0.0.0:0 comm=nginx\n\
             5ms sk=c LISTEN>SYN_RECV 10.0.0.2:443 10.0.0.1:7 comm=curl\n\
             5.01ms sk=c SYN_RECV>ESTABLISHED 10.0.0.2:443 10.0.0.1:7 comm=curl\n\
             9ms sk=1 LISTEN>CLOSE 10.0.0.2:443 0.0.0.0:0 comm=nginx\n",
        );
        assert_eq!(
            out,
            "1 10.0.0.2:443 0.0.0.0:0 CLOSE>LISTEN ? nginx by listener\n\
             c 10.0.0.2:443 10.0.0.1:7 LISTEN>SYN_RECV ?\n\
             c 10.0.0.2:443 10.0.0.1:7 SYN_RECV>ESTABLISHED >=10us\n\
             1 10.0.0.2:443 0.0.0.0:0 LISTEN>CLOSE 8000us nginx by listener\n\
             0 0 0 1\n"
        );
    }

    #[test]
    fn what_was_lost_makes_no_anomaly_and_no_false_time() {
        let out = track(
            9,
            "0ms begin\n\
             1ms sk=a CLOSE>SYN_SENT 10.0.0.1:7 10.0.0.2:443 comm=curl\n\
             1ms sk=b CLOSE>SYN_SENT 10.0.0.1:8 10.0.0.2:443 comm=curl cookie=1\n\
             2ms sk=b SYN_SENT>ESTABLISHED 10.0.0.1:8 10.0.0.2:443 cookie=1\n\
             1ms sk=d CLOSE>SYN_SENT 10.0.0.1:8 10.0.0.2:443 comm=curl\n\
             2ms sk=d SYN_SENT>ESTABLISHED 10.0.0.1:8 10.0.0.2:443\n\
             4ms lost 2\n\
             7ms sk=a ESTABLISHED>CLOSE_WAIT 10.0.0.1:7 10.0.0.2:443\n\
             7ms sk=b ESTABLISHED>CLOSE_WAIT 10.0.0.1:8 10.0.0.2:443 cookie=1\n\
             7ms sk=d ESTABLISHED>CLOSE_WAIT 10.0.0.1:8 10.0.0.2:443\n\
             8ms sk=e ESTABLISHED>CLOSE 10.0.0.1:9 10.0.0.2:443\n",
        );
        let tail: Vec<_> = out.lines().skip(5).collect();
        assert_eq!(
            tail,
            [
                "a 10.0.0.1:7 10.0.0.2:443 ESTABLISHED>CLOSE_WAIT >=3000us curl by connect",
                "b 10.0.0.1:8 10.0.0.2:443 ESTABLISHED>CLOSE_WAIT 5000us curl by connect",
                "d 10.0.0.1:8 10.0.0.2:443 ESTABLISHED>CLOSE_WAIT >=3000us curl by connect",
                "e 10.0.0.1:9 10.0.0.2:443 ESTABLISHED>CLOSE >=4000us",
                "0 1 0 3",
            ]
        );
    }

    #[test]
    fn an_address_is_reused_by_another_socket() {
        let out = track(
            9,
            "0ms begin\n\
             1ms sk=a CLOSE>SYN_SENT 10.0.0.1:7 10.0.0.2:443 comm=curl cookie=1\n\
             2ms sk=a SYN_SENT>ESTABLISHED 10.0.0.1:7 10.0.0.2:443 cookie=1\n\
             9ms sk=a ESTABLISHED>CLOSE_WAIT 10.0.0.1:9 10.0.0.2:80 cookie=2\n",
        );
        assert!(
            out.ends_with("a 10.0.0.1:9 10.0.0.2:80 ESTABLISHED>CLOSE_WAIT >=9000us\n1 0 0 1\n"),
            "{out}"
        );
    }

    #[test]
    fn the_impossible_is_counted_and_shown() {
        let out = track(
            9,
            "0ms begin\n\
             1ms sk=a LISTEN>ESTABLISHED 10.0.0.1:7 10.0.0.2:443\n\
             2ms sk=a ESTABLISHED>ESTABLISHED 10.0.0.1:7 10.0.0.2:443\n\
             3ms sk=a FIN_WAIT2>CLOSE 10.0.0.1:7 10.0.0.2:443\n",
        );
        assert_eq!(
            out,
            "a 10.0.0.1:7 10.0.0.2:443 LISTEN>ESTABLISHED >=1000us\n\
             a 10.0.0.1:7 10.0.0.2:443 FIN_WAIT2>CLOSE ?\n\
             2 0 0 0\n"
        );
    }

    #[test]
    fn past_the_limit_the_oldest_is_forgotten() {
        let out = track(
            1,
            "0ms begin\n\
             1ms sk=a CLOSE>SYN_SENT 10.0.0.1:7 10.0.0.2:443 comm=x\n\
             2ms sk=b CLOSE>SYN_SENT 10.0.0.1:8 10.0.0.2:443 comm=x\n\
             5ms sk=a SYN_SENT>CLOSE 10.0.0.1:7 10.0.0.2:443\n",
        );
        assert!(out.ends_with("SYN_SENT>CLOSE >=3000us\n0 0 1 1\n"), "{out}");
    }
}
