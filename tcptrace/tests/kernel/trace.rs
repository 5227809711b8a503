//! The tracer under test, and what it says of one network namespace.

use std::{
    collections::HashMap,
    fmt::{self, Write as _},
    net::SocketAddr,
    panic::resume_unwind,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use tcptrace::{
    host::netns::{self, NetnsId},
    model::{
        Accept, Accounts, Age, Change, Event, Found, Input, Minisock, Moved, Reset, TcpState,
        Transition, filter::Filter,
    },
    probe::{AcceptChoice, Backend, DEFAULT_RING_BYTES, Options, TimeWaitBackend, TimeWaitChoice},
    source::live::Live,
    track::Tracker,
};

use crate::{
    net::Netns,
    scenario::conn::{Family, Listener},
    wait::until,
};

/// Between two snapshots of everything, in nanoseconds.
const SELDOM_NS: u64 = 30_000_000_000;

/// A running tracer, and all that it has said so far.
pub struct Trace {
    live: Live,
    tracker: Tracker,
    pub moved: Vec<Moved>,
    /// The events of the socket hook as they came, hand-overs included.
    pub transitions: Vec<Transition>,
    /// RSTs and accepts, likewise; of the whole host, unless a filter is in force.
    pub resets: Vec<Reset>,
    pub accepts: Vec<Accept>,
    /// What was told of minisocks, likewise.
    minisocks: Vec<Minisock>,
    pub lost: u64,
    /// The classic hook cannot tell the namespace. Here a second tracer tells it for it, so that
    /// what else happens on the host does not get into a test.
    namespaces: Option<Namespaces>,
    /// Minisocks are looked at whenever events are taken in, so that tests need not wait.
    hurried: bool,
}

/// Which event was in which namespace, by the BTF-typed hook.
struct Namespaces {
    live: Live,
    events: HashMap<(u64, TcpState, TcpState), Vec<(u64, u32)>>,
}

impl Namespaces {
    fn start() -> Option<Self> {
        let live = crate::known::live(&by(Backend::TpBtf)).ok()?;
        Some(Self { live, events: HashMap::new() })
    }

    fn drain(&mut self) {
        self.live.drain(usize::MAX, &mut |input| {
            if let Input::Event(Event::Transition(event)) = input
                && let Some(sock) = event.sock
            {
                let key = (event.skaddr, event.old, event.new);
                self.events.entry(key).or_default().push((event.mono_ns, sock.netns));
            }
        });
    }

    /// The namespace of the same event as the other hook saw it, microseconds apart.
    fn of(&self, moved: &Moved) -> Option<u32> {
        const APART_NS: u64 = 20_000_000;
        let events = self.events.get(&(moved.skaddr, moved.old, moved.new))?;
        let (mono_ns, netns) = events.iter().min_by_key(|(ns, _)| ns.abs_diff(moved.mono_ns))?;
        (mono_ns.abs_diff(moved.mono_ns) < APART_NS).then_some(*netns)
    }
}

/// Options with all defaults but the backend.
pub fn by(backend: Backend) -> Options {
    Options {
        backend: Some(backend),
        ring_bytes: DEFAULT_RING_BYTES,
        filter: Filter::default(),
        kernel_log: false,
        time_wait: TimeWaitChoice::Off,
        accept: AcceptChoice::Off,
        trial: false,
    }
}

/// The tracer's way into a namespace of a test.
pub fn reach(netns: &Netns) -> netns::Netns {
    // nsfs is one device for all namespaces.
    let device = NetnsId::own().map_or(0, |own| own.device);
    let id = NetnsId { inode: netns.inode(), device };
    netns::Netns { id, path: netns.path(), name: None, is_ip_netns: false, pid: None }
}

impl Trace {
    /// Starts tracing: every transition from here on is caught.
    pub fn start(options: &Options) -> Result<Self> {
        Self::start_in(options, None)
    }

    /// The same, and a snapshot tells of the connections that are in `netns` already.
    pub fn seeded(options: &Options, netns: &Netns) -> Result<Self> {
        let mut trace = Self::start(options)?;
        trace.live.take_snapshots(Some(reach(netns)), Filter::default(), None, SELDOM_NS);
        Ok(trace)
    }

    /// The same; where minisocks are sampled, those of `netns` alone, which else had to be within
    /// reach of every process.
    pub fn start_in(options: &Options, netns: Option<&Netns>) -> Result<Self> {
        let classic = options.backend == Some(Backend::Tracepoint);
        let namespaces = if classic { Namespaces::start() } else { None };
        let mut live = crate::known::live(options).context("the tracer does not start")?;
        let sampled = options.time_wait == TimeWaitChoice::Only(TimeWaitBackend::Sampling);
        if sampled {
            live.take_snapshots(netns.map(reach), Filter::default(), None, SELDOM_NS);
        }
        let mut tracker = Tracker::default();
        tracker.apply(&live.begin()?, &mut |_| {});
        live.check(true, &mut |_| {})?;
        Ok(Self {
            live,
            tracker,
            moved: Vec::new(),
            transitions: Vec::new(),
            resets: Vec::new(),
            accepts: Vec::new(),
            minisocks: Vec::new(),
            lost: 0,
            namespaces,
            hurried: sampled,
        })
    }

    /// Whether minisocks are sampled.
    pub fn is_sampled(&mut self) -> bool {
        self.live.probe().time_wait() == Some(TimeWaitBackend::Sampling)
    }

    /// From here on minisocks are looked at as seldom as in a real run.
    pub fn unhurried(&mut self) {
        self.hurried = false;
    }

    /// Looks at minisocks now, where they are sampled.
    pub fn look(&mut self) -> Result<()> {
        self.hurried = true;
        self.drain()
    }

    /// The source, for what is asked of the probe.
    pub fn live(&mut self) -> &mut Live {
        &mut self.live
    }

    /// The connections of `netns` that are known now.
    pub fn census(&self, netns: u32) -> impl Iterator<Item = Found> {
        self.tracker.census().filter(move |found| found.netns == Some(netns))
    }

    /// Takes in what there is, and has the kernel side look at what is silent.
    pub fn drain(&mut self) -> Result<()> {
        let Self { live, tracker, moved, transitions, resets, accepts, minisocks, .. } = self;
        let Self { lost, namespaces, hurried, .. } = self;
        if let Some(namespaces) = namespaces {
            namespaces.drain();
        }
        let mut take = |input: &Input| {
            match input {
                Input::Lost(loss) => *lost += loss.count,
                Input::Event(Event::Transition(event)) => transitions.push(*event),
                Input::Event(Event::Reset(event)) => resets.push(*event),
                Input::Event(Event::Accept(event)) => accepts.push(*event),
                Input::Event(Event::Minisock(event)) => minisocks.push(*event),
                _ => {}
            }
            tracker.apply(input, &mut |change| {
                if let Change::Moved(one) = change {
                    moved.push(one);
                }
            });
        };
        live.drain(usize::MAX, &mut take);
        let job = match live.due_snapshots(false)? {
            None if *hurried => live.look_now()?,
            job => job,
        };
        if let Some(job) = job {
            take(&job.opening());
            live.snapshots_taken(job.run(), &mut take);
            live.drain(usize::MAX, &mut take);
        }
        live.check(true, &mut take)?;
        live.look(&tracker.due_peeks(tcptrace::host::clock::monotonic_ns()?))?;
        Ok(())
    }

    /// Does `work`, and takes in what comes meanwhile: it may take seconds, in which others on the
    /// host could fill the ring.
    pub fn during<T: Send>(&mut self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let worker = scope.spawn(work);
            while !worker.is_finished() {
                self.drain()?;
                thread::sleep(Duration::from_millis(1));
            }
            worker.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Takes in what comes until what has been seen in `netns` satisfies `enough`.
    pub fn until(
        &mut self,
        netns: u32,
        what: &str,
        within: Duration,
        enough: impl Fn(&Transitions) -> bool,
    ) -> Result<Transitions> {
        let deadline = Instant::now() + within;
        loop {
            self.drain()?;
            let seen = self.of_inode(0, netns);
            if enough(&seen) {
                return Ok(seen);
            }
            if Instant::now() >= deadline {
                let account = self.live.accounts();
                bail!("no {what} within {within:?}, {account:?}, {:?}: {seen:?}", self.counts());
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// All that was told of the two ends at `local` in `netns`, for who has to find out why that
    /// was not as it should be.
    pub fn story(&self, netns: u32, local: SocketAddr) -> String {
        let port = local.port();
        let moved = self.moved.iter().filter(|moved| moved.tuple.lport == port);
        let moved = moved.filter(|moved| moved.netns.is_none_or(|of| of == netns));
        let minisocks =
            self.minisocks.iter().filter(|it| it.netns == netns && it.tuple.lport == port);
        let mut text =
            format!("{:?}, lost {}, {:?}", self.counts(), self.lost, self.live.accounts());
        text.extend(moved.map(|moved| format!("\n  {moved:?}")));
        text.extend(minisocks.map(|event| format!("\n  {event:?}")));
        text
    }

    /// What the tracker counts of itself.
    pub fn counts(&self) -> tcptrace::track::Counts {
        self.tracker.counts()
    }

    /// Runs `work` in `netns`, and then a listener there whose events are the last: when they
    /// are in, so is all that `work` brought about. They are left out of what is returned.
    pub fn of<T: Send>(
        &mut self,
        netns: &Netns,
        family: Family,
        work: impl FnOnce() -> Result<T> + Send,
    ) -> Result<(T, Transitions)> {
        let start = self.moved.len();
        let done = netns.run(work)?;
        let sentinel = netns.run(|| Ok::<_, anyhow::Error>(Listener::open(family, 0)?.address))?;
        let is_sentinel = |moved: &&Moved| moved.tuple.lport == sentinel.port();
        until("the sentinel's LISTEN -> CLOSE", || {
            self.drain()?;
            let seen = self.of_netns(start, netns);
            let last = seen.0.iter().rev().find(is_sentinel);
            Ok(last.filter(|moved| moved.new == TcpState::Close).map(|_| ()))
        })?;
        let mut seen = self.of_netns(start, netns);
        seen.0.retain(|moved| !is_sentinel(&moved));
        Ok((done, seen))
    }

    /// What was seen in `netns` since `self.moved` was `start` long.
    pub fn of_netns(&self, start: usize, netns: &Netns) -> Transitions {
        self.of_inode(start, netns.inode())
    }

    /// The same by the inode of a namespace that may be gone.
    pub fn of_inode(&self, start: usize, netns: u32) -> Transitions {
        let namespace = |moved: &Moved| match (moved.netns, &self.namespaces) {
            (Some(netns), _) => Some(netns),
            (None, Some(namespaces)) => namespaces.of(moved),
            // No way to tell on this kernel: the host had better be quiet.
            (None, None) => Some(netns),
        };
        let inside = |moved: &&Moved| namespace(moved) == Some(netns);
        Transitions(self.moved[start..].iter().filter(inside).copied().collect())
    }

    /// Takes the hooks off and closes the account.
    pub fn finish(&mut self) -> Result<Accounts> {
        self.drain()?;
        let Self { live, tracker, moved, transitions, .. } = self;
        live.detach()?;
        Ok(live.settle(1_000_000_000, &mut |input| {
            if let Input::Event(Event::Transition(event)) = &input {
                transitions.push(*event);
            }
            tracker.apply(input, &mut |change| {
                if let Change::Moved(one) = change {
                    moved.push(one);
                }
            });
        })?)
    }
}

/// Transitions of one namespace, in the order in which they were handed out.
#[derive(Clone)]
pub struct Transitions(pub Vec<Moved>);

impl Transitions {
    /// Those of the socket with this local and remote end, or, where a port was not known yet,
    /// of the socket at the same address as one of them.
    pub fn of(&self, local: SocketAddr, remote: SocketAddr) -> Self {
        let is_it = |moved: &Moved| {
            let t = moved.tuple;
            (t.local_ip(), t.lport) == (local.ip().to_canonical(), local.port())
                && (t.remote_ip(), t.rport) == (remote.ip().to_canonical(), remote.port())
        };
        let mut found = Vec::new();
        // The first event of a socket may not know its ports; the one after it does.
        let mut early: HashMap<u64, Moved> = HashMap::new();
        for moved in &self.0 {
            let first = early.remove(&moved.skaddr);
            if is_it(moved) {
                found.extend(first);
                found.push(*moved);
            } else if matches!(moved.new, TcpState::SynSent | TcpState::SynRecv) {
                early.insert(moved.skaddr, *moved);
            }
        }
        found.sort_by_key(|moved| moved.mono_ns);
        Self(found)
    }

    /// The states gone through, as `CLOSE SYN_SENT ESTABLISHED …`; a `|` where one transition
    /// does not begin where the last one ended.
    pub fn path(&self) -> String {
        let mut text = String::new();
        let mut at = None;
        for moved in &self.0 {
            if at != Some(moved.old) {
                let _ = write!(text, "{}{} ", if at.is_none() { "" } else { "| " }, moved.old);
            }
            let _ = write!(text, "{} ", moved.new);
            at = Some(moved.new);
        }
        text.trim_end().to_owned()
    }

    /// The one from `old` to `new`.
    pub fn one(&self, old: TcpState, new: TcpState) -> Result<Moved> {
        let mut found = self.0.iter().filter(|moved| moved.old == old && moved.new == new);
        let first = found.next().with_context(|| format!("no {old} -> {new} in {self:?}"))?;
        ensure!(found.next().is_none(), "more than one {old} -> {new} in {self:?}");
        Ok(*first)
    }

    /// Time in `old` before `new`, in nanoseconds, which must be exact.
    pub fn exactly(&self, old: TcpState, new: TcpState) -> Result<u64> {
        match self.one(old, new)?.in_old {
            Age::Exactly(ns) => Ok(ns),
            other => anyhow::bail!("{old} -> {new}: {other:?} in {self:?}"),
        }
    }
}

impl fmt::Debug for Transitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for moved in &self.0 {
            let t = moved.tuple;
            write!(
                f,
                "\n  {} {:x} {}:{} {}:{} {} -> {} {:?} {:?}",
                moved.mono_ns,
                moved.skaddr,
                t.local_ip(),
                t.lport,
                t.remote_ip(),
                t.rport,
                moved.old,
                moved.new,
                moved.in_old,
                moved.end_reason
            )?;
        }
        Ok(())
    }
}
