//! The bearer token: who has it may ask.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use subtle::ConstantTimeEq as _;
use thiserror::Error;

/// The longest token, bytes.
const LONGEST: usize = 4096;
/// The shortest: what is shorter can be guessed.
const SHORTEST: usize = 16;

/// A secret that comes with each request.
pub struct Token(Box<[u8]>);

/// Why a file holds no token.
#[derive(Debug, Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("cannot read the token")]
    Unreadable(#[from] io::Error),
    /// It is none.
    #[error(
        "the file must hold {SHORTEST} to {LONGEST} printable characters without a space, on one \
         line; make one by: openssl rand -hex 32"
    )]
    Unfit,
}

impl Token {
    /// Reads it from a file, less the line break at its end.
    ///
    /// # Errors
    /// It cannot be read, or holds something else.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let mut bytes = Vec::new();
        File::open(path)?.take(LONGEST as u64 + 3).read_to_end(&mut bytes)?;
        Self::new(&bytes)
    }

    fn new(bytes: &[u8]) -> Result<Self, TokenError> {
        let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let fits = (SHORTEST..=LONGEST).contains(&line.len());
        if !fits || !line.iter().all(u8::is_ascii_graphic) {
            return Err(TokenError::Unfit);
        }
        Ok(Self(line.into()))
    }

    /// Whether the value of an `Authorization` header carries it. How long that takes tells no
    /// more than the token's length.
    pub(super) fn is_in(&self, authorization: Option<&[u8]>) -> bool {
        const SCHEME: &[u8] = b"bearer ";
        let Some(value) = authorization else { return false };
        let Some((scheme, given)) = value.split_at_checked(SCHEME.len()) else { return false };
        scheme.eq_ignore_ascii_case(SCHEME) && bool::from(self.0.ct_eq(given))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_token_is_taken() {
        let token = Token::new(b"0123456789abcdef\r\n").unwrap();
        for (value, taken) in [
            (Some(&b"Bearer 0123456789abcdef"[..]), true),
            (Some(b"bearer 0123456789abcdef"), true),
            (Some(b"Bearer 0123456789abcdeF"), false),
            (Some(b"Bearer 0123456789abcde"), false),
            (Some(b"Bearer 0123456789abcdef0"), false),
            (Some(b"Bearer  0123456789abcdef"), false),
            (Some(b"Basic 0123456789abcdef"), false),
            (Some(b"0123456789abcdef"), false),
            (Some(b""), false),
            (None, false),
        ] {
            assert_eq!(token.is_in(value), taken, "{value:?}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for bytes in
            [&b""[..], b"short\n", b"0123456789 abcdef", b"0123456789abcdef\n\n", &[b'x'; 4097]]
        {
            assert!(Token::new(bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
        assert!(Token::new(&[b'x'; 4096]).is_ok());
    }
}
