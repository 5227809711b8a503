//! `cargo xtask build-ebpf`: the kernel objects from their sources, with the same bytes wherever
//! the same tool chain builds them; and `--check`, which proves that of the committed ones.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};

use xtask::sh;

use crate::{
    provenance::{FILE, Provenance},
    sources,
    toolchain::{self, Compiler, LINKER_VARIABLE, Linker, NIGHTLY, TARGET, Versions},
};

/// The binaries of `tcptrace-ebpf`, and where the object of each is committed.
const OBJECTS: [(&str, &str); 3] = [
    ("tcptrace", "tcptrace/bpf/tcptrace.bpf.o"),
    ("files", "tcptrace/bpf/files.bpf.o"),
    ("floor", "xtask/bpf/floor.bpf.o"),
];

/// The compiler's flags, but for the paths that are remapped.
///
/// `bpf_target_arch` chooses aya's layout of `struct pt_regs`, which no program here reads (they
/// are tracepoints). So it is the same on every host, and one object does for all of them.
const FLAGS: [&str; 2] = ["--cfg", "bpf_target_arch=\"x86_64\""];

#[derive(clap::Args)]
pub struct Args {
    /// Change nothing: prove that the committed objects are what the sources yield. Exits with 0
    /// if they are, 1 if not, and 3 if this machine's tool chain cannot tell
    #[arg(long)]
    check: bool,
    /// The rustup tool chain to build with
    #[arg(long, default_value = NIGHTLY)]
    toolchain: String,
}

/// What `--check` found out.
pub enum Verdict {
    /// The sources yield these bytes.
    Proved,
    /// The objects are of these sources, says the provenance, but this machine cannot tell: why.
    CannotProve(String),
}

pub fn main(args: &Args) -> Result<ExitCode> {
    let workspace = sh::workspace()?;
    if !args.check {
        build_all(&workspace, &args.toolchain)?;
        return Ok(ExitCode::SUCCESS);
    }
    Ok(match check(&workspace, &args.toolchain)? {
        Verdict::Proved => {
            eprintln!("proved: the committed objects are what the sources yield");
            ExitCode::SUCCESS
        }
        Verdict::CannotProve(why) => {
            eprintln!("cannot prove that the committed objects are what the sources yield: {why}");
            ExitCode::from(3)
        }
    })
}

/// Builds and writes every object and the provenance.
fn build_all(workspace: &Path, toolchain: &str) -> Result<()> {
    let tools = Tools::find(toolchain)?;
    let mut objects = BTreeMap::new();
    for (bin, destination) in OBJECTS {
        let object = build(workspace, &tools, bin, "ebpf")?;
        let path = workspace.join(destination);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, &object).with_context(|| format!("writing {destination}"))?;
        eprintln!("{destination}: {} bytes", object.len());
        objects.insert(destination.to_owned(), sources::sha256(&object));
    }
    let sources = sources::hash(workspace, &FLAGS)?;
    Provenance { sources, toolchain: tools.versions(), objects }.write(workspace)?;
    eprintln!("{FILE}: written");
    Ok(())
}

/// Checks the committed objects, first by their hashes, then by building them.
///
/// # Errors
/// If an object is not what the provenance says, or not what the sources yield.
pub fn check(workspace: &Path, toolchain: &str) -> Result<Verdict> {
    let provenance = Provenance::read(workspace)?;
    let committed = check_hashes(workspace, &provenance)?;

    let tools = match Tools::find(toolchain) {
        Ok(tools) => tools,
        Err(lacking) => return Ok(Verdict::CannotProve(format!("{lacking:#}"))),
    };
    for ((bin, destination), committed) in OBJECTS.into_iter().zip(committed) {
        let built = build(workspace, &tools, bin, "ebpf-check")?;
        if built == committed {
            continue;
        }
        let versions = tools.versions();
        if versions != provenance.toolchain {
            return Ok(Verdict::CannotProve(format!(
                "it was built with another tool chain, and this one yields other bytes\n  \
                 built with: {}\n  this one:   {}",
                describe(&provenance.toolchain),
                describe(&versions),
            )));
        }
        bail!(
            "{destination} is not what its sources yield with the tool chain that {FILE} names: \
             {} bytes built, {} committed; run `cargo xtask build-ebpf` and commit the result",
            built.len(),
            committed.len(),
        );
    }
    Ok(Verdict::Proved)
}

/// What needs no tool chain: the objects are those that the provenance names, and it was written
/// for these sources. Returns the objects, in the order of [`OBJECTS`].
fn check_hashes(workspace: &Path, provenance: &Provenance) -> Result<Vec<Vec<u8>>> {
    if sources::hash(workspace, &FLAGS)? != provenance.sources {
        bail!(
            "the committed objects are stale: their sources have changed since they were built; \
             run `cargo xtask build-ebpf` and commit the result"
        );
    }
    let mut objects = Vec::new();
    for (_, destination) in OBJECTS {
        let object = fs::read(workspace.join(destination))
            .with_context(|| format!("reading {destination}"))?;
        if provenance.objects.get(destination) != Some(&sources::sha256(&object)) {
            bail!("{destination} is not the object that {FILE} describes: its SHA-256 differs");
        }
        objects.push(object);
    }
    Ok(objects)
}

fn describe(versions: &Versions) -> String {
    let Versions { rustc, rustc_llvm, bpf_linker, bpf_linker_llvm } = versions;
    format!("{rustc} with LLVM {rustc_llvm}, bpf-linker {bpf_linker} with LLVM {bpf_linker_llvm}")
}

/// What builds an object.
struct Tools {
    compiler: Compiler,
    linker: Linker,
}

impl Tools {
    fn find(toolchain: &str) -> Result<Self> {
        let compiler = Compiler::find(toolchain)?;
        let linker = Linker::find().context("`cargo xtask setup` brings bpf-linker")?;
        if !linker.reads(compiler.llvm_major()?) {
            bail!(
                "bpf-linker has LLVM {}, too old for the bitcode of {} (LLVM {}): \
                 `cargo xtask setup` brings one that fits",
                linker.llvm,
                compiler.version,
                compiler.llvm,
            );
        }
        Ok(Self { compiler, linker })
    }

    fn versions(&self) -> Versions {
        Versions {
            rustc: self.compiler.version.clone(),
            rustc_llvm: self.compiler.llvm.clone(),
            bpf_linker: self.linker.version.clone(),
            bpf_linker_llvm: self.linker.llvm.clone(),
        }
    }
}

/// Builds one object in `<target>/<place>` and returns its bytes.
fn build(workspace: &Path, tools: &Tools, bin: &str, place: &str) -> Result<Vec<u8>> {
    let target_dir = sh::target_dir()?.join(place);
    sh::run(
        tools
            .compiler
            .cargo("build")
            .current_dir(workspace)
            .args(["--package", "tcptrace-ebpf", "--bin", bin, "--profile", "bpf", "--locked"])
            .arg("--target-dir")
            .arg(&target_dir)
            .env("CARGO_ENCODED_RUSTFLAGS", rustflags(workspace, &tools.compiler)?)
            .env(LINKER_VARIABLE, &tools.linker.path),
    )?;
    let object = target_dir.join(TARGET).join("bpf").join(bin);
    fs::read(&object).with_context(|| format!("reading {}", object.display()))
}

/// `cargo clippy` for the eBPF crate. Warnings are denied with the nightly that built the committed
/// objects; another one has lints that nobody has seen yet, which must not fail a test of today.
pub fn clippy(workspace: &Path, compiler: &Compiler) -> Result<()> {
    let built_with = Provenance::read(workspace)?.toolchain.rustc;
    let mut command = compiler.cargo("clippy");
    command
        .current_dir(workspace)
        .args(["--package", "tcptrace-ebpf", "--profile", "bpf", "--locked", "--target-dir"])
        .arg(sh::target_dir()?.join("ebpf"))
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"));
    if compiler.version == built_with {
        command.args(["--", "-D", "warnings"]);
    } else {
        eprintln!("note: warnings are not denied: {} is not {built_with}", compiler.version);
    }
    sh::run(&mut command)
}

/// [`FLAGS`] and, so that no path of this machine reaches the object, what replaces each.
fn rustflags(workspace: &Path, compiler: &Compiler) -> Result<String> {
    let mut replaced: Vec<(PathBuf, &str)> =
        vec![(workspace.to_owned(), "/tcptrace"), (compiler.core_sources(), "/rust")];
    replaced.extend(toolchain::registry_sources()?.into_iter().map(|dir| (dir, "/crates")));

    let mut flags = FLAGS.join("\x1f");
    for (from, to) in replaced {
        let from = from.to_str().with_context(|| format!("{} is not UTF-8", from.display()))?;
        flags.push_str(&format!("\x1f--remap-path-prefix={from}={to}"));
    }
    Ok(flags)
}
