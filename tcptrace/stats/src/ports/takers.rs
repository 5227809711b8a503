//! Which processes take local ports.
//!
//! Processes of one name are one: a program that starts another process for each connection is still
//! the program to look at. Must not decide what is a port that is taken.

use std::cmp::Reverse;

use tcptrace_model::{Found, ProcessName, Task, hash::Map};

/// Processes of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taker {
    /// What they are called; `None` where it is not known whose the ports are.
    pub name: Option<ProcessName>,
    /// The number of the process, where it is but one and has one for the reader.
    pub pid: Option<u32>,
    /// How many ports.
    pub ports: u64,
}

/// Who takes some ports: those that take most are named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Takers {
    /// The most first, [`NAMED`](Self::NAMED) at most.
    pub most: Vec<Taker>,
    /// Others, by name.
    pub more: u64,
    /// What those take.
    pub more_ports: u64,
}

impl Takers {
    /// So many are named.
    pub const NAMED: usize = 3;

    /// In words: `curl, pid 812 (80), wget (20) and 2 more (5)`; empty where none is known. `named`
    /// of them by name, the rest as a number, so that the numbers add up.
    pub fn words(&self, named: usize) -> String {
        if self.most.iter().all(|taker| taker.name.is_none()) {
            return String::new();
        }
        let names = self.most.iter().take(named).map(|taker| {
            let name = taker.name.map_or("owner not known".to_owned(), |name| name.to_string());
            let pid = taker.pid.map_or(String::new(), |pid| format!(", pid {pid}"));
            format!("{name}{pid} ({})", taker.ports)
        });
        let names: Vec<_> = names.collect();
        let left = self.most.iter().skip(named);
        let more = self.more + left.clone().count() as u64;
        let ports = self.more_ports + left.map(|taker| taker.ports).sum::<u64>();
        let and = if names.is_empty() { "" } else { " and " };
        names.join(", ")
            + &if more > 0 { format!("{and}{more} more ({ports})") } else { String::new() }
    }

    /// As [`Self::words`], as many by name as fit into `width` characters.
    pub fn fit(&self, width: usize) -> String {
        let all = (0..=self.most.len()).rev().map(|named| self.words(named));
        all.into_iter().find(|words| words.chars().count() <= width).unwrap_or_default()
    }
}

/// The process that a port is put down to: that has the socket open, or that opened it.
pub(super) fn task(found: &Found) -> Option<Task> {
    found.holder.map(|holder| holder.task).or(found.owner.map(|owner| owner.task))
}

/// What each takes, while it is counted.
#[derive(Clone, Debug, Default)]
pub(super) struct Counted(Map<Option<ProcessName>, Count>);

#[derive(Clone, Copy, Debug)]
struct Count {
    /// The first one.
    task: Option<Task>,
    /// There is another.
    several: bool,
    ports: u64,
}

/// Names that are told apart on a path: what there is beyond goes with those of which it is not known.
const NAMES: usize = 4096;

impl Counted {
    /// A port more.
    pub(super) fn add(&mut self, task: Option<Task>) {
        let name = task.map(|task| task.name());
        let has_room = self.0.len() < NAMES || self.0.contains_key(&name);
        let (name, task) = if has_room { (name, task) } else { (None, None) };
        let count = self.0.entry(name).or_insert(Count { task, several: false, ports: 0 });
        count.ports += 1;
        count.several |=
            task.zip(count.task).is_some_and(|(task, first)| !task.same_process(&first));
    }

    /// The result.
    pub(super) fn takers(&self) -> Takers {
        let mut all: Vec<_> = self
            .0
            .iter()
            .map(|(&name, count)| Taker {
                name,
                pid: count.task.filter(|_| !count.several).and_then(|task| task.pid()),
                ports: count.ports,
            })
            .collect();
        all.sort_by_key(|taker| (Reverse(taker.ports), taker.name));
        let rest = all.split_off(all.len().min(Takers::NAMED));
        Takers {
            most: all,
            more: rest.len() as u64,
            more_ports: rest.iter().map(|taker| taker.ports).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcptrace_model::Comm;

    fn counted(tasks: &[(u32, &str)]) -> Counted {
        let mut counted = Counted::default();
        for &(pid, comm) in tasks {
            counted.add((pid != 0).then(|| Task::process(pid, 0, 9, Comm::from(comm))));
        }
        counted
    }

    #[test]
    fn processes_of_one_name_are_one_and_the_parts_add_up() {
        let tasks = [
            (7, "curl"),
            (7, "curl"),
            (7, "curl"),
            (8, "sh"),
            (9, "sh"),
            (0, ""),
            (10, "b"),
            (11, "a"),
        ];
        let takers = counted(&tasks).takers();
        assert_eq!(takers.words(3), "curl, pid 7 (3), sh (2), owner not known (1) and 2 more (2)");
        assert_eq!(takers.words(1), "curl, pid 7 (3) and 4 more (5)");
        assert_eq!(takers.fit(35), "curl, pid 7 (3) and 4 more (5)");
        assert_eq!((takers.fit(20), takers.fit(3)), ("5 more (8)".to_owned(), String::new()));
        assert_eq!(Takers::default().words(3), "");
        assert_eq!(counted(&[(0, "")]).takers().words(3), "");
    }

    #[test]
    fn names_are_bounded() {
        let mut counted = Counted::default();
        for pid in 1..10_000 {
            counted.add(Some(Task::process(pid, 0, 9, Comm::from(&*pid.to_string()))));
        }
        let takers = counted.takers();
        assert!(counted.0.len() <= NAMES + 1);
        let named: u64 = takers.most.iter().map(|taker| taker.ports).sum();
        assert_eq!(named + takers.more_ports, 9_999);
        assert_eq!((takers.most[0].name, takers.most[0].ports), (None, 9_999 - NAMES as u64));
    }
}
