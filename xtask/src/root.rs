//! Becoming root where a step needs it.

use std::{fs, process::Command};

use anyhow::{Result, bail};

use crate::sh;

/// How this process can run something as root.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Root {
    /// It is root.
    Already,
    /// It has sudo, which may ask for a password.
    Sudo,
    /// Not at all.
    No,
}

/// How this process can run something as root.
#[must_use]
pub fn root() -> Root {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if effective_user(&status) == Some(0) {
        Root::Already
    } else if sh::which("sudo").is_some() {
        Root::Sudo
    } else {
        Root::No
    }
}

/// The effective user ID in the text of `/proc/PID/status`, in the user namespace of the reader.
fn effective_user(status: &str) -> Option<u32> {
    // `Uid:` real, effective, saved, of the file system: fs/proc/array.c, task_state().
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    ids.split_whitespace().nth(1)?.parse().ok()
}

/// A command that runs `program` as root.
///
/// # Errors
/// If this user is not root and there is no sudo.
pub fn command(program: &str) -> Result<Command> {
    match root() {
        Root::Already => Ok(Command::new(program)),
        Root::Sudo => {
            let mut sudo = Command::new("sudo");
            sudo.arg(program);
            Ok(sudo)
        }
        Root::No => bail!("`{program}` must run as root: this user is not, and there is no sudo"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_user_is_the_second() {
        let status = "Name:\tsh\nUid:\t1000\t0\t1000\t1000\nGid:\t0\t0\t0\t0\n";
        assert_eq!(effective_user(status), Some(0));
        assert_eq!(effective_user("Name:\tUid\n"), None);
        let id = sh::output(Command::new("id").arg("-u")).unwrap();
        let here = fs::read_to_string("/proc/self/status").unwrap();
        assert_eq!(effective_user(&here), id.parse().ok());
    }
}
