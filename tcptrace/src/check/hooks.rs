//! Trying the hooks: each is attached for a moment, and what it can tell is noted.

use super::row::{Row, Topic, Verdict};
use tcptrace_host::loopback;
use tcptrace_model::filter::Filter;
use tcptrace_probe::{
    AcceptBackend, AcceptChoice, Backend, Fact, Known, Options, Probe, ProbeError, Refusal,
    TimeWaitBackend, TimeWaitChoice, Unobservable,
};
use tcptrace_source::self_test::{self, Proof};

/// What came of it.
pub(super) struct Tried {
    /// A row for each hook.
    pub rows: Vec<Row>,
    /// The hooks that attached, best first.
    pub attached: Vec<Attached>,
}

/// A hook that attached.
pub(super) struct Attached {
    /// Which.
    pub backend: Backend,
    /// What traces by it tell and what not.
    pub truth: Vec<Row>,
}

/// Tries every way to listen to `sock:inet_sock_set_state`.
pub(super) fn try_all() -> Tried {
    let mut tried = Tried { rows: Vec::new(), attached: Vec::new() };
    let any = Options {
        backend: None,
        ring_bytes: tcptrace_probe::page_bytes(),
        filter: Filter::default(),
        kernel_log: false,
        time_wait: TimeWaitChoice::Auto,
        accept: AcceptChoice::Auto,
        trial: false,
    };
    let mut known = Known::ask(&any);
    for backend in Backend::ALL {
        let options = Options { backend: Some(backend), ..any.clone() };
        let row = |verdict, found| Row::new(Topic::Hooks, backend.name(), verdict, found);
        // Dropping the probe takes the program off its hook.
        tried.rows.push(match self_test::start_with(&mut known, &options, loopback::live_a_life) {
            Ok((mut live, proof)) => {
                let mut truth = truth(live.probe());
                truth.push(self_test(&proof));
                tried.attached.push(Attached { backend, truth });
                let probe = live.probe();
                let lacking = probe.unobservable();
                let counts = probe.verified_instructions().into_iter().map(|(_, count)| count);
                let verified = match counts.sum::<Option<u32>>() {
                    Some(count) => format!("{count} instructions verified"),
                    None => "how many instructions were verified is not told".to_owned(),
                };
                let row =
                    row(Verdict::Ok, format!("attaches to sock:inet_sock_set_state; {verified}"));
                match lacking.as_slice() {
                    [] => row,
                    lacking => {
                        row.means(format!("does not tell: {}", Unobservable::names(lacking)))
                    }
                }
            }
            Err(ProbeError::NoHook { refusals }) => row(Verdict::Refused, reasons(&refusals)),
            Err(error) => row(Verdict::Refused, error.to_string()),
        });
    }
    tried
}

/// The kernel's answers to one hook.
fn reasons(refusals: &[Refusal]) -> String {
    let answer = |refusal: &Refusal| match refusal.without {
        Some(finer) => format!("with {finer}: {}", refusal.reason),
        None => refusal.reason.clone(),
    };
    refusals.iter().map(answer).collect::<Vec<_>>().join("; ")
}

/// What a trace by `probe` tells.
fn truth(probe: &Probe) -> Vec<Row> {
    let row = |name, verdict, found: String| Row::new(Topic::Truth, name, verdict, found);
    let told = || "told with each transition".to_owned();
    let lacking = probe.unobservable();
    let mut rows = vec![row("states, ends, times", Verdict::Ok, told())];
    rows.extend(Fact::ALL.into_iter().map(|fact| {
        match lacking.iter().find(|lack| lack.fact == fact) {
            None => row(fact.name(), Verdict::Ok, told()),
            Some(lack) => row(fact.name(), Verdict::Lacks, format!("not observable: {}", lack.why))
                .means(costs(fact)),
        }
    }));
    rows.push(match probe.missed() {
        Some(_) => row("skipped runs", Verdict::Ok, "counted by the kernel".to_owned()),
        None => row(
            "skipped runs",
            Verdict::Lacks,
            "not observable: the kernel counts them since 5.12".to_owned(),
        )
        .means("transitions that the hook did not see are not told"),
    });
    rows.push(totals(probe));
    rows.push(resets(probe));
    rows.push(accepts(probe));
    rows.push(time_wait(probe));
    rows
}

/// Whether it is told what a connection did.
fn totals(probe: &Probe) -> Row {
    let row = |verdict, found: &str| Row::new(Topic::Truth, "totals", verdict, found);
    if probe.tells_totals() {
        return row(Verdict::Ok, "told with each connection's end");
    }
    row(Verdict::Lacks, "not observable: they take the tp_btf hook and the fields of tcp_sock")
        .means("bytes, retransmits and round-trip times of connections are not told")
}

/// Whether RSTs are told, and why they were sent.
fn resets(probe: &Probe) -> Row {
    let row = |verdict, found| Row::new(Topic::Truth, "resets", verdict, found);
    match probe.resets() {
        Ok(()) if probe.tells_reset_reasons() => {
            row(Verdict::Ok, format!("sent and received, by {}, and why", probe.backend()))
        }
        Ok(()) => row(Verdict::Ok, format!("sent and received, by {}", probe.backend()))
            .means("the kernel tells why it sends a RST since 6.10, by BTF"),
        Err(reason) => row(Verdict::Lacks, format!("not observable: {reason}"))
            .means("whether a RST was sent or came is told only where the socket's error says it"),
    }
}

/// Whether it is told who accepts a connection.
fn accepts(probe: &Probe) -> Row {
    let row = |verdict, found| Row::new(Topic::Truth, "accepts", verdict, found);
    let refusals = probe.accept_refusals().iter();
    let refused: Vec<_> =
        refusals.map(|(backend, reason)| format!("{backend}: {reason}")).collect();
    match probe.accept() {
        Some(AcceptBackend::Function) => row(Verdict::Ok, "by function".to_owned()),
        Some(AcceptBackend::Syscall) => {
            row(Verdict::Ok, format!("by syscall; not by {}", refused.join("; "))).means(
                "costs every system call of the host some 10 ns (--accept-hook off does not); \
                 what io_uring accepts is not told",
            )
        }
        None => row(Verdict::Lacks, format!("not observable: {}", refused.join("; ")))
            .means("who accepted a connection is known when it closes it, or from the listener"),
    }
}

/// Whether what becomes of minisocks is told.
fn time_wait(probe: &Probe) -> Row {
    let row = |verdict, found| Row::new(Topic::Truth, "TIME_WAIT", verdict, found);
    let refusals = probe.time_wait_refusals().iter();
    let refused: Vec<_> =
        refusals.map(|(backend, reason)| format!("{backend}: {reason}")).collect();
    match probe.time_wait() {
        Some(TimeWaitBackend::Sampling) => row(
            Verdict::Lacks,
            format!("its start and its end, by sampling; not by {}", refused.join("; ")),
        )
        .means(SAMPLING_COSTS),
        Some(backend) => {
            let not_by = match refused.as_slice() {
                [] => String::new(),
                refused => format!("; not by {}", refused.join("; ")),
            };
            if probe.tells_who() {
                row(Verdict::Ok, format!("its start, its end and why, by {backend}{not_by}"))
            } else {
                row(Verdict::Lacks, format!("its start and its end, by {backend}{not_by}"))
                    .means("reasons but expired are not told: /proc/kallsyms hides addresses")
            }
        }
        None => row(Verdict::Lacks, format!("not observable: {}", refused.join("; ")))
            .means("the hand-over to TIME_WAIT shows as FIN_WAIT2 -> CLOSE, its end not at all"),
    }
}

/// What it means to have no hook for minisocks.
const SAMPLING_COSTS: &str = "the kernel's tables are looked at each second (more seldom where that \
                              takes long): what comes and goes between two looks is not seen, ends \
                              are dated to that, and reasons but expired are unknown";

/// What a connection of one's own showed.
fn self_test(proof: &Proof) -> Row {
    let row = |verdict, found| Row::new(Topic::Truth, "self-test", verdict, found);
    let silent: Vec<_> =
        proof.ruled_out.time_wait.iter().map(|(way, why)| format!("{way}: {why}")).collect();
    match &proof.outcome {
        Err(why) => row(Verdict::Unknown, format!("could not be run: {why}"))
            .means("a hook that attaches and is never called would not be noticed"),
        Ok(took) if silent.is_empty() => row(
            Verdict::Ok,
            format!("a connection of its own was told by all hooks, in {} ms", took.as_millis()),
        ),
        Ok(_) => row(Verdict::Lacks, silent.join("; ")).means("the next best way is taken"),
    }
}

/// What goes without saying when a fact is not told.
const fn costs(fact: Fact) -> &'static str {
    match fact {
        Fact::Netns => "-N is refused; namespaces with the same addresses are not told apart",
        Fact::Error => "why the kernel gave a connection up is not told",
        Fact::Linger => "whether a close was meant to reset is not told",
        Fact::Cgroup => "containers are not told apart",
        Fact::Cookie => "a socket is known by its kernel address alone, which is reused",
        Fact::Pid => "processes that events name are shown as foreign, and -p does not find them",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use tcptrace_probe::RuledOut;

    #[test]
    fn a_hook_that_is_never_called_is_said() {
        let time_wait = vec![(TimeWaitBackend::Functions, "inet_twsk_free".to_owned())];
        let row = |outcome, ruled_out| self_test(&Proof { outcome, ruled_out });
        let took = || Ok(Duration::from_millis(9));
        let all = row(took(), RuledOut::default());
        assert_eq!((all.verdict, all.found.ends_with("in 9 ms")), (Verdict::Ok, true), "{all:?}");
        let silent = row(took(), RuledOut { time_wait, ..RuledOut::default() });
        assert_eq!(silent.verdict, Verdict::Lacks);
        assert_eq!(silent.found, "functions: inet_twsk_free");
        let refused = row(Err("not permitted".to_owned()), RuledOut::default());
        assert_eq!(refused.verdict, Verdict::Unknown);
        assert!(refused.found.ends_with("not permitted"), "{refused:?}");
    }
}
