//! The sysctls under `/proc/sys/net` of a network namespace.
//!
//! A path there leads to the namespace of the thread that opens it, so a namespace is read on a
//! thread inside it. Writes only in an empty namespace of its own; what a value means is not decided
//! here.

use std::{
    fmt::Display,
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::Path,
    thread,
};

use nix::sched::{CloneFlags, unshare};

use super::netns::Netns;
use tcptrace_model::sysctls::{self, BadValue, Sysctl, Sysctls};

const ROOT: &str = "/proc/sys/net";

/// The longest value: every second port reserved takes 190 KB. The kernel gives such a list to a
/// single read() only, and cuts it at what that asks for (`proc_do_large_bitmap()`).
const LONGEST: usize = 256 << 10;

/// Reads the sysctls of `netns`, some 20 small files. What cannot be read is in the values.
///
/// # Errors
/// If the namespace cannot be entered, or is there no more (`NotFound`).
pub fn sysctls(netns: &Netns) -> io::Result<Sysctls> {
    netns.run(|| read_all(Path::new(ROOT)))
}

/// Runs `job` in an empty network namespace, made for it and gone with it. Needs CAP_SYS_ADMIN.
/// The caller's thread stays where it is.
///
/// # Errors
/// Why there is none.
pub fn in_fresh_netns<T: Send>(job: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let inside = || {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| {
                let error = io::Error::from(errno);
                let message = format!("cannot make an empty network namespace: {error}");
                io::Error::new(error.kind(), message)
            })?;
            Ok(job())
        };
        let thread = thread::Builder::new().name("netns".into()).spawn_scoped(scope, inside)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// What a namespace of this kernel begins with, as an empty one has it.
///
/// # Errors
/// As [`in_fresh_netns`].
pub fn defaults() -> io::Result<Sysctls> {
    in_fresh_netns(|| read_all(Path::new(ROOT)))
}

/// What became of one assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tried {
    /// The kernel took it, and reads back so.
    Took(String),
    /// It did not: its answer.
    Refused(String),
    /// There is no such sysctl in a namespace of its own.
    Lacks,
}

/// Has the kernel try `settings` (file names under `/proc/sys/net`, and values) in order in an
/// empty namespace, so that nothing that is in use changes. Only for sysctls that belong to a
/// namespace.
///
/// # Errors
/// As [`in_fresh_netns`].
pub fn try_out(settings: &[(&str, &str)]) -> io::Result<Vec<Tried>> {
    in_fresh_netns(|| settings.iter().map(|(name, value)| try_one(name, value)).collect())
}

fn try_one(name: &str, value: &str) -> Tried {
    let path = Path::new(ROOT).join(name);
    // Not fs::write(), which would create a file.
    let opened = OpenOptions::new().write(true).open(&path);
    let written = opened.and_then(|mut file| file.write_all(value.as_bytes()));
    match written.and_then(|()| std::fs::read_to_string(&path)) {
        Ok(read) => Tried::Took(read.trim_ascii().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Tried::Lacks,
        Err(error) => Tried::Refused(error.to_string()),
    }
}

/// Whether there is a sysctl of this name (`net/ipv4/tcp_rmem`) in the caller's namespaces.
pub fn exists(name: &str) -> bool {
    Path::new("/proc/sys").join(name).is_file()
}

/// Those of the thread's namespace, under `root`.
fn read_all(root: &Path) -> Sysctls {
    let mut buffer = vec![0; LONGEST];
    // Without /proc/sys every file would look absent.
    let missing = std::fs::metadata(root.join("ipv4")).err();
    let mut reader = Reader { root, missing, buffer: &mut buffer };
    Sysctls {
        tcp_syncookies: reader.read("ipv4/tcp_syncookies", sysctls::number),
        tcp_tw_reuse: reader.read("ipv4/tcp_tw_reuse", sysctls::number),
        tcp_tw_reuse_delay: reader.read("ipv4/tcp_tw_reuse_delay", sysctls::number),
        tcp_tw_recycle: reader.read("ipv4/tcp_tw_recycle", sysctls::number),
        tcp_fin_timeout: reader.read("ipv4/tcp_fin_timeout", sysctls::number),
        tcp_keepalive_time: reader.read("ipv4/tcp_keepalive_time", sysctls::number),
        tcp_keepalive_intvl: reader.read("ipv4/tcp_keepalive_intvl", sysctls::number),
        tcp_keepalive_probes: reader.read("ipv4/tcp_keepalive_probes", sysctls::number),
        ip_local_port_range: reader.read("ipv4/ip_local_port_range", sysctls::range),
        ip_local_reserved_ports: reader.read("ipv4/ip_local_reserved_ports", sysctls::ports),
        tcp_max_syn_backlog: reader.read("ipv4/tcp_max_syn_backlog", sysctls::number),
        somaxconn: reader.read("core/somaxconn", sysctls::number),
        tcp_max_tw_buckets: reader.read("ipv4/tcp_max_tw_buckets", sysctls::number),
        tcp_max_orphans: reader.read("ipv4/tcp_max_orphans", sysctls::number),
        tcp_orphan_retries: reader.read("ipv4/tcp_orphan_retries", sysctls::number),
        tcp_retries2: reader.read("ipv4/tcp_retries2", sysctls::number),
        tcp_syn_retries: reader.read("ipv4/tcp_syn_retries", sysctls::number),
        tcp_syn_linear_timeouts: reader.read("ipv4/tcp_syn_linear_timeouts", sysctls::number),
        tcp_rto_max_ms: reader.read("ipv4/tcp_rto_max_ms", sysctls::number),
        tcp_rfc1337: reader.read("ipv4/tcp_rfc1337", sysctls::number),
        tcp_abort_on_overflow: reader.read("ipv4/tcp_abort_on_overflow", sysctls::number),
        tcp_timestamps: reader.read("ipv4/tcp_timestamps", sysctls::number),
    }
}

struct Reader<'a> {
    root: &'a Path,
    missing: Option<io::Error>,
    buffer: &'a mut [u8],
}

impl Reader<'_> {
    fn read<T>(&mut self, name: &str, parse: fn(&str) -> Result<T, BadValue>) -> Sysctl<T> {
        let path = self.root.join(name);
        let unreadable = |why: &dyn Display| {
            Sysctl::Unreadable(format!("cannot read {}: {why}", path.display()).into())
        };
        if let Some(error) = &self.missing {
            return unreadable(error);
        }
        let read = File::open(&path).and_then(|mut file| file.read(self.buffer));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Sysctl::Absent,
            Err(error) => unreadable(&error),
            Ok(length) if length == self.buffer.len() => unreadable(&"it is too long"),
            Ok(length) => match std::str::from_utf8(&self.buffer[..length]) {
                Err(error) => unreadable(&error),
                Ok(text) => parse(text).map_or_else(|bad| unreadable(&bad), Sysctl::Is),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::{fresh_netns, netns};
    use super::*;
    use tcptrace_model::sysctls::PortRange;

    #[test]
    fn absent_is_told_from_unreadable() {
        let root = tempfile::tempdir().unwrap();
        let none = read_all(root.path());
        let Sysctl::Unreadable(why) = &none.tcp_fin_timeout else { panic!("{none:?}") };
        assert!(why.contains("tcp_fin_timeout: No such file or directory"), "{why}");

        let ipv4 = root.path().join("ipv4");
        fs::create_dir(&ipv4).unwrap();
        fs::write(ipv4.join("tcp_fin_timeout"), "30\n").unwrap();
        fs::write(ipv4.join("tcp_tw_reuse"), "yes \x1b[31m\n").unwrap();
        fs::write(ipv4.join("tcp_rfc1337"), [0xff]).unwrap();
        fs::create_dir(ipv4.join("tcp_timestamps")).unwrap();
        fs::write(ipv4.join("tcp_syncookies"), "1".repeat(LONGEST)).unwrap();
        let sysctls = read_all(root.path());
        assert_eq!(sysctls.tcp_fin_timeout, Sysctl::Is(30));
        assert_eq!(sysctls.tcp_tw_recycle, Sysctl::Absent);
        for (sysctl, says) in [
            (&sysctls.tcp_tw_reuse, "'yes \\u{1b}[31m' is not what"),
            (&sysctls.tcp_rfc1337, "invalid utf-8"),
            (&sysctls.tcp_timestamps, "Is a directory"),
            (&sysctls.tcp_syncookies, "too long"),
        ] {
            let why = sysctl.known().unwrap_err();
            assert!(why.contains(says), "{why}");
        }
    }

    #[test]
    fn what_is_tried_is_tried_in_a_namespace_of_its_own() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root, for a network namespace of its own");
            return;
        }
        let own = netns::namespaces().unwrap().found.swap_remove(0);
        let before = sysctls(&own).unwrap();
        let settings = [
            ("ipv4/tcp_fin_timeout", "17"),
            ("ipv4/tcp_tw_recycle", "1"),
            ("ipv4/tcp_tw_reuse", "9"),
            ("ipv4/ip_local_port_range", "2 1"),
        ];
        let tried = try_out(&settings).unwrap();
        assert_eq!(tried[0], Tried::Took("17".to_owned()));
        assert_eq!(tried[1], Tried::Lacks);
        for refused in &tried[2..] {
            assert!(matches!(refused, Tried::Refused(_)), "{tried:?}");
        }
        assert_eq!(sysctls(&own).unwrap(), before);
        assert_eq!(defaults().unwrap().tcp_fin_timeout, Sysctl::Is(60), "nothing was left behind");
        assert!(exists("net/ipv4/tcp_fin_timeout") && !exists("net/ipv4/tcp_tw_recycle"));
    }

    #[test]
    fn the_values_are_those_of_the_namespace_to_the_last_port() {
        let own = netns::namespaces().unwrap().found.swap_remove(0);
        let outside = sysctls(&own).unwrap();
        assert!(outside.tcp_fin_timeout.value().is_some(), "{outside:?}");
        fresh_netns::run(|| {
            // 32,767 ranges of one port each: more than any page.
            let odd: Vec<_> = (1..u16::MAX).step_by(2).map(|port| port.to_string()).collect();
            fs::write("/proc/sys/net/ipv4/ip_local_reserved_ports", odd.join(",")).unwrap();
            fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40099").unwrap();
            let sysctls = read_all(Path::new(ROOT));
            let range = PortRange { low: 40000, high: 40099 };
            assert_eq!(sysctls.ip_local_port_range, Sysctl::Is(range));
            let reserved = sysctls.ip_local_reserved_ports.value().unwrap();
            assert_eq!(reserved.len(), odd.len());
            assert_eq!(reserved.last(), Some(&PortRange { low: 65533, high: 65533 }));
        });
        assert_eq!(sysctls(&own).unwrap(), outside, "the other namespace is another");
    }
}
