//! `cargo xtask dist`: what is handed on: a static program with all that belongs beside it, as a
//! tarball, a Debian package and an RPM package, with their checksums.
//!
//! Everything comes from the tree and from the program itself, and the same tree gives the same bytes
//! wherever it is built: `--check` proves that. Nothing is installed.

mod build;
mod check;
mod pack;
mod stage;
mod verify;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};

use xtask::sh;

use self::pack::Format;

#[derive(clap::Args)]
pub struct Args {
    /// What to make
    #[arg(long, value_name = "FORMAT", value_delimiter = ',', default_value = "tarball,deb,rpm")]
    format: Vec<Format>,
    /// Build everything twice, in two directories, and compare the bytes
    #[arg(long, conflicts_with = "program")]
    check: bool,
    /// Package this program instead of building one
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

/// From where and to where.
struct Place {
    /// The root of the workspace.
    workspace: PathBuf,
    /// What is made. Below it, `stage` has the files of the packages: tcptrace/Cargo.toml names them
    /// there.
    out: PathBuf,
    /// Where it is compiled.
    target_dir: PathBuf,
    /// The time of all files, seconds since 1970.
    epoch: u64,
}

impl Place {
    fn here() -> Result<Self> {
        let workspace = sh::workspace()?;
        let epoch = epoch(&workspace)?;
        Ok(Self {
            out: workspace.join("target/dist"),
            target_dir: sh::target_dir()?,
            workspace,
            epoch,
        })
    }

    fn stage(&self) -> PathBuf {
        self.out.join("stage")
    }
}

pub fn main(args: &Args) -> Result<ExitCode> {
    let place = Place::here()?;
    if args.check {
        return check::run(&place, &args.format);
    }
    let program = match &args.program {
        Some(file) => file.clone(),
        None => build::program(&place)?,
    };
    let missing = make(&place, &program, &args.format)?;
    sh::say(&format!("dist: {}", place.out.display()));
    sh::say(&fs::read_to_string(place.out.join(pack::CHECKSUMS))?);
    for what in &missing {
        sh::say(&format!("dist: NOT MADE: {what}"));
    }
    Ok(if missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Makes the Debian package alone, and says where it is.
///
/// # Errors
/// If cargo-deb is not installed, or the program does not build.
pub fn debian_package() -> Result<PathBuf> {
    let place = Place::here()?;
    if let Some(missing) = Format::Deb.missing() {
        bail!("{missing}");
    }
    let program = build::program(&place)?;
    make(&place, &program, &[Format::Deb])?;
    let debs: Vec<_> = files(&place.out)?.into_iter().filter(|file| is(file, "deb")).collect();
    match &debs[..] {
        [deb] => Ok(deb.clone()),
        _ => bail!("{} packages in {}, not one", debs.len(), place.out.display()),
    }
}

/// Packs `program` in each of `formats`, verifies what came of it, and writes the checksums. Returns
/// what could not be made, and why.
fn make(place: &Place, program: &Path, formats: &[Format]) -> Result<Vec<String>> {
    if place.out.exists() {
        fs::remove_dir_all(&place.out)
            .with_context(|| format!("cannot empty {}", place.out.display()))?;
    }
    stage::fill(place, program)?;
    let mut missing = Vec::new();
    for format in formats {
        match format.missing() {
            Some(why) => missing.push(why),
            None => {
                let file = format.pack(place)?;
                verify::unpacked(place, *format, &file)?;
            }
        }
    }
    pack::checksums(&place.out)?;
    Ok(missing)
}

/// The files in `directory`, by name.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries = fs::read_dir(directory);
    for entry in entries.with_context(|| format!("listing {}", directory.display()))? {
        let path = entry?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn is(file: &Path, extension: &str) -> bool {
    file.extension().is_some_and(|of_file| of_file == extension)
}

/// The time that all files get: `SOURCE_DATE_EPOCH`, else that of the last commit.
fn epoch(workspace: &Path) -> Result<u64> {
    if let Some(given) = env::var_os("SOURCE_DATE_EPOCH") {
        let given = given.to_string_lossy();
        return given.parse().with_context(|| format!("SOURCE_DATE_EPOCH is '{given}'"));
    }
    let mut git = sh::clean("git");
    git.current_dir(workspace).args(["log", "-1", "--format=%ct"]);
    match sh::output(&mut git) {
        Ok(seconds) => seconds.parse().with_context(|| format!("git says '{seconds}'")),
        Err(error) => {
            sh::say(&format!("dist: files are dated 1970, since no commit says when: {error:#}"));
            Ok(0)
        }
    }
}
