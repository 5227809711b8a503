//! Whose sockets from before the tracer are, and in which cgroup one is.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs, io,
    net::Shutdown,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::PathBuf,
    process::{self, Command},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::stat::fstat;
use tcptrace::{
    host::{
        cgroup::{Answer, Hierarchy},
        clock, mounts,
        netns::{self, NetnsId},
        process::{command_line, holders},
    },
    model::{
        Change, Found, Holder, Input, Moved, Owner, OwnerFrom, SnapSocket, Snapshot, TcpState,
        filter::Filter,
    },
    probe::{Backend, Options, SocketFiles, TimeWaitBackend, TimeWaitChoice},
    source::{
        live::Live,
        owners::{Owners, holders_by},
    },
    track::Tracker,
};

use crate::{
    checks::settle,
    child::Child,
    net::{COMM, Netns},
    scenario::conn::{Family, Listener},
    trace::by,
    unsupported::{Unsupported, supported},
    wait::until,
};

const NEVER_NS: u64 = 3_600_000_000_000;

/// A tracer that asks who holds the sockets of one namespace.
struct Traced {
    live: Live,
    tracker: Tracker,
    found: Vec<Found>,
    moved: Vec<Moved>,
    rows: Vec<SnapSocket>,
}

impl Traced {
    fn start(netns: &Netns) -> Result<Self> {
        let filter = Filter { netns: Some(netns.inode()), ..Filter::default() };
        let options = Options {
            filter: filter.clone(),
            time_wait: TimeWaitChoice::Only(TimeWaitBackend::Timers),
            ..by(Backend::TpBtf)
        };
        let mut live = crate::known::live(&options).context("the tracer does not start")?;
        let device = NetnsId::own().map_or(0, |own| own.device);
        let id = NetnsId { inode: netns.inode(), device };
        let reach =
            netns::Netns { id, path: netns.path(), name: None, is_ip_netns: false, pid: None };
        live.take_snapshots(Some(reach), filter, Some(Owners::default()), NEVER_NS);
        let mut traced = Self {
            tracker: Tracker::default(),
            found: Vec::new(),
            moved: Vec::new(),
            rows: Vec::new(),
            live,
        };
        traced.feed(&[traced.live.begin()?]);
        let job = traced.live.due_snapshots(false)?.context("no round at the start")?;
        traced.feed(&[Input::Snapshot(Snapshot::Open)]);
        let round = job.run();
        // Processes of others may be out of reach, which is said; those of a test are not.
        let mut inputs = Vec::new();
        traced.live.snapshots_taken(round, &mut |input| inputs.push(input.clone()));
        traced.feed(&inputs);
        traced.drain()?;
        Ok(traced)
    }

    fn feed(&mut self, inputs: &[Input]) {
        let Self { tracker, found, moved, rows, .. } = self;
        for input in inputs {
            if let Input::Snapshot(Snapshot::Socket(row)) = input {
                rows.push(row.clone());
            }
            tracker.apply(input, &mut |change| match change {
                Change::Found(one) => found.push(one),
                Change::Moved(one) => moved.push(one),
                _ => {}
            });
        }
    }

    fn drain(&mut self) -> Result<()> {
        let mut inputs = Vec::new();
        self.live.drain(usize::MAX, &mut |input| inputs.push(input.clone()));
        self.live.check(true, &mut |input| inputs.push(input.clone()))?;
        self.feed(&inputs);
        Ok(())
    }

    /// What was found of the socket with this local port.
    fn of(&self, lport: u16, state: TcpState) -> Result<Found> {
        let is_it = |found: &&Found| found.tuple.lport == lport && found.state == state;
        let mut all = self.found.iter().filter(is_it);
        let one = all.next().with_context(|| format!("no {state} at {lport}: {:?}", self.found))?;
        ensure!(all.next().is_none(), "more than one {state} at {lport}: {:?}", self.found);
        Ok(*one)
    }
}

fn is_child(owner: Option<Owner>, child: &Child) -> Result<()> {
    let owner = owner.context("no owner")?;
    let task = owner.task;
    ensure!((task.tgid, task.tid, task.uid) == (child.pid(), child.pid(), 0), "{owner:?}");
    ensure!(task.comm.as_bytes() == COMM.as_bytes(), "{owner:?}");
    ensure!(owner.from == OwnerFrom::Snapshot, "{owner:?}");
    Ok(())
}

#[test]
fn who_held_a_socket_before_is_its_owner_to_the_end() {
    for family in Family::ALL {
        let outcome = || -> Result<()> {
            let netns = Netns::new()?;
            let (listener, accepted, waiting) = netns.run(|| -> Result<_> {
                let listener = Listener::open(family, 0)?;
                let accepted = listener.connect(None)?;
                // Not accepted: no process has it open.
                let waiting = family.socket()?;
                waiting.connect(&listener.address.into())?;
                Ok((listener, accepted, waiting))
            })?;
            let port = listener.address.port();
            let client_port = accepted.ends.client.port();
            let waiting_port = waiting.local_addr()?.as_socket().context("no address")?.port();
            let server = Child::holding(&netns, &[listener.socket.as_fd()])?;
            let client = Child::holding(&netns, &[accepted.client.as_fd()])?;
            drop((listener, accepted.client));

            let mut traced = Traced::start(&netns)?;
            is_child(traced.of(port, TcpState::Listen)?.owner, &server)?;
            is_child(traced.of(client_port, TcpState::Established)?.owner, &client)?;
            let ours = traced.of(waiting_port, TcpState::Established)?.owner.context("no owner")?;
            ensure!(ours.task.tgid == process::id(), "{ours:?}");
            let unheld =
                |found: &&Found| found.tuple.lport == port && found.tuple.rport == waiting_port;
            let unheld = traced.found.iter().find(unheld).context("the accept queue is empty")?;
            ensure!(unheld.owner.is_none(), "{unheld:?}");
            ensure!(command_line(client.pid())? == command_line(process::id())?);

            // It ends, and its sockets with it: the same owner, known in the same way.
            let gone = client.pid();
            client.end()?;
            let moved = until("the FIN of the process that ended", || {
                traced.drain()?;
                let is_it = |moved: &&Moved| {
                    moved.tuple.lport == client_port && moved.new == TcpState::FinWait1
                };
                Ok(traced.moved.iter().find(is_it).copied())
            })?;
            let owner = moved.owner.context("no owner")?;
            ensure!(owner.task.tgid == gone && owner.from == OwnerFrom::Snapshot, "{owner:?}");
            ensure!(traced.tracker.counts().anomalies == 0);
            drop((server, accepted.server, waiting));
            Ok(())
        };
        settle(&format!("{family:?}"), outcome());
    }
}

#[test]
fn of_a_listener_that_was_inherited_the_parent_is_the_owner() {
    let outcome = || -> Result<()> {
        let netns = Netns::new()?;
        let listener = netns.run(|| Listener::open(Family::V4, 0))?;
        let files = [listener.socket.as_fd()];
        let workers = [
            Child::holding(&netns, &files)?,
            // Twice in one process is one holder.
            Child::holding(&netns, &[listener.socket.as_fd(), listener.socket.as_fd()])?,
        ];
        let traced = Traced::start(&netns)?;
        let owner = traced.of(listener.address.port(), TcpState::Listen)?.owner;
        ensure!(owner.context("no owner")?.task.tgid == process::id(), "{owner:?}");
        let row = traced.rows.first().and_then(|row| row.full.as_ref()).context("no row")?;
        ensure!(row.holder.context("no holder")?.holders == 3, "{row:?}");
        ensure!(u64::from(row.inode) == fstat(&listener.socket)?.st_ino, "{row:?}");

        let holder = row.holder.context("no holder")?;
        ensure!(holder.first.tgid == process::id(), "{holder:?}");
        let youngest = holder.task.tgid;
        ensure!(workers.iter().any(|worker| worker.pid() == youngest), "{holder:?}");

        // The parent lets go of it, as one that restarts without a pause: the first worker is next.
        drop(listener);
        let found = holders(&HashSet::from([row.inode]))?;
        let holder = found.by_inode.get(&row.inode).context("no holder")?;
        ensure!(holder.holders == 2 && holder.first.tgid == workers[0].pid(), "{holder:?}");
        Ok(())
    };
    settle("", outcome());
}

#[test]
fn a_socket_that_was_passed_on_belongs_to_who_has_it() {
    let outcome = || -> Result<()> {
        let netns = Netns::new()?;
        let (listener, conn) = netns.run(|| -> Result<_> {
            let listener = Listener::open(Family::V4, 0)?;
            let conn = listener.connect(None)?;
            Ok((listener, conn))
        })?;
        let mut child = Child::receiving(&netns)?;
        child.send(&conn.client)?;
        child.done()?;
        drop(conn.client);
        let traced = Traced::start(&netns)?;
        is_child(traced.of(conn.ends.client.port(), TcpState::Established)?.owner, &child)?;
        drop((listener, conn.server));
        Ok(())
    };
    settle("", outcome());
}

#[test]
fn what_is_unread_is_told_of_a_socket_that_was_not_closed() {
    let outcome = || -> Result<()> {
        let netns = Netns::new()?;
        let conn = netns.run(|| -> Result<_> {
            let conn = Listener::open(Family::V4, 0)?.connect(None)?;
            conn.client.send(b"five!")?;
            conn.client.shutdown(Shutdown::Write)?;
            crate::witness::wait_state(conn.ends.of_server(), crate::witness::State::CloseWait)?;
            Ok(conn)
        })?;
        let traced = Traced::start(&netns)?;
        let leaked = |found: &Found| found.state == TcpState::CloseWait;
        let leaked = traced.tracker.census().find(leaked).context("no CLOSE_WAIT")?;
        let queues = leaked.queues.context("no queues")?;
        // The FIN counts as one byte.
        ensure!((queues.unread, queues.unsent) == (6, 0), "{queues:?}");
        drop(conn);
        Ok(())
    };
    settle("", outcome());
}

/// A cgroup of a test's own; gone when dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new() -> Result<Self> {
        let mounts = mounts::mounts()?;
        let mount = mounts.iter().find(|mount| mount.kind == "cgroup2" && mount.root == "/");
        let Some(mount) = mount else {
            return Err(Unsupported("no cgroup2 file system is mounted whole".to_owned()).into());
        };
        let path = mount.point.join(format!("tcptrace-{}.slice", process::id()));
        let refusals = [libc::EROFS, libc::EACCES, libc::EPERM];
        supported("make a cgroup", &refusals, fs::create_dir(&path))?;
        Ok(Self(path))
    }

    fn name(&self) -> Result<&str> {
        self.0.file_name().and_then(|name| name.to_str()).context("no name")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn the_cgroup_of_a_socket_is_known_by_its_path() {
    let outcome = || -> Result<()> {
        let netns = Netns::new()?;
        let cgroup = Cgroup::new()?;
        let id = fs::metadata(&cgroup.0)?.ino();
        let listener = netns.run(|| Listener::open(Family::V4, 0))?;
        let mut before = Child::connecting(&netns, listener.address)?;
        let mut after = Child::connecting(&netns, listener.address)?;
        for child in [&before, &after] {
            fs::write(cgroup.0.join("cgroup.procs"), child.pid().to_string())?;
        }
        before.go()?;
        before.done()?;

        // By the snapshot, by which the cgroup is named before its first event.
        let mut traced = Traced::start(&netns)?;
        let path = format!("/{}", cgroup.name()?);
        let named = |traced: &Traced, id: u64| {
            traced.tracker.cgroup(id).map(|cgroup| cgroup.path().to_owned())
        };
        let inside = |found: &&Found| found.cgroup == Some(id);
        let found = traced.found.iter().find(inside);
        // Without CONFIG_SOCK_CGROUP_DATA, or before 5.8, sock_diag tells none.
        ensure!(found.is_some() || !kernel_is_at_least(5, 8)?, "{:?}", traced.found);
        ensure!(found.is_none() || named(&traced, id).as_ref() == Some(&path));

        // By an event.
        after.go()?;
        after.done()?;
        let moved = until("the event of connect()", || {
            traced.drain()?;
            let is_it = |moved: &&Moved| moved.new == TcpState::SynSent;
            Ok(traced.moved.iter().find(is_it).copied())
        })?;
        if let Some(told) = moved.sock.and_then(|sock| sock.cgroup) {
            ensure!(told == id, "{moved:?}");
            ensure!(named(&traced, id).as_ref() == Some(&path), "{:?}", named(&traced, id));
        }

        // It goes, and what is known of it stays.
        let mut hierarchy = Hierarchy::open()?;
        let now = clock::monotonic_ns()?;
        ensure!(hierarchy.path(id, now) == Answer::Path(path.clone().into()));
        before.end()?;
        after.end()?;
        // A process leaves its cgroup right after it was waited for.
        until("the cgroup to be empty", || Ok(fs::remove_dir(&cgroup.0).ok()))?;
        ensure!(hierarchy.path(id, now) == Answer::Nowhere);
        traced.drain()?;
        ensure!(named(&traced, id) == Some(path).filter(|_| found_or_told(&traced, id)));
        Ok(())
    };
    settle("", outcome());
}

fn found_or_told(traced: &Traced, id: u64) -> bool {
    let told = |moved: &Moved| moved.sock.is_some_and(|sock| sock.cgroup == Some(id));
    traced.found.iter().any(|found| found.cgroup == Some(id)) || traced.moved.iter().any(told)
}

fn kernel_is_at_least(major: u32, minor: u32) -> Result<bool> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    let mut next = || numbers.next().context("no number")?.context("not a number");
    Ok((next()?, next()?) >= (major, minor))
}

/// The kernel's iterator, which is not there before 5.11.
pub(crate) fn socket_files() -> Result<SocketFiles> {
    match SocketFiles::open() {
        Err(reason) if !kernel_is_at_least(5, 11)? => {
            ensure!(reason.contains("bpf_sock_from_file"), "{reason}");
            Err(Unsupported(reason).into())
        }
        opened => opened.map_err(anyhow::Error::msg),
    }
}

/// The inodes of all TCP sockets of this network namespace that are open, as the kernel lists them.
fn inodes_here() -> Result<HashSet<u32>> {
    let mut inodes = HashSet::new();
    for file in ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"] {
        match fs::read_to_string(file) {
            Ok(text) => {
                let inode = |line: &str| line.split_ascii_whitespace().nth(9)?.parse::<u32>().ok();
                inodes.extend(text.lines().skip(1).filter_map(inode).filter(|inode| *inode != 0));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(inodes)
}

#[test]
fn the_kernels_iterator_finds_the_holders_that_proc_has() {
    let outcome = || -> Result<()> {
        let files = socket_files()?;
        let netns = Netns::new()?;
        let (listener, conns) = netns.run(|| -> Result<_> {
            let listener = Listener::open(Family::V4, 0)?;
            let conns = (0..100).map(|_| listener.connect(None)).collect::<Result<Vec<_>>>()?;
            Ok((listener, conns))
        })?;
        let shared = conns[0].client.as_fd();
        let workers = [
            Child::holding(&netns, &[listener.socket.as_fd()])?,
            Child::holding(&netns, &[listener.socket.as_fd(), listener.socket.as_fd(), shared])?,
        ];
        let mut receiver = Child::receiving(&netns)?;
        receiver.send(&conns[2].client)?;
        receiver.done()?;
        let again = conns[3].client.try_clone()?;
        // A thread shares them, and one that has files of its own has copies: neither is a process.
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (over, is_over) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let alone = nix::sched::unshare(nix::sched::CloneFlags::CLONE_FILES);
            let _ = ready.send(alone);
            let _ = is_over.recv();
        });
        is_ready.recv()??;

        let wanted = netns.run(inodes_here)?;
        ensure!(wanted.len() > 2 * conns.len(), "{} sockets", wanted.len());
        // Other tests of this process start children, which have its files for a moment.
        let same = until("both to find the same holders", || {
            let by_proc = holders(&wanted)?;
            let by_kernel = holders_by(&files, &wanted)?;
            ensure!(!by_kernel.cut && by_kernel.refused == 0, "{by_kernel:?}");
            Ok((by_proc.by_inode == by_kernel.by_inode).then_some(by_kernel.by_inode))
        })?;
        drop(over);
        let _ = thread.join();
        ensure!(same.len() == wanted.len(), "{} of {}", same.len(), wanted.len());
        let of = |file: std::os::fd::BorrowedFd<'_>| -> Result<_> {
            same.get(&u32::try_from(fstat(file)?.st_ino)?).copied().context("no holder")
        };
        let holder = of(listener.socket.as_fd())?;
        ensure!(holder.holders == 3 && holder.first.tgid == process::id(), "{holder:?}");
        let holder = of(shared)?;
        ensure!(holder.holders == 2 && holder.task.tgid == workers[1].pid(), "{holder:?}");
        let passed = of(conns[2].client.as_fd())?;
        ensure!(passed.holders == 2 && passed.task.tgid == receiver.pid(), "{passed:?}");
        for duplicated_or_not in [&again, &conns[1].client] {
            let alone = of(duplicated_or_not.as_fd())?;
            ensure!((alone.holders, alone.task.tgid) == (1, process::id()), "{alone:?}");
        }
        same_as_ss(&netns, &same)
    };
    settle("", outcome());
}

/// That `ss -p` names the same processes. Where there is no ss (guests), nothing is compared.
fn same_as_ss(netns: &Netns, by_inode: &HashMap<u32, Holder>) -> Result<()> {
    // It may run when a child of another test has the files.
    until("ss to name the same holders", || {
        let ss = netns.run(|| Command::new("ss").args(["-Htanpe"]).output());
        let text = match ss {
            Ok(output) => String::from_utf8(output.stdout)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(())),
            Err(error) => return Err(error.into()),
        };
        let numbers = |line: &str, key: &str| -> BTreeSet<u32> {
            let after = line.split(key).skip(1);
            let digits = after.map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
            digits.filter_map(|digits| digits?.parse().ok()).collect()
        };
        let mut listed = 0;
        for line in text.lines() {
            let pids = numbers(line, ",pid=");
            let Some(inode) = numbers(line, " ino:").first().copied() else { continue };
            let Some(holder) = by_inode.get(&inode) else { continue };
            listed += 1;
            let own = [holder.task.tgid, holder.first.tgid];
            if pids.len() != holder.holders as usize || own.iter().any(|pid| !pids.contains(pid)) {
                return Ok(None);
            }
        }
        Ok((listed == by_inode.len()).then_some(()))
    })
}
