//! Why a way to listen was not taken, and why none was.

use std::{fmt, io};

use aya::{maps::MapError, programs::ProgramError};
use thiserror::Error;

use super::{
    backend::{AcceptBackend, Backend, SET_STATE, TimeWaitBackend},
    ring,
};
use tcptrace_host::caps::{Capabilities, Capability};

/// The finer point of tp_btf that is tried first and done without.
pub(super) const COOKIES: &str = "socket cookies";

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
        "tracing needs {}, which this process lacks: run as root, or grant them once, as root: \
         setcap cap_bpf,cap_perfmon,cap_syslog+ep {}",
        list(missing),
        program()
    )]
    Privilege {
        /// What it lacks.
        missing: Vec<Capability>,
    },
    /// The kernel has no ring buffer maps.
    #[error("this kernel has no BPF ring buffer: tcptrace needs Linux 5.8 or later")]
    NoRing,
    /// The ring could not be had.
    #[error(
        "cannot create a ring of {bytes} bytes: {error}; try a smaller --ring-size{}",
        denied_advice(error)
    )]
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
        "no hook for {SET_STATE} could be attached: {}; tcptrace check says more",
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
    /// The way to learn who accepts that was asked for is not to be had.
    #[error("--accept-hook {backend} is refused: {reason}")]
    Accept {
        /// Which way.
        backend: AcceptBackend,
        /// Why not.
        reason: String,
    },
    /// The kernel object or its maps could not be used.
    #[error("cannot set up the kernel side: {0}")]
    Setup(String),
}

/// Where this program is, for `setcap`, which follows no symbolic link and searches no PATH.
fn program() -> String {
    let path = std::env::current_exe().and_then(std::fs::canonicalize);
    path.map_or_else(|_| "/path/to/tcptrace".to_owned(), |path| format!("{path:?}"))
}

fn list(missing: &[Capability]) -> String {
    missing.iter().map(Capability::to_string).collect::<Vec<_>>().join(" and ")
}

pub(super) fn lines(refusals: &[Refusal]) -> String {
    refusals.iter().map(Refusal::to_string).collect::<Vec<_>>().join("; ")
}

/// How an attempt ended.
pub(super) enum Attempt {
    /// This way is not to be had; another may be.
    Refused(String),
    /// No other way would fare better.
    Fatal(ProbeError),
}

pub(super) fn refused(error: impl fmt::Display) -> Attempt {
    Attempt::Refused(error.to_string())
}

pub(super) fn setup(error: MapError) -> Attempt {
    Attempt::Fatal(ProbeError::Setup(error.to_string()))
}

pub(super) fn program_refused(error: ProgramError) -> Attempt {
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

/// What else may be in the way of a map where no capability is missing.
fn denied_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        // With every capability: of a user namespace that is not the first, or of a runtime whose
        // seccomp profile asks for CAP_SYS_ADMIN. Before 5.11 also too large a map.
        io::ErrorKind::PermissionDenied => {
            "; in a container it takes the host's CAP_BPF, CAP_PERFMON and a seccomp profile that \
             allows bpf()"
        }
        _ => "",
    }
}

/// What the kernel's refusal of a map means.
pub(super) fn refused_map(ring_bytes: u32, name: &str, error: io::Error) -> Attempt {
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
    let hint = denied_advice(&error);
    Attempt::Fatal(ProbeError::Setup(format!("the kernel refused the map {name}: {error}{hint}")))
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
                &[
                    "CAP_BPF and CAP_PERFMON",
                    "root",
                    "setcap cap_bpf,cap_perfmon,cap_syslog+ep \"/",
                ][..],
            ),
            (ProbeError::NoRing, &["no BPF ring buffer", "5.8"]),
            (
                ProbeError::Ring { bytes: 1 << 31, error: denied() },
                &["2147483648", "smaller --ring-size", "seccomp"],
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
