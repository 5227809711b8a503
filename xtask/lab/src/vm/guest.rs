//! What goes into the guest: the test binary (built here, unless it is given), busybox, files, and
//! the command that the guest runs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use xtask::sh;

use crate::cargo;

use super::{
    initramfs::{Archive, quote},
    kernel::Module,
};

/// The guest's first process.
const INIT: &str = include_str!("../../vm-init");

/// What the guest runs.
#[derive(Clone, Debug, Default)]
pub struct Program {
    pub binary: PathBuf,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    /// Host file and guest path.
    pub files: Vec<(PathBuf, String)>,
    /// `ulimit -l` for the binary; the kernel's own default if `None`.
    pub memlock: Option<String>,
}

/// The part of the initramfs that is the same for every kernel.
#[derive(Debug)]
pub struct Guest {
    archive: Vec<u8>,
    command: String,
    memlock: String,
}

impl Guest {
    /// Packs the program and busybox.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, or a program needs shared libraries, which the guest lacks.
    pub fn new(program: &Program) -> Result<Self> {
        let busybox = sh::which("busybox")
            .context("busybox not found in PATH: install the Debian package busybox-static")?;
        let name = program
            .binary
            .file_name()
            .with_context(|| format!("{} is not a file", program.binary.display()))?
            .to_string_lossy();
        let home = format!("/vm/bin/{name}");

        let mut archive = Archive::new(Vec::new())?;
        for dir in ["proc", "sys", "tmp", "run", "root", "etc", "bin"] {
            archive.directory(dir)?;
        }
        archive.program("/init", INIT.as_bytes())?;
        archive.program(
            "/bin/busybox",
            &static_program(&busybox).context(
                "the guest's shell; the Debian package busybox-static has the right one",
            )?,
        )?;
        archive.file(
            "/etc/passwd",
            b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        )?;
        archive.file("/etc/group", b"root:x:0:\nnogroup:x:65534:\n")?;
        archive.program(&home, &static_program(&program.binary)?)?;
        for (file, path) in &program.files {
            let bytes =
                fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            archive.program(path, &bytes)?;
        }

        let mut command = String::new();
        for (key, value) in &program.env {
            command.push_str(&format!("export {key}={}\n", quote(value)));
        }
        command.push_str("exec ");
        command.push_str(&quote(&home));
        for arg in &program.args {
            command.push(' ');
            command.push_str(&quote(arg));
        }
        command.push('\n');
        let memlock = program.memlock.clone().unwrap_or_default();
        Ok(Self { archive: archive.finish()?, command, memlock })
    }

    /// The initramfs of one boot. `nonce` is what its sentinel will carry.
    pub fn initramfs(&self, modules: &[Module], nonce: &str) -> Result<Vec<u8>> {
        let mut archive = Archive::new(self.archive.clone())?;
        let names: Vec<_> = modules.iter().map(|module| module.name.as_str()).collect();
        let env = format!(
            "VM_NONCE={nonce}\nVM_MODULES={}\nVM_MEMLOCK={}\n",
            quote(&names.join(" ")),
            quote(&self.memlock)
        );
        archive.file("/vm/env", env.as_bytes())?;
        archive.file("/vm/command", self.command.as_bytes())?;
        for module in modules {
            archive.file(&format!("/vm/modules/{}.ko", module.name), &module.object)?;
        }
        Ok(archive.finish()?)
    }
}

/// Reads a program that runs without a single library: a static ELF file for this machine, or a
/// script.
fn static_program(file: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    if bytes.starts_with(b"#!") {
        return Ok(bytes);
    }
    match interpreter(&bytes) {
        None => bail!("{} is neither a 64-bit ELF program nor a script", file.display()),
        Some(Some(interpreter)) => bail!(
            "{} is not static: it needs {interpreter}, which the guest lacks; \
             link it with -C target-feature=+crt-static",
            file.display()
        ),
        Some(None) => Ok(bytes),
    }
}

/// The program interpreter (`PT_INTERP`) of a little-endian 64-bit ELF file: `None` if it is no
/// such file, `Some(None)` if it has none, that is, is static.
fn interpreter(elf: &[u8]) -> Option<Option<String>> {
    const PT_INTERP: u64 = 3;
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let number = |at: usize, size: usize| -> Option<u64> {
        let bytes = elf.get(at..at.checked_add(size)?)?;
        Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    };
    let headers = usize::try_from(number(0x20, 8)?).ok()?;
    let size = usize::try_from(number(0x36, 2)?).ok()?;
    let count = usize::try_from(number(0x38, 2)?).ok()?;
    for index in 0..count {
        let header = headers.checked_add(index * size)?;
        if number(header, 4)? == PT_INTERP {
            let offset = usize::try_from(number(header + 8, 8)?).ok()?;
            let text = elf.get(offset..)?.split(|byte| *byte == 0).next()?;
            return Some(Some(String::from_utf8_lossy(text).into_owned()));
        }
    }
    Some(None)
}

/// The kernel tests, built to run in a guest.
#[derive(Debug)]
pub struct Built {
    pub tests: PathBuf,
    /// The `tcptrace` command, which the tests may start.
    pub command: PathBuf,
}

/// Builds the kernel tests and the command as static programs, into `target_dir`.
///
/// Only the two programs themselves are compiled for this: their dependencies are those of the
/// host's tests, and so is the profile.
pub fn build(workspace: &Path, target_dir: &Path) -> Result<Built> {
    Ok(Built {
        tests: build_one(workspace, target_dir, "test", "kernel")?,
        command: build_one(workspace, target_dir, "bin", "tcptrace")?,
    })
}

fn build_one(workspace: &Path, target_dir: &Path, kind: &str, name: &str) -> Result<PathBuf> {
    let mut rustc = sh::cargo();
    rustc
        .args(["rustc", "--locked", "--package", "tcptrace", &format!("--{kind}"), name])
        .current_dir(workspace)
        // The command in the usual place is the host's.
        .env("CARGO_TARGET_DIR", target_dir)
        .env("CARGO_BUILD_BUILD_DIR", sh::target_dir()?);
    // For this program alone. Without debug info it takes a quarter of the memory of every guest;
    // backtraces keep their function names.
    let flags = ["-C", "target-feature=+crt-static", "-C", "strip=debuginfo"];
    cargo::build(&mut rustc, &flags)?.find(kind, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_needs_a_loader_is_refused() {
        // This very test is linked to libraries, as every default build for glibc is.
        let own = std::env::current_exe().unwrap();
        let error = static_program(&own).unwrap_err().to_string();
        assert!(error.contains("is not static: it needs /lib"), "{error}");

        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "#!/bin/sh\n").unwrap();
        assert!(static_program(&file).is_ok());
        fs::write(&file, "text").unwrap();
        assert!(static_program(&file).is_err());
        fs::write(&file, b"\x7fELF\x02\x01").unwrap();
        assert!(static_program(&file).is_err(), "cut short");
    }

    #[test]
    fn an_elf_file_without_interpreter_is_static() {
        let mut elf = vec![0; 0x40];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        assert_eq!(interpreter(&elf), Some(None));
    }
}
