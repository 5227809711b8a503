//! The helper process of `tcptrace serve`: what it may do, what it holds, and that neither process
//! leaves the other hanging.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    net::Netns,
    rights::{Thread, threads},
    run::{can_trace, until},
    serve::{Serving, churn, sum},
};

const DAC_READ_SEARCH: u64 = 1 << 2;
const SYS_PTRACE: u64 = 1 << 19;
const SYS_ADMIN: u64 = 1 << 21;

/// What `/proc/PID/status` has behind `name`, of a process that is there and no zombie.
fn field(pid: u32, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let of = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    if of("State:")?.trim().starts_with('Z') {
        return None;
    }
    Some(of(name)?.trim().to_owned())
}

/// The helper process of a run.
fn helper_of(serving: &Serving) -> Option<u32> {
    let parent = serving.running.pid().to_string();
    let processes = fs::read_dir("/proc").unwrap();
    let mut pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.find(|&pid| field(pid, "PPid:").as_ref() == Some(&parent))
}

/// The open files of a process, by their numbers.
fn files(pid: u32) -> Vec<(u32, PathBuf)> {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let file = |entry: fs::DirEntry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        Some((number, fs::read_link(entry.path()).ok()?))
    };
    let mut files: Vec<_> = files.filter_map(|entry| file(entry.ok()?)).collect();
    files.sort();
    files
}

fn is_bpf_link(path: &Path) -> bool {
    ["anon_inode:bpf_link", "anon_inode:bpf-link"].iter().any(|link| path == Path::new(link))
}

#[test]
fn it_alone_may_look_into_other_namespaces_and_holds_nothing_else() {
    if !can_trace() {
        return;
    }
    let (home, watched) = (Netns::new().unwrap(), Netns::new().unwrap());
    for (serving, enters) in
        [(Serving::of(&home, &[]), 0), (Serving::between(&home, &watched, &[]), SYS_ADMIN)]
    {
        let pid = helper_of(&serving).unwrap();
        assert_eq!(field(pid, "Name:").unwrap(), "tcptrace-tables");
        // It loads the iterator first, which takes some time.
        let threads = until("its threads to be confined", || {
            let threads = threads(pid);
            (threads.len() == 2 && threads.iter().all(Thread::is_confined)).then_some(threads)
        });
        let mut held: Vec<_> = threads
            .into_iter()
            .map(|thread| {
                thread.has_given_up(thread.permitted);
                (thread.name, thread.permitted)
            })
            .collect();
        held.sort();
        let looks = DAC_READ_SEARCH | SYS_PTRACE;
        let expected = [("cgroups", DAC_READ_SEARCH), ("tcptrace-tables", looks | enters)];
        assert_eq!(held, expected.map(|(name, held)| (name.to_owned(), held)));

        let files = files(pid);
        let null = PathBuf::from("/dev/null");
        assert!(files[0] == (0, null.clone()) && files[1] == (1, null), "{files:?}");
        assert_eq!(files[2].0, 2, "{files:?}");
        let mut sockets = BTreeSet::new();
        for (_, path) in &files[3..] {
            match path.to_str().unwrap().strip_prefix("socket:[") {
                Some(inode) => drop(sockets.insert(inode.trim_end_matches(']').to_owned())),
                // Where cgroup2 is mounted: its files are found from there.
                // And the iterator over open files, if there is one.
                None => assert!(path.is_dir() || is_bpf_link(path), "{files:?}"),
            }
        }
        assert!(files.iter().filter(|(_, path)| is_bpf_link(path)).count() <= 1, "{files:?}");
        assert!(sockets.len() == 2 && files.len() <= 7, "{files:?}");
        // Both are of the pairs, which have no name; who listens at the socket does.
        let unix = fs::read_to_string(format!("/proc/{pid}/net/unix")).unwrap();
        let own = unix.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
        let own: Vec<_> = own.filter(|line| sockets.contains(line[6])).collect();
        assert_eq!(own.len(), 2, "{unix}");
        assert!(own.iter().all(|line| line[3] == "00000000" && line.len() == 7), "{own:?}");

        let ignored = u64::from_str_radix(&field(pid, "SigIgn:").unwrap(), 16).unwrap();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            assert_ne!(ignored & 1 << (signal as u32 - 1), 0, "{signal}");
        }
        let up = |samples: &crate::serve::Samples| samples["tcptrace_helper_up"];
        let samples = serving.metrics();
        assert_eq!(up(&samples), 1.0);
        assert!(samples["tcptrace_helper_resident_memory_bytes"] > 100_000.0);
        assert!(samples["tcptrace_helper_cpu_seconds_total"] > 0.0);

        let ended = serving.running.interrupt();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(!ended.stderr.contains("helper"), "{ended:?}");
        assert_eq!(field(pid, "Name:"), None, "it is waited for");
    }
}

#[test]
fn it_goes_with_a_run_that_is_killed() {
    if !can_trace() {
        return;
    }
    let netns = Netns::new().unwrap();
    let serving = Serving::of(&netns, &[]);
    let pid = helper_of(&serving).unwrap();
    serving.running.signal(Signal::SIGKILL);
    until("the helper's end", || field(pid, "Name:").is_none().then_some(()));
}

#[test]
fn without_it_the_run_says_so_once_and_goes_on() {
    if !can_trace() {
        return;
    }
    let netns = Netns::new().unwrap();
    let mut serving = Serving::of(&netns, &[]);
    let pid = helper_of(&serving).unwrap();
    kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGKILL).unwrap();
    serving.running.hear("the socket tables has ended (killed by SIGKILL): no more snapshots");
    assert_eq!(fs::metadata(format!("/proc/{pid}")).ok().map(|_| ()), None, "it is waited for");
    netns.run(|| churn(20));
    let samples = until("what happened since", || {
        let samples = serving.metrics();
        let alive = sum(&samples, "tcptrace_connections{", "time_wait");
        (alive == 20.0).then_some(samples)
    });
    assert_eq!(samples["tcptrace_helper_up"], 0.0);
    assert_eq!(samples["tcptrace_helper_resident_memory_bytes"], 0.0);
    assert_eq!((serving.get("/healthz").0, serving.get("/readyz").0), (200, 200));
    // A body is the command's line, so what is told without the tables is said beside it.
    let answer = serving.answer("/api/v1/states");
    assert!(answer.to_lowercase().contains("\r\nwarning: 299 tcptrace "), "{answer}");
    until("the page to say so", || {
        serving.get("/").1.contains("The helper process is gone").then_some(())
    });
    let ended = serving.running.interrupt();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stderr.matches("helper process").count(), 1, "{ended:?}");
}

#[test]
fn without_a_sandbox_there_is_none() {
    if !can_trace() {
        return;
    }
    let netns = Netns::new().unwrap();
    let serving = Serving::of(&netns, &["--no-sandbox"]);
    assert_eq!(helper_of(&serving), None);
    assert!(!serving.metrics().contains_key("tcptrace_helper_up"));
}
