//! A fuzz target: its settings, its corpora, and running it.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::Stdio,
    time::Instant,
};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use xtask::sh;

use super::outcome::Ended;

/// A target, as `fuzz/Cargo.toml` describes it.
#[derive(Debug)]
pub struct Target {
    pub name: String,
    /// What it fuzzes, in one line.
    pub about: String,
    /// The longest input, bytes.
    max_len: u32,
    /// The folder `fuzz`.
    folder: PathBuf,
}

#[derive(Deserialize)]
struct Manifest {
    bin: Vec<Bin>,
    package: Package,
}

#[derive(Deserialize)]
struct Bin {
    name: String,
}

#[derive(Deserialize)]
struct Package {
    metadata: toml::Table,
}

#[derive(Deserialize)]
struct Settings {
    about: String,
    max_len: u32,
}

/// All targets, in the order of the manifest.
pub fn all(workspace: &Path) -> Result<Vec<Target>> {
    let folder = workspace.join("fuzz");
    let path = folder.join("Cargo.toml");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let Manifest { bin, package } = toml::from_str(&text)?;
    let target = |Bin { name }: Bin| {
        let settings = package.metadata.get(&name).cloned();
        let settings = settings.with_context(|| format!("no [package.metadata.{name}]"))?;
        let Settings { about, max_len } = settings.try_into()?;
        Ok(Target { name, about, max_len, folder: folder.clone() })
    };
    bin.into_iter().map(target).collect()
}

impl Target {
    /// The inputs in the tree.
    fn kept(&self) -> PathBuf {
        self.folder.join("corpus").join(&self.name)
    }

    /// The inputs that runs on this machine have found.
    fn found(&self) -> Result<PathBuf> {
        let path = sh::target_dir()?.join("fuzz/corpus").join(&self.name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// Runs the program; its lines are shown as they come if it runs `alone`.
    pub fn run(&self, program: &Path, arguments: &[String], alone: bool) -> Ended {
        let start = Instant::now();
        let (success, said) = self
            .start(program, arguments, alone)
            .unwrap_or_else(|error| (false, format!("{error:#}")));
        Ended::new(&self.name, success, &said, start.elapsed().as_secs())
    }

    fn start(&self, program: &Path, arguments: &[String], alone: bool) -> Result<(bool, String)> {
        let artifacts = self.folder.join("artifacts").join(&self.name);
        fs::create_dir_all(&artifacts)?;
        let mut command = sh::clean(program);
        command
            .args(arguments)
            .arg(format!("-max_len={}", self.max_len))
            .arg("-print_final_stats=1")
            .arg(format!("-artifact_prefix={}/", artifacts.display()));
        let dictionary = self.folder.join("dictionaries").join(format!("{}.dict", self.name));
        if dictionary.exists() {
            command.arg(format!("-dict={}", dictionary.display()));
        }
        // New ones go into the first.
        command.arg(self.found()?).arg(self.kept());
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let stderr = child.stderr.take().context("a piped output is not there")?;
        let mut text = String::new();
        for line in BufReader::new(stderr).split(b'\n') {
            let line = line.context("reading what the target says")?;
            let line = String::from_utf8_lossy(&line);
            if alone {
                sh::say(&line);
            }
            // What it says of each new input is of no use later.
            if !line.starts_with('#') {
                text.push_str(&line);
                text.push('\n');
            }
        }
        Ok((child.wait()?.success(), text))
    }

    /// Replaces the inputs in the tree by the smallest set, of these and of those found here, that
    /// reaches as much code. How often a branch is taken makes no difference: thousands of files would.
    pub fn merge(&self, program: &Path, limits: &[String]) -> Result<()> {
        let (kept, found) = (self.kept(), self.found()?);
        let merged = kept.with_extension("merged");
        fs::create_dir_all(&kept)?;
        fs::create_dir_all(&merged)?;
        sh::run(
            sh::clean(program)
                .args(limits)
                .args(["-merge=1", "-use_counters=0", "-use_cmp=0"])
                .arg(format!("-max_len={}", self.max_len))
                .args([&merged, &kept, &found]),
        )?;
        fs::remove_dir_all(&kept)?;
        fs::rename(&merged, &kept)
            .with_context(|| format!("cannot put the corpus at {}", kept.display()))
    }
}
