//! Tests that hold the arrows of ARCHITECTURE.md: which crate may need which, which module may need
//! which, and who may ask the host at all.

mod graph;
mod pure;
mod source;
mod tests;
mod tokens;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use graph::shown;
use source::Sources;

/// The root of the workspace.
fn workspace() -> &'static Path {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    root.unwrap_or_else(|| panic!("the crate is two folders below the workspace"))
}

/// A crate of the workspace.
struct Member {
    name: String,
    /// Below the workspace.
    dir: PathBuf,
    manifest: toml::Table,
}

impl Member {
    /// Every target that is no test: its root, below the workspace, and its modules.
    fn targets(&self) -> Vec<(PathBuf, Sources)> {
        let source = workspace().join(&self.dir).join("src");
        let bins = fs::read_dir(source.join("bin")).into_iter().flatten();
        let bins = bins.map(|entry| entry.unwrap().path());
        let named = self.manifest.get("bin").and_then(toml::Value::as_array).into_iter().flatten();
        let named =
            named.filter_map(|bin| Some(workspace().join(&self.dir).join(bin["path"].as_str()?)));
        let roots = [source.join("lib.rs"), source.join("main.rs")].into_iter().chain(bins);
        let roots: BTreeSet<_> = roots.chain(named).collect();
        let read = |root: PathBuf| {
            let sources = Sources::read(&root).unwrap_or_else(|error| panic!("{error:#}"));
            (root.strip_prefix(workspace()).unwrap().to_owned(), sources)
        };
        roots.into_iter().filter(|root| root.is_file()).map(read).collect()
    }

    /// Those of `names` that it needs when it is built, not when it is tested.
    fn needs(&self, names: &BTreeSet<String>) -> BTreeSet<String> {
        let tables = ["dependencies", "build-dependencies"].map(|kind| self.manifest.get(kind));
        let tables = tables.into_iter().flatten().filter_map(toml::Value::as_table);
        tables.flat_map(toml::Table::keys).filter(|name| names.contains(*name)).cloned().collect()
    }
}

fn members() -> Vec<Member> {
    let read = |path: &Path| -> toml::Table {
        fs::read_to_string(path.join("Cargo.toml")).unwrap().parse().unwrap()
    };
    let root = read(workspace());
    let dirs = root["workspace"]["members"].as_array().unwrap();
    let member = |dir: &toml::Value| {
        let dir = PathBuf::from(dir.as_str().unwrap());
        let manifest = read(&workspace().join(&dir));
        let name = manifest["package"]["name"].as_str().unwrap().to_owned();
        Member { name, dir, manifest }
    };
    dirs.iter().map(member).collect()
}

/// What ARCHITECTURE.md says each crate needs: the block of text that begins with this line.
const CRATES: &str = "crate needs";

fn documented() -> Vec<(String, BTreeSet<String>)> {
    let text = fs::read_to_string(workspace().join("ARCHITECTURE.md")).unwrap();
    let lines = text.lines().skip_while(|line| !line.split_whitespace().eq(CRATES.split(' ')));
    let mut crates = Vec::new();
    for line in lines.skip(1).take_while(|line| *line != "```") {
        let mut words = line.split_whitespace().map(str::to_owned);
        let name = words.next().unwrap();
        let long = |word: String| match word.strip_prefix("..") {
            Some(short) => format!("tcptrace-{short}"),
            None => word,
        };
        crates.push((long(name), words.filter(|word| word != "-").map(long).collect()));
    }
    crates
}

#[test]
fn each_crate_needs_what_architecture_says_that_it_needs() {
    let members = members();
    let names = members.iter().map(|member| member.name.clone()).collect();
    let real: BTreeMap<_, _> =
        members.iter().map(|member| (member.name.clone(), member.needs(&names))).collect();
    let documented = documented();
    let mut above = BTreeSet::new();
    for (name, needs) in &documented {
        assert_eq!(real.get(name), Some(needs), "{name}: true, and said in ARCHITECTURE.md");
        assert!(needs.is_subset(&above), "{name} needs what is below it in ARCHITECTURE.md");
        above.insert(name.clone());
    }
    let said: BTreeSet<_> = documented.into_iter().map(|(name, _)| name).collect();
    assert_eq!(said, names, "ARCHITECTURE.md says of every crate what it needs");
}

#[test]
fn no_crate_has_a_circle_of_modules() {
    let mut found = String::new();
    for (root, sources) in members().iter().flat_map(Member::targets) {
        for (circle, way) in graph::circles(&graph::needs(&sources)) {
            let circle: Vec<_> = circle.iter().map(|module| shown(module)).collect();
            let way = way.join("\n  ");
            found += &format!("{}: {}\n  {way}\n", root.display(), circle.join(", "));
        }
    }
    assert!(found.is_empty(), "these modules need themselves:\n{found}");
}

/// What is in reach of a crate: names of paths into others, as [`pure::reaches`] has them.
fn breaches(member: &Member, rule: impl Fn(&[String]) -> Option<&'static str>) -> Vec<String> {
    let mut breaches = Vec::new();
    for (_, sources) in member.targets() {
        for (module, reached) in pure::reaches(&sources) {
            let Some(why) = rule(&reached.path) else { continue };
            let file = sources.modules[&module].file.strip_prefix(workspace()).unwrap();
            let path = reached.path.join("::");
            breaches.push(format!("{}:{}: {path}: {why}", file.display(), reached.line));
        }
    }
    breaches
}

/// Crates whose results follow from their inputs alone.
const PURE: [&str; 5] =
    ["tcptrace-model", "tcptrace-track", "tcptrace-stats", "tcptrace-doctor", "tcptrace-view"];

#[test]
fn the_analysis_does_no_io_and_reads_no_clock() {
    let pure: Vec<_> = members().into_iter().filter(|it| PURE.contains(&&*it.name)).collect();
    assert_eq!(pure.len(), PURE.len());
    let breaches: Vec<_> =
        pure.iter().flat_map(|member| breaches(member, pure::is_impure)).collect();
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn only_probe_uses_aya() {
    // xtask measures and builds with it; the command line prints what the programs log.
    let not_mine = |member: &Member, path: &[String]| match (&*member.name, &*path[0]) {
        ("tcptrace-probe" | "tcptrace-ebpf" | "xtask-lab", _) | ("tcptrace", "aya_log") => None,
        (_, name) if name.starts_with("aya") => Some("aya is for probe alone"),
        _ => None,
    };
    let members = members();
    let breaches: Vec<_> =
        members.iter().flat_map(|member| breaches(member, |path| not_mine(member, path))).collect();
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

/// Modules that only speak of such files.
const SAID: [&str; 1] = ["tcptrace/src/cli/manual/pages.rs"];

/// Files of the kernel that a crate other than `host` reads.
const OWN_FILES: [(&str, &str); 5] = [
    ("tcptrace-probe", "/sys/kernel/btf/vmlinux"),
    ("tcptrace-probe", "/sys/kernel/tracing"),
    ("tcptrace-probe", "/sys/kernel/debug/tracing"),
    ("tcptrace-probe", "/proc/self/fdinfo/{fd}"),
    // A directory to be in, of which nothing is read.
    ("tcptrace-probe", "/proc/self"),
];

#[test]
fn only_host_reads_proc_and_sys() {
    let mut breaches = Vec::new();
    let ours = members().into_iter().filter(|member| member.dir.starts_with("tcptrace"));
    for member in ours.filter(|member| member.name != "tcptrace-host") {
        for (_, sources) in member.targets() {
            for module in sources.modules.values() {
                let file = module.file.strip_prefix(workspace()).unwrap();
                if SAID.iter().any(|said| file == Path::new(said)) {
                    continue;
                }
                for (text, line) in &module.strings {
                    let is_path = text.starts_with("/proc") || text.starts_with("/sys");
                    // What is said of such a file has words beside its name.
                    let is_said = text.contains(' ');
                    let is_own = OWN_FILES.contains(&(&member.name, text));
                    if is_path && !is_said && !is_own {
                        breaches.push(format!("{}:{line}: {text}", file.display()));
                    }
                }
            }
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}
