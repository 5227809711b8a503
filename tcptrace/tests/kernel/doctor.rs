//! `tcptrace doctor` where something is really wrong, and where nothing is; and what its texts claim
//! of sysctls, held to the kernel.

use std::{
    io::{self, Write as _},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use socket2::{SockRef, Socket};
use tcptrace::{
    doctor::{collect::Setup, facts::NetnsFacts, sysctls},
    host::{
        netns::{self, NetnsId},
        sock_diag::{DiagSocket, Family as DiagFamily, SockDiag, StateMask, lists_bound},
        sysctl,
    },
    model::{Comm, Input, Snapshot, TcpState, filter::Filter},
    pipeline::Analysis,
    probe::{Backend, Options, TimeWaitChoice},
    source::owners::Owners,
    track::Tracker,
    view::{
        View as _,
        doctor::{DoctorView, Format, Watches},
    },
};

use crate::{
    net::{Netns, sysctl as set},
    scenario::{
        conn::{Connection, Family, Listener, bound_in_time, expect_end, expect_error},
        ending::deafen,
    },
    trace::by,
    wait::{DEADLINE, until},
    witness::find,
};

/// How long it watches: the work of each test is done long before, on a busy machine and on an
/// emulated CPU, too.
const WATCH: Duration = Duration::from_secs(10);

/// What it says of `netns`, where `work` is done while it watches.
pub(crate) fn diagnose<T: Send>(
    netns: &Netns,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<Value> {
    let filter = Filter { netns: Some(netns.inode()), ..Filter::default() };
    let time_wait = TimeWaitChoice::Auto;
    let options = Options { filter: filter.clone(), time_wait, ..by(Backend::TpBtf) };
    let mut live = crate::known::live(&options).context("the tracer does not start")?;
    let id = NetnsId { inode: netns.inode(), device: NetnsId::own()?.device };
    let only = netns::Netns { id, path: netns.path(), name: None, is_ip_netns: false, pid: None };
    let every_ns = u64::try_from(WATCH.as_nanos())?;
    live.take_snapshots(Some(only), filter, Some(Owners::default()), every_ns);
    let setup = Setup {
        defaults: sysctl::defaults().map_err(|error| error.to_string()),
        files: Vec::new(),
        events: Ok(()),
        own_netns: None,
    };
    let view = DoctorView::new(setup, Format::Json, Watches::For(WATCH));
    let mut analysis = Analysis::new(Tracker::default(), view);
    analysis.feed(&live.begin()?);

    let mut drain = || -> Result<bool> {
        if let Some(job) = live.due_snapshots(analysis.tracker().in_doubt())? {
            analysis.feed(&Input::Snapshot(Snapshot::Open));
            let round = job.run();
            live.snapshots_taken(round, &mut |input| analysis.feed(input));
        }
        live.drain(usize::MAX, &mut |input| analysis.feed(input));
        live.check(true, &mut |input| analysis.feed(input))?;
        live.look(&analysis.due_peeks()?)?;
        Ok(analysis.view().is_done())
    };
    // The first round: what is counted is what comes after it.
    ensure!(!drain()?, "it was done before it began");
    // What the work leaves stays until the report.
    let _left = thread::scope(|scope| {
        let worker = scope.spawn(|| netns.run(work));
        while !worker.is_finished() {
            ensure!(!drain()?, "the work took longer than the watch");
            thread::sleep(Duration::from_millis(2));
        }
        let left = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let deadline = Instant::now() + WATCH + DEADLINE;
        while !drain()? {
            ensure!(Instant::now() < deadline, "the report did not come");
            thread::sleep(Duration::from_millis(2));
        }
        Ok(left)
    })?;
    let text = analysis.take_output();
    Ok(serde_json::from_slice(&text)?)
}

/// The finding of `rule`, which must be this bad and say this.
fn expect(report: &Value, rule: &str, severity: &str, says: &str) -> Result<()> {
    let findings = report["findings"].as_array().context("no findings")?;
    let finding = findings.iter().find(|finding| finding["rule"] == rule);
    let finding = finding.with_context(|| format!("no {rule}: {findings:?}"))?;
    let seen = finding["seen"].as_str().context("nothing seen")?;
    ensure!(finding["severity"] == severity && seen.contains(says), "{rule}: {finding}");
    Ok(())
}

pub(crate) fn open(listener: &Listener, count: usize) -> Result<Vec<Connection>> {
    (0..count).map(|_| listener.connect(None)).collect()
}

#[test]
fn a_healthy_namespace_yields_nothing_above_info() -> Result<()> {
    let netns = Netns::new()?;
    let (listener, _held) = netns.run(|| -> Result<_> {
        let listener = Listener::open(Family::V4, 5000)?;
        let held = open(&listener, 20)?;
        Ok((listener, held))
    })?;
    let report = diagnose(&netns, || {
        for connection in open(&listener, 20)? {
            connection.close_by_client()?;
        }
        // Fewer than a habit of the peer's: on an emulated CPU they live for some seconds.
        for connection in open(&listener, 15)? {
            connection.close_by_server()?;
        }
        // One RST among many closes is normal.
        listener.connect(None)?.abort()
    })?;
    ensure!(report["severity"] == "info", "{report}");
    expect(&report, "linger-zero", "info", "1 in ")?;
    ensure!(report["findings"].as_array().map(Vec::len) == Some(1), "{report}");
    let unseen = report["unseen"].as_array().context("no list of what was not seen")?;
    let unseen: Vec<_> = unseen.iter().map(|one| one["rule"].as_str().unwrap_or("?")).collect();
    // Sockets that are only bound are listed since 6.8.
    let expected: &[&str] = if lists_bound() { &[] } else { &["ports"] };
    ensure!(unseen == expected, "{report}");
    Ok(())
}

#[test]
fn ports_that_ran_out_are_found() -> Result<()> {
    let netns = Netns::new()?;
    let listener = netns.run(|| -> Result<_> {
        set("net/ipv4/ip_local_port_range", "20000 20019")?;
        Listener::open(Family::V4, 5000)
    })?;
    let report = diagnose(&netns, || {
        let held = open(&listener, 20)?;
        for _ in 0..3 {
            let failed = listener.family.socket()?.connect(&listener.address.into());
            let errno = failed.err().and_then(|error| error.raw_os_error());
            ensure!(errno == Some(libc::EADDRNOTAVAIL), "{errno:?}");
        }
        Ok(held)
    })?;
    ensure!(report["severity"] == "critical", "{report}");
    expect(&report, "ports", "critical", "found no local port 3 times")?;
    expect(&report, "ports", "critical", "of 20 ports 20 are in use")
}

#[test]
fn a_leak_of_close_wait_is_found_with_its_owner() -> Result<()> {
    let netns = Netns::new()?;
    let _held = netns.run(|| -> Result<_> {
        let listener = Listener::open(Family::V4, 5000)?;
        let mut held = Vec::new();
        for connection in open(&listener, 12)? {
            drop(connection.client);
            expect_end(&connection.server)?;
            held.push(connection.server);
        }
        Ok((listener, held))
    })?;
    let report = diagnose(&netns, || Ok(()))?;
    ensure!(report["severity"] == "warning", "{report}");
    expect(&report, "close-wait", "warning", "12 connections stay in CLOSE_WAIT: ")?;
    expect(&report, "close-wait", "warning", &format!("pid {} (12)", std::process::id()))?;
    expect(&report, "close-wait", "warning", "in 0 of them there is data")
}

#[test]
fn time_waits_that_had_no_room_are_found() -> Result<()> {
    let netns = Netns::new()?;
    let listener = netns.run(|| -> Result<_> {
        set("net/ipv4/tcp_max_tw_buckets", "1")?;
        Listener::open(Family::V4, 5000)
    })?;
    let report = diagnose(&netns, || {
        for connection in open(&listener, 6)? {
            drop(connection.client);
            // The peer's FIN gets a RST where there is no minisock, which is the matter.
            expect_end(&connection.server)?;
        }
        Ok(())
    })?;
    expect(&report, "tw-overflow", "warning", "tcp_max_tw_buckets is 1")?;
    expect(&report, "tw-buckets", "warning", "this kernel begins with")
}

#[test]
fn an_accept_queue_that_overflows_is_found_with_its_listener() -> Result<()> {
    let netns = Netns::new()?;
    let listener = netns.run(|| -> Result<_> {
        let listener = Listener::open(Family::V4, 5000)?;
        listener.socket.listen(1)?;
        Ok(listener)
    })?;
    let report = diagnose(&netns, || {
        (0..12)
            .map(|_| {
                let client = listener.family.socket()?;
                client.set_nonblocking(true)?;
                // EINPROGRESS, or done at once.
                let _ = client.connect(&listener.address.into());
                Ok(client)
            })
            .collect::<Result<Vec<Socket>>>()
    })?;
    expect(&report, "accept-queue", "critical", "were dropped in")?;
    expect(&report, "accept-queue", "critical", "127.0.0.1:5000 (")?;
    expect(&report, "accept-queue", "critical", "2 wait, limit 1")
}

#[test]
fn a_storm_of_linger_zero_is_found() -> Result<()> {
    let netns = Netns::new()?;
    let listener = netns.run(|| Listener::open(Family::V4, 5000))?;
    let report = diagnose(&netns, || {
        for _ in 0..30 {
            listener.connect(None)?.abort()?;
        }
        Ok(())
    })?;
    ensure!(report["severity"] == "warning", "{report}");
    expect(&report, "linger-zero", "warning", "30 in ")?;
    // The process, not the thread of it that did so.
    let comm = crate::witness::process(std::process::id())?.comm;
    let comm = Comm::from(std::str::from_utf8(&comm)?);
    expect(&report, "linger-zero", "warning", &format!("by {comm} →:5000 (30)"))
}

#[test]
fn peers_that_never_close_are_found() -> Result<()> {
    let netns = Netns::new()?;
    let _held = netns.run(|| -> Result<_> {
        let listener = Listener::open(Family::V4, 5000)?;
        let mut held = Vec::new();
        for _ in 0..105 {
            let connection = listener.connect(None)?;
            drop(connection.client);
            expect_end(&connection.server)?;
            held.push(connection.server);
        }
        Ok((listener, held))
    })?;
    let report = diagnose(&netns, || Ok(()))?;
    expect(&report, "fin-wait2", "warning", "105 of 105 orphans in FIN_WAIT2")
}

/// What other tools show of none of these together: each is made for real, and named with its peer.
#[test]
fn what_peers_do_wrong_is_found() -> Result<()> {
    let netns = Netns::new()?;
    let (listener, dead) = netns.run(|| -> Result<_> {
        Ok((Listener::open(Family::V4, 5000)?, Listener::open(Family::V4, 5001)?))
    })?;
    let report = diagnose(&netns, || {
        let mut held = Vec::new();
        // Black holes, closed windows, and FINs that nobody acknowledges.
        for _ in 0..12 {
            let connection = listener.connect(None)?;
            deafen(&connection.server)?;
            (&connection.client).write_all(b"lost")?;
            held.push((Some(connection.client), connection.server));
        }
        for _ in 0..3 {
            let connection = listener.connect(None)?;
            connection.client.set_nonblocking(true)?;
            // Until neither end takes any more, which the other has to say first.
            let chunk = [0; 65_536];
            until("full buffers", || {
                loop {
                    match (&connection.client).write(&chunk) {
                        Ok(_) => {}
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            return Ok(closed_window(&connection)?.then_some(()));
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
            })?;
            held.push((Some(connection.client), connection.server));
        }
        for _ in 0..11 {
            let connection = listener.connect(None)?;
            deafen(&connection.server)?;
            drop(connection.client);
            held.push((None, connection.server));
        }
        // Resets by the peer, refusals, and SYNs that nobody answers.
        for _ in 0..25 {
            let connection = listener.connect(None)?;
            let server = connection.server;
            server.set_linger(Some(Duration::ZERO))?;
            drop(server);
            expect_error(&connection.client)?;
        }
        for _ in 0..25 {
            let refused = Family::V4.socket()?.connect(&Family::V4.address(5009).into());
            let errno = refused.err().and_then(|error| error.raw_os_error());
            ensure!(errno == Some(libc::ECONNREFUSED), "{errno:?}");
        }
        deafen(&dead.socket)?;
        for _ in 0..5 {
            let client = dead.family.socket()?;
            client.set_nonblocking(true)?;
            let _ = client.connect(&dead.address.into());
            held.push((Some(client), Family::V4.socket()?));
        }
        Ok(held)
    })?;
    let me = format!("pid {}", std::process::id());
    expect(&report, "black-hole", "warning", "12 open connections get no acknowledgement")?;
    expect(&report, "black-hole", "warning", "to 127.0.0.1:5000 (12); 48 bytes are not")?;
    expect(&report, "black-hole", "warning", &me)?;
    expect(&report, "zero-window", "info", "3 connections cannot send")?;
    expect(&report, "unacked-fin", "info", "FIN_WAIT1 (11); 11 of them are orphans")?;
    // Both ends of each are here: the server's sent it, the client's received it.
    expect(&report, "resets", "warning", "by a RST that came from 127.0.0.1:5000 (25)")?;
    expect(&report, "refused", "warning", "25 in ")?;
    expect(&report, "refused", "warning", "by 127.0.0.1:5009 (25)")?;
    expect(&report, "syn-timeout", "warning", "5 more wait now; to 127.0.0.1:5001 (5)")?;
    let fine = report["fine"].as_array().context("no list of what was fine")?;
    ensure!(!fine.iter().any(|rule| rule == "black-hole" || rule == "resets"), "{fine:?}");
    Ok(())
}

/// Whether the client's end probes a closed window: the witness is `ss`'s own source.
fn closed_window(connection: &Connection) -> Result<bool> {
    const PROBES: u8 = 4;
    let row = find(connection.ends.of_client())?.context("it is gone")?;
    Ok(row.timer == PROBES)
}

/// All sockets of the namespace of the calling thread in these states.
fn sockets(states: StateMask) -> Result<Vec<DiagSocket>> {
    let dump = SockDiag::open()?.dump(&DiagFamily::BOTH, states, Vec::new, |all, socket| {
        all.push(*socket);
    })?;
    Ok(dump.value)
}

/// "`tcp_fin_timeout` is for orphans in FIN_WAIT2; TIME_WAIT stays at 60 s": what the timers of both
/// are set to, so that nothing needs to be waited for. (That a TIME_WAIT then lasts for so long is
/// the matter of `time_wait`.)
#[test]
fn tcp_fin_timeout_is_for_orphans_alone() -> Result<()> {
    const FIN_TIMEOUT_MS: u32 = 5000;
    let netns = Netns::new()?;
    netns.run(|| {
        set("net/ipv4/tcp_fin_timeout", &(FIN_TIMEOUT_MS / 1000).to_string())?;
        let listener = Listener::open(Family::V4, 5000)?;
        let began = Instant::now();
        listener.connect(None)?.close_by_client()?;
        let orphan = listener.connect(None)?;
        drop(orphan.client);
        expect_end(&orphan.server)?;
        let find = |state| {
            until("the minisock", || {
                let all = sockets(StateMask::OF_MINISOCKS)?;
                let found = |socket: &&DiagSocket| {
                    socket.is_minisock() && TcpState::from_kernel(socket.state) == Some(state)
                };
                Ok(all.iter().find(found).map(|socket| socket.expires_ms))
            })
        };
        let (time_wait_ms, fin_wait2_ms) = (find(TcpState::TimeWait)?, find(TcpState::FinWait2)?);
        let since_ms = u32::try_from(began.elapsed().as_millis())?;
        ensure!(time_wait_ms <= 60_000 && time_wait_ms + since_ms >= 59_900, "{time_wait_ms} ms");
        ensure!(fin_wait2_ms <= FIN_TIMEOUT_MS, "{fin_wait2_ms} ms");
        Ok(())
    })
}

/// "The lesser of the two counts, as it was when listen() was called."
#[test]
fn somaxconn_counts_when_listen_is_called() -> Result<()> {
    Netns::new()?.run(|| {
        set("net/core/somaxconn", "7")?;
        let listener = Listener::open(Family::V4, 5000)?;
        let limit = || -> Result<u32> {
            let all = sockets(StateMask::ALL)?;
            let listens = |socket: &&DiagSocket| {
                TcpState::from_kernel(socket.state) == Some(TcpState::Listen)
            };
            Ok(all.iter().find(listens).context("no listener")?.wqueue)
        };
        ensure!(limit()? == 7, "{}", limit()?);
        set("net/core/somaxconn", "100")?;
        ensure!(limit()? == 7, "{}", limit()?);
        listener.socket.listen(16)?;
        ensure!(limit()? == 16, "{}", limit()?);
        bound_in_time(&SockRef::from(&listener.socket))
    })
}

/// Every sysctl that is told of is there, or is known to be missing, and an empty namespace has the
/// default.
#[test]
fn the_defaults_are_those_of_an_empty_namespace() -> Result<()> {
    let defaults = sysctl::defaults().map_err(|error| error.to_string());
    let netns = Netns::new()?;
    let id = NetnsId { inode: netns.inode(), device: NetnsId::own()?.device };
    let path = netns.path();
    let sysctls =
        sysctl::sysctls(&netns::Netns { id, path, name: None, is_ip_netns: false, pid: None })?;
    let space = NetnsFacts { sysctls, ..NetnsFacts::default() };
    for spec in sysctls::ALL {
        let value = spec.value(&space.sysctls);
        let (default, own) = spec.default(&defaults);
        ensure!(own, "{}: the default is not this kernel's word", spec.name);
        match (spec.short(), value.value()) {
            ("tcp_tw_recycle", None) => ensure!(default.is_none(), "{default:?}"),
            ("tcp_max_orphans", None) => ensure!(default.is_some(), "no default"),
            // Since 6.14.
            ("tcp_tw_reuse_delay", None) => {}
            (name, value) => ensure!(value.is_some() && value == default.as_ref(), "{name}"),
        }
    }
    Ok(())
}
