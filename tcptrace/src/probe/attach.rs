//! Loads the kernel object and attaches it, by the best way that this kernel takes.

use std::{
    fmt, fs, io,
    os::fd::{AsFd as _, AsRawFd as _},
    str::FromStr,
};

use aya::{
    Btf, Ebpf, EbpfLoader, VerifierLogLevel,
    maps::{MapData, MapError, PerCpuArray, RingBuf},
    programs::{
        BtfTracePoint, Program, ProgramError, TracePoint, tp_btf::BtfTracePointLinkId,
        trace_point::TracePointLinkId,
    },
};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use tcptrace_common::{
    counters::Hook,
    globals::{BucketOffsets, Globals, SockOffsets, TracepointLayout},
};
use thiserror::Error;

use super::{
    btf, facts, format, globals,
    minisock::{self, Who},
    offsets, ring,
    time_wait::{self, Minisocks, TimeWaitBackend, TimeWaitChoice},
    tracefs,
};
use crate::{
    host::caps::{Capabilities, Capability},
    model::filter::Filter,
};

/// The kernel object, made by `cargo xtask build-ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/tcptrace.bpf.o");

const TRACEPOINT: &str = "inet_sock_set_state";

/// The finer point of tp_btf that is tried first and done without.
const COOKIES: &str = "socket cookies";

/// A way to listen to `sock:inet_sock_set_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// BTF-typed tracepoint program: sees the socket. 5.5 and BTF.
    TpBtf,
    /// Classic tracepoint: sees only the tracepoint's own record. 4.16.
    Tracepoint,
}

impl Backend {
    /// From best to worst.
    pub const ALL: [Self; 2] = [Self::TpBtf, Self::Tracepoint];

    /// The word for it on the command line and in outputs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TpBtf => "tp_btf",
            Self::Tracepoint => "tracepoint",
        }
    }

    /// Name of its program in the kernel object.
    const fn program(self) -> &'static str {
        match self {
            Self::TpBtf => "set_state_btf",
            Self::Tracepoint => "set_state_classic",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|backend| backend.name() == word)
            .ok_or_else(|| format!("unknown hook '{}': tp_btf, tracepoint", word.escape_default()))
    }
}

/// Why a way was not taken.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Which way.
    pub backend: Backend,
    /// Which finer point of it, where there are several.
    pub without: Option<&'static str>,
    /// What the kernel answered.
    pub reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.backend)?;
        if let Some(without) = self.without {
            write!(f, " with {without}")?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// Why nothing could be attached.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// The process may not.
    #[error(
        "tracing needs {}, which this process lacks: run as root, or grant them once: \
         setcap cap_bpf,cap_perfmon+ep $(which tcptrace)",
        list(missing)
    )]
    Privilege {
        /// What it lacks.
        missing: Vec<Capability>,
    },
    /// The kernel has no ring buffer maps.
    #[error("this kernel has no BPF ring buffer: tcptrace needs Linux 5.8 or later")]
    NoRing,
    /// The ring could not be had.
    #[error("cannot create a ring of {bytes} bytes: {error}; try a smaller --ring-size")]
    Ring {
        /// Size asked for.
        bytes: u32,
        /// The kernel's answer.
        error: io::Error,
    },
    /// A filter on what the hook cannot see.
    #[error(
        "-N/--netns needs the tp_btf hook: the classic tracepoint does not tell the namespace \
         ({reason})"
    )]
    NetnsUnseen {
        /// Why tp_btf is not to be had.
        reason: String,
    },
    /// No way was taken by the kernel.
    #[error(
        "no hook for {TRACEPOINT} could be attached: {}; tcptrace check says more",
        lines(refusals)
    )]
    NoHook {
        /// Each way and why not.
        refusals: Vec<Refusal>,
    },
    /// The way to listen to minisocks that was asked for is not to be had.
    #[error("--time-wait-hook {backend} is refused: {reason}")]
    TimeWait {
        /// Which way.
        backend: TimeWaitBackend,
        /// Why not.
        reason: String,
    },
    /// The kernel object or its maps could not be used.
    #[error("cannot set up the kernel side: {0}")]
    Setup(String),
}

fn list(missing: &[Capability]) -> String {
    missing.iter().map(Capability::to_string).collect::<Vec<_>>().join(" and ")
}

fn lines(refusals: &[Refusal]) -> String {
    refusals.iter().map(Refusal::to_string).collect::<Vec<_>>().join("; ")
}

/// What to attach.
#[derive(Clone, Debug)]
pub struct Options {
    /// The only way to try; `None` tries all from best to worst.
    pub backend: Option<Backend>,
    /// Bytes of the ring, a size that [`super::parse_ring_size`] lets pass.
    pub ring_bytes: u32,
    /// What to keep.
    pub filter: Filter,
    /// Whether the kernel side's error paths may speak (aya-log).
    pub kernel_log: bool,
    /// How to learn what becomes of minisocks.
    pub time_wait: TimeWaitChoice,
}

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
    ring: RingBuf<MapData>,
    counters: PerCpuArray<MapData, [u64; 3]>,
    backend: Backend,
    link: Option<Link>,
    refusals: Vec<Refusal>,
    sock: SockOffsets,
    cookies: bool,
    time_wait: Option<time_wait::Attached>,
    time_wait_refusals: Vec<(TimeWaitBackend, String)>,
}

/// Tells from a stack who stopped a minisock's timer.
#[derive(Clone, Copy)]
pub struct Stacks<'a>(Option<&'a time_wait::Attached>);

impl Stacks<'_> {
    /// Who that was.
    pub fn who(self, frames: &[u64]) -> Who {
        self.0.map_or(Who::Stops(None), |attached| attached.who(frames))
    }
}

/// What takes the program off its hook.
enum Link {
    TpBtf(BtfTracePointLinkId),
    Tracepoint(TracePointLinkId),
}

impl Probe {
    /// Loads and attaches, trying the ways from best to worst.
    pub fn start(options: &Options) -> Result<Self, ProbeError> {
        // Before 5.11 maps count against it. A refusal shows when the maps are created.
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
        let mut refusals = Vec::new();
        let backends = match options.backend {
            Some(backend) => vec![backend],
            None => Backend::ALL.to_vec(),
        };
        for backend in backends {
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
                match Self::attempt(options, backend, cookies) {
                    Ok(Attached { ebpf, ring, counters, link, sock, time_wait }) => {
                        return Ok(Self {
                            ebpf,
                            ring,
                            counters,
                            backend,
                            link: Some(link),
                            refusals,
                            sock,
                            cookies,
                            time_wait: time_wait.attached,
                            time_wait_refusals: time_wait.refusals,
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

    fn attempt(options: &Options, backend: Backend, cookies: bool) -> Result<Attached, Attempt> {
        let (sock, layout) = match backend {
            Backend::TpBtf => (kernel_offsets()?, TracepointLayout::NONE),
            Backend::Tracepoint => (None, classic_layout()?),
        };
        let minisocks = Minisocks::ask(options.time_wait);
        let values = Globals {
            sock: sock.map_or_else(|| minisocks.sock(), |(sock, _)| sock),
            buckets: sock.map_or(BucketOffsets::NONE, |(_, buckets)| buckets),
            minisock: minisocks.offsets(),
            ..globals::globals(&options.filter, options.ring_bytes, layout, cookies)
        };
        let mut ebpf = load(options, &values)?;
        globals::fill_filter_maps(&mut ebpf, &options.filter).map_err(setup)?;
        // The maps before the hook: whoever attaches must be able to count from the first event.
        let ring = RingBuf::try_from(take(&mut ebpf, "RING")?).map_err(setup)?;
        let counters = PerCpuArray::try_from(take(&mut ebpf, "COUNTERS")?).map_err(setup)?;
        let btf = Btf::from_sys_fs().map_err(|error| error.to_string());
        // Minisocks first: a hand-over whose birth was not seen would look like an end.
        let time_wait = minisocks.attach(&mut ebpf, &btf);
        if let (None, TimeWaitChoice::Only(_), Some((backend, reason))) =
            (&time_wait.attached, options.time_wait, time_wait.refusals.first())
        {
            let (backend, reason) = (*backend, reason.clone());
            return Err(Attempt::Fatal(ProbeError::TimeWait { backend, reason }));
        }
        let link = attach(&mut ebpf, backend, &btf)?;
        Ok(Attached { ebpf, ring, counters, link, sock: values.sock, time_wait })
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

    /// The ways to listen to minisocks that were refused, and why.
    pub fn time_wait_refusals(&self) -> &[(TimeWaitBackend, String)] {
        &self.time_wait_refusals
    }

    /// Reads the next record out of the ring, if there is one. `read` gets its bytes, which are
    /// aligned to eight, and who can tell a stack.
    pub fn next_record<T>(&mut self, read: impl FnOnce(&[u8], Stacks<'_>) -> T) -> Option<T> {
        let item = self.ring.next()?;
        Some(read(&item, Stacks(self.time_wait.as_ref())))
    }

    /// The file descriptor of the ring, which polls as readable when the kernel side calls.
    pub fn ring_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.ring.as_fd()
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
        facts::unobservable(self.backend, &self.sock, no_cookies)
    }

    /// The kernel object, for what reads its log.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// The counters of a hook.
    pub fn totals(&self, hook: Hook) -> Result<Totals, ProbeError> {
        let per_cpu = self
            .counters
            .get(&(hook as u32), 0)
            .map_err(|error| ProbeError::Setup(format!("cannot read the counters: {error}")))?;
        Ok(per_cpu.iter().fold(Totals::default(), |sum, [seen, filtered, lost]| Totals {
            seen: sum.seen + seen,
            filtered: sum.filtered + filtered,
            lost: sum.lost + lost,
        }))
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
        // Those of the timers are not counted: they run for every timer of the host.
        missed(self.backend.program())
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

    /// Takes the program off its hook. It stays loaded, with its counters, and records already in
    /// the ring stay.
    pub fn detach(&mut self) -> Result<(), ProbeError> {
        let failed = |error: ProgramError| ProbeError::Setup(format!("cannot detach: {error}"));
        // The other way round than they were put on, for the same reason.
        self.detach_set_state().map_err(failed)?;
        match &mut self.time_wait {
            Some(attached) => attached.programs.detach(&mut self.ebpf).map_err(failed),
            None => Ok(()),
        }
    }

    fn detach_set_state(&mut self) -> Result<(), ProgramError> {
        let (Some(link), Some(program)) =
            (self.link.take(), self.ebpf.program_mut(self.backend.program()))
        else {
            return Ok(());
        };
        match link {
            Link::TpBtf(link) => {
                let program: &mut BtfTracePoint = program.try_into()?;
                program.detach(link)
            }
            Link::Tracepoint(link) => {
                let program: &mut TracePoint = program.try_into()?;
                program.detach(link)
            }
        }
    }
}

/// An attempt that worked.
struct Attached {
    ebpf: Ebpf,
    ring: RingBuf<MapData>,
    counters: PerCpuArray<MapData, [u64; 3]>,
    link: Link,
    sock: SockOffsets,
    time_wait: time_wait::Outcome,
}

/// How an attempt ended.
enum Attempt {
    /// This way is not to be had; another may be.
    Refused(String),
    /// No other way would fare better.
    Fatal(ProbeError),
}

fn refused(error: impl fmt::Display) -> Attempt {
    Attempt::Refused(error.to_string())
}

fn setup(error: MapError) -> Attempt {
    Attempt::Fatal(ProbeError::Setup(error.to_string()))
}

fn take(ebpf: &mut Ebpf, name: &str) -> Result<aya::maps::Map, Attempt> {
    ebpf.take_map(name).ok_or_else(|| setup(MapError::InvalidName { name: name.to_owned() }))
}

/// The running kernel's BTF.
pub(super) fn vmlinux() -> Result<Vec<u8>, String> {
    const PATH: &str = "/sys/kernel/btf/vmlinux";
    fs::read(PATH).map_err(|error| format!("this kernel has no BTF ({PATH}: {error})"))
}

/// Field offsets from the running kernel's BTF.
fn kernel_offsets() -> Result<Option<(SockOffsets, BucketOffsets)>, Attempt> {
    let data = vmlinux().map_err(Attempt::Refused)?;
    let btf = btf::Btf::parse(&data).map_err(refused)?;
    let sock = offsets::sock_offsets(&btf).map_err(refused)?;
    Ok(Some((sock, minisock::bucket_offsets(&btf))))
}

/// The layout of the classic tracepoint's record on the running kernel.
fn classic_layout() -> Result<TracepointLayout, Attempt> {
    let text = tracefs::with_tracefs(|tracefs| {
        let path = tracefs.join("events/sock").join(TRACEPOINT).join("format");
        fs::read_to_string(&path).map_err(|error| {
            let hint = match error.kind() {
                io::ErrorKind::PermissionDenied => "; that takes CAP_DAC_READ_SEARCH",
                _ => "",
            };
            Attempt::Refused(format!("cannot read {}: {error}{hint}", path.display()))
        })
    })
    .map_err(no_tracefs)??;
    format::set_state_layout(&text).map_err(refused)
}

fn no_tracefs(error: io::Error) -> Attempt {
    Attempt::Refused(format!("tracefs is not mounted, and mounting it is refused: {error}"))
}

/// Creates the maps and prepares the programs.
fn load(options: &Options, values: &Globals) -> Result<Ebpf, Attempt> {
    let log_level: u8 = if options.kernel_log { aya_log::Level::Error as u8 } else { 0 };
    let loaded = EbpfLoader::new()
        .verifier_log_level(VerifierLogLevel::empty())
        .override_global("GLOBALS", globals::as_bytes(values), true)
        .override_global(aya_log::LEVEL, &log_level, false)
        .map_max_entries("RING", options.ring_bytes)
        .load(OBJECT);
    loaded.map_err(|error| {
        if let aya::EbpfError::MapError(MapError::CreateError { name, io_error }) = error {
            return refused_map(options.ring_bytes, &name, io_error);
        }
        Attempt::Fatal(ProbeError::Setup(error.to_string()))
    })
}

/// What the kernel's refusal of a map means.
fn refused_map(ring_bytes: u32, name: &str, error: io::Error) -> Attempt {
    let missing =
        Capabilities::effective().map(Capabilities::missing_for_tracing).unwrap_or_default();
    if error.kind() == io::ErrorKind::PermissionDenied && !missing.is_empty() {
        return Attempt::Fatal(ProbeError::Privilege { missing });
    }
    if name == "RING" {
        if ring::ring_supported() == Some(false) {
            return Attempt::Fatal(ProbeError::NoRing);
        }
        return Attempt::Fatal(ProbeError::Ring { bytes: ring_bytes, error });
    }
    let hint = match error.kind() {
        // With every capability: of a user namespace that is not the first, so most likely.
        io::ErrorKind::PermissionDenied => {
            "; in a container it takes the host's CAP_BPF, CAP_PERFMON and a seccomp profile that \
             allows bpf()"
        }
        _ => "",
    };
    Attempt::Fatal(ProbeError::Setup(format!("the kernel refused the map {name}: {error}{hint}")))
}

/// Loads the backend's program and puts it on its hook.
fn attach(ebpf: &mut Ebpf, backend: Backend, btf: &Result<Btf, String>) -> Result<Link, Attempt> {
    let program = ebpf.program_mut(backend.program()).ok_or_else(|| {
        Attempt::Fatal(ProbeError::Setup(format!("the object has no {}", backend.program())))
    })?;
    match backend {
        Backend::TpBtf => {
            let btf = btf.as_ref().map_err(refused)?;
            let program: &mut BtfTracePoint = program.try_into().map_err(refused)?;
            program.load(TRACEPOINT, btf).map_err(program_refused)?;
            Ok(Link::TpBtf(program.attach().map_err(program_refused)?))
        }
        Backend::Tracepoint => {
            let program: &mut TracePoint = program.try_into().map_err(refused)?;
            program.load().map_err(program_refused)?;
            let link = tracefs::with_tracefs(|_| program.attach("sock", TRACEPOINT))
                .map_err(no_tracefs)?
                .map_err(program_refused)?;
            Ok(Link::Tracepoint(link))
        }
    }
}

fn program_refused(error: ProgramError) -> Attempt {
    Attempt::Refused(program_words(error))
}

/// The kernel's words without the verifier's log, whose last line says why.
pub(super) fn program_words(error: ProgramError) -> String {
    match &error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let why = log
                .lines()
                .rev()
                .find(|line| !line.trim().is_empty() && !line.starts_with("processed "))
                .unwrap_or_default();
            let why = if why.is_empty() { String::new() } else { format!(" ({})", why.trim()) };
            format!("the kernel refused the program: {io_error}{why}")
        }
        ProgramError::SyscallError(error) => format!("{}: {}", error.call, error.io_error),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_is_one_line_that_says_what_next() {
        let refusal =
            |backend, reason: &str| Refusal { backend, without: None, reason: reason.to_owned() };
        let no_btf = refusal(Backend::TpBtf, "this kernel has no BTF");
        let no_tracefs = refusal(Backend::Tracepoint, "tracefs cannot be mounted");
        let denied = || io::Error::from_raw_os_error(libc::EPERM);
        let fatal = |attempt| match attempt {
            Attempt::Fatal(error) => error,
            Attempt::Refused(reason) => panic!("{reason}"),
        };
        let cases = [
            (
                ProbeError::Privilege { missing: vec![Capability::Bpf, Capability::Perfmon] },
                &["CAP_BPF and CAP_PERFMON", "root", "setcap cap_bpf,cap_perfmon+ep"][..],
            ),
            (ProbeError::NoRing, &["no BPF ring buffer", "5.8"]),
            (
                ProbeError::Ring { bytes: 1 << 31, error: denied() },
                &["2147483648", "smaller --ring-size"],
            ),
            (
                ProbeError::NetnsUnseen { reason: lines(std::slice::from_ref(&no_btf)) },
                &["-N", "no BTF"],
            ),
            (
                ProbeError::NoHook { refusals: vec![no_btf, no_tracefs] },
                &["no BTF; tracepoint: tracefs cannot be mounted", "tcptrace check"],
            ),
            (
                fatal(refused_map(4096, "NETS", io::Error::from_raw_os_error(libc::ENOMEM))),
                &["the map NETS", "memory"],
            ),
        ];
        for (error, says) in cases {
            let text = error.to_string();
            assert!(!text.contains('\n'), "{text}");
            assert!(says.iter().all(|part| text.contains(part)), "{text}: {says:?}");
        }
    }

    #[test]
    fn a_refused_call_leaves_the_other_ways_open() {
        let refused = program_refused(ProgramError::SyscallError(aya::sys::SyscallError {
            call: "bpf_raw_tracepoint_open",
            io_error: io::Error::from_raw_os_error(libc::EINVAL),
        }));
        let Attempt::Refused(reason) = refused else { panic!("another way may do") };
        assert!(reason.starts_with("bpf_raw_tracepoint_open: Invalid argument"), "{reason}");
    }
}
