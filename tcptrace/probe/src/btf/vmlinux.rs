//! The bytes of the running kernel's BTF.

use std::{fs, io, ops::Deref};

use memmap2::{Mmap, MmapOptions};

const PATH: &str = "/sys/kernel/btf/vmlinux";

/// The running kernel's BTF: mapped, or a copy.
pub(crate) enum Vmlinux {
    /// The kernel's own pages (6.16, commit a539e2a6d51d).
    Mapped(Mmap),
    /// What was read of it.
    Read(Vec<u8>),
}

impl Vmlinux {
    /// Opens it.
    ///
    /// # Errors
    /// This kernel has none, or does not let us, in words.
    pub(crate) fn open() -> Result<Self, String> {
        let read = || -> io::Result<Self> {
            let file = fs::File::open(PATH)?;
            // SAFETY: the kernel never changes these pages, and the file cannot be made shorter.
            match unsafe { MmapOptions::new().map_copy_read_only(&file) } {
                Ok(mapped) => Ok(Self::Mapped(mapped)),
                Err(_) => fs::read(PATH).map(Self::Read),
            }
        };
        read().map_err(|error| format!("this kernel has no BTF ({PATH}: {error})"))
    }
}

impl Deref for Vmlinux {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(mapped) => mapped,
            Self::Read(read) => read,
        }
    }
}
