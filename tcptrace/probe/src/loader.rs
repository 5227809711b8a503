//! aya's loader, without the kernel's BTF.
//!
//! The kernel object has no relocations by BTF, but `EbpfLoader::new()` reads and parses all of it before
//! it can be told so (25 ms of CPU time, of aya 0.14).

use std::{io, thread};

use aya::EbpfLoader;
use nix::{
    sched::{CloneFlags, unshare},
    unistd::chroot,
};

/// A directory that has no `sys/kernel/btf`.
const NO_BTF: &str = "/proc/self";

/// A loader that uses no BTF.
///
/// It is made on a thread that has this directory for its root and ends at once, so that aya finds no
/// BTF. That takes CAP_SYS_CHROOT; without, aya reads it.
pub(super) fn without_btf() -> EbpfLoader<'static> {
    let elsewhere = || -> io::Result<EbpfLoader<'static>> {
        // Else the root of the whole process would change.
        unshare(CloneFlags::CLONE_FS)?;
        chroot(NO_BTF)?;
        Ok(EbpfLoader::new())
    };
    let thread = thread::Builder::new().name("loader".into()).spawn(elsewhere);
    let made = thread.ok().and_then(|thread| thread.join().ok()?.ok());
    let mut loader = made.unwrap_or_else(EbpfLoader::new);
    loader.btf(None);
    loader
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    #[test]
    fn the_rest_of_the_process_keeps_its_root() {
        let root = || fs::read_link("/proc/self/root").unwrap();
        let (before, here) = (root(), std::env::current_dir().unwrap());
        drop(super::without_btf());
        assert_eq!(root(), before);
        assert_eq!(std::env::current_dir().unwrap(), here);
        assert!(Path::new("/proc/self/task").is_dir());
    }
}
