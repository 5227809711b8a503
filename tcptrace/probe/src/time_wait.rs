//! The ways to listen to minisocks, and the programs of each.

use aya::{
    Btf, Ebpf,
    programs::{
        BtfTracePoint, FEntry, ProgramError, RawTracePoint, RawTracePointRunOptions, TestRun as _,
        fentry::FEntryLinkId, tp_btf::BtfTracePointLinkId,
    },
};

use tcptrace_common::globals::MinisockOffsets;

use super::{
    backend::{TimeWaitBackend, TimeWaitChoice},
    btf::{self, Target},
    error::program_words,
    minisock::{Callers, Kernel, Symbols, Who},
};
use tcptrace_host::sock_diag::{DiagSocket, Family, SockDiag, StateMask};

/// A program of the kernel object and what it is put on.
#[derive(Clone, Copy)]
struct OnHook {
    program: &'static str,
    hook: &'static str,
    /// It runs when the time of a minisock is over: too late for a trial.
    over: bool,
}

/// The backend's programs. Births first: a minisock that is born between two of them is then at least
/// known.
const fn programs_of(backend: TimeWaitBackend) -> &'static [OnHook] {
    match backend {
        TimeWaitBackend::Functions => &[
            OnHook { program: "twsk_schedule", hook: "__inet_twsk_schedule", over: false },
            OnHook { program: "twsk_expire", hook: "tw_timer_handler", over: true },
            OnHook { program: "twsk_deschedule", hook: "inet_twsk_deschedule_put", over: false },
            OnHook { program: "twsk_destroy", hook: "tcp_twsk_destructor", over: false },
        ],
        TimeWaitBackend::Timers => &[
            OnHook { program: "tw_timer_start", hook: "timer_start", over: false },
            OnHook { program: "tw_timer_cancel", hook: "timer_cancel", over: false },
            OnHook { program: "tw_timer_expire", hook: "timer_expire_entry", over: true },
        ],
        TimeWaitBackend::Sampling => &[],
    }
}

/// What the programs of all backends attach to.
pub(super) fn targets() -> impl Iterator<Item = Target> {
    let of = |backend| {
        programs_of(backend).iter().map(move |on_hook| match backend {
            TimeWaitBackend::Functions => Target::Function(on_hook.hook),
            TimeWaitBackend::Timers | TimeWaitBackend::Sampling => Target::Tracepoint(on_hook.hook),
        })
    };
    TimeWaitBackend::ALL.into_iter().flat_map(of)
}

/// What is needed to listen to minisocks, found out before the object is loaded.
pub(super) struct Minisocks {
    choice: TimeWaitChoice,
    kernel: Result<Kernel, String>,
}

/// What came of trying the backends.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) attached: Option<Attached>,
    pub(super) refusals: Vec<(TimeWaitBackend, String)>,
}

impl Minisocks {
    /// Asks the kernel, if minisocks are to be listened to.
    pub(super) fn ask(
        choice: TimeWaitChoice,
        btf: &Result<btf::Btf<'_>, String>,
        symbols: impl FnOnce() -> Symbols,
    ) -> Self {
        let kernel = match (choice, btf) {
            (TimeWaitChoice::Off, _) => Err("not asked for".to_owned()),
            (_, Ok(btf)) => Kernel::find(btf, symbols),
            (_, Err(reason)) => Err(reason.clone()),
        };
        Self { choice, kernel }
    }

    /// Fields of minisocks.
    pub(super) fn offsets(&self) -> MinisockOffsets {
        self.kernel.as_ref().map_or(MinisockOffsets::NONE, |kernel| kernel.offsets)
    }

    /// Attaches the best backend that the kernel takes.
    pub(super) fn attach(
        &self,
        ebpf: &mut Ebpf,
        btf: &Result<Btf, String>,
        ruled_out: &[(TimeWaitBackend, String)],
        trial: bool,
    ) -> Outcome {
        let backends = match self.choice {
            TimeWaitChoice::Auto => TimeWaitBackend::ALL.to_vec(),
            TimeWaitChoice::Only(backend) => vec![backend],
            TimeWaitChoice::Off => return Outcome::default(),
        };
        let mut refusals = Vec::new();
        for backend in backends {
            if let Some(out) = ruled_out.iter().find(|(out, _)| *out == backend) {
                refusals.push(out.clone());
                continue;
            }
            match self.attach_one(ebpf, backend, btf, trial) {
                Ok(attached) => return Outcome { attached: Some(attached), refusals },
                Err(reason) => refusals.push((backend, reason)),
            }
        }
        Outcome { attached: None, refusals }
    }

    fn attach_one(
        &self,
        ebpf: &mut Ebpf,
        backend: TimeWaitBackend,
        btf: &Result<Btf, String>,
        trial: bool,
    ) -> Result<Attached, String> {
        if backend == TimeWaitBackend::Sampling {
            // Needs nothing of the kernel side, but a kernel that answers.
            let none = |_: &mut (), _: &DiagSocket| {};
            SockDiag::open()
                .and_then(|mut diag| diag.dump(&[Family::V4], StateMask::NONE, || (), none))
                .map_err(|error| error.to_string())?;
            let programs = Programs { backend, links: Vec::new(), peeks: false };
            return Ok(Attached { programs, callers: Callers::default() });
        }
        let kernel = self.kernel.as_ref().map_err(String::clone)?;
        if let (TimeWaitBackend::Timers, Some(reason)) = (backend, &kernel.no_handler) {
            return Err(reason.clone());
        }
        let btf = btf.as_ref().map_err(String::clone)?;
        let programs = attach(ebpf, backend, btf, trial).map_err(program_words)?;
        Ok(Attached { programs, callers: kernel.callers.clone() })
    }
}

/// Programs in force.
pub(super) struct Programs {
    backend: TimeWaitBackend,
    links: Vec<(&'static str, Link)>,
    peeks: bool,
}

/// What takes a program off its hook.
enum Link {
    Function(FEntryLinkId),
    Tracepoint(BtfTracePointLinkId),
}

/// Loads and attaches the programs of a backend; on a refusal takes off what was put on.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    backend: TimeWaitBackend,
    btf: &Btf,
    trial: bool,
) -> Result<Programs, ProgramError> {
    let mut programs = Programs { backend, links: Vec::new(), peeks: false };
    for on_hook in programs_of(backend).iter().filter(|on_hook| !(trial && on_hook.over)) {
        match attach_one(ebpf, backend, on_hook, btf) {
            Ok(link) => programs.links.push((on_hook.program, link)),
            Err(error) => {
                programs.detach(ebpf)?;
                return Err(error);
            }
        }
    }
    // Without it a move from FIN_WAIT2 to TIME_WAIT shows later, not never.
    programs.peeks = backend == TimeWaitBackend::Timers
        && !trial
        && peek_program(ebpf).and_then(|program| program.load()).is_ok();
    Ok(programs)
}

fn attach_one(
    ebpf: &mut Ebpf,
    backend: TimeWaitBackend,
    &OnHook { program, hook, .. }: &OnHook,
    btf: &Btf,
) -> Result<Link, ProgramError> {
    let program = ebpf.program_mut(program).ok_or(ProgramError::NotLoaded)?;
    match backend {
        TimeWaitBackend::Functions => {
            let program: &mut FEntry = program.try_into()?;
            program.load(hook, btf)?;
            Ok(Link::Function(program.attach()?))
        }
        TimeWaitBackend::Timers => {
            let program: &mut BtfTracePoint = program.try_into()?;
            program.load(hook, btf)?;
            Ok(Link::Tracepoint(program.attach()?))
        }
        TimeWaitBackend::Sampling => Err(ProgramError::NotLoaded), // it has no programs
    }
}

fn peek_program(ebpf: &mut Ebpf) -> Result<&mut RawTracePoint, ProgramError> {
    ebpf.program_mut("tw_peek").ok_or(ProgramError::NotLoaded)?.try_into()
}

impl Programs {
    /// Takes the programs off; they stay loaded.
    pub(super) fn detach(&mut self, ebpf: &mut Ebpf) -> Result<(), ProgramError> {
        for (name, link) in self.links.drain(..) {
            let program = ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)?;
            match link {
                Link::Function(link) => <&mut FEntry>::try_from(program)?.detach(link)?,
                Link::Tracepoint(link) => <&mut BtfTracePoint>::try_from(program)?.detach(link)?,
            }
        }
        Ok(())
    }

    /// Has the kernel side look at minisocks: it tells of those that are in TIME_WAIT. The
    /// functions have told of all, so there is nothing to look at.
    fn peek(&self, ebpf: &mut Ebpf, addrs: &[u64]) -> Result<(), ProgramError> {
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

/// A backend in force.
pub(super) struct Attached {
    pub(super) programs: Programs,
    pub(super) callers: Callers,
}

impl Attached {
    pub(super) fn backend(&self) -> TimeWaitBackend {
        self.programs.backend
    }

    /// Who ended a minisock, by the stack.
    pub(super) fn who(&self, frames: &[u64]) -> Who {
        self.callers.who(frames)
    }

    /// See [`Programs::peek`].
    pub(super) fn peek(&self, ebpf: &mut Ebpf, addrs: &[u64]) -> Result<(), ProgramError> {
        self.programs.peek(ebpf, addrs)
    }
}
