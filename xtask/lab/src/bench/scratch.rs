//! A directory for outputs that are thrown away, which is gone whichever way the bench ends: at its
//! end, by an error, a panic, Ctrl-C or SIGKILL. It holds half a gigabyte of memory.
//!
//! A process of its own removes it as soon as this one holds the pipe between them no more.

use std::{
    env, fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result};

/// What the process does. Ctrl-C reaches the group of the bench, and `timeout` or a closed terminal
/// would send others: it is in a group of its own, and outlives them all.
const REMOVE: &str = "trap '' HUP INT QUIT TERM; read -r _; exec rm -rf -- \"$1\"";

/// The directory. Removed when this is dropped, and when this process ends.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    remover: Child,
}

impl Scratch {
    /// Makes one under `parent`; else in memory if there is such a place, since the disk's own CPU
    /// time is no tracer's.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new(parent: Option<&Path>) -> Result<Self> {
        let memory = Path::new("/dev/shm");
        let temporary = env::temp_dir();
        let parent = parent.unwrap_or(if memory.is_dir() { memory } else { &temporary });
        let made = tempfile::Builder::new()
            .prefix("tcptrace-bench-")
            .tempdir_in(parent)
            .with_context(|| format!("cannot make a directory under {}", parent.display()))?;
        let path = fs::canonicalize(made.path())
            .with_context(|| format!("cannot find {}", made.path().display()))?;
        let remover = Command::new("sh")
            .args(["-c", REMOVE, "sh"])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot run sh")?;
        // From here on it is the other process's to remove.
        let _ = made.keep();
        Ok(Self { path, remover })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(self.remover.stdin.take());
        // Whoever asks for it afterwards does not find it. If it cannot be waited for, it still goes.
        let _ = self.remover.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader},
        thread::sleep,
        time::{Duration, Instant},
    };

    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };

    use super::*;

    const PARENT: &str = "XTASK_TEST_SCRATCH";

    /// Not a test, but the process that the next one ends: it makes a directory, says where, and stays.
    #[test]
    fn holder() {
        let Some(parent) = env::var_os(PARENT) else { return };
        let scratch = Scratch::new(Some(Path::new(&parent))).unwrap();
        fs::write(scratch.path().join("output"), "half a gigabyte").unwrap();
        println!("scratch={}", scratch.path().display());
        if env::var_os("XTASK_TEST_PANIC").is_some() {
            panic!("as asked");
        }
        loop {
            std::thread::park();
        }
    }

    fn gone(path: &Path) -> bool {
        let deadline = Instant::now() + Duration::from_secs(10);
        while path.exists() && Instant::now() < deadline {
            sleep(Duration::from_millis(2));
        }
        !path.exists()
    }

    #[test]
    fn nothing_is_left_whichever_way_it_ends() {
        let parent = tempfile::tempdir().unwrap();
        let ways = [
            Some(Signal::SIGINT),
            Some(Signal::SIGTERM),
            Some(Signal::SIGHUP),
            Some(Signal::SIGKILL),
            None,
        ];
        for way in ways {
            let mut holder = Command::new(env::current_exe().unwrap());
            holder
                .args(["--exact", "bench::scratch::tests::holder", "--nocapture"])
                .env(PARENT, parent.path())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                // A signal of a terminal goes to the whole group.
                .process_group(0);
            if way.is_none() {
                holder.env("XTASK_TEST_PANIC", "1");
            }
            let mut holder = holder.spawn().unwrap();
            let lines = BufReader::new(holder.stdout.take().unwrap()).lines();
            let path = lines
                .map_while(Result::ok)
                .find_map(|line| line.split_once("scratch=").map(|(_, path)| PathBuf::from(path)))
                .unwrap();
            if let Some(signal) = way {
                assert!(path.join("output").exists());
                kill(Pid::from_raw(-holder.id().cast_signed()), signal).unwrap();
            }
            assert!(!holder.wait().unwrap().success());
            assert!(gone(&path), "{way:?} left {}", path.display());
        }
    }

    #[test]
    fn nothing_is_left_when_it_is_dropped() {
        let parent = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(Some(parent.path())).unwrap();
        let path = scratch.path().to_owned();
        fs::write(path.join("output"), "half a gigabyte").unwrap();
        drop(scratch);
        assert!(!path.exists());
    }
}
