//! Tests that hold `docs/LIMITS.md` to what it speaks of: every constant that bounds what input can make
//! grow, and every map of the kernel object.
//!
//! A bound is known by its name (see [`NAMES`]): what is called otherwise is not found.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// What a constant of a table's bound is called.
const NAMES: [&str; 24] = [
    "LIMIT",
    "DEFAULT_LIMIT",
    "BOUND_LIMIT",
    "SPACES",
    "NAMESPACES",
    "GROUPS",
    "FINDINGS",
    "CANDIDATES",
    "KEPT",
    "ROWS",
    "GROUP_ROWS",
    "FEW",
    "NAMES",
    "REMARKS",
    "WAITING_BYTES",
    "NAME_BYTES",
    "PATH_BYTES",
    "MAX_PROCESSES",
    "MAX_FILES",
    "MAX_FILES_OF_ONE",
    "MAX_NAMESPACES",
    "MAX_WANTED",
    "MAX_SAID",
    "MAX_WALKED",
];
/// Likewise, of what one message or file may have.
const SIZES: [&str; 5] = ["MAX_FRAME", "MAX_ROUND", "MAX_BLOCK", "MAX_HEADER", "MAX_BUFFER"];

fn workspace() -> &'static Path {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    root.unwrap_or_else(|| panic!("the crate is two folders below the workspace"))
}

/// The rows of the tables whose first column is code: that, and the number beside it.
fn documented() -> BTreeMap<String, u64> {
    let text = fs::read_to_string(workspace().join("docs/LIMITS.md")).unwrap();
    let row = |line: &str| {
        let mut columns = line.strip_prefix("| `")?.split(" | ");
        let name = columns.next()?.strip_suffix('`')?.to_owned();
        let number = columns.next()?;
        Some((name, number.parse().unwrap_or_else(|_| panic!("{line}"))))
    };
    let rows: Vec<_> = text.lines().filter_map(row).collect();
    let count = rows.len();
    let rows: BTreeMap<_, _> = rows.into_iter().collect();
    assert_eq!(rows.len(), count, "each once");
    rows
}

/// The value of what may stand behind a constant: products of numbers, and shifts.
fn value(expression: &str) -> u64 {
    let number = |text: &str| -> u64 {
        text.trim()
            .replace('_', "")
            .parse()
            .unwrap_or_else(|_| panic!("not a number: {expression}"))
    };
    match expression.split_once("<<") {
        Some((base, shift)) => number(base) << number(shift),
        None => expression.split('*').map(number).product(),
    }
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

/// The bounds in the sources of all crates in `tcptrace/`: `crate/module::NAME`.
fn bounds() -> BTreeMap<String, u64> {
    let mut files = Vec::new();
    for entry in fs::read_dir(workspace().join("tcptrace")).unwrap() {
        let source = entry.unwrap().path().join("src");
        if source.is_dir() {
            sources(&source, &mut files);
        }
    }
    let mut bounds = BTreeMap::new();
    for file in files {
        let path = file.strip_prefix(workspace().join("tcptrace")).unwrap().with_extension("");
        let module: Vec<_> = path.iter().map(|part| part.to_str().unwrap()).collect();
        if module.iter().any(|part| *part == "tests" || *part == "bench") {
            continue;
        }
        let module = module.iter().filter(|part| **part != "src").copied().collect::<Vec<_>>();
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        for line in code.lines() {
            let Some((_, constant)) = line.split_once("const ") else { continue };
            let Some((name, rest)) = constant.split_once(": ") else { continue };
            let Some((kind, expression)) = rest.split_once(" = ") else { continue };
            let is_bound = NAMES.contains(&name) || SIZES.contains(&name);
            if is_bound && matches!(kind, "usize" | "u32") && expression.ends_with(';') {
                let name = format!("{}::{name}", module.join("/"));
                bounds.insert(name, value(expression.trim_end_matches(';')));
            }
        }
    }
    bounds
}

/// The maps of an object as aya's `#[map]` writes them: a `struct bpf_map_def` each, in the section
/// `maps`, and a symbol for it.
fn maps(object: &[u8]) -> BTreeMap<String, u64> {
    let number = |at: usize, bytes: usize| -> usize {
        object[at..at + bytes].iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
    };
    let text = |at: usize| {
        let length = object[at..].iter().position(|byte| *byte == 0).unwrap();
        std::str::from_utf8(&object[at..at + length]).unwrap().to_owned()
    };
    assert_eq!(object[..6], *b"\x7fELF\x02\x01", "64 bits, the lowest byte first");
    // Elf64_Ehdr: e_shoff, e_shentsize, e_shnum, e_shstrndx
    let (headers, size) = (number(40, 8), number(58, 2));
    let header = |index: usize| headers + index * size;
    // Elf64_Shdr: sh_name, sh_type, sh_offset, sh_size, sh_link
    let offset = |index: usize| number(header(index) + 24, 8);
    let names = offset(number(62, 2));
    let mut found = BTreeMap::new();
    let is = |index: usize, name: &str| text(names + number(header(index), 4)) == name;
    let sections = number(60, 2);
    let maps = (0..sections).find(|&index| is(index, "maps")).unwrap();
    let symbols = (0..sections).find(|&index| number(header(index) + 4, 4) == 2).unwrap();
    let strings = offset(number(header(symbols) + 40, 4));
    // Elf64_Sym: st_name, st_shndx, st_value
    for at in (0..number(header(symbols) + 32, 8)).step_by(24).map(|at| offset(symbols) + at) {
        let (name, section) = (text(strings + number(at, 4)), number(at + 6, 2));
        if section == maps && !name.is_empty() {
            // struct bpf_map_def: type, key_size, value_size, max_entries
            let entries = number(offset(maps) + number(at + 8, 8) + 12, 4);
            found.insert(name, entries as u64);
        }
    }
    found
}

#[test]
fn every_bound_is_in_the_list_with_its_number() {
    let is_of_sources = |name: &String| name.contains("::");
    let documented: BTreeMap<_, _> =
        documented().into_iter().filter(|(name, _)| is_of_sources(name)).collect();
    let bounds = bounds();
    let lacks: Vec<_> = bounds.iter().filter(|(name, _)| !documented.contains_key(*name)).collect();
    assert!(lacks.is_empty(), "not in docs/LIMITS.md: {lacks:#?}");
    let gone: Vec<_> = documented.keys().filter(|name| !bounds.contains_key(*name)).collect();
    assert!(gone.is_empty(), "in docs/LIMITS.md alone: {gone:#?}");
    assert_eq!(documented, bounds);
}

#[test]
fn every_map_of_the_kernel_object_is_in_the_list_with_its_number() {
    let documented: BTreeMap<_, _> =
        documented().into_iter().filter(|(name, _)| !name.contains("::")).collect();
    let object = fs::read(workspace().join("tcptrace/bpf/tcptrace.bpf.o")).unwrap();
    assert_eq!(maps(&object), documented);
}

#[test]
fn expressions_are_understood() {
    assert_eq!(
        (value("1 << 16"), value("65_536"), value("16 * 1024 * 1024")),
        (65_536, 65_536, 1 << 24)
    );
}
