//! Tables in the documentation that commands write, each between two lines that mark its place.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};

/// Puts `text` between the lines `<!-- NAME:begin -->` and `<!-- NAME:end -->` of a file; the rest
/// stays.
///
/// # Errors
/// If the file cannot be read or written, or lacks these lines.
pub fn write_between(file: &Path, name: &str, text: &str) -> Result<()> {
    let (begin, end) = (format!("<!-- {name}:begin -->"), format!("<!-- {name}:end -->"));
    let old =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let parts =
        old.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
    let Some((before, after)) = parts else {
        bail!("{} has no lines `{begin}` and `{end}`", file.display());
    };
    let new = format!("{before}{begin}\n\n{text}{end}{after}");
    fs::write(file, new).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_around_the_markers_stays() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("DOC.md");
        fs::write(&file, "intro\n<!-- a:begin -->\nold\n<!-- a:end -->\noutro\n").unwrap();
        write_between(&file, "a", "new\n").unwrap();
        let expected = "intro\n<!-- a:begin -->\n\nnew\n<!-- a:end -->\noutro\n";
        assert_eq!(fs::read_to_string(&file).unwrap(), expected);
        write_between(&file, "b", "new\n").unwrap_err();
        assert_eq!(fs::read_to_string(&file).unwrap(), expected);
    }
}
