//! The mirror that the host is configured for: which Debian kernels it has, and getting them.
//!
//! All is done by apt itself, with a private configuration and state for each suite, so that
//! nothing of the host's is read but its sources and its proxy settings, nothing is installed and
//! no root is needed. One configuration for many suites would make every call parse all of their
//! indexes (6 to 23 s); a suite of kernels alone takes 0.4 s.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail};

use super::{
    host,
    line::{Line, compare_releases},
};

/// Who signs Debian's suites, the older and the newer ones too; the host's own sources may name a
/// key that covers its own suite only.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The suites with kernels, best first: a line is taken from the first that has it. Stock kernels
/// come before backports. All of these have small indexes.
const SUITES: &[&str] = &[
    "bookworm-security",
    "trixie-security",
    "bullseye-security",
    "trixie-backports",
    "bookworm-backports",
];

/// Suites that are asked only for a line which none of [`SUITES`] has: ten times the index.
const LARGE_SUITES: &[&str] = &["bookworm", "trixie", "bullseye"];

/// An index that is younger is not fetched again.
const FRESH: Duration = Duration::from_hours(12);

/// In a suite's directory: its date is when the index was fetched.
const STAMP: &str = "fetched";

/// The flavour without drivers for real hardware: the smallest with all the networking.
const FLAVOUR: &str = "-cloud-amd64";

/// The two archives of a Debian mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    main: String,
    security: String,
}

impl Mirror {
    /// The mirror of the host's own apt sources, by apt's own reading of them (one-line and deb822).
    ///
    /// `state` is a directory of our own: apt would lock the host's, which takes root.
    pub fn of_host(state: &Path) -> Result<Self> {
        let uris = host::output(
            Command::new("apt-get")
                .arg("-o")
                .arg(format!("Dir::State::lists={}", make(&state.join("lists"), "partial")?))
                .arg("-o")
                .arg(format!("Dir::Cache={}", make(&state.join("cache"), "archives/partial")?))
                .args(["--print-uris", "update"]),
        )
        .context("cannot read the host's apt sources")?;
        Self::from_uris(&String::from_utf8_lossy(&uris)).context(
            "no Debian mirror in the host's apt sources, so no kernels to fetch; \
             name a mirror with VM_MIRROR=URI, or use your own kernels with VM_KERNELS=DIR",
        )
    }

    /// The mirror whose main archive is at `uri`.
    pub fn at(uri: &str) -> Self {
        let main = uri.trim_end_matches('/').to_owned();
        Self { security: sibling(&main, "debian", "debian-security"), main }
    }

    /// From lines of `apt-get --print-uris update`: `'BASE/dists/SUITE/InRelease' name size`.
    fn from_uris(text: &str) -> Option<Self> {
        let sources = || {
            text.lines().filter_map(|line| {
                let uri = line.strip_prefix('\'')?.split('\'').next()?;
                let (base, rest) = uri.split_once("/dists/")?;
                Some((base, rest.strip_suffix("/InRelease")?))
            })
        };
        // Third parties name their suites after Debian's, but not these.
        let security = sources()
            .find(|(_, suite)| is_debian(suite, &["-security", "/updates"]))
            .map(|(base, _)| base.to_owned());
        let main = sources()
            .find(|(_, suite)| is_debian(suite, &["-updates", "-backports"]))
            .or_else(|| sources().find(|(_, suite)| is_debian(suite, &[""])))
            .map(|(base, _)| base.to_owned());
        match (main, security) {
            (Some(main), Some(security)) => Some(Self { main, security }),
            (Some(main), None) => Some(Self::at(&main)),
            (None, Some(security)) => {
                Some(Self { main: sibling(&security, "debian-security", "debian"), security })
            }
            (None, None) => None,
        }
    }

    /// The address of the archive that has this suite.
    pub fn base(&self, suite: &str) -> &str {
        if suite.ends_with("-security") { &self.security } else { &self.main }
    }
}

fn is_debian(suite: &str, endings: &[&str]) -> bool {
    const NAMES: &[&str] = &[
        "bullseye",
        "bookworm",
        "trixie",
        "forky",
        "sid",
        "oldoldstable",
        "oldstable",
        "stable",
        "testing",
        "unstable",
    ];
    endings.iter().any(|end| suite.strip_suffix(end).is_some_and(|name| NAMES.contains(&name)))
}

/// `base` with its last path segment `from` replaced by `to`; unchanged if it ends otherwise.
fn sibling(base: &str, from: &str, to: &str) -> String {
    match base.strip_suffix(from) {
        Some(stem) if stem.ends_with('/') => format!("{stem}{to}"),
        _ => base.to_owned(),
    }
}

/// Makes `dir` and `inner` in it, and returns `dir` as an apt configuration can hold it.
fn make(dir: &Path, inner: &str) -> Result<String> {
    let all = dir.join(inner);
    fs::create_dir_all(&all).with_context(|| format!("cannot make {}", all.display()))?;
    match dir.to_str() {
        Some(text) if !text.contains('"') => Ok(text.to_owned()),
        _ => bail!("apt cannot take the path {}; say where with --cache DIR", dir.display()),
    }
}

/// One suite of the mirror: a private apt configuration and what its index says.
#[derive(Debug)]
pub struct Suite {
    name: &'static str,
    config: PathBuf,
    /// All package names of kernels in the index.
    packages: Vec<String>,
    /// Why the index is missing or old.
    pub trouble: Option<String>,
}

impl Suite {
    /// Opens the suite `name`, fetching its index unless it is fresh.
    fn open(name: &'static str, mirror: &Mirror, dir: &Path) -> Result<Self> {
        let dir = dir.join(name);
        let lists = make(&dir.join("lists"), "partial")?;
        let cache = make(&dir.join("cache"), "archives/partial")?;
        let sources = dir.join("sources.list");
        let base = mirror.base(name);
        let source = format!("deb [signed-by={KEYRING}] {base} {name} main\n");
        // The index of another mirror is not this one's.
        let same_source = fs::read_to_string(&sources).is_ok_and(|old| old == source);
        fs::write(&sources, &source)
            .with_context(|| format!("cannot write {}", sources.display()))?;
        let config = dir.join("apt.conf");
        fs::write(&config, configuration(&sources, &lists, &cache))
            .with_context(|| format!("cannot write {}", config.display()))?;

        let mut suite = Self { name, config, packages: Vec::new(), trouble: None };
        let stamp = dir.join(STAMP);
        let age = stamp
            .metadata()
            .and_then(|meta| meta.modified())
            .map(|at| SystemTime::now().duration_since(at).unwrap_or(Duration::ZERO));
        let fresh = same_source && age.is_ok_and(|age| age < FRESH);
        if !fresh {
            match host::output(suite.apt("apt-get").args(["-q", "update"])) {
                Ok(_) => fs::write(&stamp, "")
                    .with_context(|| format!("cannot write {}", stamp.display()))?,
                Err(error) => suite.trouble = Some(format!("{error:#}")),
            }
        }
        let names = host::output(suite.apt("apt-cache").args(["pkgnames", "linux-"]))?;
        suite.packages = String::from_utf8_lossy(&names)
            .lines()
            .filter(|name| name.ends_with(FLAVOUR))
            .map(str::to_owned)
            .collect();
        Ok(suite)
    }

    fn apt(&self, tool: &str) -> Command {
        let mut command = Command::new(tool);
        // Not APT_CONFIG, which the host's own files would override.
        command.arg("-c").arg(&self.config);
        command
    }

    /// All releases in the index.
    fn releases(&self) -> impl Iterator<Item = &str> {
        self.packages.iter().filter_map(|package| release_of(package))
    }

    /// The newest release of a line.
    fn newest(&self, line: Line) -> Option<String> {
        self.releases()
            .filter(|release| Line::of_release(release) == Some(line))
            .max_by(|a, b| compare_releases(a, b))
            .map(str::to_owned)
    }

    /// Downloads a release and unpacks it into `into`, which must exist and be empty.
    pub fn fetch(&self, release: &str, into: &Path) -> Result<()> {
        let has = |kind: &str| {
            let name = format!("linux-{kind}-{release}");
            self.packages.contains(&name).then_some(name)
        };
        // Since 6.19 the image package is empty and depends on two others, of which an index that
        // lags may have lost the modules: still a kernel that boots.
        let packages: Vec<_> = match has("binary") {
            Some(binary) => [Some(binary), has("modules")].into_iter().flatten().collect(),
            None => has("image").into_iter().collect(),
        };
        let debs = into.join("debs");
        fs::create_dir(&debs).with_context(|| format!("cannot make {}", debs.display()))?;
        let config = fs::canonicalize(&self.config)?;
        let downloaded = host::output(
            Command::new("apt-get")
                .arg("-c")
                .arg(&config)
                .args(["-q", "download"])
                .args(&packages)
                .current_dir(&debs),
        );
        if downloaded.is_err() {
            // The index may name what the mirror has dropped since; the next run asks for a new
            // one. If that cannot be arranged, it asks when the index is no longer fresh.
            let _ = fs::remove_file(config.with_file_name(STAMP));
        }
        downloaded.with_context(|| format!("cannot download {release} from {}", self.name))?;
        let mut count = 0;
        for entry in fs::read_dir(&debs)? {
            host::output(Command::new("dpkg-deb").arg("-x").arg(entry?.path()).arg(into))
                .with_context(|| format!("cannot unpack {release}"))?;
            count += 1;
        }
        if count != packages.len() || count == 0 {
            bail!("apt-get downloaded {count} of {} packages of {release}", packages.len());
        }
        fs::remove_dir_all(&debs)?;
        Ok(())
    }
}

/// The release of a kernel package, `None` for metapackages and the unsigned twins.
fn release_of(package: &str) -> Option<&str> {
    let release = ["linux-image-", "linux-binary-"].iter().find_map(|p| package.strip_prefix(p))?;
    let dots = release.strip_suffix(FLAVOUR)?.matches('.').count();
    (release.starts_with(|c: char| c.is_ascii_digit()) && dots >= 2).then_some(release)
}

fn configuration(sources: &Path, lists: &str, cache: &str) -> String {
    format!(
        r#"// Written by cargo xtask vm-test.
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
APT::Architecture "amd64";
#clear APT::Architectures;
APT::Architectures {{ "amd64"; }};
// apt drops to a user of its own only if it is root, and that user cannot write here.
APT::Sandbox::User "";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::Retries "2";
// A suite at the end of its life keeps its last, expired, index. It is still signed.
Acquire::Check-Valid-Until "false";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Dir::Etc::sourcelist "{sources}";
Dir::Etc::sourceparts "/dev/null";
Dir::State::lists "{lists}";
Dir::State::status "/dev/null";
Dir::Cache "{cache}";
"#,
        sources = sources.display(),
    )
}

/// The kernels that a mirror has.
#[derive(Debug)]
pub struct Index {
    suites: Vec<Suite>,
}

impl Index {
    /// Reads the indexes of all suites, in parallel; of the large ones too if one of `lines` is
    /// nowhere else.
    pub fn open(mirror: &Mirror, dir: &Path, lines: &[Line]) -> Result<Self> {
        if !Path::new(KEYRING).exists() {
            bail!("no {KEYRING}; install the Debian package debian-archive-keyring");
        }
        let mut index = Self { suites: open_all(SUITES, mirror, dir)? };
        if lines.iter().any(|line| index.find(*line).is_none()) && !index.unreachable() {
            index.suites.extend(open_all(LARGE_SUITES, mirror, dir)?);
        }
        Ok(index)
    }

    /// Whether no suite could be fetched: then nothing is known about what the mirror lacks.
    pub fn unreachable(&self) -> bool {
        self.suites.iter().all(|suite| suite.trouble.is_some())
    }

    /// What went wrong with the first suite that failed.
    pub fn trouble(&self) -> Option<&str> {
        self.suites.iter().find_map(|suite| suite.trouble.as_deref())
    }

    /// Every line that the mirror has.
    pub fn lines(&self) -> Vec<Line> {
        let mut lines: Vec<_> =
            self.suites.iter().flat_map(Suite::releases).filter_map(Line::of_release).collect();
        lines.sort_unstable();
        lines.dedup();
        lines
    }

    /// The best suite for a line, and the newest release in it.
    pub fn find(&self, line: Line) -> Option<(&Suite, String)> {
        self.suites.iter().find_map(|suite| Some((suite, suite.newest(line)?)))
    }
}

fn open_all(names: &[&'static str], mirror: &Mirror, dir: &Path) -> Result<Vec<Suite>> {
    std::thread::scope(|scope| {
        let opening: Vec<_> =
            names.iter().map(|name| scope.spawn(move || Suite::open(name, mirror, dir))).collect();
        opening
            .into_iter()
            .map(|thread| match thread.join() {
                Ok(suite) => suite,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_comes_from_the_hosts_sources() {
        let uris = "\
'https://third.example/linux/debian/dists/bookworm/InRelease' x 0
'http://mirror.example/debian/dists/bookworm/InRelease' x 0
'http://mirror.example/debian/dists/bookworm/main/binary-amd64/Packages.xz' x 0
'http://mirror.example/debian/dists/bookworm-updates/InRelease' x 0
'http://sec.example/debian-security/dists/bookworm-security/InRelease' x 0
";
        assert_eq!(
            Mirror::from_uris(uris),
            Some(Mirror {
                main: "http://mirror.example/debian".into(),
                security: "http://sec.example/debian-security".into(),
            })
        );
    }

    #[test]
    fn a_missing_half_of_the_mirror_is_guessed_from_the_other() {
        let main = "'http://m.example/debian/dists/stable/InRelease' x 0\n";
        let security = "'http://m.example/debian-security/dists/trixie-security/InRelease' x 0\n";
        let both = Mirror {
            main: "http://m.example/debian".into(),
            security: "http://m.example/debian-security".into(),
        };
        assert_eq!(Mirror::from_uris(main), Some(both.clone()));
        assert_eq!(Mirror::from_uris(security), Some(both.clone()));
        assert_eq!(Mirror::at("http://m.example/debian/"), both);
        let others = "'http://u.example/ubuntu/dists/noble-updates/InRelease' x 0\n";
        assert_eq!(Mirror::from_uris(others), None);
    }

    #[test]
    fn only_signed_images_of_one_abi_are_kernels() {
        assert_eq!(release_of("linux-image-6.1.0-56-cloud-amd64"), Some("6.1.0-56-cloud-amd64"));
        assert_eq!(
            release_of("linux-binary-7.0.13+deb13-cloud-amd64"),
            Some("7.0.13+deb13-cloud-amd64")
        );
        for other in [
            "linux-image-cloud-amd64",
            "linux-image-6.12-cloud-amd64",
            "linux-binary-unsigned-7.2.6+deb13-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64-dbg",
            "linux-image-6.1.0-56-cloud-amd64-unsigned",
            "linux-modules-7.2.6+deb13-cloud-amd64",
        ] {
            assert_eq!(release_of(other), None, "{other}");
        }
    }
}
