//! The task on the CPU when something happened.

use std::{
    fmt,
    hash::{Hash, Hasher},
};

use serde::{Deserialize, Serialize};

/// A task's name: whatever bytes it chose, up to 15.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Comm([u8; 16]);

impl Comm {
    /// The name in `raw`, which ends at the first NUL.
    pub const fn new(raw: [u8; 16]) -> Self {
        Self(raw)
    }

    /// The bytes of the name.
    pub fn as_bytes(&self) -> &[u8] {
        let len = self.0.iter().position(|&b| b == 0).unwrap_or(self.0.len());
        &self.0[..len]
    }

    /// The 16 bytes as the kernel has them.
    pub const fn raw(&self) -> &[u8; 16] {
        &self.0
    }

    /// Whether it can be printed as it is: graphic ASCII and blanks, no backslash.
    pub fn is_plain(&self) -> bool {
        self.as_bytes().iter().all(|&b| (b' '..=b'~').contains(&b) && b != b'\\')
    }
}

impl Hash for Comm {
    /// As one number: byte by byte it takes several times as long.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(u128::from_ne_bytes(self.0));
    }
}

impl From<&str> for Comm {
    /// Keeps the first 15 bytes, as the kernel does.
    fn from(name: &str) -> Self {
        let mut raw = [0; 16];
        for (to, from) in raw[..15].iter_mut().zip(name.bytes()) {
            *to = from;
        }
        Self(raw)
    }
}

impl fmt::Display for Comm {
    /// Escaped: a process cannot move the cursor of whoever looks at it. UTF-8 letters stay.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_plain()
            && let Ok(plain) = std::str::from_utf8(self.as_bytes())
        {
            return f.pad(plain);
        }
        f.pad(&escape(self.as_bytes()))
    }
}

impl fmt::Debug for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// `bytes` as text that is harmless on a terminal and loses nothing: control characters, bytes
/// that are not UTF-8, invisible and direction-changing characters, and the backslash itself
/// appear as `\x1b`, `\u{202e}`, `\\`.
pub fn escape(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                // escape_debug() escapes what Unicode calls control, format and unassigned.
                '\'' | '"' => out.push(c),
                c if c.is_ascii_control() => {
                    let _ = write!(out, "\\x{:02x}", c as u32);
                }
                c => out.extend(c.escape_debug()),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// A thread, as the kernel saw it on the CPU. Whether it has to do with the socket depends on
/// the transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Task {
    /// Process (thread group).
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// User id.
    pub uid: u32,
    /// Name of the thread.
    pub comm: Comm,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_is_escaped() {
        assert_eq!(Comm::from("curl").to_string(), "curl");
        assert_eq!(Comm::from("\x1b[31mevil\n").to_string(), "\\x1b[31mevil\\x0a");
        assert_eq!(Comm::from("a\\x1b").to_string(), "a\\\\x1b");
        assert_eq!(Comm::from("\u{202e}lru").to_string(), "\\u{202e}lru");
        assert_eq!(Comm::from("grün").to_string(), "grün");
        let mut raw = [0; 16];
        raw[..3].copy_from_slice(b"a\xff\x80");
        assert_eq!(Comm::new(raw).to_string(), "a\\xff\\x80");
    }

    #[test]
    fn a_name_without_nul_is_sixteen_bytes() {
        assert_eq!(Comm::new([b'x'; 16]).as_bytes().len(), 16);
        assert_eq!(Comm::from("0123456789abcdefXY").to_string(), "0123456789abcde");
    }
}
