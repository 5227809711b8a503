//! What compiles and links the kernel object: finding it, describing it, calling it. It installs
//! nothing (`setup` does) and knows nothing of what is built.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use xtask::sh;

/// The rustup tool chain that is asked for unless the caller names another.
pub const NIGHTLY: &str = "nightly";
/// The cargo target of the object. Little-endian: the hosts that Rust and eBPF share are.
pub const TARGET: &str = "bpfel-unknown-none";
/// The variable that names cargo its linker for [`TARGET`].
pub const LINKER_VARIABLE: &str = "CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER";

/// The versions that decide the bytes of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Versions {
    /// As `rustc --version` says it.
    pub rustc: String,
    /// The LLVM in rustc, which writes the bitcode.
    pub rustc_llvm: String,
    /// As `bpf-linker --version` says it.
    pub bpf_linker: String,
    /// The LLVM that bpf-linker is linked with, which writes the BPF instructions.
    pub bpf_linker_llvm: String,
}

/// A rustc that can compile for BPF, and how cargo is made to use it.
#[derive(Debug)]
pub struct Compiler {
    kind: Kind,
    /// As `rustc --version` says it.
    pub version: String,
    /// The version of its LLVM.
    pub llvm: String,
    /// Where its libraries and, from rustup, the sources of `core` are.
    sysroot: PathBuf,
}

#[derive(Debug)]
enum Kind {
    /// A nightly of rustup's with rust-src: `core` is built from source.
    Rustup(String),
    /// Debian's packages unpacked here: `core` for BPF comes ready-made.
    Debian(PathBuf),
}

impl Compiler {
    /// The rustup tool chain `name`, or else Debian's packages where `setup` unpacked them.
    ///
    /// # Errors
    /// If there is neither, with what was tried.
    pub fn find(name: &str) -> Result<Self> {
        Self::rustup(name).or_else(|refusal| {
            Self::debian(&debian_dir()?).map_err(|_| {
                refusal.context("nothing here compiles for BPF (`cargo xtask setup` brings it)")
            })
        })
    }

    /// The rustup tool chain `name`, which must have rust-src.
    pub fn rustup(name: &str) -> Result<Self> {
        let compiler = Self::describe(Kind::Rustup(name.to_owned()))?;
        if !compiler.sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").exists() {
            bail!("the tool chain {name} has no rust-src");
        }
        Ok(compiler)
    }

    /// Debian's packages, unpacked in `dir`.
    pub fn debian(dir: &Path) -> Result<Self> {
        if !dir.join("usr/bin/rustc").exists() {
            bail!("no rustc is unpacked in {}", dir.display());
        }
        let compiler = Self::describe(Kind::Debian(dir.to_owned()))?;
        let core = compiler.sysroot.join("lib/rustlib").join(TARGET);
        if !core.exists() {
            bail!("the rustc in {} has no core for {TARGET}", dir.display());
        }
        Ok(compiler)
    }

    fn describe(kind: Kind) -> Result<Self> {
        let verbose = sh::output(rustc(&kind).arg("-vV"))?;
        let version = verbose.lines().next().context("rustc -vV says nothing")?.to_owned();
        let llvm = verbose.lines().find_map(|line| line.strip_prefix("LLVM version: "));
        let llvm = llvm.context("rustc -vV names no LLVM")?.to_owned();
        let sysroot = sh::output(rustc(&kind).args(["--print", "sysroot"]))?.into();
        Ok(Self { kind, version, llvm, sysroot })
    }

    /// The major version of its LLVM, which must not be above the linker's.
    pub fn llvm_major(&self) -> Result<u32> {
        major(&self.llvm).with_context(|| format!("no LLVM version: {}", self.llvm))
    }

    /// Whether it has clippy for the eBPF crate.
    pub fn has_clippy(&self) -> bool {
        matches!(self.kind, Kind::Rustup(_)) && self.sysroot.join("bin/cargo-clippy").exists()
    }

    /// The sources of `core`, whose paths are in panic messages.
    pub fn core_sources(&self) -> PathBuf {
        self.sysroot.join("lib/rustlib/src/rust")
    }

    /// `cargo SUBCOMMAND` for the BPF target with this compiler, in an environment of its own.
    pub fn cargo(&self, subcommand: &str) -> Command {
        let mut cargo = match &self.kind {
            Kind::Rustup(name) => {
                let mut cargo = sh::clean("rustup");
                cargo.args(["run", name, "cargo", subcommand, "-Zbuild-std=core"]);
                cargo
            }
            Kind::Debian(dir) => {
                let mut cargo = sh::cargo();
                cargo
                    .arg(subcommand)
                    .env("RUSTC", dir.join("usr/bin/rustc"))
                    .env("LD_LIBRARY_PATH", library_path(dir))
                    // A stable compiler, and BPF's target is unstable.
                    .env("RUSTC_BOOTSTRAP", "1");
                cargo
            }
        };
        cargo
            .args(["--target", TARGET])
            // The empty string turns off a wrapper of the user's configuration.
            .env("RUSTC_WRAPPER", "");
        cargo
    }
}

fn rustc(kind: &Kind) -> Command {
    match kind {
        Kind::Rustup(name) => {
            let mut rustc = sh::clean("rustup");
            rustc.args(["run", name, "rustc"]);
            rustc
        }
        Kind::Debian(dir) => {
            let mut rustc = sh::clean(dir.join("usr/bin/rustc"));
            rustc.env("LD_LIBRARY_PATH", library_path(dir));
            rustc
        }
    }
}

/// Where `setup` unpacks Debian's compiler.
pub fn debian_dir() -> Result<PathBuf> {
    Ok(sh::target_dir()?.join("debian-rust"))
}

fn library_path(dir: &Path) -> PathBuf {
    dir.join("usr/lib").join(format!("{}-linux-gnu", env::consts::ARCH))
}

/// The bpf-linker on the `PATH`.
#[derive(Debug)]
pub struct Linker {
    /// The program.
    pub path: PathBuf,
    /// As `bpf-linker --version` says it, without the name.
    pub version: String,
    /// The version of the LLVM that it is linked with; `static` if it is a part of it.
    pub llvm: String,
}

impl Linker {
    /// # Errors
    /// If there is none, or it does not start.
    pub fn find() -> Result<Self> {
        let path = sh::which("bpf-linker").context("there is no bpf-linker on the PATH")?;
        let version = sh::output(Command::new(&path).arg("--version"))?;
        let version = version.strip_prefix("bpf-linker ").unwrap_or(&version).to_owned();
        let libraries = sh::output(Command::new("ldd").arg(&path))?;
        Ok(Self { llvm: linked_llvm(&libraries), path, version })
    }

    /// Whether it can read the bitcode of an LLVM of this major version: no newer one's.
    pub fn reads(&self, llvm: u32) -> bool {
        major(&self.llvm).is_none_or(|own| own >= llvm)
    }
}

/// The LLVM among the libraries that `ldd` lists.
fn linked_llvm(libraries: &str) -> String {
    let Some(soname) = libraries
        .split_whitespace()
        .find_map(|word| word.strip_prefix("libLLVM.so.").or(word.strip_prefix("libLLVM-")))
    else {
        return "static".to_owned();
    };
    // The library's name leaves out the patch level, which changes the code too.
    let exact = major(soname).and_then(|major| {
        sh::output(Command::new(llvm_dir(major).join("bin/llvm-config")).arg("--version")).ok()
    });
    exact.unwrap_or_else(|| soname.to_owned())
}

/// Where Debian's packages put an LLVM.
pub fn llvm_dir(major: u32) -> PathBuf {
    PathBuf::from(format!("/usr/lib/llvm-{major}"))
}

fn major(version: &str) -> Option<u32> {
    version.split(['.', '-']).next()?.parse().ok()
}

/// The directories that cargo unpacks crates into, one for each registry: their paths are in
/// panic messages.
pub fn registry_sources() -> Result<Vec<PathBuf>> {
    let home = sh::cargo_home().context("neither CARGO_HOME nor HOME is set")?;
    let sources = home.join("registry/src");
    let Ok(entries) = fs::read_dir(&sources) else {
        // A vendored tree has none.
        return Ok(Vec::new());
    };
    entries.map(|entry| Ok(entry?.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_by_their_major() {
        assert_eq!(major("22.1.4"), Some(22));
        assert_eq!(major("22.1"), Some(22));
        assert_eq!(major("static"), None);
    }

    #[test]
    fn a_linker_without_a_shared_llvm_is_said_to_be_static() {
        assert_eq!(linked_llvm("\tlibc.so.6 => /lib/libc.so.6 (0x0)\n"), "static");
    }

    #[test]
    fn a_linker_reads_the_bitcode_of_its_own_llvm_and_of_older_ones() {
        let linker = Linker { path: "".into(), version: "0.13.0".into(), llvm: "22.1.8".into() };
        assert!(linker.reads(21) && linker.reads(22));
        assert!(!linker.reads(23));
    }
}
