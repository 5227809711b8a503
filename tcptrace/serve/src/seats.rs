//! Who may be connected at a time: a bounded number, of whom those who wait for nothing of ours make
//! room.
//!
//! A connection *waits* while its client owes the rest of a request, and is *answered* from then on
//! until its answer is in the hands of the kernel. Where all seats are taken, whoever has waited
//! longest is closed for the next who comes, so a client that sends half a request, or none, keeps
//! nobody out. Fewer are answered at a time than there are seats: the others are for probes, which
//! are so answered even while as many as may be do not read their answers. Must not know what is
//! asked or answered.

use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
};

/// All of them.
pub(super) struct Seats {
    /// That may be taken.
    all: usize,
    /// That may be answered at a time, probes not among them.
    answered: usize,
    table: Mutex<Table>,
    /// Somebody has left, or waits and so can be made to.
    changed: Notify,
}

#[derive(Default)]
struct Table {
    taken: usize,
    answered: usize,
    /// Who waits, the longest first, and how each is told to leave.
    waiting: BTreeMap<u64, Arc<Notify>>,
    next: u64,
}

impl Table {
    fn wait(&mut self, leave: &Arc<Notify>) -> Phase {
        let number = self.next;
        self.next += 1;
        self.waiting.insert(number, Arc::clone(leave));
        Phase::Waiting(number)
    }
}

/// One of them. It is free again when this is dropped.
pub(super) struct Seat {
    seats: Arc<Seats>,
    leave: Arc<Notify>,
    phase: Mutex<Phase>,
}

#[derive(Clone, Copy)]
enum Phase {
    /// Since when, as the table numbers it.
    Waiting(u64),
    /// Some of the answer is written; and whether it counts as one of those that may be answered.
    Answered { written: bool, counts: bool },
}

/// Nothing is left half done under a lock by whoever panics.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seats {
    /// For `answered` connections to be answered at a time, and `probes` more.
    pub(super) fn new(answered: usize, probes: usize) -> Arc<Self> {
        let all = answered + probes;
        Arc::new(Self { all, answered, table: Mutex::default(), changed: Notify::new() })
    }

    /// Takes one; where there is none, whoever has waited longest leaves. Waits where nobody waits.
    pub(super) async fn take(self: &Arc<Self>) -> Arc<Seat> {
        // Each who comes sends one away at most, so whoever is sent away makes room for somebody.
        let mut told = false;
        loop {
            {
                let mut table = lock(&self.table);
                if table.taken < self.all {
                    table.taken += 1;
                    let leave = Arc::new(Notify::new());
                    let phase = Mutex::new(table.wait(&leave));
                    return Arc::new(Seat { seats: Arc::clone(self), leave, phase });
                }
                if !told && let Some((_, leave)) = table.waiting.pop_first() {
                    leave.notify_one();
                    told = true;
                }
            }
            // What happened since the lock was let go has left a permit.
            self.changed.notified().await;
        }
    }

    /// Returns when none is taken.
    pub(super) async fn empty(&self) {
        while lock(&self.table).taken > 0 {
            self.changed.notified().await;
        }
    }
}

impl Seat {
    /// Returns when it is to be left for somebody else.
    pub(super) async fn leave(&self) {
        self.leave.notified().await;
    }

    /// A request is here. Whether there is room to answer it: always where it is a `probe`.
    pub(super) fn begin(&self, probe: bool) -> bool {
        let mut table = lock(&self.seats.table);
        let mut phase = lock(&self.phase);
        if let Phase::Waiting(number) = *phase {
            table.waiting.remove(&number);
        }
        // One that follows before the last answer was written out is of the same seat.
        let counted = matches!(*phase, Phase::Answered { counts: true, .. });
        let room = probe || counted || table.answered < self.seats.answered;
        let counts = counted || (room && !probe);
        table.answered += usize::from(counts && !counted);
        *phase = Phase::Answered { written: false, counts };
        room
    }

    /// An answer is on its way.
    pub(super) fn is_answered(&self) -> bool {
        matches!(*lock(&self.phase), Phase::Answered { .. })
    }

    fn wrote(&self) {
        if let Phase::Answered { written, .. } = &mut *lock(&self.phase) {
            *written = true;
        }
    }

    /// All that was written is with the kernel.
    fn flushed(&self) {
        let mut table = lock(&self.seats.table);
        let mut phase = lock(&self.phase);
        if let Phase::Answered { written: true, counts } = *phase {
            table.answered -= usize::from(counts);
            *phase = table.wait(&self.leave);
            self.seats.changed.notify_one();
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = lock(&self.seats.table);
        match *lock(&self.phase) {
            Phase::Waiting(number) => drop(table.waiting.remove(&number)),
            Phase::Answered { counts, .. } => table.answered -= usize::from(counts),
        }
        table.taken -= 1;
        self.seats.changed.notify_one();
    }
}

/// A connection that tells its seat when an answer is written. hyper flushes what is below it only
/// when it has nothing more to write.
pub(super) struct Seated<S> {
    pub(super) stream: S,
    pub(super) seat: Arc<Seat>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Seated<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, to)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Seated<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.seat.wrote();
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.seat.wrote();
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.seat.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, task::Waker};

    use super::*;

    fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    #[test]
    fn who_has_waited_longest_leaves_for_who_comes() {
        let seats = Seats::new(2, 0);
        let first = at_once(seats.take()).unwrap();
        let second = at_once(seats.take()).unwrap();
        // The first has asked and been answered, so the second waits longer.
        assert!(first.begin(false));
        first.wrote();
        first.flushed();
        assert!(at_once(seats.take()).is_none());
        assert!(at_once(second.leave()).is_some() && at_once(first.leave()).is_none());
        drop(second);
        assert!(at_once(seats.take()).is_some() && at_once(first.leave()).is_none());
    }

    #[test]
    fn probes_are_answered_while_nobody_else_can_be() {
        let seats = Seats::new(2, 1);
        let busy: Vec<_> = (0..2).map(|_| at_once(seats.take()).unwrap()).collect();
        assert!(busy.iter().all(|seat| seat.begin(false)));
        let one = at_once(seats.take()).unwrap();
        assert!(!one.begin(false) && one.begin(true));
        assert!(at_once(seats.take()).is_none(), "nobody who is answered leaves");
        assert!(busy.iter().all(|seat| at_once(seat.leave()).is_none()));
        one.wrote();
        one.flushed();
        assert!(at_once(seats.take()).is_none() && at_once(one.leave()).is_some());
        drop(one);
        assert!(at_once(seats.take()).is_some());
        drop(busy);
        let table = lock(&seats.table);
        assert_eq!((table.taken, table.answered, table.waiting.len()), (0, 0, 0));
    }

    #[test]
    fn an_answer_is_on_its_way_until_it_is_flushed() {
        let seats = Seats::new(1, 0);
        let seat = at_once(seats.take()).unwrap();
        assert!(!seat.is_answered());
        assert!(seat.begin(false));
        seat.flushed();
        assert!(seat.is_answered(), "nothing of it was written");
        seat.wrote();
        assert!(seat.begin(false), "the next is here already, and counts once");
        seat.wrote();
        seat.flushed();
        assert!(!seat.is_answered() && lock(&seats.table).answered == 0);
    }
}
