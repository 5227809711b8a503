//! The two ways to listen to `tcp:tcp_send_reset` and `tcp:tcp_receive_reset`, which are those of
//! the socket hook and go with it; and the names of the reasons of RSTs.
//!
//! Without them nothing but the reasons of resets is missing, so a refusal is no error.

use aya::{
    Btf, Ebpf,
    programs::{
        BtfTracePoint, ProgramError, TracePoint, tp_btf::BtfTracePointLinkId,
        trace_point::TracePointLinkId,
    },
};
use tcptrace_common::{globals::Resets, record::NO_REASON};

use super::{
    backend::Backend,
    btf::{self, Target},
    error::program_words,
    format, tracefs,
};
use tcptrace_model::RstReason;

/// The programs of each way, and what each is put on.
const fn programs(backend: Backend) -> [(&'static str, &'static str); 2] {
    match backend {
        Backend::TpBtf => {
            [("reset_sent_btf", "tcp_send_reset"), ("reset_received_btf", "tcp_receive_reset")]
        }
        Backend::Tracepoint => [
            ("reset_sent_classic", "tcp_send_reset"),
            ("reset_received_classic", "tcp_receive_reset"),
        ],
    }
}

/// What the BTF-typed programs attach to.
pub(super) fn targets() -> impl Iterator<Item = Target> {
    programs(Backend::TpBtf).into_iter().map(|(_, hook)| Target::Tracepoint(hook))
}

/// How this kernel numbers the reasons of RSTs.
#[derive(Clone, Debug, Default)]
pub(super) struct Reasons(Vec<(u32, Option<RstReason>)>);

impl Reasons {
    /// As BTF has them: the numbers have moved between kernels, the names have not.
    pub(super) fn ask(btf: &btf::Btf<'_>) -> Self {
        const NAMES: [(&str, Option<RstReason>); 8] = [
            // What close() and abort have said before 6.12.
            ("SK_RST_REASON_NOT_SPECIFIED", None),
            ("SK_RST_REASON_TCP_ABORT_ON_DATA", Some(RstReason::AbortOnData)),
            ("SK_RST_REASON_TCP_ABORT_ON_CLOSE", Some(RstReason::AbortOnClose)),
            ("SK_RST_REASON_TCP_ABORT_ON_LINGER", Some(RstReason::AbortOnLinger)),
            ("SK_RST_REASON_TCP_ABORT_ON_MEMORY", Some(RstReason::AbortOnMemory)),
            ("SK_RST_REASON_TCP_STATE", Some(RstReason::TcpState)),
            ("SK_RST_REASON_TCP_KEEPALIVE_TIMEOUT", Some(RstReason::KeepaliveTimeout)),
            ("SK_RST_REASON_TCP_DISCONNECT_WITH_DATA", Some(RstReason::DisconnectWithData)),
        ];
        let number = |(name, reason)| Some((btf.enum_value("sk_rst_reason", name).ok()?, reason));
        Self(NAMES.into_iter().filter_map(number).collect())
    }

    /// Whether this kernel has none (before 6.10, or without BTF).
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The reason with this number; `None` where there is none, or its name is not known.
    pub(super) fn name(&self, number: u32) -> Option<RstReason> {
        if number == NO_REASON || self.is_empty() {
            return None;
        }
        let found = self.0.iter().find(|(known, _)| *known == number);
        found.map_or(Some(RstReason::Other), |&(_, reason)| reason)
    }
}

/// The layouts of the classic tracepoints, if `backend` needs them, or why resets cannot be
/// listened to.
pub(super) fn layouts(backend: Backend) -> Result<Resets, String> {
    if backend == Backend::TpBtf {
        return Ok(Resets::NONE);
    }
    let [sent, received] =
        tracefs::formats([("tcp", "tcp_send_reset"), ("tcp", "tcp_receive_reset")])?;
    let layout = |text: &str| format::reset_layout(text).map_err(|error| error.to_string());
    Ok(Resets { sent: layout(&sent)?, received: layout(&received)? })
}

/// Whether `tcp_send_reset` says why (6.10).
pub(super) fn has_reason(btf: &btf::Btf<'_>) -> bool {
    // The tracepoint's own data, sk, skb, and the reason.
    btf.arguments("btf_trace_tcp_send_reset").is_ok_and(|count| count >= 4)
}

/// Takes a program off its hook.
enum Link {
    TpBtf(BtfTracePointLinkId),
    Tracepoint(TracePointLinkId),
}

/// Programs in force.
pub(super) struct Attached {
    links: Vec<(&'static str, Link)>,
}

/// Loads and attaches the programs of a way; on a refusal takes off what was put on, and says why.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    backend: Backend,
    btf: &Result<Btf, String>,
) -> Result<Attached, String> {
    let mut attached = Attached { links: Vec::new() };
    for (name, hook) in programs(backend) {
        match attach_one(ebpf, backend, name, hook, btf) {
            Ok(link) => attached.links.push((name, link)),
            Err(reason) => {
                attached.detach(ebpf).map_err(program_words)?;
                return Err(reason);
            }
        }
    }
    Ok(attached)
}

fn attach_one(
    ebpf: &mut Ebpf,
    backend: Backend,
    name: &str,
    hook: &str,
    btf: &Result<Btf, String>,
) -> Result<Link, String> {
    let program = ebpf.program_mut(name).ok_or_else(|| format!("the object has no {name}"))?;
    match backend {
        Backend::TpBtf => {
            let btf = btf.as_ref().map_err(String::clone)?;
            let program: &mut BtfTracePoint = program.try_into().map_err(program_words)?;
            program.load(hook, btf).map_err(program_words)?;
            program.attach().map(Link::TpBtf).map_err(program_words)
        }
        Backend::Tracepoint => {
            let program: &mut TracePoint = program.try_into().map_err(program_words)?;
            program.load().map_err(program_words)?;
            tracefs::with_tracefs(|_| program.attach("tcp", hook))
                .map_err(|error| tracefs::none(&error))?
                .map(Link::Tracepoint)
                .map_err(program_words)
        }
    }
}

impl Attached {
    /// Takes the programs off; they stay loaded.
    pub(super) fn detach(&mut self, ebpf: &mut Ebpf) -> Result<(), ProgramError> {
        for (name, link) in self.links.drain(..) {
            let program = ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)?;
            match link {
                Link::TpBtf(link) => <&mut BtfTracePoint>::try_from(program)?.detach(link)?,
                Link::Tracepoint(link) => <&mut TracePoint>::try_from(program)?.detach(link)?,
            }
        }
        Ok(())
    }

    /// The names of its programs.
    pub(super) fn programs(&self) -> impl Iterator<Item = &'static str> {
        self.links.iter().map(|(name, _)| *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_named_as_this_kernel_has_them() {
        let moved = Reasons(vec![
            (0, None),
            (7, Some(RstReason::TcpState)),
            (8, Some(RstReason::AbortOnClose)),
        ]);
        assert_eq!(moved.name(7), Some(RstReason::TcpState));
        assert_eq!(moved.name(0), None);
        assert_eq!(moved.name(9), Some(RstReason::Other));
        assert_eq!(moved.name(NO_REASON), None);
        assert_eq!(Reasons::default().name(7), None);
    }
}
