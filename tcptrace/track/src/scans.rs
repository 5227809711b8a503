//! What the last snapshot had of sockets that are not plainly ESTABLISHED: queues, timers, progress.
//!
//! Apart from the connections: of a million of those, few are in a state where it is asked what
//! they wait for. Must hold nothing that the last snapshot of a namespace had not.

use super::rows::Row;
use tcptrace_model::{Queues, SnapInfo, TcpState, Tuple, Wait, WaitFor, hash::Map};

/// A SYN carries at most one segment: where more seems to be written in SYN_SENT, no SYN was sent, and
/// what sock_diag subtracts is not set yet (`tcp_connect_init()`).
const LONGEST_SYN: u32 = 65_536;

/// Timer and progress of a socket, as of the last snapshot that had them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan {
    /// When that snapshot was over: `CLOCK_MONOTONIC`, nanoseconds.
    pub mono_ns: u64,
    /// What it had.
    pub info: SnapInfo,
    /// What it waits for, and since when at the latest (`CLOCK_MONOTONIC`, nanoseconds): by this
    /// snapshot, or by one before if it has not come any further since.
    pub waits: Option<(WaitFor, u64)>,
}

impl Scan {
    fn new(mono_ns: u64, info: &SnapInfo, before: Option<&Self>) -> Self {
        let since = |wait: Wait| {
            let since_ns = mono_ns.saturating_sub(wait.at_least_ms.saturating_mul(1_000_000));
            let earlier = before.and_then(|before| before.still_waits(info, wait.what));
            (wait.what, earlier.map_or(since_ns, |earlier| earlier.min(since_ns)))
        };
        Self { mono_ns, info: *info, waits: info.wait().map(since) }
    }

    /// Since when it has waited for the same, if `now` shows that it has all the time since.
    fn still_waits(&self, now: &SnapInfo, what: WaitFor) -> Option<u64> {
        let (waited_for, since_ns) = self.waits?;
        let then = &self.info;
        // An acknowledgement of new data begins these anew (tcp_ack()), and so does an open window
        // (tcp_ack_probe()).
        let goes_on = then.state == now.state
            && then.timer == now.timer
            && then.tcp.bytes_acked == now.tcp.bytes_acked
            && match what {
                WaitFor::Ack => then.tcp.retransmits <= now.tcp.retransmits,
                WaitFor::Window => then.tcp.backoff <= now.tcp.backoff,
                WaitFor::ProbeAnswer => then.tcp.probes <= now.tcp.probes,
            };
        (waited_for == what && goes_on).then_some(since_ns)
    }
}

/// What the last snapshot had of a full socket.
pub(super) struct Last {
    netns: u32,
    /// The state that it was in.
    state: TcpState,
    queues: Queues,
    /// A process had it open; `None` where that does not show.
    held: Option<bool>,
    scan: Option<Box<Scan>>,
    tuple: Tuple,
}

impl Last {
    /// Whether a process had it open.
    pub(super) fn held(&self) -> Option<bool> {
        self.held
    }

    /// Its queues, if it was in `state` already.
    pub(super) fn queues(&self, state: TcpState) -> Option<Queues> {
        (self.state == state).then_some(self.queues)
    }

    /// How many segments it had sent again, whatever its state was: that number only grows.
    pub(super) fn retransmits(&self) -> Option<u32> {
        self.scan.as_ref().map(|scan| scan.info.tcp.total_retrans)
    }

    /// Its timer and progress, if it was in `state` already.
    pub(super) fn scan(&self, state: TcpState) -> Option<&Scan> {
        self.scan.as_deref().filter(|_| self.state == state)
    }
}

/// By cookie.
#[derive(Default)]
pub(super) struct LastScans(Map<u64, Last>);

impl LastScans {
    /// Replaces what was known of the namespaces for which `told` says so, by a round of snapshots
    /// that was over at `mono_ns`. Of at most `limit` sockets: of others it is not known.
    pub(super) fn replace<'a>(
        &mut self,
        mono_ns: u64,
        told: impl Fn(u32) -> bool,
        rows: impl Iterator<Item = &'a Row>,
        infos: &Map<u64, SnapInfo>,
        limit: usize,
    ) {
        let mut before: Map<u64, Box<Scan>> = Map::default();
        self.0.retain(|cookie, last| {
            let told = told(last.netns);
            if told && let Some(scan) = last.scan.take() {
                before.insert(*cookie, scan);
            }
            !told
        });
        let room = limit.saturating_sub(self.0.len());
        let lasts = rows.filter_map(|Row { netns, socket: row }| {
            let full = row.full.as_ref()?;
            let info = infos.get(&row.cookie).filter(|info| info.state == row.state);
            if row.state == TcpState::Established && info.is_none() {
                return None;
            }
            let before = before.get(&row.cookie).map(Box::as_ref);
            let scan = info.map(|info| Box::new(Scan::new(mono_ns, info, before)));
            let mut queues = full.queues;
            let deferred = match info {
                Some(info) => info.syn_is_deferred(),
                None => row.state == TcpState::SynSent && queues.unsent > LONGEST_SYN,
            };
            if deferred {
                queues.unsent = 0;
            }
            // A subflow of MPTCP belongs to another socket, which has the file.
            let subflow = info.is_some_and(|info| info.mptcp);
            let file = full.inode != 0 || full.holder.is_some();
            let held = (file || !subflow).then_some(file);
            let (netns, state, tuple) = (*netns, row.state, row.tuple);
            Some((row.cookie, Last { netns, state, queues, held, scan, tuple }))
        });
        self.0.extend(lasts.take(room));
        // A peak of stuck sockets is not to cost its memory for ever.
        if self.0.capacity() > 4 * self.0.len() {
            self.0.shrink_to_fit();
        }
    }

    /// What the last snapshot had of the connection of the full socket with this cookie: of another
    /// one, from before it connected again, nothing.
    pub(super) fn get(&self, cookie: u64, tuple: &Tuple) -> Option<&Last> {
        let last = self.0.get(&cookie)?;
        // A connect() whose local port has not been told has it all the same.
        let same = last.tuple == *tuple || *tuple == Tuple { lport: 0, ..last.tuple };
        same.then_some(last)
    }
}
