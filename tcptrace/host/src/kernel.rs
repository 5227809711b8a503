//! What the running kernel allows a tracer, before anything is tried: its release, lockdown, BTF
//! and tracefs.
//!
//! Facts for `tcptrace check` and for error messages. Whether something works is found out by
//! trying it; nothing here is a reason not to.

use std::path::{Path, PathBuf};
use std::{fs, io};

use super::mounts::Mount;

/// What this boot of the kernel is called: a UUID.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim_end().to_owned())
}

/// The name of the host, as `uname -n` has it.
pub fn host_name() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/hostname")?.trim_end().to_owned())
}

/// The kernel's release, as `uname -r` has it.
pub fn release() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/osrelease")?.trim_end().to_owned())
}

/// Where the kernel shows its types.
pub const BTF: &str = "/sys/kernel/btf/vmlinux";

/// Whether the kernel shows its types (`CONFIG_DEBUG_INFO_BTF`).
pub fn has_btf() -> bool {
    Path::new(BTF).exists()
}

/// How far the kernel is locked against root (`kernel_lockdown(7)`, 5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lockdown {
    /// Not at all.
    Off,
    /// Against changes of the running kernel.
    Integrity,
    /// Against reading its memory too: tracing programs are refused most of what they need.
    Confidentiality,
}

impl Lockdown {
    /// Reads it. `None` where the host does not tell: no such file, because the kernel has no
    /// lockdown or securityfs is not mounted, or a word that is not known.
    pub fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string("/sys/kernel/security/lockdown").ok()?)
    }

    /// Whether the kernel may be locked against reading its memory: it says so, or it was booted with
    /// `lockdown=confidentiality` and does not say.
    pub fn may_be_confidential() -> bool {
        let booted = || {
            let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
            line.split_ascii_whitespace().any(|word| word == "lockdown=confidentiality")
        };
        Self::read().map_or_else(booted, |level| level == Self::Confidentiality)
    }

    /// The level in force is the one in brackets: `none [integrity] confidentiality`.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.split_once('[')?;
        match rest.split_once(']')?.0 {
            "none" => Some(Self::Off),
            "integrity" => Some(Self::Integrity),
            "confidentiality" => Some(Self::Confidentiality),
            _ => None,
        }
    }

    /// The kernel's word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "none",
            Self::Integrity => "integrity",
            Self::Confidentiality => "confidentiality",
        }
    }
}

/// Where tracefs may be seen: its own mounts, then the directory that each mounted debugfs may
/// have for it. Pure: the directories are not looked at.
pub fn tracefs(mounts: &[Mount]) -> Vec<PathBuf> {
    // A bind mount of a part of it has another root.
    let whole = |kind: &'static str| {
        let found = mounts.iter().filter(move |mount| mount.kind == kind && mount.root == "/");
        found.map(|mount| mount.point.clone())
    };
    whole("tracefs").chain(whole("debugfs").map(|point| point.join("tracing"))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::mounts;
    use super::*;

    #[test]
    fn the_level_in_brackets_is_in_force() {
        let parse = Lockdown::parse;
        assert_eq!(parse("[none] integrity confidentiality\n"), Some(Lockdown::Off));
        assert_eq!(parse("none [integrity] confidentiality\n"), Some(Lockdown::Integrity));
        assert_eq!(parse("none integrity [confidentiality]"), Some(Lockdown::Confidentiality));
        for odd in ["", "none", "[", "[]", "[future]", "]["] {
            assert_eq!(parse(odd), None, "{odd}");
        }
    }

    #[test]
    fn tracefs_is_its_own_mount_or_inside_debugfs() {
        let of = |text: &[u8]| tracefs(&mounts::parse(text));
        let debug = b"1 2 0:1 / /sys/kernel/debug rw - debugfs none rw\n";
        assert_eq!(of(debug), [PathBuf::from("/sys/kernel/debug/tracing")]);
        let both = [debug, &b"1 2 0:2 / /sys/kernel/tracing rw - tracefs none rw\n"[..]].concat();
        assert_eq!(
            of(&both),
            ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"].map(PathBuf::from)
        );
        let none: [PathBuf; 0] = [];
        assert_eq!(of(b"1 2 0:2 /events /mnt rw - tracefs none rw\n"), none);
        assert_eq!(of(b"1 2 0:2 / /proc rw - proc none rw\n"), none);
    }

    #[test]
    fn the_release_is_that_of_uname() {
        let uname = std::process::Command::new("uname").arg("-r").output().unwrap();
        assert_eq!(release().unwrap(), String::from_utf8(uname.stdout).unwrap().trim_end());
    }
}
