//! What the host refuses: exit code 1 and one line that says what to do.

use std::{
    fs::{self, File, Permissions},
    io::{self, Read as _},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::{Command, Stdio},
};

use tempfile::TempDir;

use crate::{
    peer::Server,
    run::{Running, can_trace, command, run, tcptrace},
};

/// `nobody` of every distribution.
const NOBODY: u32 = 65534;

/// A place that anybody may read and write, with the command in it.
pub struct Unprivileged(TempDir);

impl Unprivileged {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(&directory, Permissions::from_mode(0o777)).unwrap();
        let program = directory.path().join("tcptrace");
        fs::copy(env!("CARGO_BIN_EXE_tcptrace"), &program).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        Self(directory)
    }

    pub fn directory(&self) -> &Path {
        self.0.path()
    }

    /// The command, run by a user with no capability at all.
    pub fn tcptrace(&self, arguments: &[&str]) -> Command {
        let mut command = command(self.0.path().join("tcptrace"), arguments);
        if nix::unistd::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }
}

#[test]
fn a_user_without_capabilities_is_told_which_and_how_to_get_them() {
    let unprivileged = Unprivileged::new();
    for arguments in [&[][..], &["--hook", "tp_btf"], &["--hook", "tracepoint"], &["-o", "json"]] {
        let ended = run(unprivileged.tcptrace(arguments));
        let line = ended.refusal(1);
        for part in
            ["CAP_BPF and CAP_PERFMON", "run as root", "setcap cap_bpf,cap_perfmon,cap_syslog+ep"]
        {
            assert!(line.contains(part), "{arguments:?}: {line}");
        }
    }
}

#[test]
fn a_run_that_cannot_start_leaves_an_earlier_capture_alone() {
    let unprivileged = Unprivileged::new();
    let earlier = unprivileged.directory().join("earlier.json");
    fs::write(&earlier, "evidence\n").unwrap();
    fs::set_permissions(&earlier, Permissions::from_mode(0o666)).unwrap();
    let ended = run(unprivileged.tcptrace(&["--out", earlier.to_str().unwrap(), "--force"]));
    assert!(ended.refusal(1).contains("CAP_BPF"));
    assert_eq!(fs::read_to_string(&earlier).unwrap(), "evidence\n");
}

#[test]
fn an_output_that_cannot_be_opened_is_named() {
    let ended = run(tcptrace(&["--out", "/no/such/directory/file"]));
    let line = ended.refusal(1);
    assert!(line.contains("cannot write to /no/such/directory/file: No such file"), "{line}");
    let ended = run(tcptrace(&["--out", "/"]));
    assert!(ended.refusal(1).contains("/ exists and is not a file"), "{ended:?}");
}

#[test]
fn a_namespace_that_is_not_there_is_named() {
    let ended = run(tcptrace(&["-N", "/no/such/netns"]));
    assert!(ended.refusal(1).contains("-N /no/such/netns: cannot look at /no/such/netns: No such"));
}

/// A full disk: of what was asked for, something is missing, so it is no success.
#[test]
fn a_full_disk_is_an_error_that_names_the_output() {
    if !can_trace() {
        return;
    }
    let server = Server::new();
    let port = server.port();
    let mut to_file = tcptrace(&["-D", &port, "--out", "/dev/full"]);
    let mut to_stdout = tcptrace(&["-D", &port]);
    to_stdout.stdout(Stdio::from(File::options().write(true).open("/dev/full").unwrap()));
    for (command, name) in [(&mut to_file, "/dev/full"), (&mut to_stdout, "stdout")] {
        // Ends by itself: the header cannot be written.
        let ended = Running::start_with_stdout(command).end();
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let says = format!("tcptrace: cannot write to {name}: No space left on device");
        assert!(ended.stderr.lines().last().unwrap().starts_with(&says), "{ended:?}");
    }
}

#[test]
fn nobody_listening_on_stderr_is_no_error() {
    if !can_trace() {
        return;
    }
    let mut child = tcptrace(&["--duration", "50ms", "-o", "json"])
        .stdout(Stdio::piped())
        .stderr({
            let (reader, writer) = io::pipe().unwrap();
            drop(reader);
            writer
        })
        .spawn()
        .unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(text.lines().last().unwrap().contains(r#""type":"summary""#), "{text}");
}
