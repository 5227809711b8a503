//! Field offsets and enum values from the kernel's own type information.
//!
//! A reader of exactly what the loader asks: it indexes the types once (four bytes a type) and
//! walks the raw data from there. The crates that do this (btfparse, btf) build every type and
//! string of the kernel in memory: 60 to 85 MiB and 0.1 to 0.3 s for a 5.5 MB vmlinux, which
//! alone is more than all of tcptrace may use. aya-obj reads BTF too, but keeps its offsets
//! private. The format: `Documentation/bpf/btf.rst`.
//!
//! It must not trust its input: every access is bounded, and nesting has a limit.

use thiserror::Error;

/// Nesting of types that is followed before the data is called malformed.
const MAX_DEPTH: u32 = 32;

const MAGIC: u16 = 0xeb9f;

const KIND_INT: u32 = 1;
const KIND_PTR: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_FWD: u32 = 7;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_FLOAT: u32 = 16;
const KIND_DECL_TAG: u32 = 17;
const KIND_TYPE_TAG: u32 = 18;
const KIND_ENUM64: u32 = 19;

/// Why a question to BTF has no answer.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BtfError {
    /// The data breaks the format.
    #[error("malformed BTF: {0}")]
    Malformed(&'static str),
    /// This kernel has no such structure.
    #[error("this kernel's BTF has no struct {0}")]
    NoStruct(String),
    /// The structure has no such field, or it is a bit-field.
    #[error("this kernel's struct {strukt} has no field {path}")]
    NoField {
        /// Name of the structure asked for.
        strukt: String,
        /// Path within it.
        path: String,
    },
    /// There is no such function, or no such type of one.
    #[error("this kernel's BTF has no function {0}")]
    NoFunction(String),
    /// No enum has such a member.
    #[error("this kernel's BTF has no {1} in enum {0}")]
    NoEnumerator(String, String),
}

/// The type information of a kernel, borrowed from its raw bytes.
pub struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Offset of each type in `types`; type ids start at 1, id 0 is `void`.
    index: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Type {
    name: u32,
    kind: u32,
    vlen: u32,
    kind_flag: bool,
    /// The type referred to, for kinds that have one; else a size.
    size_or_type: u32,
    /// Offset of what follows the header.
    body: usize,
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

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, BtfError> {
    let end = at.checked_add(4).ok_or(BtfError::Malformed("offset overflow"))?;
    let word = bytes.get(at..end).ok_or(BtfError::Malformed("ends within a type"))?;
    let mut le = [0; 4];
    le.copy_from_slice(word);
    Ok(u32::from_ne_bytes(le))
}

impl<'a> Btf<'a> {
    /// Indexes `data`, the contents of `/sys/kernel/btf/vmlinux` (native byte order).
    pub fn parse(data: &'a [u8]) -> Result<Self, BtfError> {
        if data.get(..2) != Some(&MAGIC.to_ne_bytes()) {
            return Err(BtfError::Malformed("bad magic"));
        }
        let header = u32_at(data, 4)? as usize;
        let section = |off: usize| -> Result<&'a [u8], BtfError> {
            let start = header
                .checked_add(u32_at(data, off)? as usize)
                .ok_or(BtfError::Malformed("section offset overflow"))?;
            let end = start
                .checked_add(u32_at(data, off + 4)? as usize)
                .ok_or(BtfError::Malformed("section length overflow"))?;
            data.get(start..end).ok_or(BtfError::Malformed("section outside the data"))
        };
        let mut btf = Self { types: section(8)?, strings: section(16)?, index: Vec::new() };
        let mut at = 0;
        while at < btf.types.len() {
            btf.index.push(at as u32);
            at = btf.end_of(at)?;
        }
        Ok(btf)
    }

    fn header_at(&self, at: usize) -> Result<Type, BtfError> {
        let info = u32_at(self.types, at + 4)?;
        Ok(Type {
            name: u32_at(self.types, at)?,
            kind: (info >> 24) & 0x1f,
            vlen: info & 0xffff,
            kind_flag: info >> 31 != 0,
            size_or_type: u32_at(self.types, at + 8)?,
            body: at + 12,
        })
    }

    fn end_of(&self, at: usize) -> Result<usize, BtfError> {
        let ty = self.header_at(at)?;
        let body = match ty.kind {
            KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
            KIND_ARRAY => 12,
            KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => 12 * ty.vlen as usize,
            KIND_ENUM | KIND_FUNC_PROTO => 8 * ty.vlen as usize,
            KIND_PTR | KIND_FWD | KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT
            | KIND_FUNC | KIND_FLOAT | KIND_TYPE_TAG => 0,
            _ => return Err(BtfError::Malformed("a kind of type that is not known")),
        };
        Ok(ty.body + body)
    }

    fn ty(&self, id: u32) -> Result<Type, BtfError> {
        let at = id
            .checked_sub(1)
            .and_then(|i| self.index.get(i as usize))
            .ok_or(BtfError::Malformed("a type id that does not exist"))?;
        self.header_at(*at as usize)
    }

    fn name_is(&self, offset: u32, name: &str) -> bool {
        let at = offset as usize;
        self.strings.get(at..at + name.len()) == Some(name.as_bytes())
            && self.strings.get(at + name.len()) == Some(&0)
    }

    fn is_anonymous(&self, offset: u32) -> bool {
        self.strings.get(offset as usize) == Some(&0)
    }

    fn find(&self, kinds: &[u32], name: &str) -> Result<Option<Type>, BtfError> {
        for &at in &self.index {
            let ty = self.header_at(at as usize)?;
            if kinds.contains(&ty.kind) && self.name_is(ty.name, name) {
                return Ok(Some(ty));
            }
        }
        Ok(None)
    }

    /// Follows typedefs and qualifiers to what is really there.
    fn resolve(&self, mut id: u32) -> Result<Type, BtfError> {
        for _ in 0..MAX_DEPTH {
            let ty = self.ty(id)?;
            match ty.kind {
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG => {
                    id = ty.size_or_type;
                }
                _ => return Ok(ty),
            }
        }
        Err(BtfError::Malformed("types that go in a circle"))
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
            let (member_name, id, raw) =
                (u32_at(self.types, at)?, u32_at(self.types, at + 4)?, u32_at(self.types, at + 8)?);
            // With kind_flag the upper byte is the width of a bit-field.
            let (bits, width) = if ty.kind_flag { (raw & 0xff_ffff, raw >> 24) } else { (raw, 0) };
            if self.name_is(member_name, name) {
                return Ok(Some(Member { bits, width, id }));
            }
            if self.is_anonymous(member_name)
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
        let mut ty = self
            .find(&[KIND_STRUCT], strukt)?
            .ok_or_else(|| BtfError::NoStruct(strukt.to_owned()))?;
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
        let ty = self
            .find(&[KIND_STRUCT], strukt)?
            .ok_or_else(|| BtfError::NoStruct(strukt.to_owned()))?;
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
        let ty = self.find(&[KIND_STRUCT], strukt)?;
        Ok(ty.ok_or_else(|| BtfError::NoStruct(strukt.to_owned()))?.size_or_type)
    }

    /// How many arguments the function `name` takes; of a tracepoint, `btf_trace_…`, that is one
    /// more than its programs get (its own data comes first).
    pub fn arguments(&self, name: &str) -> Result<u32, BtfError> {
        let no_function = || BtfError::NoFunction(name.to_owned());
        let mut ty = self.find(&[KIND_FUNC, KIND_TYPEDEF], name)?.ok_or_else(no_function)?;
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
        if let Some(ty) = self.find(&[KIND_ENUM], name)? {
            for i in 0..ty.vlen as usize {
                let at = ty.body + 8 * i;
                if self.name_is(u32_at(self.types, at)?, variant) {
                    return u32_at(self.types, at + 4);
                }
            }
        }
        Err(BtfError::NoEnumerator(name.to_owned(), variant.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds BTF data by hand, one type after the other.
    #[derive(Default)]
    struct Builder {
        types: Vec<u8>,
        strings: Vec<u8>,
    }

    impl Builder {
        fn new() -> Self {
            Self { types: Vec::new(), strings: vec![0] }
        }
        fn name(&mut self, name: &str) -> u32 {
            if name.is_empty() {
                return 0;
            }
            let at = self.strings.len() as u32;
            self.strings.extend_from_slice(name.as_bytes());
            self.strings.push(0);
            at
        }
        fn words(&mut self, words: &[u32]) {
            for word in words {
                self.types.extend_from_slice(&word.to_ne_bytes());
            }
        }
        fn int(&mut self, name: &str, size: u32) {
            let name = self.name(name);
            self.words(&[name, KIND_INT << 24, size, 8 * size]);
        }
        fn composite(&mut self, kind: u32, flag: bool, name: &str, members: &[(&str, u32, u32)]) {
            let name = self.name(name);
            let info = kind << 24 | members.len() as u32 | u32::from(flag) << 31;
            self.words(&[name, info, 64]);
            for (member, id, bits) in members {
                let member = self.name(member);
                self.words(&[member, *id, *bits]);
            }
        }
        fn build(&self) -> Vec<u8> {
            let mut out = Vec::new();
            out.extend_from_slice(&MAGIC.to_ne_bytes());
            out.extend_from_slice(&[1, 0]);
            for word in
                [24, 0, self.types.len(), self.types.len(), self.strings.len()].map(|w| w as u32)
            {
                out.extend_from_slice(&word.to_ne_bytes());
            }
            out.extend_from_slice(&self.types);
            out.extend_from_slice(&self.strings);
            out
        }
    }

    /// struct sock { struct inner { u32 pad; union { u32 a; u32 b; }; } c; u8 f:3, g:1; }
    fn sample() -> Vec<u8> {
        let mut b = Builder::new();
        b.int("u32", 4); // 1
        b.composite(KIND_UNION, false, "", &[("a", 1, 0), ("b", 1, 0)]); // 2
        b.composite(KIND_STRUCT, false, "inner", &[("pad", 1, 0), ("", 2, 32)]); // 3
        let typedef = b.name("inner_t");
        b.words(&[typedef, KIND_TYPEDEF << 24, 3]); // 4
        b.composite(
            KIND_STRUCT,
            true,
            "sock",
            &[("x", 1, 0), ("c", 4, 64), ("f", 1, 3 << 24 | 128), ("g", 1, 1 << 24 | 131)],
        ); // 5
        let (name, dead, linger) = (b.name("flags"), b.name("DEAD"), b.name("LINGER"));
        b.words(&[name, KIND_ENUM << 24 | 2, 4, dead, 0, linger, 4]); // 6
        b.build()
    }

    #[test]
    fn finds_fields_through_typedefs_and_anonymous_unions() {
        let data = sample();
        let btf = Btf::parse(&data).unwrap();
        assert_eq!(btf.offset_of("sock", "c.b"), Ok(12));
        assert_eq!(btf.offset_of("inner", "a"), Ok(4));
        assert_eq!(btf.enum_value("flags", "LINGER"), Ok(4));
    }

    #[test]
    fn finds_a_flag_and_takes_nothing_wider_for_one() {
        let data = sample();
        let btf = Btf::parse(&data).unwrap();
        assert_eq!(btf.flag_of("sock", "g"), Ok((16, 3)));
        for name in ["f", "x", "h"] {
            assert!(matches!(btf.flag_of("sock", name), Err(BtfError::NoField { .. })), "{name}");
        }
        assert!(matches!(btf.flag_of("socks", "g"), Err(BtfError::NoStruct(_))));
    }

    #[test]
    fn says_what_is_missing() {
        let data = sample();
        let btf = Btf::parse(&data).unwrap();
        assert_eq!(btf.offset_of("socks", "c"), Err(BtfError::NoStruct("socks".into())));
        for path in ["d", "c.z", "x.y", "f", "g"] {
            let missing = BtfError::NoField { strukt: "sock".into(), path: path.into() };
            assert_eq!(btf.offset_of("sock", path), Err(missing), "{path}");
        }
        assert!(matches!(btf.enum_value("flags", "NONE"), Err(BtfError::NoEnumerator(..))));
    }

    #[test]
    fn survives_every_truncation_and_every_flipped_byte() {
        let whole = sample();
        let mut refused = 0;
        for len in 0..whole.len() {
            refused += usize::from(Btf::parse(&whole[..len]).is_err());
        }
        assert_eq!(refused, whole.len(), "a section that is cut short is noticed");
        for at in 0..whole.len() {
            let mut data = whole.clone();
            data[at] ^= 0xff;
            if let Ok(btf) = Btf::parse(&data) {
                // Whatever it answers, it must answer.
                let _ = (btf.offset_of("sock", "c.b"), btf.enum_value("flags", "DEAD"));
                let _ = btf.flag_of("sock", "g");
            }
        }
    }
}
