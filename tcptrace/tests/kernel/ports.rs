//! Running a namespace out of local ports: what `ports` says before, against what connect() says
//! then, and against /proc/net/tcp.

use std::{
    ops::Range,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tcptrace::{
    host::{
        netns::{self, NetnsId},
        sock_diag::lists_bound,
    },
    model::{Input, Snapshot, filter::Filter},
    pipeline::Analysis,
    probe::{Backend, Options, TimeWaitChoice},
    source::{live::Live, owners::Owners},
    track::Tracker,
    view::ports::{Format, PortsView, Shown, Which},
};

use crate::{
    checks::settle,
    net::{Netns, sysctl},
    scenario::conn::{Family, Listener, expect_end},
    sys::{now, set_option},
    trace::by,
    unsupported::supported,
    wait::until,
    witness::{State, count, rows},
};

/// Ports to connect from.
const PORTS: u64 = 100;
/// Where the listener is: outside of them.
const SERVICE: u16 = 50_000;
/// The length of an interval.
const EVERY: Duration = Duration::from_millis(500);
/// Longer than any of these tests.
const NEVER_NS: u64 = 3_600_000_000_000;

/// `tcptrace ports` of one namespace.
struct Watch {
    live: Live,
    analysis: Analysis<PortsView>,
    lines: Vec<Value>,
}

impl Watch {
    fn start(netns: &Netns) -> Result<Self> {
        let filter = Filter { netns: Some(netns.inode()), ..Filter::default() };
        let options = Options {
            filter: filter.clone(),
            time_wait: TimeWaitChoice::Auto,
            ..by(Backend::TpBtf)
        };
        let mut live = crate::known::live(&options).context("the tracer does not start")?;
        let device = NetnsId::own()?.device;
        let id = NetnsId { inode: netns.inode(), device };
        let only =
            netns::Netns { id, path: netns.path(), name: None, is_ip_netns: false, pid: None };
        live.take_snapshots(Some(only), filter.clone(), Some(Owners::default()), NEVER_NS);
        let shown =
            Shown { every: EVERY, count: None, top: 9, filter, header: false, which: Which::All };
        let view = PortsView::new(Format::Json, shown);
        let mut analysis = Analysis::new(Tracker::default(), view);
        analysis.feed(&live.begin()?);
        Ok(Self { live, analysis, lines: Vec::new() })
    }

    /// What the loop of the pipeline does.
    fn drain(&mut self) -> Result<()> {
        let Self { live, analysis, lines } = self;
        if let Some(job) = live.due_snapshots(analysis.tracker().in_doubt())? {
            analysis.feed(&Input::Snapshot(Snapshot::Open));
            let round = job.run();
            ensure!(round.remarks().is_empty(), "{:?}", round.remarks());
            live.snapshots_taken(round, &mut |input| analysis.feed(input));
        }
        live.drain(usize::MAX, &mut |input| analysis.feed(input));
        live.check(true, &mut |input| analysis.feed(input))?;
        live.look(&analysis.due_peeks()?)?;
        for line in std::str::from_utf8(&analysis.take_output())?.lines() {
            let line: Value = serde_json::from_str(line)?;
            ensure!(line["type"] == "ports", "{line}");
            lines.push(line);
        }
        Ok(())
    }

    /// Goes on until `work`, on a thread inside the namespace, is done, and for two intervals
    /// more: the second of them has nothing of `work` left to tell.
    fn during<T: Send>(
        &mut self,
        netns: &Netns,
        work: impl FnOnce() -> Result<T> + Send,
    ) -> Result<T> {
        let done = thread::scope(|scope| {
            let worker = scope.spawn(|| netns.run(work));
            while !worker.is_finished() {
                self.drain()?;
                thread::sleep(Duration::from_millis(2));
            }
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        let seen = self.lines.len();
        until("two intervals", || {
            self.drain()?;
            Ok((self.lines.len() >= seen + 2).then_some(()))
        })?;
        Ok(done)
    }

    /// The rows of the client's path, each with the end of its interval (ns).
    fn rows(&self) -> Result<Vec<(u64, &Value)>> {
        let mut rows = Vec::new();
        for line in &self.lines {
            let at_ns = line["mono_ns"].as_str().context("no time")?.parse()?;
            let of_client = |row: &&Value| row["rport"] == SERVICE;
            let found = line["rows"].as_array().context("no rows")?.iter();
            rows.extend(found.filter(of_client).map(|row| (at_ns, row)));
        }
        Ok(rows)
    }
}

fn number(row: &Value, key: &str) -> Result<u64> {
    row[key].as_u64().with_context(|| format!("no {key} in {row}"))
}

/// What the client saw.
#[derive(Debug, Default)]
struct Client {
    opened: u64,
    /// connect() that answered EADDRNOTAVAIL.
    failed: u64,
    /// When the first of them did (ns).
    first_ns: Option<u64>,
}

/// Connects so many times at a steady rate, and closes each connection first. Where the CPU is
/// late, it is not made up for: the rate is never more.
fn client(listener: &Listener, per_s: u32, attempts: u32) -> Result<Client> {
    let mut at = Instant::now();
    let mut seen = Client::default();
    for _ in 0..attempts {
        thread::sleep(at.saturating_duration_since(Instant::now()));
        at = (at + Duration::from_secs(1) / per_s).max(Instant::now());
        let client = listener.family.socket()?;
        match client.connect(&listener.address.into()) {
            Ok(()) => {
                let (server, _) = listener.socket.accept().context("accept")?;
                drop(client);
                expect_end(&server)?;
                seen.opened += 1;
            }
            Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => {
                seen.failed += 1;
                seen.first_ns.get_or_insert(now());
            }
            Err(error) => return Err(error).context("connect"),
        }
    }
    Ok(seen)
}

/// A namespace with few ports, and a listener outside of them.
fn few_ports(family: Family, tw_reuse: &str) -> Result<(Netns, Listener)> {
    let netns = Netns::new()?;
    let listener = netns.run(|| -> Result<Listener> {
        // Two more, which are reserved.
        sysctl("net/ipv4/ip_local_port_range", &format!("20000 {}", 20_000 + PORTS + 1))?;
        sysctl("net/ipv4/ip_local_reserved_ports", "20007,20020")?;
        sysctl("net/ipv4/tcp_tw_reuse", tw_reuse)?;
        Listener::open(family, SERVICE)
    })?;
    Ok((netns, listener))
}

/// A steady rate runs it dry, and what was said early, while few ports were taken, is right to a
/// tenth.
fn runs_dry(family: Family) -> Result<()> {
    const PER_S: u32 = 25;
    const ATTEMPTS: u32 = 130;
    const EARLY: Range<u64> = 25..60;
    let (netns, listener) = few_ports(family, "0")?;
    let mut watch = Watch::start(&netns)?;
    watch.drain()?;
    let client = watch.during(&netns, || client(&listener, PER_S, ATTEMPTS))?;
    ensure!((client.opened, client.failed) == (PORTS, 30), "{client:?}");
    let actual_ns = client.first_ns.context("it did not run dry")?;

    let rows = watch.rows()?;
    let mut early = 0;
    for (at_ns, row) in &rows {
        if !EARLY.contains(&number(row, "time_wait")?) {
            continue;
        }
        early += 1;
        let said_s = row["runs_out_s"].as_f64().with_context(|| format!("it said: {row}"))?;
        let actual_s = actual_ns.saturating_sub(*at_ns) as f64 / 1e9;
        ensure!((said_s - actual_s).abs() < 0.1 * actual_s, "{said_s} s, not {actual_s} s: {row}");
    }
    ensure!(early >= 2, "{early} lines in time: {rows:?}");

    let (_, last) = rows.last().context("no rows")?;
    let all = |key: &str| rows.iter().map(|(_, row)| number(row, key)).sum::<Result<u64>>();
    ensure!(all("failed")? == client.failed && number(last, "failed_total")? == client.failed);
    ensure!(all("opened")? == client.opened, "{rows:?}");
    ensure!(number(last, "usable")? == PORTS && number(last, "free")? == 0, "{last}");
    ensure!(last["outlook"] == "now", "{last}");
    let witnessed = netns.run(|| count(State::TimeWait))?;
    ensure!(number(last, "time_wait")? == PORTS && witnessed as u64 == PORTS, "{witnessed} {last}");
    Ok(())
}

#[test]
fn ports_run_out_when_it_is_said_and_failures_are_those_of_the_client() -> Result<()> {
    for family in [Family::V4, Family::V6] {
        runs_dry(family).with_context(|| format!("{family:?}"))?;
    }
    Ok(())
}

/// 50 a second are more than 100 ports can serve in 60 s, but with `tcp_tw_reuse` a port is held
/// for a second only. On IPv4 by 1, on IPv6 by 2, the default, which is for loopback.
#[test]
fn ports_never_run_out_where_time_waits_are_taken_over() -> Result<()> {
    const PER_S: u32 = 50;
    const ATTEMPTS: u32 = 200;
    for (family, tw_reuse) in [(Family::V4, "1"), (Family::V6, "2")] {
        let (netns, listener) = few_ports(family, tw_reuse)?;
        let mut watch = Watch::start(&netns)?;
        watch.drain()?;
        let client = watch.during(&netns, || client(&listener, PER_S, ATTEMPTS))?;
        ensure!((client.opened, client.failed) == (u64::from(ATTEMPTS), 0), "{client:?}");
        let rows = watch.rows()?;
        let all = |key: &str| rows.iter().map(|(_, row)| number(row, key)).sum::<Result<u64>>();
        ensure!(all("opened")? == client.opened && all("failed")? == 0, "{rows:?}");
        let witnessed = netns.run(|| count(State::TimeWait))? as u64;
        let (_, last) = rows.last().context("no rows")?;
        ensure!(number(last, "time_wait")? == witnessed, "{witnessed} by the witness: {last}");
        // Each is in TIME_WAIT, or gave its port to a later one, which came back by that.
        ensure!(all("returned")? + witnessed == client.opened, "{witnessed}: {rows:?}");
        for (_, row) in &rows {
            ensure!(row["outlook"] == "never", "{family:?}, tcp_tw_reuse {tw_reuse}: {row}");
        }
    }
    Ok(())
}

/// Connections that a listener in the range accepted take no port, but the listener does, from
/// all peers, and so does who binds a port before connect().
#[test]
fn what_was_bound_is_taken_for_all_and_what_was_accepted_for_none() -> Result<()> {
    let (netns, listener) = few_ports(Family::V4, "0")?;
    let held = netns.run(|| -> Result<_> {
        let inside = Listener::open(Family::V4, 20_050)?;
        // Before the tracer, and accepted by a port of the range.
        let before = [inside.connect(None)?, inside.connect(None)?];
        Ok((inside, before))
    })?;
    let mut watch = Watch::start(&netns)?;
    watch.drain()?;
    let (inside, before) = held;
    let is_free = |port: &u16| before.iter().all(|one| one.ends.client.port() != *port);
    let port = (20_060..).find(is_free).context("no free port")?;
    let kept = watch.during(&netns, || {
        Ok([listener.connect(Some(port))?, inside.connect(None)?, listener.connect(None)?])
    })?;
    let last = watch.lines.last().context("no lines")?;
    let rows = last["rows"].as_array().context("no rows")?;
    ensure!(last["namespaces"][0]["bound"] == 2, "{last}");
    for (rport, live) in [(20_050, 3), (SERVICE, 1)] {
        let row = rows.iter().find(|row| row["rport"] == rport).context("no row")?;
        let found = (number(row, "live")?, number(row, "usable")?, number(row, "free")?);
        ensure!(found == (live, PORTS - 2, PORTS - 2 - live), "{row}");
    }
    ensure!(rows.len() == 2, "nothing of what was accepted: {last}");
    drop(kept);
    Ok(())
}

/// With tcp_tw_reuse, but peers that send no timestamps: the kernel takes over no TIME_WAIT, and so
/// none of them counts as free. That the sysctl is on again by then changes nothing.
#[test]
fn ports_in_time_wait_to_a_peer_without_timestamps_are_not_free() -> Result<()> {
    const FAILS: u64 = 14;
    let (netns, listener) = few_ports(Family::V4, "1")?;
    netns.run(|| sysctl("net/ipv4/tcp_timestamps", "0"))?;
    let mut watch = Watch::start(&netns)?;
    watch.drain()?;
    let seen = watch.during(&netns, || {
        let opened = client(&listener, 100, PORTS as u32)?;
        sysctl("net/ipv4/tcp_timestamps", "1")?;
        // Older than tcp_tw_reuse_delay.
        thread::sleep(Duration::from_millis(1500));
        let failed = client(&listener, 100, FAILS as u32)?;
        Ok((opened.opened, failed.failed))
    })?;
    ensure!(seen == (PORTS, FAILS), "{seen:?}");
    let rows = watch.rows()?;
    let (_, last) = rows.last().context("no rows")?;
    let numbers = ["time_wait", "reusable", "free", "uncertain", "failed_total"];
    let told: Vec<u64> = numbers.iter().map(|key| number(last, key)).collect::<Result<_>>()?;
    ensure!(told == [PORTS, 0, 0, 0, FAILS], "{last}");
    ensure!(last["outlook"] == "now", "{last}");
    let witnessed = netns.run(|| count(State::TimeWait))? as u64;
    ensure!(witnessed == PORTS, "{witnessed} by the witness: {last}");
    for (_, row) in &rows {
        ensure!(row["outlook"] != "never" || number(row, "failed_total")? == 0, "{row}");
    }
    Ok(())
}

/// What the test reports of a bound range: bound ports, of these by sockets that are bound and nothing
/// else, and the first of who took them.
fn bound(line: &Value) -> Result<(u64, u64, &Value)> {
    let space = &line["namespaces"][0];
    Ok((number(space, "bound")?, number(space, "bound_inactive")?, &space["bound_by"]["most"][0]))
}

/// `bind(addr, 0)` without a connection takes all ports there are: the witnesses are bind() itself,
/// which says EADDRINUSE, connect(), which says EADDRNOTAVAIL, and `ss`, which lists them.
#[test]
fn ports_that_are_only_bound_are_seen_and_whose_they_are() -> Result<()> {
    if !lists_bound() {
        eprintln!("skipped: this kernel does not list sockets that are only bound (6.8)");
        return Ok(());
    }
    let (netns, listener) = few_ports(Family::V4, "0")?;
    let any = || "127.0.0.1:0".parse::<std::net::SocketAddr>().map(Into::into);
    let held = netns.run(|| -> Result<_> {
        let mut held = Vec::new();
        for _ in 0..PORTS {
            let socket = Family::V4.socket()?;
            socket.bind(&any()?)?;
            held.push(socket);
        }
        let one_more = Family::V4.socket()?.bind(&any()?);
        let error = one_more.err().context("a port was left")?;
        ensure!(error.raw_os_error() == Some(libc::EADDRINUSE), "{error}");
        Ok(held)
    })?;
    let ss = || Command::new("ss").args(["-Htan", "state", "bound-inactive"]).output();
    // Guests have no ss, and an older one does not know that state; bind() is a witness everywhere.
    if let Ok(said) = netns.run(|| Result::<_>::Ok(ss()))?
        && said.status.success()
    {
        let lines = String::from_utf8_lossy(&said.stdout).lines().count() as u64;
        ensure!(lines == PORTS, "{lines} by ss");
    }

    let mut watch = Watch::start(&netns)?;
    watch.drain()?;
    let failed = watch.during(&netns, || client(&listener, 100, 3))?.failed;
    ensure!(failed == 3, "connect() found a port");
    let last = watch.lines.last().context("no lines")?;
    let (all, inactive, by) = bound(last)?;
    ensure!((all, inactive) == (PORTS, PORTS), "{last}");
    ensure!(by["ports"] == PORTS && by["pid"] == std::process::id(), "{last}");
    let (_, row) = *watch.rows()?.last().context("no rows")?;
    ensure!((number(row, "usable")?, number(row, "free")?) == (0, 0), "{row}");
    ensure!(row["outlook"] == "now", "{row}");
    drop(held);
    Ok(())
}

/// connect() passes over a port that is bound, whatever the address that it is bound to; bind() to port
/// 0 of another address does not.
#[test]
fn a_port_bound_to_one_address_is_taken_from_connect_to_all_and_from_bind_on_it() -> Result<()> {
    let (netns, listener) = few_ports(Family::V4, "0")?;
    netns.run(|| -> Result<()> {
        let bind = |address: &str| -> Result<_> {
            let socket = Family::V4.socket()?;
            let bound = socket.bind(&address.parse::<std::net::SocketAddr>()?.into());
            Ok(bound.map(|()| socket))
        };
        let held: Vec<_> = (0..PORTS).map(|_| Ok(bind("127.0.0.1:0")??)).collect::<Result<_>>()?;
        let taken = bind("127.0.0.1:0")?.err().context("a port was left")?;
        ensure!(taken.raw_os_error() == Some(libc::EADDRINUSE), "{taken}");
        let other = bind("127.0.0.2:0")?.context("another address has ports of its own")?;
        let seen = client(&listener, 100, 1)?;
        ensure!(seen.failed == 1, "{seen:?}");
        drop((held, other));
        Ok(())
    })
}

/// `IP_LOCAL_PORT_RANGE` of linux/in.h (6.3); libc lacks it for some targets.
const IP_LOCAL_PORT_RANGE: i32 = 51;

/// Ports of the socket's own range, which is a part of the namespace's
/// (`inet_sk_get_local_port_range()`). An even number: some kernels leave the last of an odd one out
/// (6.1; `__inet_hash_connect()`).
const OWN: Range<u16> = 20_050..20_054;

#[test]
fn a_range_of_a_sockets_own_that_is_used_up_is_counted_apart() {
    const FAILED: u64 = 2;
    let outcome = || -> Result<()> {
        let (netns, listener) = few_ports(Family::V4, "0")?;
        let mut watch = Watch::start(&netns)?;
        watch.drain()?;
        let work = || -> Result<_> {
            let mut open = Vec::new();
            let mut failed = 0;
            for _ in 0..OWN.len() as u64 + FAILED {
                let client = listener.family.socket()?;
                let range = i32::from(OWN.start) | i32::from(OWN.end - 1) << 16;
                let set = set_option(&client, libc::IPPROTO_IP, IP_LOCAL_PORT_RANGE, range);
                supported("IP_LOCAL_PORT_RANGE", &[libc::ENOPROTOOPT], set)?;
                match client.connect(&listener.address.into()) {
                    Ok(()) => open.push((client, listener.socket.accept().context("accept")?)),
                    Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => failed += 1,
                    Err(error) => return Err(error).context("connect"),
                }
            }
            // The namespace's own range has ports all the same.
            let other = listener.family.socket()?;
            other.connect(&listener.address.into()).context("connect by the namespace's range")?;
            open.push((other, listener.socket.accept().context("accept")?));
            Ok((open, failed))
        };
        let (open, failed) = watch.during(&netns, work)?;
        ensure!(failed == FAILED, "{failed}");
        let mut ports: Vec<_> = netns
            .run(rows)?
            .iter()
            .filter(|row| row.state == State::Established && row.tuple.remote.port() == SERVICE)
            .map(|row| row.tuple.local.port())
            .filter(|port| OWN.contains(port))
            .collect();
        ports.sort_unstable();
        ensure!(ports == OWN.collect::<Vec<_>>(), "{ports:?}");
        let rows = watch.rows()?;
        let (_, last) = rows.last().context("no rows")?;
        ensure!(number(last, "own_range_failed_total")? == FAILED, "{last}");
        ensure!(number(last, "failed_total")? == 0, "none of the namespace's range: {last}");
        let live = OWN.len() as u64 + 1;
        ensure!(number(last, "live")? == live && number(last, "free")? == PORTS - live, "{last}");
        drop(open);
        Ok(())
    };
    settle("", outcome());
}
