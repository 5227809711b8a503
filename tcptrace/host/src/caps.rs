//! What this process is allowed to do.

use std::{fmt, io};

/// A capability, with the kernel's number (`include/uapi/linux/capability.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Read files whatever their mode: tracefs is mode 0700.
    DacReadSearch = 2,
    /// Look into other users' processes: the namespace of one.
    SysPtrace = 19,
    /// Everything that older kernels had no finer word for.
    SysAdmin = 21,
    /// Raise resource limits: before 5.11 BPF maps count against `RLIMIT_MEMLOCK`.
    SysResource = 24,
    /// See addresses in /proc/kallsyms.
    Syslog = 34,
    /// Attach programs to tracepoints (5.8).
    Perfmon = 38,
    /// Load programs and create maps (5.8).
    Bpf = 39,
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::DacReadSearch => "CAP_DAC_READ_SEARCH",
            Self::SysPtrace => "CAP_SYS_PTRACE",
            Self::SysAdmin => "CAP_SYS_ADMIN",
            Self::SysResource => "CAP_SYS_RESOURCE",
            Self::Syslog => "CAP_SYSLOG",
            Self::Perfmon => "CAP_PERFMON",
            Self::Bpf => "CAP_BPF",
        })
    }
}

/// A set of capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities(u64);

impl Capabilities {
    /// The effective ones of the calling thread.
    pub fn effective() -> io::Result<Self> {
        let status = std::fs::read_to_string("/proc/thread-self/status")?;
        Self::parse(&status).ok_or_else(|| io::Error::other("/proc/self/status has no CapEff"))
    }

    fn parse(status: &str) -> Option<Self> {
        let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(hex.trim(), 16).ok().map(Self)
    }

    /// Whether `capability` is in force.
    pub const fn has(self, capability: Capability) -> bool {
        self.0 & (1 << capability as u64) != 0
    }

    /// What to say of other users' processes that could not be looked into: the capability if it is
    /// missing, and else that it is not what is missing.
    #[must_use]
    pub fn for_other_users(self) -> &'static str {
        if self.has(Capability::SysPtrace) {
            "refused although this process has CAP_SYS_PTRACE"
        } else {
            "other users' processes need CAP_SYS_PTRACE"
        }
    }

    /// What is missing for loading and attaching the tracing programs.
    pub fn missing_for_tracing(self) -> Vec<Capability> {
        if self.has(Capability::SysAdmin) {
            return Vec::new(); // includes the two since 5.8 split them off
        }
        [Capability::Bpf, Capability::Perfmon].into_iter().filter(|&c| !self.has(c)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_missing() {
        let only_bpf = Capabilities::parse("Name:\tx\nCapEff:\t0000008000000000\n").unwrap();
        assert_eq!(only_bpf.missing_for_tracing(), [Capability::Perfmon]);
        let admin = Capabilities::parse("CapEff:\t0000000000200000\n").unwrap();
        assert_eq!(admin.missing_for_tracing(), []);
        let none = Capabilities::parse("CapEff:\t0\n").unwrap();
        assert_eq!(none.missing_for_tracing(), [Capability::Bpf, Capability::Perfmon]);
        assert_eq!(Capabilities::parse("CapPrm:\t0\n"), None);
    }
}
