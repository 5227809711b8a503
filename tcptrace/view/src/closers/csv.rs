//! The ranking as comma-separated values: a line for each group, with a column for each way in
//! which its connections ended.

use std::fmt::Write as _;

use bytes::{BufMut as _, BytesMut};

use super::ranking::{Ranking, seconds};
use crate::csv::quoted;
use tcptrace_model::{How, Initiator};
use tcptrace_stats::{
    closers::{Fate, Tally},
    group::Key,
    named::Group,
};

const COLUMNS: &str = "from_s,to_s,key,closed,per_s,share,local,remote,both,none,unknown,\
    active,entered_time_wait,failed,time_wait_now,time_wait_s,time_wait_at_least";

/// Writes the header: after the numbers the ways to end, those of connections first.
pub(super) fn header(out: &mut BytesMut) {
    out.put_slice(COLUMNS.as_bytes());
    for how in How::ALL {
        out.put_u8(b',');
        out.put_slice(quoted(how.name()).as_bytes());
    }
    out.put_u8(b'\n');
}

/// Writes a ranking.
pub(super) fn print(ranking: &Ranking, out: &mut BytesMut) {
    for (group, tally) in &ranking.groups {
        row(ranking, group, tally, out);
    }
    if let Some((_, tally)) = &ranking.others {
        row(ranking, &Key::Other.into(), tally, out);
    }
}

fn row(ranking: &Ranking, group: &Group, tally: &Tally, out: &mut BytesMut) {
    let (from, to) = ranking.stretch();
    let initiator = |which| tally.by(Some(which));
    // Writing to memory does not fail.
    let _ = write!(
        out,
        "{from:.3},{to:.3},{},{},{:.3},{:.6},{},{},{},{},{},{},{},{},{},{:.3},{}",
        quoted(&group.label().unwrap_or_default()),
        tally.closed(),
        ranking.per_second(tally.closed()),
        ranking.share(tally),
        initiator(Initiator::Local),
        initiator(Initiator::Remote),
        initiator(Initiator::Both),
        initiator(Initiator::None),
        tally.by(None),
        tally.count(|ending| ending.is_active()),
        tally.count(|ending| ending.is_active() && ending.fate == Fate::TimeWait),
        tally.failed(),
        tally.alive(),
        seconds(tally.time_wait_ns()),
        tally.at_least(),
    );
    for how in How::ALL {
        let closed = tally.count(|ending| ending.how == how);
        let failed: u64 = tally.failures().filter(|(it, _)| *it == how).map(|(_, n)| n).sum();
        let _ = write!(out, ",{}", closed + failed);
    }
    out.put_u8(b'\n');
}
