//! That nothing is missed, nothing is lost in silence, and nothing is in the way of another: the
//! account against a witness, with a ring that is too small, and with two tracers at once.

use std::{
    collections::VecDeque,
    env,
    net::Shutdown,
    panic::resume_unwind,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use nix::{
    sched::{CpuSet, sched_getcpu, sched_setaffinity},
    unistd::Pid,
};
use tcptrace::{
    model::{
        Input, Moved, TcpState, Transition,
        filter::{Filter, PortSet},
    },
    probe::{Backend, Options},
};

use crate::{
    checks::settle,
    counted::Counted,
    net::Netns,
    scenario::{
        close,
        conn::{Family, Listener},
        ending::deafen,
    },
    sys::set_option,
    trace::{Trace, Transitions, by},
    unsupported::Unsupported,
    wait::{DEADLINE, until},
    witness::{Row, rows},
};

/// Connections of a churn: a prime, so that no even split can hide a gap.
const CHURN: usize = 997;

/// The churn's server port: nothing else in this program uses it.
const PORT: u16 = 17_389;

/// Opens and closes [`CHURN`] connections, one after the other, half of them closed by either side.
fn churn() -> Result<()> {
    let listener = Listener::open(Family::V4, PORT)?;
    for i in 0..CHURN {
        let client = Family::V4.socket()?;
        client.connect(&listener.address.into())?;
        let (server, _) = listener.socket.accept()?;
        let (first, second) = if i % 2 == 0 { (client, server) } else { (server, client) };
        drop(first);
        drop(second);
    }
    Ok(())
}

fn of_churn(event: &&Transition) -> bool {
    event.tuple.lport == PORT || event.tuple.rport == PORT
}

fn completeness(backend: Backend) -> Result<()> {
    let netns = Netns::new()?;
    let mut trace = Trace::start(&by(backend))?;
    // Strictly inside the tracer's run.
    let mut counted = Counted::start(&format!("sport=={PORT}||dport=={PORT}"))?;
    trace.of(&netns, Family::V4, churn)?;
    let expected = counted.total()?;
    drop(counted);
    let account = trace.finish()?;
    let delivered = trace.transitions.iter().filter(of_churn).count() as u64;
    ensure!(account.balance() == 0 && account.malformed == 0, "{account:?}");
    ensure!(
        delivered + account.lost == expected,
        "{delivered} delivered and {} lost of {expected} that perf counted; {account:?}",
        account.lost
    );
    // Ten transitions each, and the listener's two.
    ensure!(expected >= 10 * CHURN as u64 + 2, "{expected} transitions of {CHURN} connections");
    ensure!(account.missed == Some(0) || account.missed.is_none(), "{account:?}");
    ensure!(trace.counts().anomalies == 0, "{:?}", trace.counts());
    Ok(())
}

#[test]
fn completeness_tp_btf() {
    settle("tp_btf", completeness(Backend::TpBtf));
}

#[test]
fn completeness_tracepoint() {
    settle("tracepoint", completeness(Backend::Tracepoint));
}

fn overfill(backend: Backend) -> Result<()> {
    let netns = Netns::new()?;
    let options = Options { ring_bytes: page()?, filter: only_churn()?, ..by(backend) };
    let mut trace = Trace::start(&options)?;
    netns.run(churn)?; // nobody reads
    let before = trace.live().accounts()?;
    ensure!(before.lost > 0, "a page held {CHURN} connections: {before:?}");
    // What is still on its way out would fill so small a ring again.
    let over = || Ok(rows()?.iter().all(Row::is_minisock).then_some(()));
    netns.run(|| until("the churn to be over", over))?;
    // It goes on working, and knows that it has lost.
    let mut told = 0;
    let mut take = |input: &Input| {
        if let Input::Lost(lost) = input {
            told += lost.count;
        }
    };
    trace.live().drain(usize::MAX, &mut take);
    trace.live().settle(0, &mut take)?;
    netns.run(|| close::active_on(Family::V4, PORT))?;
    let path = until("the listener to close", || {
        trace.drain()?;
        let mut seen = trace.of_netns(0, &netns);
        // A connection of the churn may still be on its way out.
        let listens = |m: &Moved| m.new == TcpState::Listen;
        seen.0.drain(..seen.0.iter().position(listens).unwrap_or(0));
        let closed = seen.0.iter().any(|m| m.old == TcpState::Listen && m.new == TcpState::Close);
        Ok(closed.then(|| Transitions(accepted(&seen)).path()))
    })?;
    ensure!(path == "LISTEN SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE", "{path}");
    let account = trace.finish()?;
    ensure!(account.balance() == 0 && account.malformed == 0, "{account:?}");
    ensure!(told == account.lost, "told of {told}: {account:?}");
    Ok(())
}

/// All of the server's side that the churn and nothing else brings about.
fn only_churn() -> Result<Filter> {
    let mut ports = PortSet::default();
    ports.add(&PORT.to_string())?;
    Ok(Filter { lports: Some(ports), ..Filter::default() })
}

/// Without the listener. Its ends do not tell it: up to 6.12 a child is born with the same.
fn accepted(seen: &Transitions) -> Vec<Moved> {
    let of_listener = |moved: &Moved| moved.old == TcpState::Listen && moved.new == TcpState::Close;
    let listener = seen.0.iter().find(|moved| of_listener(moved)).map(|moved| moved.skaddr);
    seen.0.iter().filter(|moved| Some(moved.skaddr) != listener).copied().collect()
}

fn page() -> Result<u32> {
    // SAFETY: no pointers.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    Ok(u32::try_from(bytes)?)
}

#[test]
fn overfill_tp_btf() {
    settle("tp_btf", overfill(Backend::TpBtf));
}

#[test]
fn overfill_tracepoint() {
    settle("tracepoint", overfill(Backend::Tracepoint));
}

#[test]
fn two_tracers_do_not_disturb_each_other() {
    let outcome = || -> Result<()> {
        let netns = Netns::new()?;
        let filter = only_churn()?;
        let options = |backend| Options { filter: filter.clone(), ..by(backend) };
        let mut one = Trace::start(&options(Backend::TpBtf))?;
        let mut small = Trace::start(&Options { ring_bytes: page()?, ..options(Backend::TpBtf) })?;
        let mut other = Trace::start(&options(Backend::Tracepoint))?;
        netns.run(churn)?;
        let losing = small.finish()?;
        let classic = other.finish()?;
        let account = one.finish()?;
        for account in [losing, classic, account] {
            ensure!(account.balance() == 0 && account.malformed == 0, "{account:?}");
        }
        ensure!(losing.lost > 0 && account.lost == 0 && classic.lost == 0);
        let count = |trace: &Trace| trace.transitions.iter().filter(of_churn).count();
        ensure!(count(&one) == count(&other), "{} and {}", count(&one), count(&other));
        // One of them ending takes nothing from the others.
        let mut third = Trace::start(&by(Backend::TpBtf))?;
        let mut fourth = Trace::start(&by(Backend::TpBtf))?;
        third.finish()?;
        let (done, seen) = fourth.of(&netns, Family::V4, || close::active(Family::V4))?;
        seen.of(done.ends.client, done.ends.server).one(TcpState::FinWait2, TcpState::Close)?;
        Ok(())
    };
    settle("two tracers", outcome());
}

/// Transitions that interrupt the program, of which so many are to be seen, if they come in time.
const INTERRUPTING: u64 = 20;

/// For the first of them.
const FIRST_WITHIN: Duration = Duration::from_secs(15);

/// Connects that wait for an answer at a time: below a usual limit of open files.
const WAITING: usize = 900;

/// A thread that calls listen() over and over is interrupted, on its CPU, by the timers of
/// connects that are not answered; wherever they find the program, another tells of them.
fn interrupt(done: &AtomicBool) -> Result<()> {
    let cpu = sched_getcpu()?;
    let mut here = CpuSet::new();
    here.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &here)?;
    let deaf = Listener::open(Family::V4, 0)?;
    deafen(&deaf.socket)?;
    let listener = Family::V4.socket()?;
    listener.bind(&Family::V4.address(0).into())?;
    let (mut waiting, mut opened) = (VecDeque::new(), Instant::now());
    while !done.load(Ordering::Relaxed) {
        listener.listen(1)?;
        listener.shutdown(Shutdown::Read)?; // tcp_disconnect()
        if opened.elapsed() < Duration::from_millis(1) {
            continue;
        }
        opened = Instant::now();
        let client = Family::V4.socket()?;
        client.set_nonblocking(true)?;
        // Over at the first retransmission, after a second.
        set_option(&client, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 1)?;
        let Err(error) = client.connect(&deaf.address.into()) else { bail!("connected") };
        ensure!(error.raw_os_error() == Some(libc::EINPROGRESS), "{error}");
        waiting.push_back((client, opened));
        while waiting.front().is_some_and(|(_, at)| at.elapsed() > Duration::from_secs(2))
            || waiting.len() > WAITING
        {
            waiting.pop_front();
        }
    }
    Ok(())
}

#[test]
fn what_interrupts_the_program_is_told_too() {
    let outcome = || -> Result<()> {
        if env::var("VM_TEST").is_ok_and(|clock| clock == "icount") {
            // In no run of one did an interrupt come inside the program, for ten seconds each.
            let why = "a guest whose clock counts instructions was never seen to be interrupted";
            return Err(Unsupported(why.to_owned()).into());
        }
        let netns = Netns::new()?;
        // Counted, and not handed out.
        let mut trace = Trace::start(&Options { filter: only_churn()?, ..by(Backend::TpBtf) })?;
        if trace.live().accounts()?.missed.is_none() {
            return Err(Unsupported("this kernel does not count what it skips".to_owned()).into());
        }
        let done = AtomicBool::new(false);
        let stood_in = thread::scope(|scope| {
            let work = scope.spawn(|| netns.run(|| interrupt(&done)));
            let start = Instant::now();
            let within = |stood_in| if stood_in == 0 { FIRST_WITHIN } else { DEADLINE };
            let mut stood_in = 0;
            while stood_in < INTERRUPTING
                && start.elapsed() < within(stood_in)
                && !work.is_finished()
            {
                thread::sleep(Duration::from_millis(10));
                stood_in = trace.live().probe().stood_in();
            }
            done.store(true, Ordering::Relaxed);
            work.join().unwrap_or_else(|panic| resume_unwind(panic)).map(|()| stood_in)
        })?;
        let account = trace.finish()?;
        ensure!(account.missed == Some(0) && account.balance() == 0, "{account:?}");
        if stood_in == 0 {
            // It takes an interrupt inside a program of a microsecond: some machines have none for minutes.
            let why = format!("no transition was interrupted within {FIRST_WITHIN:?}");
            return Err(Unsupported(why).into());
        }
        Ok(())
    };
    settle("interrupted", outcome());
}
