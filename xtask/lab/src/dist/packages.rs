//! All packages of a program: staged, packed, unpacked to see what they are worth, and summed up.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};
use xtask::sh;

use super::{
    pack::{self, Format},
    place::Place,
    stage, verify,
};

/// Packs `program` in each of `formats`, verifies what came of it, and writes the checksums. Returns
/// what could not be made, and why.
pub(super) fn make(place: &Place, program: &Path, formats: &[Format]) -> Result<Vec<String>> {
    let bytes = checked(program)?;
    if place.out.exists() {
        fs::remove_dir_all(&place.out)
            .with_context(|| format!("cannot empty {}", place.out.display()))?;
    }
    stage::fill(place, &bytes)?;
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

/// The bytes of `program`, if it is what the packages say they have: tcptrace of this version, linked
/// statically. It may lie in the directory that is about to be emptied.
fn checked(program: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(program).with_context(|| format!("reading {}", program.display()))?;
    let expected = concat!("tcptrace ", env!("CARGO_PKG_VERSION"));
    match sh::output(sh::clean(program).arg("--version")) {
        Ok(said) if said == expected => {}
        _ => bail!("{} is not {expected}", program.display()),
    }
    // The program interpreter (PT_INTERP) is named near the start of what is linked dynamically.
    let head = &bytes[..bytes.len().min(4096)];
    if head.windows(7).any(|name| name == b"/ld-lin" || name == b"/ld-mus") {
        bail!("{} is linked dynamically: packages have a static program", program.display());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_tcptrace_is_refused_before_anything_is_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place {
            workspace: directory.path().to_owned(),
            out: directory.path().join("dist"),
            target_dir: directory.path().to_owned(),
            epoch: 0,
        };
        fs::create_dir(&place.out).unwrap();
        fs::write(place.out.join("earlier.deb"), "").unwrap();
        for program in ["/bin/true", "/etc/passwd", "/nonexistent", "/"] {
            make(&place, Path::new(program), &[Format::Tarball]).unwrap_err();
            assert!(place.out.join("earlier.deb").exists(), "{program}");
        }
    }
}
