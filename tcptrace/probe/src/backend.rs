//! The backends that can be asked for, by their names: for transitions, for minisocks, for accepts.
//!
//! Only values: what attaches each is in `set_state`, `time_wait` and `accept`.

use std::{fmt, str::FromStr};

/// The tracepoint of every transition, in the group `sock`.
pub(super) const SET_STATE: &str = "inet_sock_set_state";

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

/// A way to learn what becomes of minisocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeWaitBackend {
    /// The functions that make, time and free them (fentry): every move at its very moment.
    /// 5.5 on x86-64, 6.4 on arm64; refused on locked-down hosts.
    Functions,
    /// The tracepoints of their timers. Any kernel with BTF whose kallsyms shows addresses. A
    /// move from FIN_WAIT2 to TIME_WAIT inside a minisock is told to a jiffy.
    Timers,
    /// None: the kernel's tables are looked at about once a second (sock_diag). Any kernel. What
    /// comes and goes between two looks is not seen, an end is dated to that, and of its reasons
    /// only that the time was over is told.
    Sampling,
}

impl TimeWaitBackend {
    /// From best to worst.
    pub const ALL: [Self; 3] = [Self::Functions, Self::Timers, Self::Sampling];

    /// The word for it on the command line and in outputs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Functions => "functions",
            Self::Timers => "timers",
            Self::Sampling => "sampling",
        }
    }

    /// Whether programs on hooks of the kernel tell, each thing as it happens.
    pub const fn has_hooks(self) -> bool {
        !matches!(self, Self::Sampling)
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
        Self::ALL.into_iter().find(|backend| backend.name() == word).ok_or_else(|| {
            format!("unknown hook '{}': functions, timers, sampling", word.escape_default())
        })
    }
}

/// Which ways to listen to minisocks are to be tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeWaitChoice {
    /// All, from best to worst; none is no reason to fail.
    #[default]
    Auto,
    /// This one; it is an error if the kernel refuses it.
    Only(TimeWaitBackend),
    /// None: a hand-over to a minisock looks like an end.
    Off,
}

/// A way to learn who accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptBackend {
    /// The function that hands a connection out (fexit of `inet_csk_accept`). 5.5 on x86-64, 6.4
    /// on arm64; refused on locked-down hosts.
    Function,
    /// The exits of the system calls accept and accept4. Any kernel with BTF and
    /// `CONFIG_FTRACE_SYSCALLS`. It puts every system call of the host on the kernel's slow way
    /// (measured on 6.18: 7 ns more for each, of 86 for the shortest), costs 0.3 µs for each accept,
    /// and does not see what io_uring and the kernel accept.
    Syscall,
}

impl AcceptBackend {
    /// From best to worst.
    pub const ALL: [Self; 2] = [Self::Function, Self::Syscall];

    /// The word for it on the command line and in outputs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Function => "function",
            Self::Syscall => "syscall",
        }
    }
}

impl fmt::Display for AcceptBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Which ways to learn who accepts are to be tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AcceptChoice {
    /// Those that cost little, from best to worst; none is no reason to fail.
    #[default]
    Auto,
    /// This one; it is an error if the kernel refuses it.
    Only(AcceptBackend),
    /// None: who accepted is known from what happens later, or not at all.
    Off,
}

impl AcceptChoice {
    /// From best to worst.
    pub(super) fn backends(self) -> &'static [AcceptBackend] {
        match self {
            Self::Auto => &AcceptBackend::ALL,
            Self::Only(AcceptBackend::Function) => &[AcceptBackend::Function],
            Self::Only(AcceptBackend::Syscall) => &[AcceptBackend::Syscall],
            Self::Off => &[],
        }
    }
}

impl FromStr for AcceptChoice {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let backend = || AcceptBackend::ALL.into_iter().find(|backend| backend.name() == word);
        match word {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            _ => backend().map(Self::Only).ok_or_else(|| {
                format!("unknown hook '{}': auto, function, syscall, off", word.escape_default())
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_ways() {
        assert_eq!("auto".parse(), Ok(AcceptChoice::Auto));
        assert_eq!("off".parse(), Ok(AcceptChoice::Off));
        assert_eq!("syscall".parse(), Ok(AcceptChoice::Only(AcceptBackend::Syscall)));
        let error = "sys\x1b".parse::<AcceptChoice>().unwrap_err();
        assert!(error.contains("'sys\\u{1b}'") && error.contains("function"), "{error}");
    }
}
