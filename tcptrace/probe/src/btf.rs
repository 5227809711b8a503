//! Field offsets and enum values from the kernel's own type information.
//!
//! A reader of exactly what the loader asks: it finds the types once (four bytes a type, and eight a
//! name) and walks the raw data from there. The crates that do this (btfparse, btf) build every type and
//! string of the kernel in memory: 60 to 85 MiB and 0.1 to 0.3 s for a 5.5 MB vmlinux, which
//! alone is more than all of tcptrace may use. aya-obj reads BTF too, but keeps its offsets
//! private, and fails at the first kind of type that it does not know. The format:
//! `Documentation/bpf/btf.rst`.
//!
//! It must not trust its input: every access is bounded, and nesting has a limit.

mod error;
mod index;
mod targets;
mod vmlinux;

use index::{
    Index, KIND_CONST, KIND_ENUM, KIND_FUNC, KIND_FUNC_PROTO, KIND_PTR, KIND_RESTRICT, KIND_STRUCT,
    KIND_TYPE_TAG, KIND_TYPEDEF, KIND_UNION, KIND_VOLATILE, Type, u32_at,
};

pub use error::{BtfError, Unread};
pub(super) use targets::{Target, targets};
pub(super) use vmlinux::Vmlinux;

/// Nesting of types that is followed before the data is called malformed.
const MAX_DEPTH: u32 = 32;

/// The type information of a kernel, borrowed from its raw bytes.
pub struct Btf<'a>(Index<'a>);

/// Reads the running kernel's BTF from one end to the other, as the loader does, and returns where that has
/// to stop, if it has to.
///
/// # Errors
/// There is none, it may not be read, or it is malformed: which, in words.
pub fn readable() -> Result<Option<Unread>, String> {
    let data = Vmlinux::open()?;
    Btf::parse(&data).map(|btf| btf.unread()).map_err(|error| error.to_string())
}

/// A member of a structure.
#[derive(Clone, Copy)]
struct Member {
    /// Its offset.
    bits: u32,
    /// The width of a bit-field, in bits; 0 for what is none.
    width: u32,
    /// Its type.
    id: u32,
}

impl<'a> Btf<'a> {
    /// Finds the types of `data`, the contents of `/sys/kernel/btf/vmlinux` (native byte order).
    ///
    /// # Errors
    /// It is no BTF, or is cut short.
    pub fn parse(data: &'a [u8]) -> Result<Self, BtfError> {
        Index::of(data).map(Self)
    }

    /// Where reading stopped, if it had to stop before the end of the data.
    pub fn unread(&self) -> Option<Unread> {
        self.0.unread
    }

    /// Follows typedefs and qualifiers to what is really there.
    fn resolve(&self, mut id: u32) -> Result<Type, BtfError> {
        for _ in 0..MAX_DEPTH {
            let ty = self.0.ty(id)?;
            match ty.kind {
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG => {
                    id = ty.size_or_type;
                }
                _ => return Ok(ty),
            }
        }
        Err(BtfError::Malformed("types that go in a circle"))
    }

    fn structure(&self, name: &str) -> Result<Type, BtfError> {
        let absent = || self.0.absent(BtfError::NoStruct(name.to_owned()));
        self.0.find(&[KIND_STRUCT], name)?.map(|(_, ty)| ty).ok_or_else(absent)
    }

    /// The member called `name`, at its offset in bits from the start of `ty`, looked for in
    /// anonymous members too.
    fn member(&self, ty: Type, name: &str, depth: u32) -> Result<Option<Member>, BtfError> {
        if depth == 0 {
            return Err(BtfError::Malformed("structures nested too deep"));
        }
        if !matches!(ty.kind, KIND_STRUCT | KIND_UNION) {
            return Ok(None);
        }
        for i in 0..ty.vlen as usize {
            let at = ty.body + 12 * i;
            let (member_name, id, raw) = (
                u32_at(self.0.types, at)?,
                u32_at(self.0.types, at + 4)?,
                u32_at(self.0.types, at + 8)?,
            );
            // With kind_flag the upper byte is the width of a bit-field.
            let (bits, width) = if ty.kind_flag { (raw & 0xff_ffff, raw >> 24) } else { (raw, 0) };
            if self.0.name_is(member_name, name) {
                return Ok(Some(Member { bits, width, id }));
            }
            if self.0.is_anonymous(member_name)
                && let Some(inner) = self.member(self.resolve(id)?, name, depth - 1)?
            {
                let bits = bits
                    .checked_add(inner.bits)
                    .ok_or(BtfError::Malformed("member offset overflow"))?;
                return Ok(Some(Member { bits, ..inner }));
            }
        }
        Ok(None)
    }

    /// Offset in bytes of `path` (`"__sk_common.skc_net.net"`) in `struct strukt`.
    pub fn offset_of(&self, strukt: &str, path: &str) -> Result<u32, BtfError> {
        let mut ty = self.structure(strukt)?;
        let no_field = || BtfError::NoField { strukt: strukt.to_owned(), path: path.to_owned() };
        let mut offset: u32 = 0;
        for name in path.split('.') {
            let Member { bits, width, id } =
                self.member(ty, name, MAX_DEPTH)?.ok_or_else(no_field)?;
            if width != 0 || !bits.is_multiple_of(8) {
                return Err(no_field());
            }
            offset = offset
                .checked_add(bits / 8)
                .ok_or(BtfError::Malformed("member offset overflow"))?;
            ty = self.resolve(id)?;
        }
        Ok(offset)
    }

    /// Where the bit-field `name`, one bit wide, is in `struct strukt`: the offset of its byte, and
    /// the number of the bit in that, the least significant being 0.
    pub fn flag_of(&self, strukt: &str, name: &str) -> Result<(u32, u32), BtfError> {
        let ty = self.structure(strukt)?;
        match self.member(ty, name, MAX_DEPTH)? {
            // A big-endian kernel counts bits from the other end.
            Some(Member { bits, width: 1, .. }) if cfg!(target_endian = "little") => {
                Ok((bits / 8, bits % 8))
            }
            _ => Err(BtfError::NoField { strukt: strukt.to_owned(), path: name.to_owned() }),
        }
    }

    /// Size of `struct strukt` in bytes.
    pub fn size_of(&self, strukt: &str) -> Result<u32, BtfError> {
        Ok(self.structure(strukt)?.size_or_type)
    }

    /// How many arguments the function `name` takes; of a tracepoint, `btf_trace_…`, that is one
    /// more than its programs get (its own data comes first).
    pub fn arguments(&self, name: &str) -> Result<u32, BtfError> {
        let no_function = || BtfError::NoFunction(name.to_owned());
        let found = self.0.find(&[KIND_FUNC, KIND_TYPEDEF], name)?;
        let (_, mut ty) = found.ok_or_else(|| self.0.absent(no_function()))?;
        for _ in 0..MAX_DEPTH {
            match ty.kind {
                KIND_FUNC_PROTO => return Ok(ty.vlen),
                KIND_FUNC | KIND_TYPEDEF | KIND_PTR => ty = self.resolve(ty.size_or_type)?,
                _ => break,
            }
        }
        Err(no_function())
    }

    /// Value of `variant` in `enum name`.
    pub fn enum_value(&self, name: &str, variant: &str) -> Result<u32, BtfError> {
        let absent = BtfError::NoEnumerator(name.to_owned(), variant.to_owned());
        let Some((_, ty)) = self.0.find(&[KIND_ENUM], name)? else {
            return Err(self.0.absent(absent));
        };
        for i in 0..ty.vlen as usize {
            let at = ty.body + 8 * i;
            if self.0.name_is(u32_at(self.0.types, at)?, variant) {
                return u32_at(self.0.types, at + 4);
            }
        }
        Err(absent)
    }
}

#[cfg(test)]
pub(crate) mod tests;
