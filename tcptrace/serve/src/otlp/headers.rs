//! Headers that go with each push, from a file: what is on the command line is there for all to
//! see.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use thiserror::Error;

/// The largest file, bytes.
const LARGEST: u64 = 16 << 10;

/// What the request needs itself.
const OURS: [HeaderName; 4] =
    [header::HOST, header::CONTENT_TYPE, header::CONTENT_LENGTH, header::CONNECTION];

/// Headers.
#[derive(Clone, Debug, Default)]
pub struct Headers(pub(super) HeaderMap);

/// Why there are none.
#[derive(Debug, Error)]
pub enum HeadersError {
    /// The file cannot be read.
    #[error("cannot read the headers")]
    Unreadable(#[from] io::Error),
    /// The file is too large.
    #[error("cannot read the headers: there are more than {LARGEST} bytes")]
    Long,
    /// A line is none; it is not shown, since it may be a secret.
    #[error("line {0} is no header: write NAME: VALUE, such as Authorization: Bearer 0123abc")]
    Line(usize),
    /// One that is set anyway.
    #[error("line {0}: this header is not to be set")]
    Ours(usize),
}

impl Headers {
    /// Reads them from a file: one a line; empty lines and those with a `#` first are passed over.
    ///
    /// # Errors
    /// It cannot be read, or holds something else.
    pub fn read(path: &Path) -> Result<Self, HeadersError> {
        let mut text = String::new();
        File::open(path)?.take(LARGEST + 1).read_to_string(&mut text)?;
        if text.len() as u64 > LARGEST {
            return Err(HeadersError::Long);
        }
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self, HeadersError> {
        let mut headers = HeaderMap::new();
        for (line, number) in text.lines().map(str::trim).zip(1..) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bad = || HeadersError::Line(number);
            let (name, value) = line.split_once(':').ok_or_else(bad)?;
            let name: HeaderName = name.trim().parse().map_err(|_| bad())?;
            let mut value: HeaderValue = value.trim().parse().map_err(|_| bad())?;
            if OURS.contains(&name) || name == header::TRANSFER_ENCODING {
                return Err(HeadersError::Ours(number));
            }
            value.set_sensitive(true);
            headers.append(name, value);
        }
        Ok(Self(headers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_line_and_none_of_them_is_shown() {
        let text = "# for the gateway\nAuthorization: Bearer a:b\r\n\nX-Scope-OrgID:7\n";
        let Headers(headers) = Headers::parse(text).unwrap();
        assert_eq!(headers["authorization"], "Bearer a:b");
        assert_eq!(headers["x-scope-orgid"], "7");
        assert!(!format!("{headers:?}").contains("Bearer"));
        for (text, line) in [("\nsecret\n", 2), ("a b: c", 1), ("a: \u{1}", 1), ("Host: x", 1)] {
            let refused = Headers::parse(text).unwrap_err().to_string();
            assert!(refused.contains(&format!("line {line}")), "{refused}");
            assert!(!refused.contains("secret"), "{refused}");
        }
    }
}
