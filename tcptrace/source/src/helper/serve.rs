//! The helper's side: gives up what it does not need, then answers until nobody asks any more.

use std::{io, os::unix::net::UnixStream, thread};

use super::{
    super::{
        dump::{Order, Round, Space},
        tables::Tables,
    },
    wire::{CgroupAsked, Frames, MAX_FRAME, MAX_ROUND, Piece, SOCKETS, Used, WireError},
};
use tcptrace_host::{caps::Capability, cgroup::Hierarchy, confine, own::OwnUse};

/// To enter the namespaces of others (`netns_install()`).
const ENTERS: Capability = Capability::SysAdmin;
/// To see the namespaces and the open files of other users' processes: `/proc/PID/ns/net` and
/// `/proc/PID/fd/*` are followed by who may ptrace(2); and to list `/proc/PID/fd`, which only its
/// user may.
const LOOKS: [Capability; 2] = [Capability::SysPtrace, Capability::DacReadSearch];
/// To find cgroups by their ids: open_by_handle_at(2).
const NAMES: [Capability; 1] = [Capability::DacReadSearch];

/// What is left in a round for namespaces: not what comes after them, nor the frames that go beyond.
const ROOM: usize = MAX_ROUND - REMARKS * LONGEST_REMARK - 4 * MAX_FRAME;

/// Remarks that a round has at most: each is said but once.
const REMARKS: usize = 1024;
/// Bytes of one: paths and what the kernel says fit into it.
const LONGEST_REMARK: usize = 16 << 10;

/// What the other process is told where a round is cut.
const CUT: &str = "there are more sockets than the helper process hands over at a time: a snapshot \
                   lacks some";

/// Answers at both sockets until the first is closed at its other end.
pub(super) fn run(tables: Tables, elsewhere: bool, asked: UnixStream, names: UnixStream) {
    let mut remarks = Vec::new();
    // A thread's rights and filters are its own, so each gives up for itself.
    let named = thread::Builder::new().name("cgroups".to_owned()).spawn(move || {
        // What is refused here is refused below, and said there.
        let _ = give_up(&NAMES);
        // Without an answer it is asked for where it is wanted.
        let _ = name(Frames::new(names));
    });
    if let Err(error) = named {
        remarks.push(format!("the helper process finds no names of cgroups: {error}"));
    }
    tables.prepare();
    let enters: &[Capability] = if elsewhere { &[ENTERS] } else { &[] };
    if let Err(error) = give_up(&[enters, &LOOKS].concat()) {
        remarks.push(format!("the helper process keeps rights that it does not need: {error}"));
    }
    // It cannot say why it ends: whoever asks says that it has.
    let _ = read(&tables, Frames::new(asked), remarks);
}

fn give_up(keep: &[Capability]) -> io::Result<()> {
    confine::keep_only(keep)?;
    confine::only_read_tables()
}

fn name(mut frames: Frames<UnixStream>) -> Result<(), WireError> {
    let mut hierarchy = Hierarchy::open()?;
    loop {
        let (CgroupAsked { id, now }, _) = frames.receive()?;
        frames.send(&hierarchy.path(id, now))?;
    }
}

fn read(
    tables: &Tables,
    mut frames: Frames<UnixStream>,
    mut remarks: Vec<String>,
) -> Result<(), WireError> {
    loop {
        let (order, _): (Order, _) = frames.receive()?;
        let mut round = tables.read(&order);
        round.remarks.append(&mut remarks);
        hand_over(&mut frames, round, ROOM)?;
        frames.rest();
    }
}

/// Hands a round over, as far as there is room for it: so many bytes, and those of a few frames
/// more.
pub(super) fn hand_over(
    frames: &mut Frames<impl io::Write>,
    round: Round,
    mut room: usize,
) -> Result<(), WireError> {
    let Round {
        mut all,
        spaces,
        cpu_ns,
        mut remarks,
        over_ns,
        there,
        // Told by who schedules.
        names: _,
        minisocks_alone: _,
    } = round;
    for space in spaces {
        if room == 0 {
            all = false;
            break;
        }
        if !hand_over_space(frames, space, &mut room)? {
            remarks.push(CUT.to_owned());
            (all, room) = (false, 0);
        }
    }
    for mut remark in remarks.into_iter().take(REMARKS) {
        remark.truncate(remark.floor_char_boundary(LONGEST_REMARK));
        frames.send(&Piece::Remark(remark))?;
    }
    let OwnUse { cpu_s, resident_bytes, .. } = OwnUse::read();
    let used = Used { cpu_s, resident_bytes };
    frames.send(&Piece::Over { all, over_ns, cpu_ns, there, used })?;
    Ok(())
}

/// Says whether all of it was handed over.
fn hand_over_space(
    frames: &mut Frames<impl io::Write>,
    space: Space,
    room: &mut usize,
) -> Result<bool, WireError> {
    let Space {
        netns,
        began_ns,
        name,
        path,
        sockets,
        infos,
        syn_queues,
        bound,
        mut end,
        sysctls,
        counters,
    } = space;
    let mut sent = frames.send(&Piece::Space { netns, began_ns, name, path, sysctls, counters })?;
    let mut sockets = sockets.into_iter();
    while sent < *room && sockets.len() > 0 {
        sent += frames.send(&Piece::Sockets(sockets.by_ref().take(SOCKETS).collect()))?;
    }
    let mut infos = infos.into_iter();
    while sent < *room && infos.len() > 0 {
        sent += frames.send(&Piece::Infos(infos.by_ref().take(SOCKETS).collect()))?;
    }
    let mut queues = syn_queues.into_values();
    while sent < *room && queues.len() > 0 {
        sent += frames.send(&Piece::SynQueues(queues.by_ref().take(SOCKETS).collect()))?;
    }
    let mut bound = bound.into_values().map(|bound| bound.port);
    while sent < *room && bound.len() > 0 {
        sent += frames.send(&Piece::Bound(bound.by_ref().take(SOCKETS).collect()))?;
    }
    let whole = sockets.len() + infos.len() + queues.len() + bound.len() == 0;
    // Half of them would pass for all.
    end.lists_bound &= bound.len() == 0;
    end.lacks_some |= !whole;
    sent += frames.send(&Piece::End(end))?;
    *room = room.saturating_sub(sent);
    Ok(whole)
}
