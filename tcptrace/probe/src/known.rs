//! What is asked of the kernel once, whichever ways are tried, and however often.

use std::thread::{self, Scope, ScopedJoinHandle};

use aya::{Btf, EbpfLoader};
use tcptrace_common::globals::{
    ABSENT, BucketOffsets, Pids, SockOffsets, TaskOffsets, TotalsOffsets,
};

use super::{
    accept::{self, Accepts},
    backend::TimeWaitChoice,
    btf::{self, Unread, Vmlinux},
    loader,
    minisock::{self, Symbols},
    offsets,
    options::Options,
    reset, set_state,
    time_wait::{self, Minisocks},
};

use tcptrace_host::pidns::PidNamespace;

/// The answers.
pub struct Known {
    /// As aya wants it, to find what programs attach to.
    pub(super) btf: Result<Btf, String>,
    /// Where reading the kernel's BTF had to stop.
    unread: Option<Unread>,
    pub(super) sock: Result<(SockOffsets, BucketOffsets), String>,
    /// What a connection did; not known where a field of it is not there.
    pub(super) totals: TotalsOffsets,
    pub(super) minisocks: Minisocks,
    /// From a thread to its process.
    pub(super) task: TaskOffsets,
    /// Whether that way can be gone by pointers that the verifier follows.
    pub(super) has_task_btf: bool,
    /// Whose numbers processes have; or why none of the reader's are to be had.
    pub(super) pids: Result<Pids, String>,
    /// Whether a RST that is sent says why.
    pub(super) has_reason: bool,
    pub(super) reasons: reset::Reasons,
    pub(super) accepts: Accepts,
    /// Kept, since making one may read all of the kernel's BTF.
    pub(super) loader: EbpfLoader<'static>,
}

impl Known {
    /// Asks what `options` need. Reads the kernel's BTF and, beside that, its symbols, which takes
    /// longest: 40 ms for 120,000 of them.
    pub fn ask(options: &Options) -> Self {
        thread::scope(|scope| {
            let wanted = options.time_wait != TimeWaitChoice::Off;
            let symbols = wanted.then(|| SymbolsBeside::read(scope));
            let data = Vmlinux::open();
            let btf = match &data {
                Ok(data) => btf::Btf::parse(data).map_err(|error| error.to_string()),
                Err(reason) => Err(reason.clone()),
            };
            let symbols = || symbols.map_or_else(minisock::symbols, SymbolsBeside::wait);
            Self::of(options, &btf, symbols)
        })
    }

    fn of(
        options: &Options,
        index: &Result<btf::Btf<'_>, String>,
        symbols: impl FnOnce() -> Symbols,
    ) -> Self {
        let by_name = index.as_ref().map_err(String::clone);
        let sock = by_name.clone().and_then(|btf| {
            let sock = offsets::sock_offsets(btf).map_err(|error| error.to_string())?;
            Ok((sock, minisock::bucket_offsets(btf)))
        });
        let totals = by_name.clone().ok().and_then(|btf| offsets::totals_offsets(btf).ok());
        let task = by_name.clone().map_or(TaskOffsets::NONE, offsets::task_offsets);
        Self {
            btf: by_name.clone().and_then(|btf| btf::targets(btf, targets())),
            unread: by_name.clone().ok().and_then(btf::Btf::unread),
            sock,
            totals: totals.unwrap_or(TotalsOffsets::NONE),
            task,
            pids: pids(by_name.clone(), task),
            has_task_btf: by_name.clone().is_ok_and(offsets::has_task_btf),
            has_reason: by_name.clone().is_ok_and(reset::has_reason),
            reasons: by_name.map(reset::Reasons::ask).unwrap_or_default(),
            accepts: Accepts::ask(options.accept, index),
            loader: loader::without_btf(),
            // Last, since it has to wait.
            minisocks: Minisocks::ask(options.time_wait, index, symbols),
        }
    }

    /// Where reading the kernel's BTF had to stop, if it did: what is behind that is not known.
    pub fn unread_btf(&self) -> Option<Unread> {
        self.unread
    }
}

/// Whose numbers events are to have: those of the PID namespace that /proc shows here.
pub(super) fn pids(btf: Result<&btf::Btf<'_>, String>, task: TaskOffsets) -> Result<Pids, String> {
    let reader = match PidNamespace::of_proc() {
        Ok(PidNamespace::First) => return Ok(Pids::FIRST),
        Ok(PidNamespace::Other(inode)) => inode,
        Err(error) => return Err(format!("the PID namespace here cannot be told: {error}")),
    };
    let offsets = btf.and_then(|btf| offsets::pid_offsets(btf).map_err(|error| error.to_string()));
    match offsets {
        Ok(offsets) if task.group_leader != ABSENT => Ok(Pids { reader, offsets }),
        Ok(_) => Err("struct task_struct is not as expected".to_owned()),
        Err(reason) => Err(format!(
            "in a PID namespace, and the kernel's numbers cannot be translated: {reason}"
        )),
    }
}

/// What any program attaches to by BTF.
pub(super) fn targets() -> impl Iterator<Item = btf::Target> {
    let minisocks = time_wait::targets().chain(reset::targets());
    minisocks.chain([set_state::TARGET, accept::TARGET])
}

/// The kernel's symbols, being read on a thread.
struct SymbolsBeside<'scope>(Option<ScopedJoinHandle<'scope, Symbols>>);

impl<'scope> SymbolsBeside<'scope> {
    fn read(scope: &'scope Scope<'scope, '_>) -> Self {
        let thread = thread::Builder::new().name("symbols".into());
        Self(thread.spawn_scoped(scope, minisock::symbols).ok())
    }

    /// The symbols; where there could be no thread, they are read now.
    fn wait(self) -> Symbols {
        match self.0 {
            Some(thread) => thread.join().unwrap_or_else(|_| minisock::symbols()),
            None => minisock::symbols(),
        }
    }
}
