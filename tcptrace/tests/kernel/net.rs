//! Network namespaces for one test: made, entered, joined by veth, destroyed. All inside this
//! process, by system calls and netlink alone, so that it works where there is no other program.
//!
//! Nothing here opens a TCP connection, and nothing touches the namespace that the test runs in.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::panic;
use std::path::PathBuf;
use std::process;
use std::thread;

use anyhow::{Context, Result, ensure};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::geteuid;

use crate::netlink::{Message, Netlink, word};
use crate::sys::now;
use crate::unsupported::supported;
use crate::wait;

/// The index of `lo` in every network namespace (`LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;
/// `RTNLGRP_NSID` of linux/rtnetlink.h; libc lacks it.
const RTNLGRP_NSID: u32 = 28;
/// `NETNSA_NSID` and `NETNSA_FD` of linux/net_namespace.h.
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;
/// `VETH_INFO_PEER` of linux/veth.h.
const VETH_INFO_PEER: u16 = 1;

/// The comm of every thread that [`Netns::run`] starts.
pub const COMM: &str = "scenario";

/// A fresh network namespace with `lo` up, alive until dropped (or until the last socket in it goes).
pub struct Netns {
    handle: File,
    inode: u32,
}

impl Netns {
    /// Makes one.
    ///
    /// # Errors
    /// What the kernel answered. Panics when not root.
    pub fn new() -> Result<Self> {
        assert!(geteuid().is_root(), "needs root: network namespaces are made here");
        let handle = on_a_thread(|| -> Result<File> {
            unshare(CloneFlags::CLONE_NEWNET).context("unshare(CLONE_NEWNET)")?;
            Netlink::open(libc::NETLINK_ROUTE)?
                .request(Message::new(libc::RTM_NEWLINK, 0).link(LOOPBACK, libc::IFF_UP))
                .context("set lo up")?;
            wait_for_loopback()?;
            File::open("/proc/thread-self/ns/net").context("open /proc/thread-self/ns/net")
        })?;
        let inode = u32::try_from(handle.metadata()?.ino())?;
        Ok(Self { handle, inode })
    }

    /// The namespace's inode number, as `ls -l /proc/PID/ns/net` shows it.
    pub fn inode(&self) -> u32 {
        self.inode
    }

    /// A path that leads to it as long as this lives, in other processes too.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", process::id(), self.handle.as_raw_fd()).into()
    }

    /// Runs `work` inside, on a thread of its own whose comm is [`COMM`]. A panic in it is passed
    /// on. Sockets opened inside stay in the namespace wherever they are used.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        on_a_thread(|| match setns(&self.handle, CloneFlags::CLONE_NEWNET) {
            Ok(()) => work(),
            Err(errno) => panic!("setns to network namespace {}: {errno}", self.inode),
        })
    }

    /// Destroys it, and returns when the kernel says that it is going: the clock (ns) before the
    /// last reference was dropped, and after the notice.
    ///
    /// The notice (`RTM_DELNSID`, from `cleanup_net`) comes when nothing holds the namespace any
    /// more and before its sockets are purged, so the end of its TIME_WAITs is still to come.
    ///
    /// # Errors
    /// That something still holds it: a socket of the caller's, most likely.
    pub fn destroy(self) -> Result<(u64, u64)> {
        let observer = Self::new()?;
        let doomed = self.handle.as_raw_fd() as u32;
        let route = observer.run(|| -> io::Result<Netlink> {
            let route = Netlink::open(libc::NETLINK_ROUTE)?;
            let name = Message::new(libc::RTM_NEWNSID, 0)
                .raw(&[0; 4])
                .attribute(NETNSA_NSID, &0_u32.to_ne_bytes())
                .attribute(NETNSA_FD, &doomed.to_ne_bytes());
            route.request(name)?;
            route.join(RTNLGRP_NSID)?;
            Ok(route)
        });
        let route = route.context("watch a network namespace")?;
        let inode = self.inode;
        let before = now();
        drop(self);
        loop {
            let replies = route.receive().with_context(|| {
                format!("network namespace {inode} did not go: a socket of it may be open")
            })?;
            if replies.iter().any(|reply| reply.kind == libc::RTM_DELNSID) {
                return Ok((before, now()));
            }
        }
    }
}

/// Sets a sysctl of the namespace that the calling thread is in; `name` as in `net/ipv4/tcp_tw_reuse`.
/// (`/proc/sys/net` shows each thread its own namespace.)
///
/// # Errors
/// What was tried and what the kernel answered.
pub fn sysctl(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/{name}");
    fs::write(&path, value).with_context(|| format!("write {value:?} to {path}"))?;
    let read = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    ensure!(
        read.split_whitespace().eq(value.split_whitespace()),
        "{path} took {value:?} and says {read:?}"
    );
    Ok(())
}

/// Two namespaces joined by a veth pair.
pub struct Pair {
    pub left: Netns,
    pub right: Netns,
}

impl Pair {
    /// The address of the left end, in a /24.
    pub const LEFT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
    /// The address of the right end.
    pub const RIGHT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
    /// The IPv6 address of the left end, in a /64.
    pub const LEFT6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
    /// The IPv6 address of the right end.
    pub const RIGHT6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);

    /// Makes both, with addresses, and waits until they carry packets.
    ///
    /// # Errors
    /// `Unsupported` where the kernel has no veth; else what it answered.
    pub fn veth() -> Result<Self> {
        let (left, right) = (Netns::new()?, Netns::new()?);
        let far = right.handle.as_raw_fd() as u32;
        let made = left.run(|| {
            let veth = Message::new(libc::RTM_NEWLINK, libc::NLM_F_CREATE | libc::NLM_F_EXCL)
                .link(0, 0)
                .attribute(libc::IFLA_IFNAME, b"veth0\0")
                .nest(libc::IFLA_LINKINFO, |info| {
                    info.attribute(libc::IFLA_INFO_KIND, b"veth").nest(
                        libc::IFLA_INFO_DATA,
                        |data| {
                            data.nest(VETH_INFO_PEER, |peer| {
                                peer.link(0, 0)
                                    .attribute(libc::IFLA_IFNAME, b"veth0\0")
                                    .attribute(libc::IFLA_NET_NS_FD, &far.to_ne_bytes())
                            })
                        },
                    )
                });
            Netlink::open(libc::NETLINK_ROUTE)?.request(veth)
        });
        supported("make a veth pair", &[libc::EOPNOTSUPP], made)?;
        left.run(|| address_veth(Self::LEFT))?;
        right.run(|| address_veth(Self::RIGHT))?;
        left.run(wait_for_carrier)?;
        right.run(wait_for_carrier)?;
        left.run(|| address_veth6(Self::LEFT6))?;
        right.run(|| address_veth6(Self::RIGHT6))?;
        Ok(Self { left, right })
    }
}

fn veth_index() -> Result<u32> {
    let index = if_nametoindex("veth0").context("find veth0")?;
    Ok(index)
}

fn address_veth(address: Ipv4Addr) -> Result<()> {
    let index = veth_index()?;
    let route = Netlink::open(libc::NETLINK_ROUTE)?;
    // struct ifaddrmsg: family, prefix length, flags, scope, index.
    let add = Message::new(libc::RTM_NEWADDR, libc::NLM_F_CREATE | libc::NLM_F_EXCL)
        .raw(&[libc::AF_INET as u8, 24, 0, 0])
        .raw(&index.to_ne_bytes())
        .attribute(libc::IFA_LOCAL, &address.octets())
        .attribute(libc::IFA_ADDRESS, &address.octets());
    route.request(add).with_context(|| format!("add {address} to veth0"))?;
    route
        .request(Message::new(libc::RTM_NEWLINK, 0).link(index, libc::IFF_UP))
        .context("set veth0 up")?;
    Ok(())
}

/// Once the link runs, and without duplicate address detection, which takes a second. A kernel
/// without IPv6 says EOPNOTSUPP, and that is for the scenario to meet.
fn address_veth6(address: Ipv6Addr) -> Result<()> {
    let index = veth_index()?;
    let add = Message::new(libc::RTM_NEWADDR, libc::NLM_F_CREATE | libc::NLM_F_EXCL)
        .raw(&[libc::AF_INET6 as u8, 64, libc::IFA_F_NODAD as u8, 0])
        .raw(&index.to_ne_bytes())
        .attribute(libc::IFA_LOCAL, &address.octets())
        .attribute(libc::IFA_ADDRESS, &address.octets());
    match Netlink::open(libc::NETLINK_ROUTE)?.request(add) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(()),
        done => done.with_context(|| format!("add {address} to veth0"))?,
    };
    wait_to_bind(address.into())
}

/// `IFF_RUNNING` is set when the link watch has activated the queue: before that, packets are
/// dropped and a SYN would be a second late.
fn wait_for_carrier() -> Result<()> {
    let index = veth_index()?;
    let route = Netlink::open(libc::NETLINK_ROUTE)?;
    wait::until("veth0 to run", || {
        let replies = route.request(Message::new(libc::RTM_GETLINK, 0).link(index, 0))?;
        let link = replies.first().context("RTM_GETLINK: no answer")?;
        let running = word(&link.payload, 8)? as i32 & libc::IFF_RUNNING != 0;
        Ok(running.then_some(()))
    })
}

/// `lo` gets ::1 as it comes up, without duplicate address detection, but by a notifier: wait until
/// it can be bound. A kernel without IPv6 says EAFNOSUPPORT, and that is for the scenario to meet.
fn wait_for_loopback() -> Result<()> {
    wait_to_bind(Ipv6Addr::LOCALHOST.into())
}

fn wait_to_bind(address: IpAddr) -> Result<()> {
    let what = format!("{address} to be there");
    wait::until(&what, || match UdpSocket::bind(SocketAddr::new(address, 0)) {
        Ok(_) => Ok(Some(())),
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => Ok(Some(())),
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Ok(None),
        Err(error) => Err(error).with_context(|| format!("bind to {address}")),
    })
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let spawned = thread::Builder::new().name(COMM.to_owned()).spawn_scoped(scope, work);
        let thread = spawned.unwrap_or_else(|error| panic!("start a thread: {error}"));
        thread.join().unwrap_or_else(|payload| panic::resume_unwind(payload))
    })
}
