//! A ring that never runs dry: whatever else there is gets its turn all the same.

use std::{
    io::{self, PipeReader, PipeWriter},
    os::fd::OwnedFd,
};

use nix::sys::signal::{Signal, raise};
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
};

use super::*;
use tcptrace_common::counters::Hook;
use tcptrace_host::{clock, netns};
use tcptrace_model::{Change, Input, Lost, filter::Filter, script};
use tcptrace_source::snapshot::{Job, Reader, Scope};
use tcptrace_track::Tracker;

/// The turns in which everything must have come about, and then the batches.
const SOON: usize = 8;

/// A host that is busier than anybody can read.
struct Endless {
    ring: Option<PipeReader>,
    _keeps_it_open: PipeWriter,
    batches: usize,
    /// Called before each batch, with how many there were.
    before: Box<dyn FnMut(usize)>,
    /// What is handed out as often as that is asked for.
    records: Vec<Input>,
    checks: u64,
    polled: Vec<u64>,
    snapshots: Option<Job>,
}

impl Endless {
    fn new(before: impl FnMut(usize) + 'static) -> Self {
        let (ring, _keeps_it_open) = io::pipe().unwrap();
        let now = clock::monotonic_ns().unwrap();
        // Each connects and fails; one is in FIN_WAIT2 without a process.
        let text = "1ms sk=a CLOSE>SYN_SENT 10.0.0.1:7 10.0.0.2:443\n\
                    1ms sk=a SYN_SENT>CLOSE 10.0.0.1:7 10.0.0.2:443 err=111\n";
        let mut records = script::inputs(text).unwrap();
        for record in &mut records {
            if let Input::Event(tcptrace_model::Event::Transition(event)) = record {
                event.mono_ns = now;
            }
        }
        Self {
            ring: Some(ring),
            _keeps_it_open,
            batches: 0,
            before: Box::new(before),
            records,
            checks: 0,
            polled: Vec::new(),
            snapshots: None,
        }
    }
}

impl Source for Endless {
    fn ring(&mut self) -> io::Result<OwnedFd> {
        Ok(self.ring.take().unwrap().into())
    }

    fn begin(&mut self) -> Result<Input> {
        Ok(script::inputs("0ms begin\n").unwrap().remove(0))
    }

    fn scan_now(&mut self) -> Result<Option<Job>> {
        Ok(None)
    }

    fn due_snapshots(&mut self, _in_doubt: bool) -> Result<Option<Job>> {
        Ok(self.snapshots.take())
    }

    fn snapshots_taken(&mut self, round: Round, sink: &mut dyn FnMut(&Input)) {
        round.feed(&mut |input| sink(&input));
    }

    fn drain(&mut self, limit: usize, sink: &mut dyn FnMut(&Input)) -> usize {
        if self.ring.is_none() && limit == usize::MAX {
            return 0; // The hooks are off.
        }
        assert!(self.batches < SOON * BATCHES, "nothing but the ring got a turn");
        (self.before)(self.batches);
        self.batches += 1;
        (0..limit).for_each(|n| sink(&self.records[n % self.records.len()]));
        limit
    }

    fn check(&mut self, _had_events: bool, sink: &mut dyn FnMut(&Input)) -> Result<()> {
        self.checks += 1;
        let mono_ns = clock::monotonic_ns().unwrap();
        sink(&Input::Lost(Lost { hook: Hook::SetState, count: self.checks, mono_ns }));
        sink(&Input::Tick { mono_ns });
        Ok(())
    }

    fn poll_minisocks(&mut self, addrs: &[u64]) -> Result<()> {
        self.polled.extend(addrs);
        Ok(())
    }

    fn detach(&mut self) -> Result<()> {
        Ok(())
    }

    fn settle(&mut self, _patience_ns: u64, _sink: &mut dyn FnMut(&Input)) -> Result<Accounts> {
        Ok(Accounts {
            mono_ns: 1,
            seconds: 1.0,
            seen: 0,
            delivered: 0,
            filtered: 0,
            lost: 0,
            missed: Some(0),
            malformed: 0,
            gaps: tcptrace_model::Gaps::default(),
        })
    }
}

/// A view that keeps what it is told, and has enough when `enough` says so.
struct Kept {
    inputs: Vec<Input>,
    enough: fn(&[Input]) -> bool,
    due_ns: Option<u64>,
}

impl Kept {
    fn until(enough: fn(&[Input]) -> bool) -> Self {
        Self { inputs: Vec::new(), enough, due_ns: None }
    }
}

impl View for Kept {
    fn begin(&mut self, _out: &mut bytes::BytesMut) {}

    fn input(&mut self, input: &Input, _tracker: &Tracker, out: &mut bytes::BytesMut) {
        self.inputs.push(input.clone());
        if matches!(input, Input::Tick { mono_ns } if self.due_ns.is_some_and(|due| due <= *mono_ns))
        {
            out.extend_from_slice(b"line\n");
            self.due_ns = clock::monotonic_ns().ok();
        }
    }

    fn change(&mut self, _change: &Change, _out: &mut bytes::BytesMut) {}

    fn due_ns(&self) -> Option<u64> {
        self.due_ns
    }

    fn is_done(&self) -> bool {
        (self.enough)(&self.inputs)
    }
}

/// Runs until one of them has enough.
fn run(
    source: &mut Endless,
    view: Kept,
    output: &Output,
    stop: impl AsyncFnOnce(),
    after_turn: impl FnMut(&mut Endless, &mut Analysis<Kept>),
) -> Vec<Input> {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let mut analysis = Analysis::new(Tracker::default(), view);
    let ended = async { run_live(source, &mut analysis, output, stop(), after_turn).await };
    runtime.block_on(ended).unwrap();
    analysis.parts().0.inputs.split_off(0)
}

fn nowhere() -> Output {
    Output::new(io::sink()).unwrap()
}

const NEVER: fn(&[Input]) -> bool = |_| false;

#[test]
fn a_signal_gets_its_turn() {
    let mut source = Endless::new(|batch| {
        // Not in the first turn: before the end of that nobody listens for it.
        if batch == BATCHES + 3 {
            raise(Signal::SIGUSR1).unwrap();
        }
    });
    let stop = async || {
        signal(SignalKind::user_defined1()).unwrap().recv().await;
    };
    run(&mut source, Kept::until(NEVER), &nowhere(), stop, |_, _| {});
    assert!(source.batches > BATCHES + 3);
}

#[test]
fn the_end_of_a_time_gets_its_turn() {
    let mut source = Endless::new(|_| {});
    let stop = async || tokio::time::sleep(Duration::from_nanos(1)).await;
    run(&mut source, Kept::until(NEVER), &nowhere(), stop, |_, _| {});
}

#[test]
fn losses_get_their_turn() {
    let lost = |inputs: &[Input]| {
        inputs.iter().filter(|input| matches!(input, Input::Lost(_))).count() > 2
    };
    let mut source = Endless::new(|_| {});
    run(&mut source, Kept::until(lost), &nowhere(), std::future::pending::<()>, |_, _| {});
    assert_eq!(source.checks, 3);
}

#[test]
fn lines_by_the_clock_get_their_turn() {
    let (mut lines, writer) = io::pipe().unwrap();
    let mut view = Kept::until(|inputs| {
        inputs.iter().filter(|input| matches!(input, Input::Tick { .. })).count() > 4
    });
    view.due_ns = Some(1);
    let output = Output::new(writer).unwrap();
    run(&mut Endless::new(|_| {}), view, &output, std::future::pending::<()>, |_, _| {});
    output.finish(bytes::BytesMut::new()).unwrap();
    let mut text = String::new();
    io::Read::read_to_string(&mut lines, &mut text).unwrap();
    assert!(text.starts_with("line\nline\nline\n"), "{text:?}");
}

#[test]
fn snapshots_get_their_turn() {
    let own = netns::NetnsId::own().unwrap();
    let only = netns::Netns {
        id: own,
        path: "/proc/self/ns/net".into(),
        name: None,
        is_ip_netns: false,
        pid: None,
    };
    let scope =
        Scope { only: Some(only), filter: Filter::default(), owners: None, infos_of_all: false };
    let mut source = Endless::new(|_| {});
    source.snapshots = Some(Job::all(Reader::here(scope)));
    let is_over =
        |input: &Input| matches!(input, Input::Snapshot(tcptrace_model::Snapshot::Over { .. }));
    let mut view = Kept::until(NEVER);
    view.enough = |inputs| {
        inputs
            .iter()
            .any(|input| matches!(input, Input::Snapshot(tcptrace_model::Snapshot::Over { .. })))
    };
    // The thread that reads the tables takes its time; the ring is read meanwhile.
    let after_turn = |source: &mut Endless, _: &mut Analysis<Kept>| source.batches = 0;
    let inputs = run(&mut source, view, &nowhere(), std::future::pending::<()>, after_turn);
    assert!(inputs.iter().any(is_over));
}

#[test]
fn minisocks_to_be_polled_get_their_turn() {
    let mut source = Endless::new(|_| {});
    let born = "1ms tw=b started FIN_WAIT2 10.0.0.1:7 10.0.0.2:443\n\
                2ms sk=c FIN_WAIT1>FIN_WAIT2 10.0.0.1:7 10.0.0.2:443\n\
                2ms sk=c FIN_WAIT2>CLOSE 10.0.0.1:7 10.0.0.2:443\n";
    source.records.extend(script::inputs(born).unwrap());
    let ticks = |inputs: &[Input]| inputs.len() > 9;
    run(&mut source, Kept::until(ticks), &nowhere(), std::future::pending::<()>, |_, _| {});
    assert_eq!(source.polled.first(), Some(&0xb));
}

#[test]
fn a_reader_that_has_gone_and_what_goes_along_get_their_turn() {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let output = Output::new(writer).unwrap();
    let mut view = Kept::until(NEVER);
    view.due_ns = Some(1);
    let mut turns = 0;
    let mut source = Endless::new(|_| {});
    // The thread that writes takes its time to find out.
    let after_turn = |source: &mut Endless, _: &mut Analysis<Kept>| {
        turns += 1;
        source.batches = 0;
    };
    run(&mut source, view, &output, std::future::pending::<()>, after_turn);
    assert!(turns > 0);
}
