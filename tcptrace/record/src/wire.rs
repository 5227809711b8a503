//! Numbers and bytes as a recording has them.
//!
//! Unsigned numbers are LEB128 (seven bits a byte, the lowest first), signed ones zigzag on top.

use thiserror::Error;

/// Bytes that no version of tcptrace wrote.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("its contents make no sense: {0}")]
pub struct Malformed(pub &'static str);

/// Appends a number. Nearly all are short, and these take one look at the room there is.
#[inline]
pub(super) fn put_u64(out: &mut Vec<u8>, n: u64) {
    if n < 1 << 7 {
        out.push(n as u8);
    } else if n < 1 << 14 {
        out.extend_from_slice(&[n as u8 | 0x80, (n >> 7) as u8]);
    } else if n < 1 << 21 {
        out.extend_from_slice(&[n as u8 | 0x80, (n >> 7) as u8 | 0x80, (n >> 14) as u8]);
    } else {
        put_long(out, n);
    }
}

fn put_long(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Appends a signed number.
#[inline]
pub(super) fn put_i64(out: &mut Vec<u8>, n: i64) {
    put_u64(out, ((n << 1) ^ (n >> 63)) as u64);
}

/// Appends what leads from `from` to `to`, around the end if need be.
#[inline]
pub(super) fn put_step(out: &mut Vec<u8>, from: u64, to: u64) {
    put_i64(out, to.wrapping_sub(from) as i64);
}

/// Appends bytes and how many they are.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Bytes that are being read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many bytes are left.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        let (&first, rest) = self.0.split_first().ok_or(Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(first)
    }

    #[inline]
    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        let mut n = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has one bit left to fill.
            if shift == 63 && bits > 1 {
                break;
            }
            n |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(n);
            }
        }
        Err(Malformed("a number of more than 64 bits"))
    }

    #[inline]
    pub(super) fn i64(&mut self) -> Result<i64, Malformed> {
        let n = self.u64()?;
        Ok((n >> 1) as i64 ^ -((n & 1) as i64))
    }

    #[inline]
    pub(super) fn step(&mut self, from: u64) -> Result<u64, Malformed> {
        Ok(from.wrapping_add(self.i64()? as u64))
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.u64()?.try_into().map_err(|_| Malformed("a number of more than 32 bits"))
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        self.u64()?.try_into().map_err(|_| Malformed("a number of more than 16 bits"))
    }

    pub(super) fn bool(&mut self) -> Result<bool, Malformed> {
        Ok(self.u8()? != 0)
    }

    /// `N` bytes.
    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (first, rest) =
            self.0.split_first_chunk::<N>().ok_or(Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(*first)
    }

    /// Bytes that say how many they are.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.u64()?;
        let len = usize::try_from(len).ok().filter(|&len| len <= self.0.len());
        let (bytes, rest) = self.0.split_at(len.ok_or(Malformed("it ends too early"))?);
        self.0 = rest;
        Ok(bytes)
    }

    /// As [`Self::text`], but no more than the first `most` bytes of it.
    pub(super) fn text_of(&mut self, most: usize) -> Result<Box<str>, Malformed> {
        let bytes = self.bytes()?;
        Ok(String::from_utf8_lossy(bytes.get(..most).unwrap_or(bytes)).into())
    }

    /// As [`Self::bytes`], as text; what is no UTF-8 is replaced.
    pub(super) fn text(&mut self) -> Result<Box<str>, Malformed> {
        Ok(String::from_utf8_lossy(self.bytes()?).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        let powers = (0..64).flat_map(|bits| [(1 << bits) - 1, 1 << bits]);
        for n in powers.chain([u64::from(u32::MAX), u64::MAX - 1, u64::MAX]) {
            let mut out = Vec::new();
            put_u64(&mut out, n);
            put_i64(&mut out, n as i64);
            put_step(&mut out, 77, n);
            put_bytes(&mut out, b"abc");
            let mut cursor = Cursor::new(&out);
            assert_eq!(cursor.u64(), Ok(n));
            assert_eq!(cursor.i64(), Ok(n as i64));
            assert_eq!(cursor.step(77), Ok(n));
            assert_eq!(cursor.bytes(), Ok(&b"abc"[..]));
            assert!(cursor.is_empty());
            assert!(cursor.u8().is_err());
        }
    }

    #[test]
    fn what_is_too_long_is_refused() {
        assert!(Cursor::new(&[0xff; 11]).u64().is_err());
        let too_high = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert!(Cursor::new(&too_high).u64().is_err());
        assert!(Cursor::new(&[0x80]).u64().is_err());
        assert!(Cursor::new(&[200, 1, 2]).bytes().is_err());
        assert!(
            Cursor::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2])
                .bytes()
                .is_err()
        );
        assert!(Cursor::new(&[0x80, 0x80, 4]).u16().is_err());
    }
}
