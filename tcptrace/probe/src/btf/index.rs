//! Finds the types of BTF data, by number and by name, in one pass over them.
//!
//! It must not trust its input: every access is bounded.

use super::error::{BtfError, Unread};

pub(super) const MAGIC: u16 = 0xeb9f;

/// Bytes of the header (`struct btf_header`) of old.
pub(super) const OLD_HEADER: usize = 24;

/// Bytes of one that has a section that describes the kinds.
pub(super) const NEW_HEADER: usize = 32;

pub(super) const KIND_INT: u32 = 1;
pub(super) const KIND_PTR: u32 = 2;
const KIND_ARRAY: u32 = 3;
pub(super) const KIND_STRUCT: u32 = 4;
pub(super) const KIND_UNION: u32 = 5;
pub(super) const KIND_ENUM: u32 = 6;
const KIND_FWD: u32 = 7;
pub(super) const KIND_TYPEDEF: u32 = 8;
pub(super) const KIND_VOLATILE: u32 = 9;
pub(super) const KIND_CONST: u32 = 10;
pub(super) const KIND_RESTRICT: u32 = 11;
pub(super) const KIND_FUNC: u32 = 12;
pub(super) const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_FLOAT: u32 = 16;
const KIND_DECL_TAG: u32 = 17;
pub(super) const KIND_TYPE_TAG: u32 = 18;
const KIND_ENUM64: u32 = 19;
// Where inlined functions are: types of these kinds are passed over.
const KIND_LOC_PARAM: u32 = 20;
const KIND_LOC_PROTO: u32 = 21;
const KIND_LOCSEC: u32 = 22;

/// Kinds that are looked for by name.
const NAMED: [u32; 4] = [KIND_STRUCT, KIND_ENUM, KIND_TYPEDEF, KIND_FUNC];

/// The types of a kernel, borrowed from its raw bytes.
pub(super) struct Index<'a> {
    pub(super) types: &'a [u8],
    strings: &'a [u8],
    /// Offset of each type in `types`; type ids start at 1, id 0 is `void`.
    starts: Vec<u32>,
    names: Names,
    /// Where the types end that could be found.
    pub(super) unread: Option<Unread>,
}

/// The header of a type.
#[derive(Clone, Copy)]
pub(super) struct Type {
    pub(super) name: u32,
    pub(super) kind: u32,
    /// How many members, arguments … there are.
    pub(super) vlen: u32,
    pub(super) kind_flag: bool,
    /// The type referred to, for kinds that have one; else a size.
    pub(super) size_or_type: u32,
    /// Offset of what follows the header.
    pub(super) body: usize,
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Result<u32, BtfError> {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk());
    word.copied().map(u32::from_ne_bytes).ok_or(BtfError::Malformed("ends within a type"))
}

fn header_at(types: &[u8], at: usize) -> Result<Type, BtfError> {
    let info = u32_at(types, at + 4)?;
    Ok(Type {
        name: u32_at(types, at)?,
        // Two bits and eight bits wider in newer kernels (`BTF_MAX_KIND`, `BTF_MAX_VLEN`); what is
        // wider was 0 before, or the kernel would not have taken it (`btf_check_meta()`).
        kind: (info >> 24) & 0x7f,
        vlen: info & 0xff_ffff,
        kind_flag: info >> 31 != 0,
        size_or_type: u32_at(types, at + 8)?,
        body: at + 12,
    })
}

/// Bytes that follow the header of a type of a kind that is known.
fn body_bytes(ty: &Type) -> Option<usize> {
    let each = |bytes: usize| Some(bytes * ty.vlen as usize);
    match ty.kind {
        KIND_INT | KIND_VAR | KIND_DECL_TAG => Some(4),
        KIND_ARRAY => Some(12),
        KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 | KIND_LOCSEC => each(12),
        KIND_ENUM | KIND_FUNC_PROTO => each(8),
        KIND_LOC_PARAM => each(4).map(|values| 4 + values),
        KIND_LOC_PROTO => each(4),
        KIND_PTR | KIND_FWD | KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT
        | KIND_FUNC | KIND_FLOAT | KIND_TYPE_TAG => Some(0),
        _ => None,
    }
}

/// The same of any kind that the data itself describes: a `struct btf_layout` for each.
fn described_bytes(layouts: &[u8], ty: &Type) -> Option<usize> {
    const BYTES: usize = 4;
    let layout = layouts.get(BYTES * ty.kind as usize..)?.first_chunk::<BYTES>()?;
    let [info, element, ..] = *layout;
    Some(usize::from(info) + usize::from(element) * ty.vlen as usize)
}

impl<'a> Index<'a> {
    /// Reads `data`, the contents of `/sys/kernel/btf/vmlinux` (native byte order).
    ///
    /// A type of an unknown kind whose length the data does not describe is no error: the types
    /// before it can be asked for ([`Self::unread`]).
    pub(super) fn of(data: &'a [u8]) -> Result<Self, BtfError> {
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
        let (types, strings) = (section(8)?, section(16)?);
        let layouts = if header >= NEW_HEADER { section(OLD_HEADER)? } else { &[] };
        // On average a type takes some 24 bytes.
        let mut starts = Vec::with_capacity(types.len() / 20);
        let (mut at, mut named, mut unread) = (0, 0, None);
        while at < types.len() {
            let ty = header_at(types, at)?;
            let Some(bytes) = body_bytes(&ty).or_else(|| described_bytes(layouts, &ty)) else {
                unread = Some(Unread { id: starts.len() as u32 + 1, kind: ty.kind });
                break;
            };
            starts.push(at as u32);
            named += usize::from(NAMED.contains(&ty.kind));
            at = ty.body + bytes;
        }
        let mut index = Self { types, strings, starts, names: Names::for_up_to(named), unread };
        for id in 1..=index.starts.len() as u32 {
            let ty = index.ty(id)?;
            if NAMED.contains(&ty.kind) {
                let hash = Names::hash(index.strings.get(ty.name as usize..).unwrap_or_default());
                index.names.add(hash, id);
            }
        }
        Ok(index)
    }

    /// The type with this number.
    pub(super) fn ty(&self, id: u32) -> Result<Type, BtfError> {
        match id.checked_sub(1).and_then(|i| self.starts.get(i as usize)) {
            Some(at) => header_at(self.types, *at as usize),
            None => Err(self.absent(BtfError::Malformed("a type id that does not exist"))),
        }
    }

    /// The first type of one of `kinds`, all of which are [`NAMED`], that is called `name`: its number
    /// and header.
    pub(super) fn find(&self, kinds: &[u32], name: &str) -> Result<Option<(u32, Type)>, BtfError> {
        debug_assert!(kinds.iter().all(|kind| NAMED.contains(kind)), "{kinds:?}");
        for id in self.names.at(Names::hash(name.as_bytes())) {
            let ty = self.ty(id)?;
            if kinds.contains(&ty.kind) && self.name_is(ty.name, name) {
                return Ok(Some((id, ty)));
            }
        }
        Ok(None)
    }

    pub(super) fn name_is(&self, offset: u32, name: &str) -> bool {
        let rest = self.strings.get(offset as usize..).unwrap_or_default();
        rest.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
    }

    pub(super) fn is_anonymous(&self, offset: u32) -> bool {
        self.strings.get(offset as usize) == Some(&0)
    }

    /// That something was not found: only so far as was read.
    pub(super) fn absent(&self, error: BtfError) -> BtfError {
        match self.unread {
            Some(unread) => BtfError::Unread { error: Box::new(error), unread },
            None => error,
        }
    }
}

/// Numbers of types by their names: a hash table that resolves collisions by the next place, so that
/// of two types with one name the first is found first.
struct Names {
    /// 0 for none.
    places: Vec<u32>,
}

impl Names {
    fn for_up_to(count: usize) -> Self {
        Self { places: vec![0; (2 * count).next_power_of_two()] }
    }

    /// FNV-1a of what comes before a NUL.
    fn hash(name: &[u8]) -> u64 {
        let bytes = name.iter().take_while(|&&byte| byte != 0);
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }

    /// Where to begin. The upper bits depend on all of a name.
    fn place(&self, hash: u64) -> usize {
        (hash >> 32) as usize & (self.places.len() - 1)
    }

    fn add(&mut self, hash: u64, id: u32) {
        let mut place = self.place(hash);
        // At least half of the places are free.
        while self.places[place] != 0 {
            place = (place + 1) & (self.places.len() - 1);
        }
        self.places[place] = id;
    }

    /// All that may have this hash.
    fn at(&self, hash: u64) -> impl Iterator<Item = u32> {
        let from = self.place(hash);
        let places = self.places[from..].iter().chain(&self.places[..from]).copied();
        places.take_while(|&id| id != 0)
    }
}
