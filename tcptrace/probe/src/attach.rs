//! Loads the kernel object and attaches it, by the best way that this kernel takes.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
};

use aya::{
    Ebpf, EbpfLoader, VerifierLogLevel,
    maps::{MapData, MapError, PerCpuArray},
    programs::{Program, ProgramError},
};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use tcptrace_common::{
    counters::{Guard, Hook},
    globals::{
        ABSENT, BucketOffsets, FEATURE_COOKIE, FEATURE_RESET_REASON, FEATURE_TASK_BTF, Globals,
        PidOffsets, Pids, Resets, SockOffsets, TotalsOffsets, TracepointLayout,
    },
};

use super::{
    accept,
    backend::{AcceptBackend, AcceptChoice, Backend, TimeWaitBackend, TimeWaitChoice},
    error::{Attempt, COOKIES, ProbeError, Refusal, lines, refused_map, setup},
    facts, globals,
    known::Known,
    minisock::Who,
    options::Options,
    reader::{Reserved, RingReader},
    reset,
    set_state::{self, Link},
    time_wait,
};
use tcptrace_host::caps::Capabilities;
use tcptrace_model::RstReason;

/// The kernel object, made by `cargo xtask build-ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/tcptrace.bpf.o");

/// A hook's counters, summed over the CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// TCP events that the hook's program ran for.
    pub seen: u64,
    /// Of those, held back by the filter.
    pub filtered: u64,
    /// Of those, lost to a full ring.
    pub lost: u64,
}

/// The kernel side in force. Dropping it detaches everything.
pub struct Probe {
    ebpf: Ebpf,
    ring: RingReader,
    counters: PerCpuArray<MapData, [u64; 3]>,
    guard: PerCpuArray<MapData, [u64; Guard::WORDS]>,
    backend: Backend,
    link: Option<Link>,
    refusals: Vec<Refusal>,
    sock: SockOffsets,
    cookies: bool,
    time_wait: Option<time_wait::Attached>,
    time_wait_refusals: Vec<(TimeWaitBackend, String)>,
    totals: TotalsOffsets,
    resets: Result<reset::Attached, String>,
    reasons: reset::Reasons,
    accept: Option<accept::Attached>,
    accept_refusals: Vec<(AcceptBackend, String)>,
    /// Why processes have no numbers of the reader's, where they have none.
    no_pids: Option<String>,
}

/// What the numbers in records mean on this kernel.
#[derive(Clone, Copy)]
pub struct Names<'a> {
    time_wait: Option<&'a time_wait::Attached>,
    reasons: &'a reset::Reasons,
}

impl Names<'_> {
    /// Who stopped a minisock's timer, by the stack.
    pub fn who(self, frames: &[u64]) -> Who {
        self.time_wait.map_or(Who::Stops(None), |attached| attached.who(frames))
    }

    /// Why a RST was sent, by its number; `None` where the kernel does not tell.
    pub fn reason(self, number: u32) -> Option<RstReason> {
        self.reasons.name(number)
    }
}

/// Ways that are not to be tried, and why: they attach, and yet are not called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuledOut {
    /// To the socket's hook.
    pub hooks: Vec<(Backend, String)>,
    /// To minisocks.
    pub time_wait: Vec<(TimeWaitBackend, String)>,
}

impl Probe {
    /// Loads and attaches, trying the ways from best to worst.
    pub fn start(options: &Options) -> Result<Self, ProbeError> {
        Self::start_with(&mut Known::ask(options), options, &RuledOut::default())
    }

    /// The same with what is known of the kernel, which takes longer to find out than all the
    /// rest, and without the ways that are ruled out.
    pub fn start_with(
        known: &mut Known,
        options: &Options,
        ruled_out: &RuledOut,
    ) -> Result<Self, ProbeError> {
        // Before 5.11 maps count against it. A refusal shows when the maps are created.
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
        let mut refusals = Vec::new();
        let backends = match options.backend {
            Some(backend) => vec![backend],
            None => Backend::ALL.to_vec(),
        };
        for backend in backends {
            if let Some((_, reason)) = ruled_out.hooks.iter().find(|(out, _)| *out == backend) {
                refusals.push(Refusal { backend, without: None, reason: reason.clone() });
                continue;
            }
            if backend == Backend::Tracepoint && options.filter.netns.is_some() {
                let reason = match refusals.is_empty() {
                    true => "--hook tracepoint asked for".to_owned(),
                    false => lines(&refusals),
                };
                return Err(ProbeError::NetnsUnseen { reason });
            }
            // bpf_get_socket_cookie() is refused to tracing programs before 5.12.
            let with_cookie: &[bool] =
                if backend == Backend::TpBtf { &[true, false] } else { &[false] };
            for &cookies in with_cookie {
                match attempt(options, known, ruled_out, backend, cookies) {
                    Ok(Attached {
                        ebpf,
                        ring,
                        counters,
                        guard,
                        link,
                        sock,
                        totals,
                        time_wait,
                        resets,
                        accept,
                    }) => {
                        return Ok(Self {
                            ebpf,
                            ring,
                            counters,
                            guard,
                            backend,
                            link: Some(link),
                            refusals,
                            sock,
                            cookies,
                            time_wait: time_wait.attached,
                            time_wait_refusals: time_wait.refusals,
                            totals,
                            resets,
                            reasons: known.reasons.clone(),
                            accept: accept.attached,
                            accept_refusals: accept.refusals,
                            no_pids: known.pids.clone().err(),
                        });
                    }
                    Err(Attempt::Fatal(error)) => return Err(error),
                    Err(Attempt::Refused(reason)) => refusals.push(Refusal {
                        backend,
                        without: cookies.then_some(COOKIES),
                        reason,
                    }),
                }
            }
        }
        Err(match Capabilities::effective().map(Capabilities::missing_for_tracing) {
            Ok(missing) if !missing.is_empty() => ProbeError::Privilege { missing },
            _ => ProbeError::NoHook { refusals },
        })
    }

    /// The way that was taken.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// The ways that were tried before it, and why they were refused.
    pub fn refusals(&self) -> &[Refusal] {
        &self.refusals
    }

    /// Whether events carry the socket's cookie.
    pub fn cookies(&self) -> bool {
        self.cookies
    }

    /// The way to listen to minisocks that was taken.
    pub fn time_wait(&self) -> Option<TimeWaitBackend> {
        self.time_wait.as_ref().map(time_wait::Attached::backend)
    }

    /// Whether it is told who ended a minisock before its time, which takes addresses in
    /// `/proc/kallsyms`.
    pub fn tells_who(&self) -> bool {
        self.time_wait.as_ref().is_some_and(|attached| attached.callers.are_known())
    }

    /// The ways to listen to minisocks that were refused, and why.
    pub fn time_wait_refusals(&self) -> &[(TimeWaitBackend, String)] {
        &self.time_wait_refusals
    }

    /// Whether the last transition of a connection tells what it did ([`tcptrace_model::Totals`]).
    pub fn tells_totals(&self) -> bool {
        self.totals.bytes_acked != ABSENT
    }

    /// Whether RSTs that are sent and received are told; if not, why.
    pub fn resets(&self) -> Result<(), &str> {
        self.resets.as_ref().map(|_| ()).map_err(String::as_str)
    }

    /// Whether it is told why a RST was sent (6.10).
    pub fn tells_reset_reasons(&self) -> bool {
        self.resets.is_ok() && !self.reasons.is_empty()
    }

    /// The way to learn who accepts that was taken.
    pub fn accept(&self) -> Option<AcceptBackend> {
        self.accept.as_ref().map(accept::Attached::backend)
    }

    /// The ways to learn who accepts that were refused, and why.
    pub fn accept_refusals(&self) -> &[(AcceptBackend, String)] {
        &self.accept_refusals
    }

    /// Reads the next record out of the ring, if there is one. `read` gets its bytes, which are
    /// aligned to eight, and what its numbers mean.
    pub fn next_record<T>(&mut self, read: impl FnOnce(&[u8], Names<'_>) -> T) -> Option<T> {
        let names = Names { time_wait: self.time_wait.as_ref(), reasons: &self.reasons };
        self.ring.next(|bytes| read(bytes, names))
    }

    /// All records that have been begun by now, whether they are finished or not. A record is begun
    /// before it is given its time.
    pub fn reserved(&self) -> Reserved {
        self.ring.reserved()
    }

    /// Whether [`Self::next_record`] has given all of these.
    pub fn has_read(&self, reserved: Reserved) -> bool {
        self.ring.has_read(reserved)
    }

    /// The file descriptor of the ring, which polls as readable when the kernel side calls.
    pub fn ring_fd(&self) -> BorrowedFd<'_> {
        self.ring.fd()
    }

    /// Has the kernel side look at minisocks: those that are in TIME_WAIT come out of the ring.
    pub fn peek(&mut self, addrs: &[u64]) -> Result<(), ProbeError> {
        match &self.time_wait {
            Some(attached) => attached
                .peek(&mut self.ebpf, addrs)
                .map_err(|error| ProbeError::Setup(format!("cannot look at minisocks: {error}"))),
            None => Ok(()),
        }
    }

    /// What of a socket events do not carry, and why.
    pub fn unobservable(&self) -> Vec<facts::Unobservable> {
        let refusal = self.refusals.iter().rfind(|refusal| refusal.without == Some(COOKIES));
        let no_cookies = (!self.cookies)
            .then(|| refusal.map_or("not asked for", |refusal| refusal.reason.as_str()));
        facts::unobservable(self.backend, &self.sock, no_cookies, self.no_pids.as_deref())
    }

    /// The kernel object, for what reads its log.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// The counters of a hook.
    pub fn totals(&self, hook: Hook) -> Result<Totals, ProbeError> {
        let mut totals = Totals::default();
        for program in 0..Hook::PROGRAMS {
            let per_cpu = self
                .counters
                .get(&hook.element(program), 0)
                .map_err(|error| ProbeError::Setup(format!("cannot read the counters: {error}")))?;
            for [seen, filtered, lost] in per_cpu.iter() {
                totals.seen += seen;
                totals.filtered += filtered;
                totals.lost += lost;
            }
        }
        Ok(totals)
    }

    /// Runs that the kernel skipped because the program was already running on that CPU
    /// (`recursion_misses`); `None` where the kernel does not count them (before 5.12).
    pub fn missed(&self) -> Option<u64> {
        let missed = |program: &str| -> Option<u64> {
            let fd = self.ebpf.program(program)?.fd().ok()?.as_fd().as_raw_fd();
            let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
            let count = |line: &str| line.strip_prefix("recursion_misses:")?.trim().parse().ok();
            info.lines().find_map(count)
        };
        // Those of the timers are not counted: they run for every timer of the host. Nor are those
        // of accept(): what they would tell is known to be missing when it is asked for.
        let of_resets = self.resets.iter().flat_map(reset::Attached::programs);
        let of_resets: u64 = of_resets.map(missed).sum::<Option<u64>>()?;
        let skipped = missed(set_state::program_of(self.backend))?;
        // The kernel counts before the stand-in runs: read in this order, none that was stood in
        // for is ever taken for missed.
        Some(of_resets + skipped.saturating_sub(self.stood_in()))
    }

    /// Runs of the socket hook's program that the kernel skipped and another program did.
    pub fn stood_in(&self) -> u64 {
        let per_cpu = self.guard.get(&0, 0).ok();
        per_cpu.iter().flat_map(|per_cpu| per_cpu.iter()).map(|[stood_in, ..]| stood_in).sum()
    }

    /// Instructions that the verifier walked through to accept each program that is loaded, by
    /// the program's name; `None` where the kernel does not tell (before 5.16).
    pub fn verified_instructions(&self) -> Vec<(String, Option<u32>)> {
        let told = |(name, program): (&str, &Program)| {
            let info = program.info().ok()?; // not loaded
            Some((name.to_owned(), info.verified_instruction_count()))
        };
        self.ebpf.programs().filter_map(told).collect()
    }

    /// Instructions of each program that is loaded, as the kernel runs it: without the branches
    /// that it does not need here. `None` where the kernel does not tell this process.
    pub fn loaded_instructions(&self) -> Vec<(String, Option<u32>)> {
        const BYTES: u32 = 8;
        let told = |(name, program): (&str, &Program)| {
            let info = program.info().ok()?; // not loaded
            Some((name.to_owned(), info.size_translated().map(|bytes| bytes / BYTES)))
        };
        self.ebpf.programs().filter_map(told).collect()
    }

    /// Takes the program off its hook. It stays loaded, with its counters, and records already in
    /// the ring stay.
    pub fn detach(&mut self) -> Result<(), ProbeError> {
        let failed = |error: ProgramError| ProbeError::Setup(format!("cannot detach: {error}"));
        // The other way round than they were put on, for the same reason.
        if let Some(link) = self.link.take() {
            set_state::detach(&mut self.ebpf, self.backend, link).map_err(failed)?;
        }
        if let Ok(attached) = &mut self.resets {
            attached.detach(&mut self.ebpf).map_err(failed)?;
        }
        if let Some(attached) = &mut self.time_wait {
            attached.programs.detach(&mut self.ebpf).map_err(failed)?;
        }
        // Last, for a tracepoint of system calls is given up only after tens of milliseconds (a
        // grace period of RCU), in which the others would fill the ring.
        match self.accept.take() {
            Some(attached) => attached
                .detach(&mut self.ebpf)
                .map_err(|reason| ProbeError::Setup(format!("cannot detach: {reason}"))),
            None => Ok(()),
        }
    }
}

/// An attempt that worked.
struct Attached {
    ebpf: Ebpf,
    ring: RingReader,
    counters: PerCpuArray<MapData, [u64; 3]>,
    guard: PerCpuArray<MapData, [u64; Guard::WORDS]>,
    link: Link,
    sock: SockOffsets,
    totals: TotalsOffsets,
    time_wait: time_wait::Outcome,
    resets: Result<reset::Attached, String>,
    accept: accept::Outcome,
}

/// Loads and attaches by one way.
fn attempt(
    options: &Options,
    known: &mut Known,
    ruled_out: &RuledOut,
    backend: Backend,
    cookies: bool,
) -> Result<Attached, Attempt> {
    let (sock, buckets, layout) = match (backend, &known.sock) {
        (Backend::TpBtf, Ok((sock, buckets))) => (*sock, *buckets, TracepointLayout::NONE),
        (Backend::TpBtf, Err(reason)) => return Err(Attempt::Refused(reason.clone())),
        // Minisocks are read as sockets are.
        (Backend::Tracepoint, sock) => (
            sock.as_ref().map_or(SockOffsets::NONE, |(sock, _)| *sock),
            BucketOffsets::NONE,
            set_state::classic_layout()?,
        ),
    };
    let totals = if backend == Backend::TpBtf { known.totals } else { TotalsOffsets::NONE };
    let resets = reset::layouts(backend);
    let values = Globals {
        filter: globals::filter(&options.filter, sock.net_cookie != ABSENT),
        sock,
        buckets,
        minisock: known.minisocks.offsets(),
        totals,
        resets: *resets.as_ref().unwrap_or(&Resets::NONE),
        files: known.accepts.files(),
        features: if cookies { FEATURE_COOKIE } else { 0 }
            | if known.has_reason { FEATURE_RESET_REASON } else { 0 }
            | if known.has_task_btf { FEATURE_TASK_BTF } else { 0 },
        task: known.task,
        // A namespace that there is not: each process is foreign.
        pids: known.pids.clone().unwrap_or(Pids { reader: u32::MAX, offsets: PidOffsets::NONE }),
        ..globals::globals(options.ring_bytes, layout)
    };
    let mut ebpf = load(&mut known.loader, options, values)?;
    globals::fill_filter_maps(&mut ebpf, &options.filter).map_err(setup)?;
    // The maps before the hook: whoever attaches must be able to count from the first event.
    let ring = RingReader::new(take(&mut ebpf, "RING")?).map_err(setup)?;
    let counters = PerCpuArray::try_from(take(&mut ebpf, "COUNTERS")?).map_err(setup)?;
    let guard = PerCpuArray::try_from(take(&mut ebpf, "GUARD")?).map_err(setup)?;
    // Most refusals come here, before anything is in force.
    set_state::load(&mut ebpf, backend, &known.btf, options.trial)?;
    // Minisocks first: a hand-over whose birth was not seen would look like an end.
    let ruled = &ruled_out.time_wait;
    let time_wait = known.minisocks.attach(&mut ebpf, &known.btf, ruled, options.trial);
    if let (None, TimeWaitChoice::Only(_), Some((backend, reason))) =
        (&time_wait.attached, options.time_wait, time_wait.refusals.first())
    {
        let (backend, reason) = (*backend, reason.clone());
        return Err(Attempt::Fatal(ProbeError::TimeWait { backend, reason }));
    }
    // Resets too: an end whose RST was not seen would be taken for another.
    let resets = match options.trial {
        true => Err("a trial".to_owned()),
        false => resets.and_then(|_| reset::attach(&mut ebpf, backend, &known.btf)),
    };
    // Nothing would be heard of it in a trial, and to attach to system calls is dear.
    let accept = match options.trial {
        true => accept::Outcome::default(),
        false => known.accepts.attach(&mut ebpf, &known.btf),
    };
    if let (None, AcceptChoice::Only(_), Some((backend, reason))) =
        (&accept.attached, options.accept, accept.refusals.first())
    {
        let (backend, reason) = (*backend, reason.clone());
        return Err(Attempt::Fatal(ProbeError::Accept { backend, reason }));
    }
    let link = set_state::attach(&mut ebpf, backend, options.trial)?;
    let sock = if backend == Backend::TpBtf { sock } else { SockOffsets::NONE };
    Ok(Attached { ebpf, ring, counters, guard, link, sock, totals, time_wait, resets, accept })
}

fn take(ebpf: &mut Ebpf, name: &str) -> Result<aya::maps::Map, Attempt> {
    ebpf.take_map(name).ok_or_else(|| setup(MapError::InvalidName { name: name.to_owned() }))
}

/// Creates the maps and prepares the programs.
fn load(
    loader: &mut EbpfLoader<'static>,
    options: &Options,
    values: Globals,
) -> Result<Ebpf, Attempt> {
    const SILENT: u8 = 0;
    const ERRORS: u8 = aya_log::Level::Error as u8;
    // The loader holds on to it; some 300 bytes for each of a few attempts.
    let values: &'static Globals = Box::leak(Box::new(values));
    let loaded = loader
        // Not empty: a log buffer without a level is EINVAL (bpf_verifier_log_attr_valid()), which would
        // be reported in place of the verifier's reason. Of a program that passes nothing is logged.
        .verifier_log_level(VerifierLogLevel::STATS)
        .override_global("GLOBALS", globals::as_bytes(values), true)
        .override_global(aya_log::LEVEL, if options.kernel_log { &ERRORS } else { &SILENT }, false)
        .map_max_entries("RING", options.ring_bytes)
        .load(OBJECT);
    loaded.map_err(|error| {
        if let aya::EbpfError::MapError(MapError::CreateError { name, io_error }) = error {
            return refused_map(options.ring_bytes, &name, io_error);
        }
        Attempt::Fatal(ProbeError::Setup(error.to_string()))
    })
}
