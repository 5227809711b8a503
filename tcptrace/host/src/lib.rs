//! What the host says about itself: the only reader of `/proc`, `/sys` and netlink.
//!
//! Everything here asks and reports, once for each call. It keeps no history, starts no lasting
//! thread (a [`child`] is its caller's), decides nothing about TCP, and leaves the caller's thread in the network namespace it
//! was in. Each format that the kernel prints has a parser that is pure and takes any bytes.

pub mod caps;
pub mod cgroup;
pub mod child;
pub mod clock;
pub mod confine;
pub mod kallsyms;
pub mod kernel;
pub mod loopback;
pub mod mounts;
pub mod netns;
pub mod netstat;
pub mod own;
pub mod pidns;
pub mod process;
pub mod signals;
pub mod sock_diag;
pub mod sysctl;
pub mod sysctl_files;
pub mod timens;

#[cfg(test)]
mod fresh_netns;
