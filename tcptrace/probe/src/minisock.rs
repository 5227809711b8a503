//! What is to be known of the kernel to make sense of minisocks: fields, functions, and who may
//! end one.

use std::io;

use tcptrace_common::globals::{ABSENT, BucketOffsets, MINISOCK_MAX, MinisockOffsets};

use super::btf::{self, BtfError};
use tcptrace_host::kallsyms::{self, Function};
use tcptrace_model::Stopper;

/// Whose name is on the stack of a stop or of an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// `mod_timer_pending()`: the timer is started anew at once.
    Restarts,
    /// Somebody who stops it for good, if it is known who.
    Stops(Option<Stopper>),
}

/// The functions whose names tell: of those on a stack, the innermost.
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

/// Where the functions are that matter, or why that is not known.
pub(super) type Symbols = io::Result<Vec<Function>>;

/// Asks kallsyms, which takes the kernel longer than all else.
pub(super) fn symbols() -> Symbols {
    let mut names = vec!["tw_timer_handler"];
    names.extend(CALLERS.iter().map(|(name, _)| name));
    kallsyms::functions(&names)
}

/// The kernel's minisocks.
pub(super) struct Kernel {
    /// Fields, and the timer's function if kallsyms tells where it is.
    pub(super) offsets: MinisockOffsets,
    /// Why it is not known which timers are those of minisocks.
    pub(super) no_handler: Option<String>,
    /// Who may end one.
    pub(super) callers: Callers,
}

/// Where the [`CALLERS`] are.
#[derive(Clone, Default)]
pub(super) struct Callers(Vec<Function>);

impl Kernel {
    /// Asks BTF; `symbols` is what kallsyms has.
    pub(super) fn find(
        btf: &btf::Btf<'_>,
        symbols: impl FnOnce() -> Symbols,
    ) -> Result<Self, String> {
        let mut offsets = offsets(btf).map_err(|error| error.to_string())?;
        let last = |field: u32| offsets.tw_timer.saturating_add(field);
        if [last(offsets.timer_expires), last(offsets.timer_pprev), offsets.tw_substate]
            .into_iter()
            .any(|offset| offset as usize + 8 > MINISOCK_MAX)
        {
            return Err("this kernel's struct inet_timewait_sock is longer than expected".into());
        }
        let (mut found, mut no_handler) = match symbols() {
            Ok(found) => (found.into_iter(), None),
            Err(error) => (Vec::new().into_iter(), Some(format!("/proc/kallsyms: {error}"))),
        };
        match found.next() {
            Some(Function::At(pieces)) if pieces.len() == 1 => {
                offsets.tw_timer_handler = pieces[0].start;
            }
            Some(Function::At(_)) => no_handler = Some("two functions tw_timer_handler".into()),
            Some(Function::Hidden) => {
                no_handler = Some(
                    "/proc/kallsyms hides addresses: needs CAP_SYSLOG or kernel.kptr_restrict=0"
                        .into(),
                );
            }
            Some(Function::Absent) => {
                no_handler = Some("this kernel has no function tw_timer_handler".into());
            }
            None => {}
        }
        Ok(Self { offsets, no_handler, callers: Callers(found.collect()) })
    }
}

impl Callers {
    /// Whether kallsyms told where any of them is.
    pub(super) fn are_known(&self) -> bool {
        self.0.iter().any(|function| matches!(function, Function::At(_)))
    }

    /// Who ended a minisock, by the return addresses on the stack, the innermost first; nobody is
    /// known where kallsyms hides addresses.
    ///
    /// What is further out may be somebody else's: an interrupt, or a softirq at its end, runs on the
    /// stack of the task that it interrupted.
    pub(super) fn who(&self, frames: &[u64]) -> Who {
        let known = || self.0.iter().zip(CALLERS);
        let of = |&frame: &u64| known().find(|(function, _)| function.contains(frame));
        frames.iter().find_map(of).map_or(Who::Stops(None), |(_, (_, who))| who)
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
        timer_pprev: btf.offset_of("timer_list", "entry.pprev")?,
        tw_ts_recent_stamp: btf
            .offset_of("tcp_timewait_sock", "tw_ts_recent_stamp")
            .unwrap_or(ABSENT),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn callers() -> Callers {
        let at = |i: u64| Function::At(std::iter::once(0x1000 * i..0x1000 * i + 0x100).collect());
        Callers((1..=CALLERS.len() as u64).map(at).collect())
    }

    #[test]
    fn the_innermost_of_the_known_functions_decides() {
        let callers = callers();
        let (schedule, process, receive) = (0x3010, 0x4010, 0x9010);
        assert_eq!(callers.who(&[0xbad, schedule, process, receive]), Who::Restarts);
        let reset = Who::Stops(Some(Stopper::StateProcess));
        assert_eq!(callers.who(&[0xbad, process, receive, 0]), reset);
        assert_eq!(callers.who(&[receive]), Who::Stops(Some(Stopper::Receive)));
        assert_eq!(callers.who(&[0, 0x9100]), Who::Stops(None));
        // A segment is received while a task of this CPU is in connect(), or starts a timer.
        let (connect, timer) = (0x7010, 0x1010);
        assert_eq!(callers.who(&[process, receive, connect]), reset);
        assert_eq!(callers.who(&[receive, timer]), Who::Stops(Some(Stopper::Receive)));
        assert_eq!(callers.who(&[connect, receive]), Who::Stops(Some(Stopper::Connect)));
        assert_eq!(Callers(Vec::new()).who(&[receive]), Who::Stops(None));
    }
}
