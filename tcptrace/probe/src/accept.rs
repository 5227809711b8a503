//! The ways to learn which task takes a connection from a listener, and the program of each.

use std::{fmt, str::FromStr};

use aya::{
    Btf, Ebpf,
    programs::{
        FExit, ProgramError, TracePoint, fexit::FExitLinkId, trace_point::TracePointLinkId,
    },
};
use tcptrace_common::globals::FileOffsets;

use super::{btf, error::program_words, format, offsets, tracefs};

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
    fn backends(self) -> &'static [AcceptBackend] {
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

/// What is needed, found out before the object is loaded.
pub(super) struct Accepts {
    choice: AcceptChoice,
    /// The variant of the program for the function as this kernel has it.
    function: Result<&'static str, String>,
    files: Result<FileOffsets, String>,
}

/// What came of trying.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) attached: Option<Attached>,
    pub(super) refusals: Vec<(AcceptBackend, String)>,
}

impl Accepts {
    /// Asks the kernel, for the ways that are to be tried.
    pub(super) fn ask(choice: AcceptChoice, btf: &Result<btf::Btf<'_>, String>) -> Self {
        let btf = btf.as_ref().map_err(String::clone);
        let asked = |backend| match choice.backends().contains(&backend) {
            true => btf.clone(),
            false => Err("not asked for".to_owned()),
        };
        Self {
            choice,
            function: asked(AcceptBackend::Function).and_then(variant),
            files: asked(AcceptBackend::Syscall).and_then(files),
        }
    }

    /// From a descriptor to its socket.
    pub(super) fn files(&self) -> FileOffsets {
        self.files.clone().unwrap_or(FileOffsets::NONE)
    }

    /// Attaches the best way that the kernel takes.
    pub(super) fn attach(&self, ebpf: &mut Ebpf, btf: &Result<Btf, String>) -> Outcome {
        let mut refusals = Vec::new();
        for &backend in self.choice.backends() {
            let attached = match backend {
                AcceptBackend::Function => self.attach_function(ebpf, btf),
                AcceptBackend::Syscall => self.attach_syscalls(ebpf),
            };
            match attached {
                Ok(attached) => return Outcome { attached: Some(attached), refusals },
                Err(reason) => refusals.push((backend, reason)),
            }
        }
        Outcome { attached: None, refusals }
    }

    fn attach_function(
        &self,
        ebpf: &mut Ebpf,
        btf: &Result<Btf, String>,
    ) -> Result<Attached, String> {
        let name = self.function.clone()?;
        let btf = btf.as_ref().map_err(String::clone)?;
        let program: &mut FExit = program(ebpf, name)?;
        program.load(FUNCTION, btf).map_err(program_words)?;
        let link = program.attach().map_err(program_words)?;
        Ok(Attached(Links::Function { name, link }))
    }

    fn attach_syscalls(&self, ebpf: &mut Ebpf) -> Result<Attached, String> {
        self.files.as_ref().map_err(String::clone)?;
        let program: &mut TracePoint = program(ebpf, SYSCALL_PROGRAM)?;
        program.load().map_err(program_words)?;
        // On a refusal of the second the first goes with the object.
        let mut attach = || -> Result<Vec<TracePointLinkId>, ProgramError> {
            EXITS.into_iter().map(|(category, name)| program.attach(category, name)).collect()
        };
        let links = tracefs::with_tracefs(|_| attach())
            .map_err(|error| tracefs::none(&error))?
            .map_err(program_words)?;
        Ok(Attached(Links::Syscalls(links)))
    }
}

const FUNCTION: &str = "inet_csk_accept";
const SYSCALL_PROGRAM: &str = "accept_syscall";
const EXITS: [(&str, &str); 2] =
    [("syscalls", "sys_exit_accept"), ("syscalls", "sys_exit_accept4")];

/// What the function returns lies behind its arguments, of which there are four, or two since
/// 6.10 (commit 92ef0fd55ac8).
fn variant(btf: &btf::Btf<'_>) -> Result<&'static str, String> {
    match btf.arguments(FUNCTION).map_err(|error| error.to_string())? {
        2 => Ok("accept_exit_of_2"),
        4 => Ok("accept_exit_of_4"),
        count => Err(format!("this kernel's {FUNCTION}() takes {count} arguments")),
    }
}

fn files(btf: &btf::Btf<'_>) -> Result<FileOffsets, String> {
    let [accept, accept4] = tracefs::formats(EXITS)?.map(|text| format::returned(&text));
    let words = |error: format::FormatError| error.to_string();
    let (accept, accept4) = (accept.map_err(words)?, accept4.map_err(words)?);
    if accept != accept4 {
        return Err("the exits of accept and accept4 have different records".to_owned());
    }
    offsets::file_offsets(btf, accept).map_err(|error| error.to_string())
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, String>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    let program = ebpf.program_mut(name).ok_or_else(|| format!("the object has no {name}"))?;
    program.try_into().map_err(program_words)
}

enum Links {
    Function { name: &'static str, link: FExitLinkId },
    Syscalls(Vec<TracePointLinkId>),
}

/// A way in force.
pub(super) struct Attached(Links);

impl Attached {
    pub(super) fn backend(&self) -> AcceptBackend {
        match self.0 {
            Links::Function { .. } => AcceptBackend::Function,
            Links::Syscalls(_) => AcceptBackend::Syscall,
        }
    }

    /// Takes the programs off; they stay loaded.
    pub(super) fn detach(self, ebpf: &mut Ebpf) -> Result<(), String> {
        match self.0 {
            Links::Function { name, link } => {
                program::<FExit>(ebpf, name)?.detach(link).map_err(program_words)
            }
            Links::Syscalls(links) => {
                let program: &mut TracePoint = program(ebpf, SYSCALL_PROGRAM)?;
                links.into_iter().try_for_each(|link| program.detach(link)).map_err(program_words)
            }
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
