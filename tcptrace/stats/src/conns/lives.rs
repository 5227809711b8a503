//! Connections to be looked at: those that go on, and the last ones that ended.
//!
//! What costs is memory that was not touched for long, and what is looked at now and then need
//! not cost much in between. So what is known of a connection that enters TIME_WAIT is laid beside
//! that of the one before it, and is looked for again not when its time is over but when somebody
//! asks. Must not be used where each connection is to be told: that is [`super::Conns`].

use std::collections::VecDeque;

use super::{connection::Connection, record::Record, records::Records};
use tcptrace_model::{Change, Found, Moved, TcpState, hash::Map};

/// Of a connection that entered TIME_WAIT.
struct Waited {
    id: u64,
    record: Record,
}

/// A connection that ended.
struct Ended {
    /// With what.
    moved: Moved,
    /// `None` if it was in TIME_WAIT: it is among those that waited, if it is kept.
    record: Option<Record>,
}

/// The connections.
pub struct Lives {
    open: Records<Record>,
    /// Whatever became of them since, the last one last.
    waited: VecDeque<Waited>,
    limit: usize,
    ended: VecDeque<Ended>,
    ended_limit: usize,
    dropped: u64,
}

impl Lives {
    /// Keeps the records of `limit` connections that are open and of as many that entered
    /// TIME_WAIT, and the last `ended` connections that ended; of each one at the least.
    pub fn new(limit: usize, ended: usize) -> Self {
        Self {
            open: Records::new(limit),
            waited: VecDeque::new(),
            limit: limit.max(1),
            ended: VecDeque::new(),
            ended_limit: ended.max(1),
            dropped: 0,
        }
    }

    /// How many records of open connections had to go to keep the limit.
    pub fn evicted(&self) -> u64 {
        self.open.evicted()
    }

    /// How many that ended are not kept any more.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Takes in a change.
    pub fn change(&mut self, change: &Change) {
        match change {
            Change::Moved(moved) => self.moved(moved),
            // That comes before TIME_WAIT begins.
            Change::Retired(retired) => self.open.of(retired.id).retired(&retired.totals),
            Change::Gone(found) => {
                self.open.remove(found.id);
            }
            Change::Found(_) => {}
        }
    }

    fn moved(&mut self, moved: &Moved) {
        use TcpState::{Close, Listen, TimeWait};
        match (moved.old, moved.new) {
            (_, Listen) | (Listen, Close) => {}
            (TimeWait, Close) => self.end(Ended { moved: *moved, record: None }),
            (_, Close) => {
                let record = self.open.remove(moved.id).unwrap_or_default();
                self.end(Ended { moved: *moved, record: Some(record) });
            }
            (_, TimeWait) => {
                let mut record = self.open.remove(moved.id).unwrap_or_default();
                record.take(moved);
                if self.waited.len() >= self.limit {
                    self.waited.pop_front();
                }
                self.waited.push_back(Waited { id: moved.id, record });
            }
            // At its birth there is nothing to keep yet.
            _ if moved.is_birth() => {}
            _ => self.open.of(moved.id).take(moved),
        }
    }

    fn end(&mut self, ended: Ended) {
        if self.ended.len() >= self.ended_limit {
            self.ended.pop_front();
            self.dropped += 1;
        }
        self.ended.push_back(ended);
    }

    /// A connection as far as it has come at `now`, where `found` says that it is. What is not
    /// kept of it is unknown.
    pub fn standing(&self, found: &Found, now: u64) -> Connection {
        let record = match found.state {
            TcpState::TimeWait => {
                let of_it = |waited: &&Waited| waited.id == found.id;
                self.waited.iter().rev().find(of_it).map(|waited| waited.record)
            }
            _ => self.open.get(found.id).copied(),
        };
        record.unwrap_or_default().standing(found, now)
    }

    /// Those that ended and are kept, the last one first.
    pub fn ended(&self) -> Vec<Connection> {
        let missing = self.ended.iter().filter(|ended| ended.record.is_none());
        let mut waited: Map<u64, Record> =
            missing.map(|ended| (ended.moved.id, Record::default())).collect();
        for Waited { id, record } in &self.waited {
            if let Some(place) = waited.get_mut(id) {
                *place = *record;
            }
        }
        let whole = |ended: &Ended| {
            let record = ended.record.or_else(|| waited.get(&ended.moved.id).copied());
            record.unwrap_or_default().ended(&ended.moved)
        };
        self.ended.iter().rev().map(whole).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::{
        super::{Conns, Until},
        *,
    };
    use tcptrace_model::{Age, script};
    use tcptrace_track::Tracker;

    /// Connects and closes first: its TIME_WAIT is over 100 ms after it began.
    fn client(text: &mut String, n: u64) {
        let ends = format!("10.0.0.1:{} 10.0.0.2:443 cookie={n:x}", 20_000 + n);
        let (at, due) = (10 * n, 10 * n + 105);
        let _ = write!(
            text,
            "{at}ms sk={n:x} CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 cookie={n:x}\n\
             {at}.5ms sk={n:x} SYN_SENT>ESTABLISHED {ends}\n\
             {at}.9ms sk={n:x} ESTABLISHED>FIN_WAIT1 {ends} pid=7 comm=curl\n\
             {}ms sk={n:x} FIN_WAIT1>FIN_WAIT2 {ends}\n\
             {}ms tw=f{n:x} started TIME_WAIT {ends} expires={due}ms\n\
             {}ms sk={n:x} FIN_WAIT2>CLOSE {ends} peer-fin acked=502 received=21\n",
            at + 1,
            at + 5,
            at + 5,
        );
        let _ = writeln!(text, "{due}ms tw=f{n:x} expired TIME_WAIT {ends} expires={due}ms");
    }

    /// Is accepted, left by the peer, and over at once.
    fn server(text: &mut String, n: u64) {
        let ends = format!("10.0.0.1:80 10.0.0.3:{} cookie=a{n:x}", 20_000 + n);
        let at = 10 * n + 2;
        let _ = write!(
            text,
            "{at}ms sk=a{n:x} LISTEN>SYN_RECV {ends}\n\
             {at}ms sk=a{n:x} SYN_RECV>ESTABLISHED {ends}\n\
             {}ms sk=a{n:x} ESTABLISHED>CLOSE_WAIT {ends}\n\
             {}ms sk=a{n:x} CLOSE_WAIT>LAST_ACK {ends}\n\
             {}ms sk=a{n:x} LAST_ACK>CLOSE {ends} acked=21 received=502\n",
            at + 1,
            at + 2,
            at + 3,
        );
    }

    fn when(line: &str) -> u64 {
        let (ms, _) = line.split_once("ms ").unwrap();
        (ms.parse::<f64>().unwrap() * 1e3) as u64
    }

    /// So many of each, in the order of time, up to a moment.
    fn traffic(count: u64, until_us: u64) -> String {
        let mut text = String::new();
        (1..=count).for_each(|n| {
            client(&mut text, n);
            server(&mut text, n);
        });
        let mut lines: Vec<_> = text.lines().filter(|line| when(line) <= until_us).collect();
        lines.sort_by_key(|line| when(line));
        format!("0ms begin\n{}\n", lines.join("\n"))
    }

    /// The same text for both ways to keep connections.
    fn both(text: &str, mut lives: Lives) -> (Lives, Vec<Connection>, Conns, Tracker) {
        let (mut tracker, mut conns) = (Tracker::default(), Conns::new(Until::End, 1 << 20));
        let mut ended = Vec::new();
        for input in script::inputs(text).unwrap() {
            tracker.apply(&input, &mut |change| {
                lives.change(&change);
                ended.extend(conns.change(&change));
            });
        }
        ended.reverse();
        (lives, ended, conns, tracker)
    }

    #[test]
    fn they_are_what_would_have_been_handed_out() {
        let text = traffic(50, 400_000);
        let (lives, ended, conns, tracker) = both(&text, Lives::new(1 << 10, 1 << 10));
        assert!(ended.len() > 60 && ended.iter().any(|one| one.end_reason.is_some()));
        assert_eq!((lives.ended(), lives.dropped()), (ended, 0));
        let waiting = conns.waiting(tracker.census(), 400_000_000);
        let open = conns.open(tracker.census(), 400_000_000);
        assert!(waiting.len() >= 9 && !open.is_empty());
        for found in tracker.census() {
            let one = lives.standing(&found, 400_000_000);
            assert!(waiting.contains(&one) || open.contains(&one), "{one:?}");
        }
    }

    #[test]
    fn what_is_not_kept_is_unknown_and_what_is_open_stays() {
        let mut text = "0ms begin\n\
            1ms sk=fff CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.9:443 cookie=fff\n\
            2ms sk=fff SYN_SENT>ESTABLISHED 10.0.0.1:7 10.0.0.9:443 cookie=fff\n"
            .to_owned();
        text += traffic(50, u64::MAX).split_once('\n').unwrap().1;
        let (lives, mut ended, _, tracker) = both(&text, Lives::new(4, 30));
        assert_eq!((lives.dropped(), lives.evicted()), (70, 0));
        ended.truncate(30);
        let kept = lives.ended();
        let places = kept.iter().zip(&ended).map(|(kept, full)| {
            assert_eq!((kept.id, kept.mono_ns, kept.tuple), (full.id, full.mono_ns, full.tuple));
            let is_whole = kept == full;
            let lacks = kept.lacks_times() && kept.closed_ns.is_none();
            assert!(is_whole && !kept.lacks_times() || full.end_reason.is_some() && lacks);
            is_whole
        });
        let whole = places.filter(|whole| *whole).count();
        let at_once = ended.iter().filter(|one| one.end_reason.is_none()).count();
        assert_eq!(whole, at_once + 4, "the last four that waited");
        let open: Vec<_> = tracker.census().map(|found| lives.standing(&found, 0)).collect();
        let [one] = &open[..] else { panic!("{open:?}") };
        assert_eq!(one.times.of(TcpState::SynSent), Some(Age::Exactly(1_000_000)));
    }

    #[test]
    fn what_is_not_kept_of_one_that_waits_is_not_made_up() {
        let text = traffic(20, 200_000);
        let (lives, _, _, tracker) = both(&text, Lives::new(3, 1));
        let waiting = tracker.census().filter(|found| found.state == TcpState::TimeWait);
        let (lacking, whole): (Vec<_>, Vec<_>) = waiting
            .map(|found| lives.standing(&found, 200_000_000))
            .partition(Connection::lacks_times);
        assert!(whole.len() == 3 && lacking.len() > 3, "{whole:?}");
        assert!(whole.iter().all(|one| matches!(one.life(), Age::Exactly(ns) if ns > 0)));
        assert!(lacking.iter().all(|one| (one.life(), one.closed_ns) == (Age::Unknown, None)));
        assert!(lacking.iter().all(|one| one.times.iter().count() == 0));
    }
}
