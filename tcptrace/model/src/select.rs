//! Which connections to show, by what only user space knows of them: whose they are and how they
//! ended.
//!
//! What is not known of a connection is not what was asked for. Filters on what the kernel side
//! knows are in `filter`.

use std::str::FromStr;

use thiserror::Error;

use super::{
    change::{Closer, Found, Moved, Owner},
    input::Holder,
    task::{Comm, Task},
    verdict::{How, Initiator, Verdict},
};

/// A set of ways in which a connection ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HowSet(u32);

const _: () = assert!(How::ALL.len() <= 32);

impl HowSet {
    /// Whether `how` is one of them.
    pub fn contains(self, how: How) -> bool {
        How::ALL.iter().position(|&one| one == how).is_some_and(|at| self.0 & 1 << at != 0)
    }

    /// All of both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A word that is no way to end.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("unknown end '{0}': {all}", all = How::ALL.map(How::name).join(", "))]
pub struct UnknownHow(String);

impl FromStr for HowSet {
    type Err = UnknownHow;

    /// Reads a name, or the beginning of several: `rst` is all resets, `rst-sent` those that this
    /// host chose to send, `timeout` all that had nobody answer. Signs between words do not
    /// matter: `timeout:syn` is `timeout-syn`.
    fn from_str(word: &str) -> Result<Self, UnknownHow> {
        let parts = |text: &str| -> Vec<String> {
            let parts = text.split(|c: char| !c.is_ascii_alphanumeric());
            parts.filter(|part| !part.is_empty()).map(str::to_ascii_lowercase).collect()
        };
        let wanted = parts(word);
        let is_meant = |how: &How| !wanted.is_empty() && parts(how.name()).starts_with(&wanted);
        let bits = How::ALL.iter().enumerate().filter(|(_, how)| is_meant(how));
        match bits.fold(0, |bits, (at, _)| bits | 1 << at) {
            0 => Err(UnknownHow(word.escape_default().to_string())),
            bits => Ok(Self(bits)),
        }
    }
}

/// A word that is nobody who could have closed.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("unknown side '{0}': local, remote, both, none")]
pub struct UnknownSide(String);

impl FromStr for Initiator {
    type Err = UnknownSide;

    fn from_str(word: &str) -> Result<Self, UnknownSide> {
        let found = Self::ALL.into_iter().find(|side| side.name() == word);
        found.ok_or_else(|| UnknownSide(word.escape_default().to_string()))
    }
}

/// What to show. A process has to do with a connection if it owns it, closed it from here or has it
/// open. Within a kind one of them must hold, and of different kinds all; an empty kind
/// asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Processes.
    pub pids: Vec<u32>,
    /// Names of processes, whole. The kernel keeps 15 bytes of a name.
    pub comms: Vec<Comm>,
    /// Users.
    pub uids: Vec<u32>,
    /// Ids of cgroups (v2).
    pub cgroups: Vec<u64>,
    /// Who closed first.
    pub closed_by: Vec<Initiator>,
    /// How it ended.
    pub how: Option<HowSet>,
}

/// What is known of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Whose it is.
    pub owner: Option<&'a Owner>,
    /// Who closed it from here.
    pub closer: Option<&'a Closer>,
    /// Who has it open.
    pub holder: Option<&'a Holder>,
    /// The id of its cgroup.
    pub cgroup: Option<u64>,
    /// How it ended, as far as that is settled.
    pub verdict: Verdict,
}

impl<'a> From<&'a Moved> for Subject<'a> {
    fn from(moved: &'a Moved) -> Self {
        Self {
            owner: moved.owner.as_ref(),
            closer: moved.closer.as_ref(),
            holder: None,
            cgroup: moved.sock.and_then(|sock| sock.cgroup),
            verdict: moved.verdict,
        }
    }
}

impl<'a> From<&'a Found> for Subject<'a> {
    fn from(found: &'a Found) -> Self {
        Self {
            owner: found.owner.as_ref(),
            closer: found.closer.as_ref(),
            holder: found.holder.as_ref(),
            cgroup: found.cgroup,
            verdict: Verdict::default(),
        }
    }
}

impl Wanted {
    /// Whether a connection is to be shown.
    pub fn matches(&self, subject: Subject<'_>) -> bool {
        fn one_of<T: PartialEq>(wanted: &[T], known: Option<T>) -> bool {
            wanted.is_empty() || known.is_some_and(|known| wanted.contains(&known))
        }
        let how = subject.verdict.how;
        let tasks = [
            subject.owner.map(|owner| owner.task),
            subject.closer.map(|closer| closer.task),
            subject.holder.map(|holder| holder.task),
            subject.holder.map(|holder| holder.first),
        ];
        // All that is asked of a process must hold of one of them.
        let is_meant = |task: Option<Task>| {
            one_of(&self.pids, task.and_then(|task| task.pid()))
                && one_of(&self.comms, task.map(|task| task.comm))
                && one_of(&self.uids, task.map(|task| task.uid))
        };
        tasks.into_iter().any(is_meant)
            && one_of(&self.cgroups, subject.cgroup)
            && one_of(&self.closed_by, subject.verdict.initiator)
            && self.how.is_none_or(|set| how.is_some_and(|how| set.contains(how)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{OwnerFrom, RstWhy, Task, Timeout};

    fn owner(tgid: u32, uid: u32, comm: &str) -> Owner {
        let task = Task::thread(tgid, tgid + 1, uid, Comm::from(comm));
        Owner { task, from: OwnerFrom::Connect }
    }

    fn hows(word: &str) -> Vec<&'static str> {
        let set: HowSet = word.parse().unwrap();
        How::ALL.into_iter().filter(|&how| set.contains(how)).map(How::name).collect()
    }

    #[test]
    fn a_word_means_all_that_begin_with_it() {
        assert_eq!(hows("fin"), ["fin"]);
        assert_eq!(hows("timeout").len(), 5);
        assert_eq!(hows("dropped"), ["dropped-repair", "dropped-disconnect"]);
        assert_eq!(hows("timeout:syn"), ["timeout-syn"]);
        assert_eq!(hows("Timeout-Syn"), ["timeout-syn"]);
        assert_eq!(hows("rst-sent").len(), 7);
        assert_eq!(hows("rst").len(), 10);
        assert_eq!(hows("orphan"), ["orphan-gave-up", "orphan-limit"]);
        for how in How::ALL {
            assert!(hows(how.name()).contains(&how.name()));
        }
        let both = "fin".parse::<HowSet>().unwrap().union("refused".parse().unwrap());
        assert!(both.contains(How::Fin) && both.contains(How::Refused));
        assert!(!both.contains(How::RstSent(RstWhy::Other)));
    }

    #[test]
    fn no_such_word() {
        for word in ["rs", "", " ", "-", "fin-wait", "sent"] {
            assert!(word.parse::<HowSet>().is_err(), "{word}");
        }
        let error = "r\x1bst".parse::<HowSet>().unwrap_err().to_string();
        assert!(error.starts_with("unknown end 'r\\u{1b}st': fin, rst-received, "), "{error}");
        let error = "me".parse::<Initiator>().unwrap_err().to_string();
        assert_eq!(error, "unknown side 'me': local, remote, both, none");
        assert_eq!("remote".parse(), Ok(Initiator::Remote));
    }

    #[test]
    fn all_kinds_must_hold_and_the_unknown_is_not_what_was_asked_for() {
        let curl = owner(812, 1000, "curl");
        let verdict = Verdict::of(Some(Initiator::Local), How::Timeout(Timeout::User));
        let known =
            Subject { owner: Some(&curl), closer: None, holder: None, cgroup: Some(77), verdict };
        let unknown = Subject { owner: None, cgroup: None, verdict: Verdict::default(), ..known };
        let all = Wanted::default();
        assert!(all.matches(known) && all.matches(unknown));
        let wants: [(&str, Wanted, bool); 9] = [
            ("pid", Wanted { pids: vec![1, 812], ..all.clone() }, true),
            ("tid", Wanted { pids: vec![813], ..all.clone() }, false),
            ("comm", Wanted { comms: vec![Comm::from("curl")], ..all.clone() }, true),
            ("part", Wanted { comms: vec![Comm::from("cur")], ..all.clone() }, false),
            ("uid", Wanted { uids: vec![0], ..all.clone() }, false),
            ("cgroup", Wanted { cgroups: vec![77], ..all.clone() }, true),
            ("side", Wanted { closed_by: vec![Initiator::Local], ..all.clone() }, true),
            ("how", Wanted { how: "timeout".parse().ok(), ..all.clone() }, true),
            ("both", Wanted { pids: vec![812], how: "fin".parse().ok(), ..all.clone() }, false),
        ];
        for (what, wanted, expected) in wants {
            assert_eq!(wanted.matches(known), expected, "{what}");
            assert!(!wanted.matches(unknown), "{what}");
        }
    }

    #[test]
    fn who_closes_or_holds_it_has_to_do_with_it_too() {
        let (owner, closer) = (owner(1, 0, "acceptor"), owner(2, 33, "worker").task);
        let closer = Closer { task: closer, from: crate::CloserFrom::Fin };
        let first = Task { tgid: 4, ..owner.task };
        let holder = Holder { task: Task { tgid: 3, ..owner.task }, first, holders: 2 };
        let subject = Subject {
            owner: Some(&owner),
            closer: Some(&closer),
            holder: Some(&holder),
            cgroup: None,
            verdict: Verdict::default(),
        };
        for pid in [1, 2, 3, 4] {
            assert!(Wanted { pids: vec![pid], ..Wanted::default() }.matches(subject), "{pid}");
        }
        let of = |comm: &str, uid| Wanted {
            comms: vec![Comm::from(comm)],
            uids: vec![uid],
            ..Wanted::default()
        };
        assert!(of("worker", 33).matches(subject));
        assert!(!of("worker", 0).matches(subject), "of two processes");
        assert!(!Wanted { pids: vec![5], ..Wanted::default() }.matches(subject));
    }
}
