//! The load: connections over loopback, opened and closed as fast as the kernel lets.
//!
//! A process of its own (`cargo xtask bench churn`), so that its CPU time is not the tracer's. Each
//! thread is its own client and server: `connect()` over loopback runs the whole handshake in the
//! caller's softirq, so `accept()` finds the child ready, and nobody sleeps or is woken.
//!
//! The client closes first, so each connection makes ten transitions and leaves a TIME_WAIT. They
//! (With `--aborted` the client resets each, which makes six, and leaves none.) They
//! are kept below `tcp_max_tw_buckets` (or the kernel would take a shorter path, and
//! `TCPTimeWaitOverflow` would count it), and die with the network namespace of the process.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Barrier,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::libc;
use nix::sys::{
    resource::{UsageWho, getrusage},
    socket::{setsockopt, sockopt},
    time::TimeValLike as _,
};
use serde::{Deserialize, Serialize};

use super::{netns, proc};

/// CLOSE→SYN_SENT→ESTABLISHED→FIN_WAIT1→FIN_WAIT2→CLOSE and
/// LISTEN→SYN_RECV→ESTABLISHED→CLOSE_WAIT→LAST_ACK→CLOSE.
const PER_CONNECTION: u64 = 10;
/// CLOSE→SYN_SENT→ESTABLISHED→CLOSE and LISTEN→SYN_RECV→ESTABLISHED→CLOSE.
const PER_ABORTED: u64 = 6;
/// CLOSE→LISTEN→CLOSE
const PER_LISTENER: u64 = 2;
/// Each has its own 28,000 client ports, of which `connect()` takes one half first; the more there
/// are, the shorter its search.
const ADDRESSES: u64 = 250;
/// Requests on a connection unless told otherwise. What tracing takes from a load depends on what
/// a connection costs without it. One that carries nothing costs 13 µs on a two-core 6.18 machine,
/// less than any server's; with ten requests it is about 50 µs, for which the targets were set.
pub const REQUESTS: u32 = 10;
/// Bytes of a request and of a reply.
const REQUEST: usize = 256;
const REPLY: usize = 4096;
/// Connections that a thread takes at a time from what is left to do.
const SHARE: u64 = 50;

/// Open and close connections over loopback, and say how fast that went.
#[derive(clap::Args)]
pub struct Args {
    /// Threads, each with its own listener
    #[arg(long, default_value_t = 2)]
    pub threads: u32,
    /// Connections in all
    #[arg(long, default_value_t = 100_000)]
    pub connections: u64,
    /// Stop after so many seconds, even if some connections are left
    #[arg(long)]
    pub seconds: Option<f64>,
    /// Requests of 256 bytes, each with a reply of 4 KiB, on each connection
    #[arg(long, default_value_t = REQUESTS)]
    pub requests: u32,
    /// End each connection by a RST of the client's (SO_LINGER 0)
    #[arg(long)]
    pub aborted: bool,
    /// Rest for 50 to 70 ms after each connection
    #[arg(long)]
    pub spaced: bool,
}

/// What a run did. One JSON object on stdout.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Connections opened and closed.
    pub connections: u64,
    /// The transitions that they and the listeners made.
    pub transitions: u64,
    /// From the first connect to the last close.
    pub seconds: f64,
    /// CPU time of this process. The kernel's work for both ends and the tracer's programs run in
    /// its system calls, so it is in here too, but for a kernel that accounts softirqs apart
    /// (`CONFIG_IRQ_TIME_ACCOUNTING`).
    pub cpu_seconds: f64,
    /// How often the kernel had no room for a TIME_WAIT.
    pub time_wait_overflow: u64,
}

impl Report {
    /// Connections a second.
    pub fn rate(&self) -> f64 {
        self.connections as f64 / self.seconds
    }
}

/// Runs the load in a fresh network namespace and prints its [`Report`].
pub fn main(args: &Args) -> Result<()> {
    ensure!(args.threads > 0, "--threads: at least 1");
    netns::enter_fresh()?;
    let room = proc::read_number("/proc/sys/net/ipv4/tcp_max_tw_buckets")?;
    ensure!(
        args.connections <= room,
        "--connections {} would overflow the {room} TIME_WAITs that this kernel keeps for a \
         namespace (net.ipv4.tcp_max_tw_buckets), and so measure another path: at most {room}",
        args.connections,
    );
    let listeners = (0..args.threads)
        .map(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot listen"))
        .collect::<Result<Vec<_>>>()?;

    let overflow_before = proc::tcp_ext("TCPTimeWaitOverflow")?;
    let cpu_before = cpu_seconds()?;
    let (connections, seconds) = churn(args, &listeners)?;
    let report = Report {
        connections,
        transitions: connections * if args.aborted { PER_ABORTED } else { PER_CONNECTION }
            + u64::from(args.threads) * PER_LISTENER,
        seconds,
        cpu_seconds: cpu_seconds()? - cpu_before,
        time_wait_overflow: proc::tcp_ext("TCPTimeWaitOverflow")? - overflow_before,
    };
    writeln!(io::stdout(), "{}", serde_json::to_string(&report)?)?;
    Ok(())
}

/// Runs all threads to the end; the connections made and the seconds that they took.
fn churn(args: &Args, listeners: &[TcpListener]) -> Result<(u64, f64)> {
    let work = Work {
        claimed: AtomicU64::new(0),
        connections: args.connections,
        limit: args.seconds.map(Duration::try_from_secs_f64).transpose().context("--seconds")?,
        requests: args.requests,
        aborted: args.aborted,
        spaced: args.spaced,
        start: Barrier::new(listeners.len()),
    };
    let spans = thread::scope(|scope| {
        let threads: Vec<_> = (1_u8..)
            .zip(listeners)
            .map(|(number, listener)| {
                let work = &work;
                scope.spawn(move || work.thread(number, listener))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| match thread.join() {
                Ok(span) => span,
                Err(_) => bail!("a thread of the churn panicked"),
            })
            .collect::<Result<Vec<_>>>()
    })?;
    let made = spans.iter().map(|span| span.connections).sum();
    let first = spans.iter().map(|span| span.begun).min();
    let last = spans.iter().map(|span| span.ended).max();
    let (Some(first), Some(last)) = (first, last) else { bail!("no thread ran") };
    Ok((made, last.duration_since(first).as_secs_f64()))
}

/// What the threads share.
struct Work {
    claimed: AtomicU64,
    connections: u64,
    limit: Option<Duration>,
    requests: u32,
    aborted: bool,
    spaced: bool,
    start: Barrier,
}

/// What one thread did.
struct Span {
    connections: u64,
    begun: Instant,
    ended: Instant,
}

impl Work {
    fn thread(&self, number: u8, listener: &TcpListener) -> Result<Span> {
        let port = listener.local_addr()?.port();
        let share = if self.spaced { 1 } else { SHARE };
        self.start.wait();
        let begun = Instant::now();
        let mut connections = 0;
        while self.limit.is_none_or(|limit| begun.elapsed() < limit) {
            let first = self.claimed.fetch_add(share, Relaxed);
            if first >= self.connections {
                break;
            }
            for nth in first..self.connections.min(first + share) {
                // 127.(100 + thread).0.(1..=250)
                let last = (nth % ADDRESSES) as u8 + 1;
                let ip = Ipv4Addr::new(127, 100_u8.saturating_add(number), 0, last);
                self.one(listener, SocketAddr::from((ip, port)))?;
                connections += 1;
                if self.spaced {
                    // 7 is prime to 21, so all of 50..=70 come in turn: in step with no tick
                    thread::sleep(Duration::from_millis(50 + nth * 7 % 21));
                }
            }
        }
        Ok(Span { connections, begun, ended: Instant::now() })
    }

    /// One connection, closed by the client first.
    ///
    /// All in one thread: what one end writes is at the other when `write()` returns, and fits its
    /// buffer, so no call waits.
    fn one(&self, listener: &TcpListener, to: SocketAddr) -> Result<()> {
        let mut client =
            TcpStream::connect(to).with_context(|| format!("cannot connect to {to}"))?;
        let (mut server, _) = listener.accept().context("cannot accept")?;
        let (mut request, mut reply) = ([b'?'; REQUEST], [b'!'; REPLY]);
        for _ in 0..self.requests {
            client.write_all(&request)?;
            server.read_exact(&mut request)?;
            server.write_all(&reply)?;
            client.read_exact(&mut reply)?;
        }
        if self.aborted {
            let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
            setsockopt(&client, sockopt::Linger, &at_once).context("SO_LINGER")?;
        }
        drop(client);
        drop(server);
        Ok(())
    }
}

fn cpu_seconds() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    Ok((usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6)
}
