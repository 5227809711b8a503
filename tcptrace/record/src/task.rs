//! What a recording has of a task beside its numbers and one name.
//!
//! The first version of the format had no more than these, where the task stands. So the rest comes
//! before what names the task, with a tag and its length: a reader that does not know it passes over
//! it, and one that does finds nothing in an old recording. The first of several processes that hold
//! a socket is written likewise.

use super::wire::{Cursor, Malformed, put_bytes, put_u64};
use tcptrace_model::{Comm, Holder, Task};

/// The tag; of those that [`super::rare`] passes over.
pub(super) const MORE: u8 = 0x50;

const KERNEL: u8 = 1 << 0;
const LED: u8 = 1 << 1;
const THREAD: u8 = 1 << 2;

/// The tag of what is written of the first of several holders, in front of the socket.
pub(super) const FIRST_HOLDER: u8 = 0x53;

/// Appends the first of several holders, if it is not the one that stands with the socket.
pub(super) fn put_first_holder(out: &mut Vec<u8>, holder: &Holder) {
    if holder.first == holder.task {
        return;
    }
    let mut body = Vec::with_capacity(64);
    put_whole(&mut body, &holder.first);
    out.push(FIRST_HOLDER);
    put_bytes(out, &body);
}

/// Appends all that is known of `task`, where it stands by itself.
pub(super) fn put_whole(out: &mut Vec<u8>, task: &Task) {
    let Task { tgid, tid, uid, comm, .. } = task;
    [tgid, tid, uid].into_iter().for_each(|n| put_u64(out, u64::from(*n)));
    out.extend_from_slice(comm.raw());
    put_rest(out, task);
}

/// Reads a task that stands by itself.
pub(super) fn get_whole(from: &mut Cursor<'_>) -> Result<Task, Malformed> {
    let (tgid, tid, uid) = (from.u32()?, from.u32()?, from.u32()?);
    let task = Task::thread(tgid, tid, uid, Comm::new(from.array()?));
    Ok(More::read(from)?.of(task))
}

/// Reads what follows the tag of the first of several holders.
pub(super) fn get_first_holder(from: &mut Cursor<'_>) -> Result<Task, Malformed> {
    get_whole(&mut Cursor::new(from.bytes()?))
}

/// The rest of a task.
#[derive(Clone, Copy, Debug)]
pub(super) struct More {
    started: u32,
    execs: u16,
    flags: u8,
    thread: Option<Comm>,
}

/// A task of which no more was written.
fn alone(task: &Task) -> Task {
    Task::thread(task.tgid, task.tid, task.uid, task.comm)
}

/// Appends the rest of `task`, if there is one.
pub(super) fn put_more(out: &mut Vec<u8>, task: &Task) {
    if *task == alone(task) {
        return;
    }
    let mut body = Vec::with_capacity(32);
    put_rest(&mut body, task);
    out.push(MORE);
    put_bytes(out, &body);
}

fn put_rest(out: &mut Vec<u8>, task: &Task) {
    let Task { started, execs, is_kernel, is_led, comm, thread, .. } = task;
    let bit = |on: bool, bit: u8| if on { bit } else { 0 };
    put_u64(out, u64::from(*started));
    put_u64(out, u64::from(*execs));
    out.push(bit(*is_kernel, KERNEL) | bit(*is_led, LED) | bit(thread != comm, THREAD));
    if thread != comm {
        out.extend_from_slice(thread.raw());
    }
}

impl More {
    /// Reads what follows the tag.
    pub(super) fn get(from: &mut Cursor<'_>) -> Result<Self, Malformed> {
        Self::read(&mut Cursor::new(from.bytes()?))
    }

    fn read(body: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let (started, execs, flags) = (body.u32()?, body.u16()?, body.u8()?);
        let thread = if flags & THREAD == 0 { None } else { Some(Comm::new(body.array()?)) };
        Ok(Self { started, execs, flags, thread })
    }

    /// `task` with it.
    pub(super) fn of(self, task: Task) -> Task {
        Task {
            started: self.started,
            execs: self.execs,
            is_kernel: self.flags & KERNEL != 0,
            is_led: self.flags & LED != 0,
            thread: self.thread.unwrap_or(task.comm),
            ..task
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_comes_back_and_an_old_task_takes_nothing() {
        let old = Task::thread(7, 8, 9, Comm::from("srv"));
        let whole = Task {
            started: u32::MAX,
            execs: u16::MAX,
            is_kernel: true,
            is_led: true,
            thread: Comm::from("pool-0"),
            ..old
        };
        for task in [whole, Task { thread: old.comm, ..whole }, Task { is_led: true, ..old }] {
            let mut out = Vec::new();
            put_more(&mut out, &task);
            let mut from = Cursor::new(&out);
            assert_eq!(from.u8(), Ok(MORE));
            assert_eq!(More::get(&mut from).unwrap().of(old), task);
            assert!(from.is_empty());
        }
        let mut out = Vec::new();
        put_more(&mut out, &old);
        assert!(out.is_empty());
    }

    #[test]
    fn the_first_of_several_holders_comes_back() {
        let task = Task::process(7, 0, 100, Comm::from("worker"));
        let first = Task { thread: Comm::from("main"), ..Task::process(6, 0, 99, Comm::from("m")) };
        let mut out = Vec::new();
        put_first_holder(&mut out, &Holder::one(task));
        assert!(out.is_empty());
        put_first_holder(&mut out, &Holder { task, first, holders: 2 });
        let mut from = Cursor::new(&out);
        assert_eq!(from.u8(), Ok(FIRST_HOLDER));
        assert_eq!(get_first_holder(&mut from), Ok(first));
        assert!(from.is_empty());
    }

    #[test]
    fn bytes_that_make_no_sense_are_refused() {
        for body in [&[][..], &[1], &[1, 1], &[1, 1, THREAD, 0], &[1, 0xff, 0xff, 0x7f, 0]] {
            let mut out = Vec::new();
            put_bytes(&mut out, body);
            assert!(More::get(&mut Cursor::new(&out)).is_err(), "{body:?}");
        }
    }
}
