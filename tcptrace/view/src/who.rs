//! Which process is named with a connection that is open: the one that has it open.
//!
//! Who acts on such a line (kill(1), strace(1)) acts on the process in it. So it must not name one
//! that only opened or accepted the connection, and may have handed it on or ended since.

use tcptrace_model::{Found, Holder, TcpState};

use crate::{table::process, wrap::cut};

/// The process id and the name, in at most `width` characters. Where it is not known which process
/// has it open, only the owner's name, with a question mark; where none has, that name in brackets.
/// `held` says whether any had at the last snapshot.
pub fn holder(found: &Found, held: Option<bool>, width: usize) -> (String, String) {
    let unknown = || "-".to_owned();
    if let Some(holder) = &found.holder {
        return (holder.task.pid_text(), cut(&holder.task.name().to_string(), width));
    }
    let owner = |room: usize| {
        let owner = found.owner.as_ref()?;
        Some(cut(&owner.task.name().to_string(), width.saturating_sub(room)))
    };
    let name = match held {
        Some(false) if is_unaccepted(found.state) => "(not acc.)".to_owned(),
        Some(false) if found.state != TcpState::SynSent => {
            owner(2).map_or("(orphan)".to_owned(), |owner| format!("({owner})"))
        }
        _ => owner(1).map_or_else(unknown, |owner| owner + "?"),
    };
    (unknown(), name)
}

/// Whether a connection that no process holds waits in the queue of its listener in such a state.
fn is_unaccepted(state: TcpState) -> bool {
    matches!(state, TcpState::CloseWait | TcpState::SynRecv | TcpState::Established)
}

/// `also held by 812/nginx and 2 more`: of several processes those that are not named; nothing of one.
pub fn also(holder: &Holder) -> Option<String> {
    let more = holder.holders.checked_sub(1).filter(|more| *more > 0)?;
    Some(match holder.also() {
        None => format!("also held by {more} more"),
        Some(also) if more == 1 => format!("also held by {}", process(Some(&also))),
        Some(also) => format!("also held by {} and {} more", process(Some(&also)), more - 1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcptrace_model::{Comm, Task, Tuple};

    fn found(state: TcpState) -> Found {
        let any = std::net::Ipv6Addr::UNSPECIFIED;
        Found {
            id: 1,
            mono_ns: 1,
            state,
            tuple: Tuple { laddr: any, raddr: any, lport: 1, rport: 2, v6_socket: true },
            netns: None,
            birth: None,
            owner: None,
            closer: None,
            holder: None,
            cookie: None,
            cgroup: None,
            mptcp: None,
            queues: None,
            retransmits: None,
            timestamps: None,
        }
    }

    fn task(tgid: u32, comm: &str) -> Task {
        Task::process(tgid, 0, 9, Comm::from(comm))
    }

    #[test]
    fn the_process_that_has_it_open_is_named_and_no_other_by_its_number() {
        let owner = tcptrace_model::Owner {
            task: task(7, "postmaster"),
            from: tcptrace_model::OwnerFrom::Accept,
        };
        let holder = Holder::one(task(8, "postgres-backend"));
        let mut open = Found { owner: Some(owner), ..found(TcpState::Established) };
        let of = |found: &Found, held| {
            let (pid, comm) = super::holder(found, held, 10);
            format!("{pid} {comm}")
        };
        assert_eq!(of(&open, None), "- postmast…?");
        assert_eq!(of(&open, Some(true)), of(&open, None), "it may have ended");
        open.holder = Some(holder);
        assert_eq!(of(&open, Some(true)), "8 postgres-…");
        assert_eq!(of(&found(TcpState::LastAck), Some(false)), "- (orphan)");
        let was = Found { holder: None, state: TcpState::TimeWait, ..open };
        assert_eq!(of(&was, Some(false)), "- (postmas…)");
        assert_eq!(of(&found(TcpState::CloseWait), Some(false)), "- (not acc.)");
        assert_eq!(of(&found(TcpState::SynSent), Some(false)), "- -");
        assert_eq!(of(&found(TcpState::CloseWait), None), "- -");
    }

    #[test]
    fn others_that_have_it_open_are_counted() {
        let one = Holder::one(task(8, "child"));
        let two = Holder { first: task(7, "parent"), holders: 2, ..one };
        assert_eq!(also(&one), None);
        assert_eq!(also(&two).as_deref(), Some("also held by 7/parent"));
        let five = Holder { holders: 5, ..two };
        assert_eq!(also(&five).as_deref(), Some("also held by 7/parent and 3 more"));
        assert_eq!(also(&Holder { holders: 3, ..one }).as_deref(), Some("also held by 2 more"));
    }
}
