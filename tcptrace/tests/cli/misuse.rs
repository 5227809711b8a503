//! What the user mistyped: exit code 2 and one line that says what would have been right.

use crate::run::{Ended, run, tcptrace};

/// Each with the parts that its one line must have.
const MISUSE: &[(&[&str], &[&str])] = &[
    (&["--state", "TIMEWEIGHT"], &["unknown state 'TIMEWEIGHT'", "TIME_WAIT", "time-wait"]),
    (&["--state", "\x1b[31mred"], &["unknown state", "red'"]),
    (&["-L", "0"], &["-localport", "'0' is not a port", "1 to 65535"]),
    (&["-L", "65536"], &["'65536' is not a port"]),
    (&["-D", "9000-8000"], &["-remoteport", "'9000-8000' is not a port"]),
    (&["-D", "http"], &["'http' is not a port"]),
    (&["--net", "10.0.0.0/33"], &["'10.0.0.0/33' is not an address or prefix", "10.0.0.0/8"]),
    (&["--net", "2001:db8::/129"], &["2001:db8::/129", "2001:db8::/32"]),
    (&["-N", "no-such-netns"], &["-N no-such-netns", "/run/netns/no-such-netns does not exist"]),
    (&["-N", "/proc/self/ns/mnt"], &["/proc/self/ns/mnt is not a network namespace"]),
    // One more than the highest process number, then the first number that is an inode.
    (&["-N", "4194304"], &["no process 4194304"]),
    (&["-N", "4194305"], &["no reachable network namespace has inode 4194305"]),
    (&["-N", ""], &["name, a path, an inode or a process"]),
    (&["--ring-size", "5000"], &["--ring-size 5000", "the next one is 8192"]),
    (&["--ring-size", "8MB"], &["'8MB' is not a size", "8M"]),
    (&["--ring-size", "4G"], &["the next one is 2147483648"]),
    (&["--duration", "0"], &["--duration", "more than 0"]),
    (&["--duration", "soon"], &["'soon' is not a duration", "10s"]),
    (&["--rate-limit", "0"], &["--rate-limit", "at least 1"]),
    (&["--count", "0"], &["--count", "at least 1"]),
    (&["--count", "-1"], &["'-1'"]),
    (&["--hook", "kprobe"], &["unknown hook 'kprobe'", "tp_btf, tracepoint"]),
    (&["--time-wait-hook", "x"], &["unknown hook 'x'", "timers"]),
    (&["--hook", "tracepoint", "-N", "/proc/self/ns/net"], &["-N", "does not tell the namespace"]),
    (&["-o", "yaml"], &["'yaml'", "table, json, csv"]),
    (&["-s", "-o", "json"], &["--csv", "cannot be used with"]),
    (&["-4", "-6"], &["--ipv4", "cannot be used with", "--ipv6"]),
    (&["check", "-o", "csv"], &["'csv'", "table, json"]),
    (&["explain", "TIMEWEIGHT"], &["unknown word 'TIMEWEIGHT'", "TIME_WAIT"]),
    (&["hist", "time-weight"], &["unknown state 'time-weight'", "TIME_WAIT", "or life"]),
    (&["hist", "close"], &["the time in close is not observable"]),
    (&["hist", "0"], &["interval 0", "more than 0"]),
    (&["hist", "2", "0"], &["count 0", "at least 1"]),
    (&["hist", "2", "3", "4"], &["4: an interval and a count are there already"]),
    (
        &["hist", "--by", "pid"],
        &["unknown key 'pid'", "reason, owner, closer, holder, port, peer, netns, unit"],
    ),
    (&["hist", "--steps", "time-wait"], &["--steps has its own states"]),
    (&["hist", "--steps", "--by", "port"], &["--steps", "cannot be used with"]),
    (&["closers", "0"], &["0", "more than 0"]),
    (&["closers", "2", "0"], &["0", "at least 1"]),
    (&["closers", "2", "3", "4"], &["unexpected argument '4'"]),
    (
        &["closers", "--by", "pid"],
        &["unknown key 'pid'", "owner, closer, holder, port, peer, netns"],
    ),
    (&["closers", "--by", "reason"], &["--by reason: that is `tcptrace hist time-wait`"]),
    (&["closers", "--sort", "name"], &["unknown column 'name'", "closed, local, remote"]),
    (&["closers", "--top", "0"], &["--top", "at least 1"]),
    (&["conns", "--how", "rest"], &["unknown end 'rest'", "rst-received", "timeout-syn"]),
    (&["conns", "--closed-by", "me"], &["unknown side 'me'", "local, remote, both, none"]),
    (&["conns", "-p", "nginx"], &["'nginx'", "--pid"]),
    (&["conns", "--cgroup", "nginx.service"], &["--cgroup nginx.service: no cgroup", "or an id"]),
    (&["--cgroup", "0"], &["--cgroup 0: no cgroup"]),
    (&["conns", "--min-life", "0"], &["--min-life", "more than 0"]),
    (&["ports", "-L", "443"], &["-L: ports are counted by their peer", "-D, --net or -N"]),
    (&["ports", "--time-wait-hook", "off"], &["most ports are in TIME_WAIT"]),
    (&["ports", "--top", "0"], &["--top", "at least 1"]),
    (&["ports", "0"], &["more than 0"]),
    (&["stuck", "0"], &["more than 0"]),
    (&["stuck", "1", "0"], &["at least 1"]),
    (&["stuck", "--older", "-1"], &["'-1'"]),
    (&["stuck", "--older", "soon"], &["'soon' is not a duration", "10s"]),
    (&["stuck", "--by", "reason"], &["--by reason", "owner, holder, port, peer, netns"]),
    (&["stuck", "--state", "listen"], &["a state that should pass", "CLOSE_WAIT, "]),
    (&["stuck", "--top", "0"], &["--top", "at least 1"]),
    (&["frobnicate"], &["'frobnicate'"]),
    (&["--localprot", "80"], &["'--localprot'", "--localport"]),
    (&["-L"], &["a value is required", "-localport"]),
];

#[test]
fn each_misuse_is_one_line_and_exit_code_2() {
    for (arguments, parts) in MISUSE {
        let ended = run(tcptrace(arguments));
        let line = ended.refusal(2);
        assert!(parts.iter().all(|part| line.contains(part)), "{arguments:?}: {line}");
    }
}

/// The same after the name of the command.
#[test]
fn without_a_command_it_is_live() {
    for (arguments, _) in MISUSE.iter().filter(|(a, _)| a[0].starts_with('-')) {
        let named = run(tcptrace(&[&["live"], *arguments].concat()));
        // The only difference: a tip may name the command.
        let unnamed = run(tcptrace(arguments));
        assert_eq!(named.refusal(2), unnamed.refusal(2));
    }
}

#[test]
fn help_fits_a_terminal() {
    for arguments in [
        &["--help"][..],
        &["-h"],
        &["help"],
        &["live", "--help"],
        &["check", "-h"],
        &["hist", "--help"],
        &["closers", "--help"],
        &["stuck", "--help"],
        &["conns", "--help"],
    ] {
        let mut command = tcptrace(arguments);
        command.env("COLUMNS", "80");
        let Ended { code, stdout, stderr } = run(command);
        let text = String::from_utf8(stdout).unwrap();
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(!text.contains('\x1b') && text.contains("Usage: tcptrace"), "{text}");
    }
    let text = run(tcptrace(&["--help"]));
    for word in ["live", "check", "--state", "--ring-size", "-N, --netns"] {
        assert!(text.text().contains(word), "{word}");
    }
}

#[test]
fn the_version_is_told() {
    let ended = run(tcptrace(&["--version"]));
    assert_eq!(ended.text(), format!("tcptrace {}\n", env!("CARGO_PKG_VERSION")));
}
