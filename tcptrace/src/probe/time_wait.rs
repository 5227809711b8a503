//! How to listen to minisocks, and who stopped the timer of one.

use std::{fmt, str::FromStr};

use aya::{
    Btf, Ebpf,
    programs::{
        BtfTracePoint, ProgramError, RawTracePoint, RawTracePointRunOptions, TestRun as _,
        tp_btf::BtfTracePointLinkId,
    },
};
use tcptrace_common::globals::{ABSENT, BucketOffsets, MINISOCK_MAX, MinisockOffsets};

use super::btf::{self, BtfError};
use crate::{
    host::kallsyms::{self, Function},
    model::Stopper,
};

/// A way to learn what becomes of minisocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeWaitBackend {
    /// The tracepoints of their timers. Any kernel with BTF whose kallsyms shows addresses.
    Timers,
}

impl TimeWaitBackend {
    /// From best to worst.
    pub const ALL: [Self; 1] = [Self::Timers];

    /// The word for it on the command line and in outputs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Timers => "timers",
        }
    }
}

impl fmt::Display for TimeWaitBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for TimeWaitBackend {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|backend| backend.name() == word)
            .ok_or_else(|| format!("unknown hook '{}': timers", word.escape_default()))
    }
}

/// Whose name is on the stack of a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// `mod_timer_pending()`: the timer is started anew at once.
    Restarts,
    /// Somebody who stops it for good, if it is known who.
    Stops(Option<Stopper>),
}

/// The functions whose names tell, the innermost first where one calls another.
///
/// `__inet_twsk_schedule()` itself may leave the stack by a tail call into `mod_timer_pending()`,
/// and that by one into `__mod_timer()`, which may be inlined into it.
const CALLERS: [(&str, Who); 10] = [
    ("__mod_timer", Who::Restarts),
    ("mod_timer_pending", Who::Restarts),
    ("__inet_twsk_schedule", Who::Restarts),
    ("tcp_timewait_state_process", Who::Stops(Some(Stopper::StateProcess))),
    ("inet_twsk_purge", Who::Stops(Some(Stopper::Purge))),
    ("tcp_abort", Who::Stops(Some(Stopper::Abort))),
    ("tcp_v4_connect", Who::Stops(Some(Stopper::Connect))),
    ("tcp_v6_connect", Who::Stops(Some(Stopper::Connect))),
    ("tcp_v4_rcv", Who::Stops(Some(Stopper::Receive))),
    ("tcp_v6_rcv", Who::Stops(Some(Stopper::Receive))),
];

/// The tracepoints of timers and the programs on them. The start first: a minisock that is born
/// between two of them is then at least known.
const PROGRAMS: [(&str, &str); 3] = [
    ("tw_timer_start", "timer_start"),
    ("tw_timer_cancel", "timer_cancel"),
    ("tw_timer_expire", "timer_expire_entry"),
];

/// What the timers backend needs to know of the kernel.
pub(super) struct Timers {
    pub(super) offsets: MinisockOffsets,
    callers: Vec<Function>,
}

impl Timers {
    /// Asks BTF and kallsyms.
    pub(super) fn find(btf: &btf::Btf<'_>) -> Result<Self, String> {
        let mut offsets = offsets(btf).map_err(|error| error.to_string())?;
        if [offsets.tw_timer.saturating_add(offsets.timer_expires), offsets.tw_substate]
            .into_iter()
            .any(|offset| offset as usize + 8 > MINISOCK_MAX)
        {
            return Err("this kernel's struct inet_timewait_sock is longer than expected".into());
        }
        let mut names = vec!["tw_timer_handler"];
        names.extend(CALLERS.iter().map(|(name, _)| name));
        let mut found = kallsyms::functions(&names)
            .map_err(|error| format!("/proc/kallsyms: {error}"))?
            .into_iter();
        offsets.tw_timer_handler = match found.next() {
            Some(Function::At(pieces)) if pieces.len() == 1 => pieces[0].start,
            Some(Function::At(_)) => return Err("two functions tw_timer_handler".into()),
            Some(Function::Hidden) => {
                return Err("/proc/kallsyms hides addresses: needs CAP_SYSLOG or \
                            kernel.kptr_restrict=0"
                    .into());
            }
            _ => return Err("this kernel has no function tw_timer_handler".into()),
        };
        Ok(Self { offsets, callers: found.collect() })
    }

    /// Who stopped a timer, by the return addresses on the stack.
    fn who(&self, frames: &[u64]) -> Who {
        let on_stack = |function: &Function| frames.iter().any(|&frame| function.contains(frame));
        let callers = self.callers.iter().zip(CALLERS);
        callers
            .filter(|(function, _)| on_stack(function))
            .map(|(_, (_, who))| who)
            .next()
            .unwrap_or(Who::Stops(None))
    }
}

fn offsets(btf: &btf::Btf<'_>) -> Result<MinisockOffsets, BtfError> {
    let tw = |path| btf.offset_of("inet_timewait_sock", path);
    Ok(MinisockOffsets {
        timer_function: btf.offset_of("timer_list", "function")?,
        timer_expires: btf.offset_of("timer_list", "expires")?,
        tw_timer: tw("tw_timer")?,
        tw_substate: tw("tw_substate")?,
        skc_cookie: tw("__tw_common.skc_cookie")?,
        unused: 0,
        tw_timer_handler: 0,
    })
}

/// Where the room for minisocks is told.
pub(super) fn bucket_offsets(btf: &btf::Btf<'_>) -> BucketOffsets {
    let row = |field: &str| btf.offset_of("net", &format!("ipv4.tcp_death_row.{field}")).ok();
    let (count, base) = match (row("tw_refcount.refs"), row("tw_count")) {
        (Some(count), _) => (count, 1),
        (None, Some(count)) => (count, 0),
        // Behind a pointer, from 5.18 (fbb8295248e1) to 6.0 (e9bd0cca09d1).
        (None, None) => return BucketOffsets::NONE,
    };
    BucketOffsets { max: row("sysctl_max_tw_buckets").unwrap_or(ABSENT), count, base }
}

/// The timers backend in force.
pub(super) struct Attached {
    timers: Timers,
    links: Vec<(&'static str, BtfTracePointLinkId)>,
    peeks: bool,
}

/// Loads and attaches the programs of the timers backend; on a refusal takes off what was put on.
pub(super) fn attach(ebpf: &mut Ebpf, timers: Timers, btf: &Btf) -> Result<Attached, ProgramError> {
    let mut attached = Attached { timers, links: Vec::new(), peeks: false };
    for (name, tracepoint) in PROGRAMS {
        let one = || -> Result<BtfTracePointLinkId, ProgramError> {
            let program: &mut BtfTracePoint =
                ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)?.try_into()?;
            program.load(tracepoint, btf)?;
            program.attach()
        };
        let mut one = one;
        match one() {
            Ok(link) => attached.links.push((name, link)),
            Err(error) => {
                detach(ebpf, &mut attached)?;
                return Err(error);
            }
        }
    }
    // Without it a move from FIN_WAIT2 to TIME_WAIT shows later, not never.
    attached.peeks = peek_program(ebpf).and_then(|program| program.load()).is_ok();
    Ok(attached)
}

/// Takes the programs off; they stay loaded.
pub(super) fn detach(ebpf: &mut Ebpf, attached: &mut Attached) -> Result<(), ProgramError> {
    for (name, link) in attached.links.drain(..) {
        let program: &mut BtfTracePoint =
            ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)?.try_into()?;
        program.detach(link)?;
    }
    Ok(())
}

fn peek_program(ebpf: &mut Ebpf) -> Result<&mut RawTracePoint, ProgramError> {
    ebpf.program_mut("tw_peek").ok_or(ProgramError::NotLoaded)?.try_into()
}

impl Attached {
    /// Who stopped a timer, by its stack.
    pub(super) fn who(&self, frames: &[u64]) -> Who {
        self.timers.who(frames)
    }

    /// Has the kernel side look at minisocks: it tells of those that are in TIME_WAIT.
    pub(super) fn peek(&self, ebpf: &mut Ebpf, addrs: &[u64]) -> Result<(), ProgramError> {
        if !self.peeks || addrs.is_empty() {
            return Ok(());
        }
        let program = peek_program(ebpf)?;
        for chunk in addrs.chunks(12) {
            let mut options = RawTracePointRunOptions::default();
            options.args[..chunk.len()].copy_from_slice(chunk);
            program.test_run(options)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timers() -> Timers {
        let callers = (0..CALLERS.len() as u64)
            .map(|i| {
                Function::At(std::iter::once(0x1000 * (i + 1)..0x1000 * (i + 1) + 0x100).collect())
            })
            .collect();
        Timers { offsets: MinisockOffsets::NONE, callers }
    }

    #[test]
    fn the_innermost_name_tells() {
        let timers = timers();
        let (schedule, process, receive) = (0x3010, 0x4010, 0x9010);
        assert_eq!(timers.who(&[0xbad, schedule, process, receive]), Who::Restarts);
        let reset = Who::Stops(Some(Stopper::StateProcess));
        assert_eq!(timers.who(&[0xbad, process, receive, 0]), reset);
        assert_eq!(timers.who(&[receive]), Who::Stops(Some(Stopper::Receive)));
        assert_eq!(timers.who(&[0, 0x9100]), Who::Stops(None));
    }
}
