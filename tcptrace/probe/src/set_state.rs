//! The ways to listen to `sock:inet_sock_set_state`, and the program of each.

use aya::{
    Btf, Ebpf,
    programs::{
        BtfTracePoint, Program, ProgramError, TracePoint, tp_btf::BtfTracePointLinkId,
        trace_point::TracePointLinkId,
    },
};
use tcptrace_common::globals::TracepointLayout;

use super::{
    backend::{Backend, SET_STATE},
    btf::Target,
    error::{Attempt, ProbeError, program_refused, refused},
    format, tracefs,
};

/// What the BTF-typed programs attach to.
pub(super) const TARGET: Target = Target::Tracepoint(SET_STATE);

/// The backend's program in the kernel object.
pub(super) const fn program_of(backend: Backend) -> &'static str {
    match backend {
        Backend::TpBtf => "set_state_btf",
        Backend::Tracepoint => "set_state_classic",
    }
}

/// The program that stands in for `set_state_btf` where the kernel does not run that one again.
const STAND_IN: &str = "set_state_btf_nested";

/// What takes the programs off their hook.
pub(super) enum Link {
    /// Of the program and of its stand-in, which a trial does not have.
    TpBtf(BtfTracePointLinkId, Option<BtfTracePointLinkId>),
    Tracepoint(TracePointLinkId),
}

/// The layout of the classic tracepoint's record on the running kernel.
pub(super) fn classic_layout() -> Result<TracepointLayout, Attempt> {
    let [text] = tracefs::formats([("sock", SET_STATE)]).map_err(Attempt::Refused)?;
    format::set_state_layout(&text).map_err(refused)
}

fn the_program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program, Attempt> {
    ebpf.program_mut(name)
        .ok_or_else(|| Attempt::Fatal(ProbeError::Setup(format!("the object has no {name}"))))
}

fn attach_btf(ebpf: &mut Ebpf, name: &str) -> Result<BtfTracePointLinkId, Attempt> {
    let program: &mut BtfTracePoint = the_program(ebpf, name)?.try_into().map_err(refused)?;
    program.attach().map_err(program_refused)
}

/// Loads the backend's programs.
pub(super) fn load(
    ebpf: &mut Ebpf,
    backend: Backend,
    btf: &Result<Btf, String>,
    trial: bool,
) -> Result<(), Attempt> {
    match backend {
        Backend::TpBtf => {
            let btf = btf.as_ref().map_err(refused)?;
            let stand_in = (!trial).then_some(STAND_IN);
            for name in [program_of(backend)].into_iter().chain(stand_in) {
                let program: &mut BtfTracePoint =
                    the_program(ebpf, name)?.try_into().map_err(refused)?;
                program.load(SET_STATE, btf).map_err(program_refused)?;
            }
            Ok(())
        }
        Backend::Tracepoint => {
            let program = the_program(ebpf, program_of(backend))?;
            let program: &mut TracePoint = program.try_into().map_err(refused)?;
            program.load().map_err(program_refused)
        }
    }
}

/// Puts the backend's programs on their hook.
pub(super) fn attach(ebpf: &mut Ebpf, backend: Backend, trial: bool) -> Result<Link, Attempt> {
    match backend {
        Backend::TpBtf => {
            let program = attach_btf(ebpf, program_of(backend))?;
            let stand_in = if trial { None } else { Some(attach_btf(ebpf, STAND_IN)?) };
            Ok(Link::TpBtf(program, stand_in))
        }
        Backend::Tracepoint => {
            let program = the_program(ebpf, program_of(backend))?;
            let program: &mut TracePoint = program.try_into().map_err(refused)?;
            let link = tracefs::with_tracefs(|_| program.attach("sock", SET_STATE))
                .map_err(|error| Attempt::Refused(tracefs::none(&error)))?
                .map_err(program_refused)?;
            Ok(Link::Tracepoint(link))
        }
    }
}

/// Takes the backend's programs off their hook; they stay loaded.
pub(super) fn detach(ebpf: &mut Ebpf, backend: Backend, link: Link) -> Result<(), ProgramError> {
    let program = ebpf.program_mut(program_of(backend)).ok_or(ProgramError::NotLoaded)?;
    let stand_in = match link {
        Link::TpBtf(link, stand_in) => {
            <&mut BtfTracePoint>::try_from(program)?.detach(link)?;
            stand_in
        }
        Link::Tracepoint(link) => return <&mut TracePoint>::try_from(program)?.detach(link),
    };
    let Some(stand_in) = stand_in else { return Ok(()) };
    let program = ebpf.program_mut(STAND_IN).ok_or(ProgramError::NotLoaded)?;
    <&mut BtfTracePoint>::try_from(program)?.detach(stand_in)
}
