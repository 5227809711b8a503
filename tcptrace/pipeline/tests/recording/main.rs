//! What is written comes back; and a view shows of a recording what it showed of the inputs
//! themselves.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has to panic")]

mod damage;

use std::{
    fs,
    io::Read as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use tcptrace_model::{
    Accept, Accounts, AtClose, BoundPort, Clock, Comm, Event, GapBecause, Holder, Input, Linger,
    Lost, Minisock, MinisockEvent, NetStat, NetnsCounters, NetnsName, NetnsSysctls, PortRange,
    Reset, ResetDirection, RstReason, Snapshot, SnapshotEnd, SockFacts, SockStat, Stopper, Sysctl,
    Sysctls, Task, TcpState, Totals, Transition, Tuple, filter::Filter, script,
};
use tcptrace_pipeline::Analysis;
use tcptrace_record::{
    Block, BlockHead, Contents, Decoder, Every, FIXED_BYTES, FileError, Found, Header, Item,
    Memory, NewFile, OutError, Reader, Rotation, Saved, Tap, parts,
};
use tcptrace_source::recording::{Cue, Recording, RecordingError, Stretch};
use tcptrace_stats::{
    closers::Closers,
    durations::{Durations, Spans},
};
use tcptrace_track::Tracker;
use tcptrace_view::{View, closers, conns, hist, lines, live, states};

const SCRIPT: &str = include_str!("../../../tests/recordings/v1.script");

fn scripted() -> Vec<Input> {
    let mut inputs = script::inputs(SCRIPT).unwrap();
    let accounts = Accounts { mono_ns: 61_050_000_000, seconds: 61.05, ..Accounts::default() };
    inputs.push(Input::End(Accounts { seen: 32, delivered: 15, lost: 17, ..accounts }));
    inputs
}

fn header() -> Header {
    Header {
        tcptrace: "0.1.0".to_owned(),
        run: "boot/1/2".to_owned(),
        host: "host".to_owned(),
        realtime_offset_ns: 1_795_330_800_000_000_000,
        ..Header::default()
    }
}

fn write_with(path: &Path, rotation: Option<Rotation>, inputs: &[Input]) -> Saved {
    let files = NewFile::open(path, false, rotation).unwrap().begin(header()).unwrap();
    let mut tap = Tap::start(files).unwrap();
    inputs.iter().for_each(|input| tap.put(input));
    tap.finish().unwrap()
}

/// A directory, and the bytes of a recording of `inputs`.
fn written(inputs: &[Input]) -> (tempfile::TempDir, PathBuf, Vec<u8>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.tcptrace");
    let saved = write_with(&path, None, inputs);
    let bytes = fs::read(&path).unwrap();
    assert_eq!((saved.inputs, saved.bytes), (inputs.len() as u64, bytes.len() as u64));
    (directory, path, bytes)
}

struct ReadBack {
    inputs: Vec<Input>,
    early: usize,
    remarks: Vec<String>,
    failure: Option<String>,
}

fn read_stretch(paths: &[PathBuf], stretch: Stretch) -> Result<ReadBack, RecordingError> {
    let mut recording = Recording::open(paths, Filter::default(), stretch)?;
    let (mut inputs, mut early) = (Vec::new(), 0);
    let mut sink = |cue| match cue {
        Cue::Input(input) => inputs.push(input),
        Cue::Early(_) => early += 1,
    };
    while recording.feed(7, &mut sink) {}
    let failure = recording.take_failure().map(|failure| failure.to_string());
    Ok(ReadBack { inputs, early, remarks: recording.take_remarks(), failure })
}

fn read(path: &Path) -> Result<ReadBack, RecordingError> {
    read_stretch(&[path.to_owned()], Stretch::default())
}

/// Numbers without end, the same each time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Mostly small, at times anything.
    fn any(&mut self) -> u64 {
        match self.below(4) {
            0 => self.next(),
            _ => self.below(300),
        }
    }

    fn chance(&mut self) -> bool {
        self.below(2) == 0
    }

    fn some<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.chance().then(|| make(self))
    }

    /// Often one that was there before.
    fn often(&mut self) -> u64 {
        if self.chance() { self.any() } else { self.below(2) }
    }

    fn state(&mut self) -> TcpState {
        TcpState::ALL[self.below(12) as usize]
    }

    fn tuple(&mut self) -> Tuple {
        let addr = |n: u64| std::net::Ipv6Addr::from(u128::from(n));
        Tuple {
            laddr: addr(self.below(9)),
            raddr: addr(self.often()),
            lport: self.often() as u16,
            rport: self.below(3) as u16,
            v6_socket: self.chance(),
        }
    }

    fn task(&mut self) -> Task {
        let mut raw = [0; 16];
        raw[..8].copy_from_slice(&self.below(5).to_le_bytes());
        let (tgid, tid) = (self.any() as u32, self.below(3) as u32);
        let task = Task::thread(tgid, tid, self.any() as u32, Comm::new(raw));
        if self.chance() {
            return task; // as an older version wrote it
        }
        raw[..8].copy_from_slice(&self.below(2).to_le_bytes());
        Task {
            started: self.any() as u32,
            execs: self.any() as u16,
            is_kernel: self.chance(),
            is_led: self.chance(),
            thread: Comm::new(raw),
            ..task
        }
    }

    fn sock(&mut self) -> SockFacts {
        SockFacts {
            cookie: self.some(Self::often),
            netns: self.below(3) as u32,
            cgroup: self.some(|n| n.below(3)),
            err: self.below(2) as u16,
            shutdown: self.below(2) as u8,
            dead: self.chance(),
            unaccepted: self.chance(),
            peer_fin: self.chance(),
            own_ports: self.chance(),
            linger: if self.chance() { Linger::Off } else { Linger::Jiffies(self.often() as u32) },
            mptcp: self.some(Self::chance),
        }
    }

    fn totals(&mut self) -> Totals {
        Totals {
            bytes_acked: self.any(),
            bytes_received: self.any(),
            srtt_us8: self.any() as u32,
            retransmits: self.any() as u32,
            unread: self.any() as u32,
            unacked: self.any() as u32,
            user_timeout_ms: self.any() as u32,
            linger2: self.any() as i32,
            at_close: self.some(|n| AtClose {
                unsent: n.any() as u32,
                err_soft: n.any() as u16,
                probes: n.any() as u8,
                repair: n.chance(),
                has_sent: n.chance(),
                queue_empty: n.chance(),
            }),
        }
    }

    fn event(&mut self, now: u64) -> Event {
        let mono_ns = now.wrapping_add(self.below(300));
        let skaddr = self.below(9) * 0x40;
        match self.below(6) {
            0 => Event::Minisock(Minisock {
                mono_ns,
                addr: skaddr,
                event: match self.below(6) {
                    0 => MinisockEvent::Started,
                    1 => MinisockEvent::Stopped {
                        may_run: self.chance(),
                        by: self.some(|_| Stopper::Purge),
                    },
                    2 => MinisockEvent::Expired,
                    3 => MinisockEvent::Peeked,
                    4 => MinisockEvent::Restarted,
                    _ => MinisockEvent::Ended { by: self.some(|_| Stopper::StateProcess) },
                },
                substate: if self.chance() { TcpState::TimeWait } else { TcpState::FinWait2 },
                tuple: self.tuple(),
                netns: self.below(3) as u32,
                cookie: self.some(Self::often),
                expires: self.any(),
                jiffies: self.any(),
                timestamps: self.some(Self::chance),
            }),
            1 => Event::Reset(Reset {
                mono_ns,
                skaddr,
                direction: if self.chance() {
                    ResetDirection::Sent
                } else {
                    ResetDirection::Received
                },
                state: self.some(Self::state),
                reason: self.some(|_| RstReason::Other),
            }),
            2 => Event::Accept(Accept { mono_ns, skaddr, netns: 7, task: self.task() }),
            _ => Event::Transition(Transition {
                mono_ns,
                skaddr,
                old: self.state(),
                new: self.state(),
                tuple: self.tuple(),
                task: self.task(),
                sock: self.some(Self::sock),
                key_unknown: self.chance(),
                buckets_full: self.chance(),
                totals: self.some(Self::totals),
            }),
        }
    }
}

#[test]
fn every_input_comes_back() {
    let mut inputs = scripted();
    let end = inputs.pop().unwrap();
    inputs.extend([
        Input::Sysctls(Box::new(NetnsSysctls {
            mono_ns: 5,
            netns: 9,
            sysctls: Sysctls {
                tcp_fin_timeout: Sysctl::Is(-1),
                ip_local_reserved_ports: Sysctl::Is(vec![
                    PortRange { low: 1, high: 2 },
                    PortRange { low: 9, high: 9 },
                ]),
                tcp_max_orphans: Sysctl::Unreadable("Permission denied".into()),
                ..Sysctls::default()
            },
        })),
        Input::Counters(Box::new(NetnsCounters {
            mono_ns: 6,
            netns: 9,
            counters: Ok(NetStat {
                tcp: [("MaxConn".to_owned(), -1)].into(),
                tcp_ext: [("TWKilled".to_owned(), 7), ("TW".to_owned(), i64::MAX)].into(),
                sockets: SockStat { inuse: 1, inuse6: Some(2), tw: 3, orphan: 4, alloc: 5, mem: 6 },
            }),
        })),
        Input::Counters(Box::new(NetnsCounters {
            mono_ns: 7,
            netns: 9,
            counters: Err("Permission denied".into()),
        })),
        Input::NetnsName(Box::new(NetnsName::new(1, u32::MAX, Some("bl\u{1b}ue"), false))),
        Input::NetnsName(Box::new(NetnsName::new(u64::MAX, 9, None, true))),
        Input::Snapshot(Snapshot::OpenMinisocks),
        Input::Snapshot(Snapshot::Bound(Box::new(BoundPort {
            lport: u16::MAX,
            sockets: u32::MAX,
            holder: None,
        }))),
        Input::Snapshot(Snapshot::Bound(Box::new(BoundPort {
            lport: 1,
            sockets: 1,
            holder: Some(Holder {
                task: Task::process(7, 8, 9, Comm::from("child")),
                first: Task::process(6, 8, 5, Comm::from("parent")),
                holders: 3,
            }),
        }))),
        Input::Snapshot(Snapshot::End(SnapshotEnd {
            mono_ns: 5,
            lists_bound: true,
            ..SnapshotEnd::default()
        })),
        Input::Missed { count: 3, mono_ns: u64::MAX },
        Input::Clock(Clock { mono_ns: 1, realtime_offset_ns: i64::MIN }),
    ]);
    let mut numbers = Numbers(0x1234_5678_9abc_def1);
    for _ in 0..20_000 {
        let now = numbers.any();
        inputs.push(Input::Event(numbers.event(now)));
    }
    inputs.push(end);
    let (_directory, path, bytes) = written(&inputs);
    let back = read(&path).unwrap();
    assert_eq!(back.inputs, inputs);
    assert_eq!((back.remarks, back.failure), (vec![], None));
    assert!(bytes.len() < 80 * inputs.len(), "{}", bytes.len());
}

fn shown<V: View>(view: V, inputs: &[Input]) -> String {
    let mut analysis = Analysis::new(Tracker::default(), view);
    inputs.iter().for_each(|input| analysis.feed(input));
    String::from_utf8(analysis.take_output().to_vec()).unwrap()
}

/// What `view` shows of a recording that is made while it shows the inputs, and what it showed
/// then.
fn twice<V: View>(view: impl Fn() -> V, inputs: &[Input]) -> (String, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.tcptrace");
    let files = NewFile::open(&path, false, None).unwrap().begin(header()).unwrap();
    let mut analysis = Analysis::new(Tracker::default(), view());
    analysis.record(Tap::start(files).unwrap(), false);
    inputs.iter().for_each(|input| analysis.feed(input));
    analysis.take_tap().unwrap().finish().unwrap();
    let first = String::from_utf8(analysis.take_output().to_vec()).unwrap();
    (first, shown(view(), &read(&path).unwrap().inputs))
}

#[test]
fn a_view_shows_the_same_of_a_recording() {
    let inputs = scripted();
    let same = |name: &str, (first, again): (String, String)| {
        assert!(!first.is_empty(), "{name}");
        assert_eq!(first, again, "{name}");
    };
    let selection = || live::Selection {
        states: tcptrace_model::StateSet::all(),
        wanted: Default::default(),
        rate_limit: None,
        count: None,
        header: true,
    };
    same("live", twice(|| live::LiveView::new(live::Format::Json, selection()), &inputs));
    let every = Some(std::time::Duration::from_secs(1));
    let lines = lines::Lines { every, count: None, at_end: false };
    let json = states::Format::Json;
    same("states", twice(|| states::StatesView::new(json, lines, true), &inputs));
    let order = || closers::Order { sort: closers::Sort::default(), top: None };
    let view = || closers::ClosersView::new(Closers::new(None, 100), order(), json, lines, true);
    same("closers", twice(view, &inputs));
    let view = || {
        let durations = Durations::new(Spans::lingering(), None, 100);
        hist::HistView::new(hist::Subject::Durations(durations), hist::Format::Json, None, true)
    };
    same("hist", twice(view, &inputs));
    let selection = || conns::Selection {
        wanted: Default::default(),
        min_life_ns: 0,
        until: tcptrace_stats::conns::Until::End,
        open: true,
        count: None,
        header: true,
    };
    same("conns", twice(|| conns::ConnsView::new(conns::Format::Json, selection()), &inputs));
}

/// What was read is a beginning of `inputs`, but for the end, which is always told.
fn assert_beginning(inputs: &[Input], back: &ReadBack) -> usize {
    let (last, before) = back.inputs.split_last().unwrap();
    assert!(matches!(last, Input::End(_)));
    if back.inputs != inputs {
        let same = before.iter().zip(inputs).take_while(|(a, b)| a == b).count();
        assert_eq!(same, before.len(), "{:?}", back.inputs.get(same));
    }
    before.len()
}

#[test]
fn an_existing_file_and_a_second_writer_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a");
    let error = |force| NewFile::open(&path, force, None).map(|_| ()).unwrap_err();
    let first = NewFile::open(&path, false, None).unwrap();
    assert!(matches!(error(true), FileError::Out(OutError::Locked(_))), "{}", error(true));
    drop(first);
    assert!(!path.exists(), "nothing was recorded");
    fs::write(&path, "precious").unwrap();
    assert!(matches!(error(false), FileError::Out(OutError::Exists(_))), "{}", error(false));
    drop(NewFile::open(&path, true, None).unwrap());
    assert_eq!(fs::read(&path).unwrap(), b"precious", "not begun, not emptied");
    let every = Rotation { every: Every::Bytes(1 << 20), keep: None };
    write_with(&path, Some(every), &scripted());
    let error = NewFile::open(&path, false, Some(every)).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("a.000001 exists"), "{error}");
}

/// Seconds of a churn that zstd cannot make small.
fn churn(seconds: u64, a_second: u64) -> Vec<Input> {
    let mut inputs = script::inputs("0ms begin\n0ms clock 1795330800000000000\n").unwrap();
    inputs.extend(
        script::inputs(
            "0ms cgroup 7 /a.service\n0ms snapshot open\n0ms snapshot 5\n0ms snapshot end\n\
             0ms snapshot over\n",
        )
        .unwrap(),
    );
    let mut numbers = Numbers(5);
    for second in 0..seconds {
        for n in 0..a_second {
            let now = second * 1_000_000_000 + n * (1_000_000_000 / a_second);
            inputs.push(Input::Event(numbers.event(now)));
            if n % (a_second / 4).max(1) == 0 {
                inputs.push(Input::Tick { mono_ns: now });
            }
        }
    }
    inputs
}

#[test]
fn a_rotation_keeps_the_newest_and_reads_as_one() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().join("all");
    let inputs = churn(30, 2_000);
    write_with(&base, Some(Rotation { every: Every::Bytes(64 << 10), keep: None }), &inputs);
    let all = parts(&base);
    assert!(all.len() > 4, "{all:?}");
    for part in &all {
        assert!(fs::metadata(part).unwrap().len() <= 64 << 10, "{part:?}");
    }
    let back = read(&base).unwrap();
    assert_eq!(assert_beginning(&inputs, &back), inputs.len());
    let mut shuffled = all.clone();
    shuffled.reverse();
    assert_eq!(read_stretch(&shuffled, Stretch::default()).unwrap().inputs, back.inputs);

    // One alone begins with what holds.
    let alone = read(&all[2]).unwrap();
    assert!(matches!(alone.inputs[0], Input::Begin { .. }), "{:?}", alone.inputs[0]);
    assert!(matches!(alone.inputs[1], Input::Clock(_)));
    assert!(matches!(alone.inputs[2], Input::Cgroup { id: 7, .. }));

    let base = directory.path().join("few");
    let rotation = Rotation { every: Every::Bytes(64 << 10), keep: Some(2) };
    write_with(&base, Some(rotation), &inputs);
    let few = parts(&base);
    assert_eq!(few.len(), 2);
    assert_eq!(few[1].extension(), all[all.len() - 1].extension());
    assert!(read(&base).unwrap().inputs.len() > 100);
}

#[test]
fn files_of_two_runs_are_not_mixed() {
    let (_one, a, _) = written(&scripted());
    let directory = tempfile::tempdir().unwrap();
    let b = directory.path().join("b");
    let other = Header { run: "another".to_owned(), ..header() };
    let files = NewFile::open(&b, false, None).unwrap().begin(other).unwrap();
    Tap::start(files).unwrap().finish().unwrap();
    let error = read_stretch(&[a, b], Stretch::default()).map(|_| ()).unwrap_err();
    assert!(matches!(error, RecordingError::Runs(..)), "{error}");
}

#[test]
fn a_stretch_is_what_happened_in_it() {
    let inputs = churn(30, 400);
    let (_directory, path, _) = written(&inputs);
    let stretch = |since: Option<&str>, until: Option<&str>| Stretch {
        since: since.map(|word| word.parse().unwrap()),
        until: until.map(|word| word.parse().unwrap()),
    };
    let paths = [path];
    let back = read_stretch(&paths, stretch(Some("10s"), Some("20s"))).unwrap();
    let at = |input: &Input| input.mono_ns().filter(|_| !matches!(input, Input::Clock(_)));
    let times: Vec<_> = back.inputs.iter().filter_map(at).collect();
    let seconds = 10_000_000_000..=20_000_000_300;
    assert!(times.len() > 3_000 && times.iter().all(|ns| seconds.contains(ns)), "{times:?}");
    assert!(back.early > 0);
    let same =
        read_stretch(&paths, stretch(Some("2026-11-22T07:00:10Z"), Some("2026-11-22T07:00:20Z")));
    assert_eq!(same.unwrap().inputs, back.inputs);
    let nothing = read_stretch(&paths, stretch(Some("2027-01-01T00:00:00Z"), None));
    let error = nothing.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("goes from 2026-11-22T07:00:00Z to "), "{error}");
}

#[test]
fn a_disk_that_is_too_slow_costs_a_gap_that_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut reader =
        fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&fifo).unwrap();
    let files = NewFile::open(&fifo, true, None).unwrap().begin(header()).unwrap();
    let mut tap = Tap::start(files).unwrap();
    let (mut put, mut said) = (0, 0);
    let inputs = churn(10, 20_000);
    for (at, input) in std::iter::repeat_n(&inputs, 8).flatten().enumerate() {
        put += u64::from(matches!(input, Input::Event(_)));
        tap.put(input);
        if at % 1000 == 0 {
            // Losses of the ring: what drops a block with one must not drop that too.
            let (hook, mono_ns) = (tcptrace_common::counters::Hook::SetState, 1);
            tap.put(&Input::Lost(Lost { hook, count: 3, mono_ns }));
            tap.put(&Input::Missed { count: 2, mono_ns });
            said += 1;
        }
    }
    assert!(!tap.has_failed());
    // Now the disk is fast again.
    let drain = std::thread::spawn(move || {
        nix::fcntl::fcntl(&reader, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty()))
            .unwrap();
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        bytes
    });
    let account =
        Accounts { seen: put + 3 * said, delivered: put, lost: 3 * said, ..Accounts::default() };
    // Until something is kept again: what is missing is told with it.
    tap.put(&Input::End(Accounts { mono_ns: 41_000_000_000, ..account }));
    let saved = tap.finish().unwrap();
    assert!(saved.gap > 0, "{saved:?}");
    let path = directory.path().join("file");
    fs::write(&path, drain.join().unwrap()).unwrap();
    let back = read(&path).unwrap();
    let events = back.inputs.iter().filter(|i| matches!(i, Input::Event(_))).count() as u64;
    let lost: u64 =
        back.inputs.iter().map(|i| if let Input::Lost(lost) = i { lost.count } else { 0 }).sum();
    assert_eq!((events + lost, lost), (put + 3 * said, saved.gap + 3 * said));
    let missed: u64 = back
        .inputs
        .iter()
        .map(|i| if let Input::Missed { count, .. } = i { *count } else { 0 })
        .sum();
    assert_eq!(missed, 2 * said);
    let is_gap = |i: &Input| matches!(i, Input::Gap(gap) if gap.because == GapBecause::SlowDisk);
    assert!(back.inputs.iter().any(is_gap));
    let Some(Input::End(end)) = back.inputs.last() else { panic!("{:?}", back.inputs.last()) };
    assert_eq!((end.delivered, end.lost, end.balance()), (events, lost, 0));
    assert!(back.remarks.iter().any(|r| r.contains("the disk was too slow")));
}

/// Format version 1 as tcptrace 0.1.0 wrote it. `TCPTRACE_BLESS=1` writes the file, once a version
/// that it is of is new: never to make this test pass.
#[test]
fn a_recording_of_format_version_1_stays_readable() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/recordings/v1.tcptrace");
    if std::env::var_os("TCPTRACE_BLESS").is_some() {
        let _ = fs::remove_file(&path);
        write_with(&path, None, &scripted());
    }
    let back = read(&path).unwrap();
    let mut wanted = scripted();
    for input in &mut wanted {
        tasks_of(input).for_each(as_of_0_1_0);
    }
    assert_eq!(back.inputs, wanted);
    assert_eq!((back.remarks, back.failure), (vec![], None));
}

fn tasks_of(input: &mut Input) -> impl Iterator<Item = &mut Task> {
    let (task, first) = match input {
        Input::Event(Event::Transition(event)) => (Some(&mut event.task), None),
        Input::Event(Event::Accept(event)) => (Some(&mut event.task), None),
        Input::Snapshot(Snapshot::Socket(socket)) => {
            match socket.full.as_mut().and_then(|full| full.holder.as_mut()) {
                Some(holder) => (Some(&mut holder.task), Some(&mut holder.first)),
                None => (None, None),
            }
        }
        _ => (None, None),
    };
    task.into_iter().chain(first)
}

/// What 0.1.0 knew of a task: one name, which was the thread's.
fn as_of_0_1_0(task: &mut Task) {
    *task = Task::thread(task.tgid, task.tid, task.uid, task.comm);
}

#[test]
fn what_a_later_version_adds_is_passed_over() {
    let mut bytes = Vec::new();
    // A kind that is not known, then one that is with more at its end.
    bytes.extend_from_slice(&[0x7e, 3, 1, 2, 3]);
    bytes.extend_from_slice(&[0x43, 4, 9, 5, 0xff, 0xff]);
    let mut memory = Memory::default();
    let mut decoder = Decoder::new(&bytes, &mut memory);
    assert_eq!(decoder.next_item(), Ok(Some(Item::Unknown)));
    let missed = Input::Missed { count: 9, mono_ns: 5 };
    assert_eq!(decoder.next_item(), Ok(Some(Item::Input(missed))));
    assert_eq!(decoder.next_item(), Ok(None));
}
