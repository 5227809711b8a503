//! The ways to learn which task takes a connection from a listener, and the program of each.

use aya::{
    Btf, Ebpf,
    programs::{
        FExit, ProgramError, TracePoint, fexit::FExitLinkId, trace_point::TracePointLinkId,
    },
};
use tcptrace_common::globals::FileOffsets;

use super::{
    backend::{AcceptBackend, AcceptChoice},
    btf::{self, Target},
    error::program_words,
    format, offsets, tracefs,
};

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

/// What the programs attach to by BTF.
pub(super) const TARGET: Target = Target::Function(FUNCTION);

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
