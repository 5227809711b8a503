//! `cargo xtask dist`: what is handed on: a static program with all that belongs beside it, as a
//! tarball, a Debian package and an RPM package, with their checksums.
//!
//! Everything comes from the tree and from the program itself, and the same tree gives the same bytes
//! wherever it is built: `--check` proves that. Nothing is installed.

mod build;
mod check;
mod pack;
mod packages;
mod place;
mod stage;
mod verify;

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Result, bail};

use xtask::sh;

use self::{
    pack::Format,
    packages::make,
    place::{Place, files, is},
};

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

pub fn main(args: &Args) -> Result<ExitCode> {
    let place = Place::here()?;
    if args.check {
        return check::run(&place, &args.format);
    }
    // A build takes minutes: what will be missing is said before.
    for missing in args.format.iter().filter_map(|format| format.missing()) {
        sh::say(&format!("dist: cannot make {missing}"));
    }
    let program = match &args.program {
        Some(file) => file.clone(),
        None => build::program(&place)?,
    };
    let missing = make(&place, &program, &args.format)?;
    sh::say(&format!("dist: {}", place.out.display()));
    sh::say(fs::read_to_string(place.out.join(pack::CHECKSUMS))?.trim_end());
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
