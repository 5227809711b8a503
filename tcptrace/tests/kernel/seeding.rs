//! Connections that were there before the hooks, and counts that stay what the kernel's tables
//! say: against /proc/net/tcp as the witness.

use std::{
    fs::File,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tcptrace::{
    model::{Change, Found, Input, Snapshot, TcpState, filter::Filter},
    probe::{Backend, Options, TimeWaitBackend, TimeWaitChoice},
    source::{
        live::Live,
        snapshot::{Job, Reader, Scope},
    },
    stats::counts::{COUNTED, StateCounts},
    track::Tracker,
};

use crate::{
    checks::settle,
    net::Netns,
    scenario::{
        again, close,
        conn::{Family, Listener},
        orphan,
    },
    time_wait::refused,
    trace::{by, reach},
    wait::until,
    witness,
};

/// Longer than any of these tests: a round comes when it is asked for, or at the start.
const NEVER_NS: u64 = 3_600_000_000_000;

/// A tracer with snapshots.
struct Seeded {
    live: Live,
    tracker: Tracker,
    counts: StateCounts,
    found: Vec<Found>,
}

impl Seeded {
    fn start(options: &Options) -> Result<Self> {
        let live = crate::known::live(options).context("the tracer does not start")?;
        let mut seeded = Self {
            tracker: Tracker::default(),
            counts: StateCounts::default(),
            found: Vec::new(),
            live,
        };
        seeded.feed(&[seeded.live.begin()?]);
        Ok(seeded)
    }

    /// One of what happens in `netns` alone.
    fn inside(netns: &Netns) -> Result<Self> {
        Self::inside_by(netns, TimeWaitBackend::Timers)
    }

    /// The same, with minisocks by `backend`.
    fn inside_by(netns: &Netns, backend: TimeWaitBackend) -> Result<Self> {
        let mut seeded = Self::start(&Options {
            time_wait: TimeWaitChoice::Only(backend),
            ..options(Some(netns))
        })?;
        seeded.live.take_snapshots(Some(reach(netns)), inside(netns), None, NEVER_NS);
        seeded.due_round()?;
        Ok(seeded)
    }

    fn feed(&mut self, inputs: &[Input]) {
        let Self { tracker, counts, found, .. } = self;
        for input in inputs {
            tracker.apply(input, &mut |change| {
                counts.change(&change);
                if let Change::Found(one) = change {
                    found.push(one);
                }
            });
            counts.input(input);
        }
    }

    fn drain(&mut self) -> Result<()> {
        let mut inputs = Vec::new();
        self.live.drain(usize::MAX, &mut |input| inputs.push(input.clone()));
        self.live.check(true, &mut |input| inputs.push(input.clone()))?;
        self.feed(&inputs);
        let now = tcptrace::host::clock::monotonic_ns()?;
        self.live.look(&self.tracker.due_peeks(now))?;
        Ok(())
    }

    /// Takes the round that is due, if one is.
    fn due_round(&mut self) -> Result<bool> {
        let Some(job) = self.live.due_snapshots(self.tracker.in_doubt())? else {
            return Ok(false);
        };
        self.feed(&[job.opening()]);
        let round = job.run();
        ensure!(round.remarks().is_empty(), "{:?}", round.remarks());
        let mut inputs = Vec::new();
        self.live.snapshots_taken(round, &mut |input| inputs.push(input.clone()));
        self.feed(&inputs);
        self.drain()?;
        Ok(true)
    }

    /// Takes a round of one namespace now.
    fn round_of(&mut self, netns: &Netns) -> Result<()> {
        self.feed(&[Input::Snapshot(Snapshot::Open)]);
        let scope = Scope {
            only: Some(reach(netns)),
            filter: inside(netns),
            owners: None,
            infos_of_all: false,
        };
        let mut inputs = Vec::new();
        Job::all(Reader::here(scope)).run().feed(&mut |input| inputs.push(input));
        self.feed(&inputs);
        self.drain()
    }

    fn now(&self) -> Vec<(TcpState, u64)> {
        let flow = |state| self.counts.get(state).map_or(0, |flow| flow.now);
        COUNTED.into_iter().map(|state| (state, flow(state))).collect()
    }

    /// Waits until the counts are those of the namespace's table: when it is quiet they must be.
    fn agree(&mut self, netns: &Netns) -> Result<Vec<(TcpState, u64)>> {
        let mut last = (Vec::new(), Vec::new());
        until("the counts to be those of /proc/net/tcp", || {
            self.drain()?;
            // Where minisocks are sampled, what became of them is told by scans.
            self.due_round()?;
            last = (self.now(), netns.run(witnessed)?);
            Ok((last.0 == last.1).then_some(()))
        })
        .with_context(|| format!("tcptrace and the witness: {last:?}"))?;
        Ok(last.0)
    }

    fn nothing_strange(&self) -> Result<()> {
        let counts = self.tracker.counts();
        ensure!(counts.corrected == 0 && counts.anomalies == 0, "{counts:?}");
        Ok(())
    }
}

fn inside(netns: &Netns) -> Filter {
    Filter { netns: Some(netns.inode()), ..Filter::default() }
}

fn options(netns: Option<&Netns>) -> Options {
    Options {
        filter: netns.map(inside).unwrap_or_default(),
        time_wait: TimeWaitChoice::Only(TimeWaitBackend::Timers),
        ..by(Backend::TpBtf)
    }
}

/// What the table of the calling thread's namespace has in each state that tcptrace counts.
fn witnessed() -> Result<Vec<(TcpState, u64)>> {
    let rows = witness::rows()?;
    let count = |state: TcpState| {
        let same = |row: &&witness::Row| named(row.state) == state;
        (state, rows.iter().filter(same).count() as u64)
    };
    Ok(COUNTED.into_iter().map(count).collect())
}

/// The witness's states in tcptrace's words.
fn named(state: witness::State) -> TcpState {
    use witness::State;
    match state {
        State::Established => TcpState::Established,
        State::SynSent => TcpState::SynSent,
        State::SynRecv | State::NewSynRecv => TcpState::SynRecv,
        State::FinWait1 => TcpState::FinWait1,
        State::FinWait2 => TcpState::FinWait2,
        State::TimeWait => TcpState::TimeWait,
        State::Close => TcpState::Close,
        State::CloseWait => TcpState::CloseWait,
        State::LastAck => TcpState::LastAck,
        State::Listen => TcpState::Listen,
        State::Closing => TcpState::Closing,
    }
}

fn count(counts: &[(TcpState, u64)], state: TcpState) -> u64 {
    counts.iter().find(|(of, _)| *of == state).map_or(0, |(_, count)| *count)
}

#[test]
fn what_was_there_before_is_seeded_and_followed_to_its_end() {
    for family in Family::ALL {
        let outcome = || -> Result<()> {
            let netns = Netns::new()?;
            let (listener, kept, half, orphan) = netns.run(|| -> Result<_> {
                let listener = Listener::open(family, 0)?;
                let kept = [listener.connect(None)?, listener.connect(None)?];
                close::active(family)?;
                let half = listener.connect(None)?;
                half.client.shutdown(std::net::Shutdown::Write)?;
                witness::wait_state(half.ends.of_server(), witness::State::CloseWait)?;
                let orphan = orphan::leave(family, Duration::from_secs(60), orphan::Way::Close)?;
                Ok((listener, kept, half, orphan))
            })?;
            let mut seeded = Seeded::inside(&netns)?;
            let counts = seeded.agree(&netns)?;
            let states = [
                (TcpState::Established, 4),
                (TcpState::TimeWait, 1),
                // The half-closed socket, and the orphan, which is a minisock.
                (TcpState::FinWait2, 2),
            ];
            for (state, at_least) in states {
                ensure!(count(&counts, state) >= at_least, "{state}: {counts:?}");
            }
            ensure!(seeded.found.len() as u64 == seeded.counts.total(), "{:?}", seeded.found);

            // Each carries on from where it was found.
            netns.run(|| -> Result<_> {
                let [first, second] = kept;
                first.close_by_client()?;
                second.abort()?;
                drop(half);
                orphan.gets_fin()?;
                drop(listener);
                Ok(())
            })?;
            // The address of the orphan is not known, so that nothing but a snapshot tells that it
            // got its FIN: a move, no drift.
            seeded.round_of(&netns)?;
            let counts = seeded.agree(&netns)?;
            ensure!(count(&counts, TcpState::TimeWait) >= 3, "{counts:?}");
            seeded.nothing_strange()?;
            ensure!(!seeded.tracker.in_doubt(), "{:?}", seeded.now());
            Ok(())
        };
        if let Err(error) = outcome() {
            panic!("{family:?}: {error:#}");
        }
    }
}

/// The full socket and the minisocks of its earlier connections have one cookie.
fn a_socket_that_connects_again_is_told_from_its_minisocks(backend: TimeWaitBackend) {
    for family in Family::ALL {
        let outcome = || -> Result<()> {
            let netns = Netns::new()?;
            // Some from before, some that are traced, each with two minisocks and one full socket.
            let before = netns.run(|| again::connected(family, 2))?;
            let mut seeded = Seeded::inside_by(&netns, backend).map_err(refused)?;
            seeded.agree(&netns)?;
            let traced = netns.run(|| again::connected(family, 2))?;
            let mut ports: Vec<_> = traced.ends.iter().map(|ends| ends.client.port()).collect();
            ports.dedup();
            ensure!(ports.len() == 3, "one port again: {ports:?}");
            for _ in 0..3 {
                let counts = seeded.agree(&netns)?;
                ensure!(count(&counts, TcpState::TimeWait) == 4, "{counts:?}");
                ensure!(count(&counts, TcpState::Established) == 4, "{counts:?}");
                seeded.round_of(&netns)?;
                ensure!(!seeded.tracker.in_doubt(), "{counts:?}");
            }
            // What the full sockets do is theirs alone.
            netns.run(|| drop((before, traced)));
            for _ in 0..3 {
                seeded.agree(&netns)?;
                seeded.round_of(&netns)?;
            }
            seeded.nothing_strange()
        };
        settle(&format!("{backend:?} {family:?}"), outcome());
    }
}

mod functions {
    #[test]
    fn a_socket_that_connects_again_is_told_from_its_minisocks() {
        super::a_socket_that_connects_again_is_told_from_its_minisocks(
            super::TimeWaitBackend::Functions,
        );
    }
}

mod timers {
    #[test]
    fn a_socket_that_connects_again_is_told_from_its_minisocks() {
        super::a_socket_that_connects_again_is_told_from_its_minisocks(
            super::TimeWaitBackend::Timers,
        );
    }
}

mod sampling {
    #[test]
    fn a_socket_that_connects_again_is_told_from_its_minisocks() {
        super::a_socket_that_connects_again_is_told_from_its_minisocks(
            super::TimeWaitBackend::Sampling,
        );
    }
}

/// Connections opened and closed by one client after the other; every third is reset, every
/// third is closed by the server.
fn churn(listener: &Listener, connections: usize) -> Result<()> {
    for i in 0..connections {
        let client = listener.family.socket()?;
        client.connect(&listener.address.into()).context("connect")?;
        let (server, _) = listener.socket.accept().context("accept")?;
        match i % 3 {
            0 => {
                client.set_linger(Some(Duration::ZERO))?;
                drop(client);
            }
            1 => {
                drop(server);
                drop(client);
            }
            _ => {
                drop(client);
                drop(server);
            }
        }
    }
    Ok(())
}

#[test]
fn after_a_churn_of_thousands_the_counts_are_the_kernels() {
    let outcome = || -> Result<()> {
        let netns = Netns::new()?;
        let mut seeded = Seeded::inside(&netns)?;
        netns.run(|| churn(&Listener::open(Family::V4, 0)?, 3000))?;
        let counts = seeded.agree(&netns)?;
        ensure!(count(&counts, TcpState::TimeWait) >= 1000, "{counts:?}");
        seeded.round_of(&netns)?;
        ensure!(!seeded.tracker.in_doubt(), "{counts:?}");
        seeded.nothing_strange()
    };
    outcome().unwrap();
}

#[test]
fn what_opens_and_closes_while_the_tables_are_read_is_counted_once() {
    let outcome = || -> Result<()> {
        let netns = Netns::new()?;
        let listener = netns.run(|| Listener::open(Family::V4, 0))?;
        let mut seeded = Seeded::start(&options(Some(&netns)))?;
        // The first round, too, is taken in the midst of it.
        thread::scope(|scope| -> Result<()> {
            let churning = scope.spawn(|| netns.run(|| churn(&listener, 4000)));
            let mut rounds = 0;
            while !churning.is_finished() {
                seeded.round_of(&netns)?;
                rounds += 1;
            }
            ensure!(rounds > 3, "only {rounds} rounds while the sockets came and went");
            churning.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        // What is in the SYN queue is as of the last round.
        seeded.round_of(&netns)?;
        let counts = seeded.agree(&netns)?;
        ensure!(count(&counts, TcpState::TimeWait) >= 1000, "{counts:?}");
        seeded.round_of(&netns)?;
        ensure!(!seeded.tracker.in_doubt(), "{counts:?}");
        seeded.nothing_strange()
    };
    outcome().unwrap();
}

/// A bind mount of a namespace, by which it can be found; gone when dropped.
struct Mounted {
    file: PathBuf,
    _directory: tempfile::TempDir,
}

impl Mounted {
    fn new(netns: &Netns) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("netns");
        File::create(&file)?;
        mount(Some(&netns.path()), &file, None::<&Path>, MsFlags::MS_BIND, None::<&Path>)
            .with_context(|| format!("mount a network namespace on {}", file.display()))?;
        Ok(Self { file, _directory: directory })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.file, MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_namespace_that_shows_up_later_is_seeded_when_an_event_names_it() {
    let outcome = || -> Result<()> {
        let netns = Netns::new()?;
        // Nothing leads to it yet, so the first round does not find it.
        let (listener, _kept) = netns.run(|| -> Result<_> {
            let listener = Listener::open(Family::V4, 0)?;
            let kept = listener.connect(None)?;
            Ok((listener, kept))
        })?;
        let mut seeded = Seeded::start(&options(None))?;
        seeded.live.take_snapshots(None, Filter::default(), None, NEVER_NS);
        let job = seeded.live.due_snapshots(false)?.context("no round at the start")?;
        seeded.feed(&[Input::Snapshot(Snapshot::Open)]);
        let mut inputs = Vec::new();
        seeded.live.snapshots_taken(job.run(), &mut |input| inputs.push(input.clone()));
        seeded.feed(&inputs);
        seeded.drain()?;
        let inside = |found: &&Found| found.netns == Some(netns.inode());
        ensure!(!seeded.found.iter().any(|found| inside(&found)), "{:?}", seeded.found);

        let _mounted = Mounted::new(&netns)?;
        let late = netns.run(|| listener.connect(None))?;
        until("the namespace to be seeded", || {
            seeded.drain()?;
            if let Some(job) = seeded.live.due_snapshots(false)? {
                seeded.feed(&[Input::Snapshot(Snapshot::Open)]);
                let mut inputs = Vec::new();
                seeded.live.snapshots_taken(job.run(), &mut |input| inputs.push(input.clone()));
                seeded.feed(&inputs);
                seeded.drain()?;
            }
            let mut states: Vec<_> =
                seeded.found.iter().filter(inside).map(|found| found.state.name()).collect();
            states.sort_unstable();
            // What had events is not found once more.
            Ok((states == ["ESTABLISHED", "ESTABLISHED", "LISTEN"]).then_some(()))
        })
        .with_context(|| format!("{:?}", seeded.found))?;
        drop(late);
        Ok(())
    };
    outcome().unwrap();
}
