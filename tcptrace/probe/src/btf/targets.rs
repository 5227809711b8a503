//! What programs attach to, as BTF that aya reads.
//!
//! aya asks BTF for nothing but the number of a type that it knows by name. Given the kernel's BTF it
//! builds every type of it in memory first (about 25 ms), and has none at all where there is one of a
//! kind that it does not know. So it is given the few types that it asks for, under their numbers,
//! with a type without a name in each place between them.

use super::{
    Btf,
    error::BtfError,
    index::{KIND_FUNC, KIND_PTR, KIND_TYPEDEF, MAGIC, OLD_HEADER},
};

/// What a program attaches to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A tracepoint, by its own name.
    Tracepoint(&'static str),
    /// A function of the kernel.
    Function(&'static str),
}

impl Target {
    pub(super) fn kind(self) -> u32 {
        match self {
            Self::Tracepoint(_) => KIND_TYPEDEF,
            Self::Function(_) => KIND_FUNC,
        }
    }

    /// The name of its type.
    pub(super) fn name(self) -> String {
        match self {
            // As `DECLARE_TRACE()` has it, and `bpf_check_attach_target()` wants it.
            Self::Tracepoint(name) => format!("btf_trace_{name}"),
            Self::Function(name) => name.to_owned(),
        }
    }
}

/// Bytes of a type that only refers to another.
const TYPE: usize = 12;

/// The types of those of `targets` that the kernel has.
///
/// # Errors
/// The kernel's BTF cannot be read, or aya does not take this one, in words.
pub(crate) fn targets(
    btf: &Btf<'_>,
    targets: impl IntoIterator<Item = Target>,
) -> Result<aya::Btf, String> {
    let data = encoded(btf, targets).map_err(|error| error.to_string())?;
    aya::Btf::parse(&data, aya::Endianness::default()).map_err(|error| error.to_string())
}

/// The same as bytes.
pub(super) fn encoded(
    btf: &Btf<'_>,
    targets: impl IntoIterator<Item = Target>,
) -> Result<Vec<u8>, BtfError> {
    let (mut types, mut strings) = (Vec::new(), vec![0]);
    for target in targets {
        let (name, kind) = (target.name(), target.kind());
        let found = btf.0.find(&[kind], &name)?;
        let Some((id, _)) = found else { continue };
        let at = TYPE * (id as usize - 1);
        while types.len() < at + TYPE {
            put_type(&mut types, 0, KIND_PTR);
        }
        let mut named = Vec::new();
        put_type(&mut named, strings.len() as u32, kind);
        types[at..at + TYPE].copy_from_slice(&named);
        strings.extend_from_slice(name.as_bytes());
        strings.push(0);
    }
    let mut data = Vec::with_capacity(OLD_HEADER + types.len() + strings.len());
    data.extend_from_slice(&MAGIC.to_ne_bytes());
    data.extend_from_slice(&[VERSION, 0]);
    for word in [OLD_HEADER, 0, types.len(), types.len(), strings.len()] {
        data.extend_from_slice(&(word as u32).to_ne_bytes());
    }
    data.extend_from_slice(&types);
    data.extend_from_slice(&strings);
    Ok(data)
}

const VERSION: u8 = 1;

/// A type that refers to `void`.
fn put_type(types: &mut Vec<u8>, name: u32, kind: u32) {
    for word in [name, kind << 24, 0] {
        types.extend_from_slice(&word.to_ne_bytes());
    }
}
