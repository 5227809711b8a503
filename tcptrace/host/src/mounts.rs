//! The mounts that this process sees: `/proc/self/mountinfo`, as far as the host module needs it.
//!
//! A parser of our own because `procfs` 0.18 leaves the kernel's octal escapes in the mount
//! points, builds two maps for each line, and gives up the whole file over one odd line.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::{fs, io};

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// What of the file system is mounted: `/` for all of it, `net:[4026531840]` for a bind
    /// mount of a namespace.
    pub root: OsString,
    /// Where, seen from this process's root.
    pub point: PathBuf,
    /// Type of the file system, such as `tracefs` or `nsfs`.
    pub kind: OsString,
}

/// Reads the mounts of the calling thread's mount namespace, in the kernel's order.
pub fn mounts() -> io::Result<Vec<Mount>> {
    Ok(parse(&fs::read("/proc/thread-self/mountinfo")?))
}

/// Parses `mountinfo`; passes over lines that are not of its form. Any bytes may be given.
pub fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|&byte| byte == b'\n').filter_map(parse_line).collect()
}

/// `ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [OPTIONAL]… - TYPE SOURCE SUPER-OPTIONS`
/// (`show_mountinfo()`).
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let root = unescape(fields.nth(3)?);
    let point = unescape(fields.next()?);
    fields.find(|field| *field == b"-")?;
    let kind = unescape(fields.next()?);
    Some(Mount { root, point: point.into(), kind })
}

/// Undoes `mangle_path()`: blank, tab, newline, `\` and `#` come as `\` and three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = tail;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn optional_fields_and_escapes_are_read() {
        let text = b"42 23 0:13 / /sys/kernel/tracing rw,relatime - tracefs none rw\n\
            99 23 0:4 net:[4026532001] /run/netns/a\\040b\\134 rw shared:7 master:1 - nsfs nsfs rw\n";
        let found = parse(text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].kind, "tracefs");
        assert_eq!(found[0].point, PathBuf::from("/sys/kernel/tracing"));
        assert_eq!(found[1].root, "net:[4026532001]");
        assert_eq!(found[1].point, PathBuf::from("/run/netns/a b\\"));
    }

    #[test]
    fn odd_lines_cost_only_themselves() {
        let text = b"\n1 2\n1 2 0:1 / /a rw nothing more\n1 2 0:1 / /\xff\\9\\04 rw - x\n\\";
        let found = parse(text);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].point.as_os_str().as_encoded_bytes(), b"/\xff\\9\\04");
    }

    #[test]
    fn cut_at_every_length_it_does_not_panic() {
        let text = b"99 23 0:4 net:[1] /run/netns/a\\040b rw shared:7 - nsfs nsfs rw\n";
        let whole = (0..text.len()).filter(|&len| !parse(&text[..len]).is_empty()).count();
        // From the first byte of the type on.
        assert_eq!(whole, text.len() - 50);
    }

    #[test]
    fn this_process_has_a_proc() {
        assert!(mounts().unwrap().iter().any(|mount| mount.kind == "proc"));
    }
}
