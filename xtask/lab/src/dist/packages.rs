//! All packages of a program: staged, packed, unpacked to see what they are worth, and summed up.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use super::{
    pack::{self, Format},
    place::Place,
    stage, verify,
};

/// Packs `program` in each of `formats`, verifies what came of it, and writes the checksums. Returns
/// what could not be made, and why.
pub(super) fn make(place: &Place, program: &Path, formats: &[Format]) -> Result<Vec<String>> {
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
