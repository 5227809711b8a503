//! BTF that is made up, and this kernel's.

use std::io::Write as _;

use super::{
    index::{KIND_INT, MAGIC, NEW_HEADER, OLD_HEADER},
    *,
};

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
        for word in [OLD_HEADER, 0, self.types.len(), self.types.len(), self.strings.len()]
            .map(|w| w as u32)
        {
            out.extend_from_slice(&word.to_ne_bytes());
        }
        out.extend_from_slice(&self.types);
        out.extend_from_slice(&self.strings);
        out
    }

    /// The same, describing each kind up to the last of `layouts` by the bytes that come once and for
    /// each element.
    fn build_describing(&self, layouts: &[(u8, u8)]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&MAGIC.to_ne_bytes());
        out.extend_from_slice(&[1, 0]);
        let (types, strings) = (self.types.len(), self.strings.len());
        for word in [NEW_HEADER, 0, types, types, strings, types + strings, 4 * layouts.len()] {
            out.extend_from_slice(&(word as u32).to_ne_bytes());
        }
        out.extend_from_slice(&self.types);
        out.extend_from_slice(&self.strings);
        out.extend(layouts.iter().flat_map(|&(info, element)| [info, element, 0, 0]));
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

/// Kinds that no kernel has so far.
const UNKNOWN: u32 = 77;

/// One structure, a type of an unknown kind with three elements, and another structure.
fn with_unknown() -> Builder {
    let mut b = Builder::new();
    b.int("u32", 4); // 1
    b.composite(KIND_STRUCT, false, "before", &[("pad", 1, 0), ("a", 1, 32)]); // 2
    b.words(&[0, UNKNOWN << 24 | 3, 0, 0xffff_ffff, 1, 1, 2, 2, 3, 3]); // 3
    b.composite(KIND_STRUCT, false, "behind", &[("pad", 1, 0), ("a", 1, 64)]); // 4
    b
}

#[test]
fn an_unknown_kind_costs_what_is_behind_it_and_nothing_else() {
    let data = with_unknown().build();
    let btf = Btf::parse(&data).unwrap();
    let unread = Unread { id: 3, kind: UNKNOWN };
    assert_eq!(btf.unread(), Some(unread));
    assert_eq!(btf.offset_of("before", "a"), Ok(4));
    // What is certain is said as such, and what is not, not.
    let no_field = BtfError::NoField { strukt: "before".into(), path: "b".into() };
    assert_eq!(btf.offset_of("before", "b"), Err(no_field));
    let error = btf.offset_of("behind", "a").unwrap_err();
    assert_eq!(
        error,
        BtfError::Unread { error: Box::new(BtfError::NoStruct("behind".into())), unread }
    );
    assert_eq!(
        error.to_string(),
        "this kernel's BTF has no struct behind before type 3, where reading it stops: this version of \
         tcptrace does not know kind 77"
    );
    assert!(matches!(btf.arguments("f"), Err(BtfError::Unread { .. })));
    assert!(matches!(btf.enum_value("e", "E"), Err(BtfError::Unread { .. })));
}

#[test]
fn an_unknown_kind_that_the_data_describes_is_passed_over() {
    let mut layouts = vec![(0, 0); UNKNOWN as usize];
    layouts.push((4, 8));
    let data = with_unknown().build_describing(&layouts);
    let btf = Btf::parse(&data).unwrap();
    assert_eq!((btf.unread(), btf.offset_of("behind", "a")), (None, Ok(8)));
    // One that is not among those described.
    layouts.pop();
    let data = with_unknown().build_describing(&layouts);
    assert_eq!(Btf::parse(&data).unwrap().unread(), Some(Unread { id: 3, kind: UNKNOWN }));
}

#[test]
fn newer_kinds_and_longer_lists_are_passed_over() {
    let mut b = Builder::new();
    b.int("u32", 4); // 1
    b.words(&[0, 20 << 24 | 2, 8, 0x28, 7, 0xffff_fff0]); // 2: BTF_KIND_LOC_PARAM, two values
    b.words(&[0, 21 << 24 | 1, 0, 2]); // 3: BTF_KIND_LOC_PROTO, one parameter
    let section = b.name("inline.text");
    b.words(&[section, 22 << 24 | 1, 0, 5, 3, 0x40]); // 4: BTF_KIND_LOCSEC, one location
    let (name, member) = (b.name("long"), b.name("LAST"));
    b.words(&[name, KIND_ENUM << 24 | 70_000, 4]); // 5
    for value in 0..70_000 {
        b.words(&[if value == 69_999 { member } else { 0 }, value]);
    }
    b.composite(KIND_STRUCT, false, "behind", &[("pad", 1, 0), ("a", 1, 32)]); // 6
    let data = b.build();
    let btf = Btf::parse(&data).unwrap();
    assert_eq!((btf.unread(), btf.offset_of("behind", "a")), (None, Ok(4)));
    assert_eq!(btf.enum_value("long", "LAST"), Ok(69_999));
}

#[test]
fn of_two_types_with_one_name_the_first_is_found() {
    let mut b = Builder::new();
    b.int("u32", 4);
    b.composite(KIND_STRUCT, false, "twice", &[("a", 1, 0)]);
    b.composite(KIND_STRUCT, false, "twice", &[("a", 1, 64)]);
    let data = b.build();
    assert_eq!(Btf::parse(&data).unwrap().offset_of("twice", "a"), Ok(0));
}

/// What aya is given says of each target what the whole says.
fn keeps_the_numbers_of(data: &[u8], wanted: &[Target]) -> usize {
    let btf = Btf::parse(data).unwrap();
    let encoded = targets::encoded(&btf, wanted.iter().copied()).unwrap();
    let small = Btf::parse(&encoded).unwrap();
    let number =
        |btf: &Btf<'_>, kind, name: &str| btf.0.find(&[kind], name).unwrap().map(|it| it.0);
    for (kind, name) in wanted.iter().map(|target| (target.kind(), target.name())) {
        assert_eq!(number(&small, kind, &name), number(&btf, kind, &name), "{name}");
    }
    assert!(targets(&btf, wanted.iter().copied()).is_ok(), "aya takes it");
    wanted.iter().filter(|it| number(&btf, it.kind(), &it.name()).is_some()).count()
}

#[test]
fn aya_is_given_the_numbers_that_the_kernel_has() {
    let mut b = with_unknown();
    b.types.truncate(b.types.len() - 36 - 40); // what is behind, and the unknown type
    let (f, g) = (b.name("f"), b.name("btf_trace_g"));
    b.words(&[f, KIND_FUNC << 24, 1]); // 3
    b.words(&[g, KIND_TYPEDEF << 24, 1]); // 4
    b.words(&[0, UNKNOWN << 24, 0]); // 5
    let wanted = [Target::Tracepoint("g"), Target::Function("f"), Target::Function("none")];
    assert_eq!(keeps_the_numbers_of(&b.build(), &wanted), 2);
    assert_eq!(keeps_the_numbers_of(&b.build(), &[]), 0);
}

/// This kernel's BTF; `None`, and a word past the test runner's capture, on a kernel built without
/// (`CONFIG_DEBUG_INFO_BTF`). Where BPF is known to work it has to be there.
pub(crate) fn vmlinux() -> Option<Vmlinux> {
    match Vmlinux::open() {
        Ok(data) => Some(data),
        Err(why) => {
            let works = std::env::var("TCPTRACE_TEST_BPF_WORKS").is_ok_and(|works| works == "1");
            assert!(!works && !std::path::Path::new("/sys/kernel/btf").exists(), "{why}");
            // Not by println!, which libtest keeps to itself when the test passes.
            writeln!(std::io::stderr(), "skipped: {why}").unwrap();
            None
        }
    }
}

#[test]
fn this_kernels_btf_is_read_to_its_end() {
    let Some(data) = vmlinux() else { return };
    let read = std::fs::read("/sys/kernel/btf/vmlinux").unwrap();
    assert!(*data == *read, "mapped or not, it is the same");
    let btf = Btf::parse(&data).unwrap();
    assert_eq!(btf.unread(), None);
    let all = crate::known::targets().collect::<Vec<_>>();
    assert!(keeps_the_numbers_of(&data, &all) >= 7, "tracepoints at the least");
}

#[test]
fn a_later_kernels_btf_serves_as_this_ones_does() {
    let Some(data) = vmlinux() else { return };
    let offsets = |data: &[u8]| crate::sock_offsets(&Btf::parse(data).unwrap()).unwrap();
    let header: Vec<u32> = (1..6).map(|word| index::u32_at(&data, 4 * word).unwrap()).collect();
    let [bytes, _, types, _, strings] = header[..] else { panic!("five words") };
    assert_eq!(
        bytes as usize, OLD_HEADER,
        "a kernel whose BTF describes its kinds: adapt this test"
    );
    // The same with a type of an unknown kind at the end.
    let mut b = Builder {
        types: data[OLD_HEADER..][..types as usize].to_vec(),
        strings: data[OLD_HEADER + types as usize..][..strings as usize].to_vec(),
    };
    b.words(&[0, UNKNOWN << 24 | 1, 0, 1, 2, 3]);
    let later = b.build();
    assert!(Btf::parse(&later).unwrap().unread().is_some());
    assert_eq!(format!("{:?}", offsets(&later)), format!("{:?}", offsets(&data)));
    let all = crate::known::targets().collect::<Vec<_>>();
    assert!(keeps_the_numbers_of(&later, &all) >= 7);
}
