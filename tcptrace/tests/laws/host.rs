//! A host made up at random: its sockets, what they do, and what its tables have, as a script.

use std::fmt::Write as _;

/// Numbers that look random and are the same each time.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(1))
    }

    /// One below `most`.
    pub fn below(&mut self, most: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % most.max(1)
    }
}

/// A socket or a minisock.
struct Sock {
    addr: usize,
    cookie: usize,
    lport: usize,
    state: &'static str,
    mini: bool,
    pid: usize,
}

impl Sock {
    fn ends(&self) -> String {
        format!("10.0.0.1:{} 10.0.0.2:443", self.lport)
    }
}

/// The host.
pub struct Host {
    random: Random,
    socks: Vec<Sock>,
    next: usize,
    us: u64,
    text: String,
}

/// How a state is left, by what the next one is.
const WAYS: &[(&str, &[&str])] = &[
    ("SYN_SENT", &["ESTABLISHED", "CLOSE"]),
    ("ESTABLISHED", &["FIN_WAIT1", "CLOSE_WAIT", "CLOSE"]),
    ("FIN_WAIT1", &["FIN_WAIT2", "CLOSING", "CLOSE"]),
    ("FIN_WAIT2", &["CLOSE"]),
    ("CLOSING", &["CLOSE"]),
    ("CLOSE_WAIT", &["LAST_ACK", "CLOSE"]),
    ("LAST_ACK", &["CLOSE"]),
];

impl Host {
    pub fn new(seed: u64) -> Self {
        let text = "0ms begin\n".to_owned();
        let mut host =
            Self { random: Random::new(seed), socks: Vec::new(), next: 1, us: 1000, text };
        let before = host.random.below(20);
        for _ in 0..before {
            let states = ["ESTABLISHED", "CLOSE_WAIT", "FIN_WAIT2", "TIME_WAIT"];
            let state = states[host.random.below(4)];
            host.born(state, state == "TIME_WAIT");
        }
        host.round();
        host
    }

    fn line(&mut self, line: &str) {
        self.us += 1 + self.random.below(3000) as u64;
        let at = self.us as f64 / 1000.0;
        writeln!(self.text, "{at}ms {line}").unwrap();
    }

    fn born(&mut self, state: &'static str, mini: bool) -> usize {
        let next = self.next;
        self.next += 1;
        let pid = 100 + self.random.below(4);
        let (addr, cookie, lport) = (next, next, 1000 + next);
        self.socks.push(Sock { addr, cookie, lport, state, mini, pid });
        self.socks.len() - 1
    }

    /// Something happens.
    pub fn step(&mut self) {
        match self.random.below(20) {
            0..=5 => {
                let at = self.born("SYN_SENT", false);
                let ToldSock { addr, cookie, pid, ends } = self.told(at);
                self.line(&format!(
                    "sk={addr:x} CLOSE>SYN_SENT {ends} cookie={cookie:x} netns=5 pid={pid} comm=p{pid}"
                ));
            }
            6..=16 if !self.socks.is_empty() => {
                let at = self.random.below(self.socks.len());
                self.moves(at);
            }
            17 => self.round(),
            _ => self.line("tick"),
        }
    }

    fn told(&self, at: usize) -> ToldSock {
        let sock = &self.socks[at];
        ToldSock { addr: sock.addr, cookie: sock.cookie, pid: sock.pid, ends: sock.ends() }
    }

    fn moves(&mut self, at: usize) {
        let ToldSock { addr, cookie, pid, ends } = self.told(at);
        let (state, mini) = (self.socks[at].state, self.socks[at].mini);
        if mini {
            self.line(&format!(
                "tw={:x} expired {state} {ends} cookie={cookie:x} netns=5",
                addr + 0x10_0000
            ));
            self.socks.swap_remove(at);
            return;
        }
        let Some((_, ways)) = WAYS.iter().find(|(of, _)| *of == state) else { return };
        let new = ways[self.random.below(ways.len())];
        let how = match (state, new, self.random.below(3)) {
            ("FIN_WAIT2" | "CLOSING", _, _) => "dead",
            (_, "CLOSE", 0) => "err=104 shut=3",
            (_, "CLOSE", 1) => "err=110 shut=3",
            (_, "CLOSE", _) => "dead shut=3",
            _ => "",
        };
        let waits = matches!(state, "FIN_WAIT2" | "CLOSING") && self.random.below(4) > 0;
        if waits {
            self.line(&format!(
                "tw={:x} started TIME_WAIT {ends} cookie={cookie:x} netns=5 expires=99999ms",
                addr + 0x10_0000
            ));
        }
        self.line(&format!(
            "sk={addr:x} {state}>{new} {ends} cookie={cookie:x} netns=5 pid={pid} comm=p{pid} {how}"
        ));
        if new != "CLOSE" {
            self.socks[at].state = new;
        } else if waits {
            (self.socks[at].state, self.socks[at].mini) = ("TIME_WAIT", true);
        } else {
            self.socks.swap_remove(at);
            if self.random.below(3) == 0 {
                self.line(&format!("sk={addr:x} reset-sent CLOSE other"));
            }
        }
    }

    /// The tables are read, while nothing happens.
    pub fn round(&mut self) {
        self.line("snapshot open");
        self.line("snapshot 5");
        let rows: Vec<String> = self.socks.iter().map(row).collect();
        rows.iter().for_each(|row| self.line(row));
        self.line("snapshot end");
        self.line("snapshot over");
        self.line("tick");
    }

    pub fn script(self) -> String {
        self.text
    }
}

/// What is said of a socket.
struct ToldSock {
    addr: usize,
    cookie: usize,
    pid: usize,
    ends: String,
}

fn row(sock: &Sock) -> String {
    let (state, cookie, ends) = (sock.state, sock.cookie, sock.ends());
    if sock.mini {
        return format!("socket {state} {cookie:x} {ends} 50000");
    }
    format!("socket {state} {cookie:x} {ends} inode={cookie} pid={0} comm=p{0}", sock.pid)
}
