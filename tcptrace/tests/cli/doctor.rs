//! `tcptrace doctor`: its exit codes, what people get to read, and what it does with files.

use std::{
    fs,
    io::Read as _,
    net::{Ipv4Addr, TcpListener, TcpStream},
};

use serde_json::Value;

use crate::{
    net::Netns,
    run::{Running, can_trace, run, tcptrace, until},
    witness::path,
};

#[test]
fn a_quiet_namespace_is_well_and_a_leak_is_a_warning() {
    if !can_trace() {
        return;
    }
    let netns = Netns::new().unwrap();
    let arguments = ["doctor", "--duration", "1s", "-N", &path(&netns)];
    let ended = run(tcptrace(&arguments));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let says = format!("all is well; network namespace {}, watched for 1", netns.inode());
    assert!(ended.text().starts_with(&says), "{}", ended.text());
    let wide = ended.text().lines().find(|line| line.chars().count() > 80);
    assert_eq!(wide, None);

    let _held = netns.run(|| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 5000)).unwrap();
        let address = listener.local_addr().unwrap();
        let accept = || {
            drop(TcpStream::connect(address).unwrap());
            let mut server = listener.accept().unwrap().0;
            assert_eq!(server.read(&mut [0]).unwrap(), 0);
            server
        };
        (0..10).map(|_| accept()).collect::<Vec<_>>()
    });
    let ended = run(tcptrace(&arguments));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.text().contains("\nWARNING  close-wait\nseen     10 connec"), "{ended:?}");
    let json = run(tcptrace(&[&arguments[..], &["-o", "json"]].concat()));
    assert_eq!(json.code, Some(1), "{json:?}");
    let report: Value = serde_json::from_str(json.text()).unwrap();
    assert_eq!((&report["v"], &report["severity"]), (&2.into(), &"warning".into()));
    assert_eq!(report["findings"][0]["netns"], netns.inode());
    assert_eq!(report["namespaces"][0]["sysctls"].as_array().unwrap().len(), 20);
}

#[test]
fn what_was_watched_is_judged_when_it_is_interrupted() {
    if !can_trace() {
        return;
    }
    let netns = Netns::new().unwrap();
    let arguments = ["doctor", "--duration", "300s", "-N", &path(&netns)];
    // Two scans are what it takes, which are 5 s apart: until then it says that nothing is known.
    let mut seconds = 6..60;
    let ended = until("two scans", || {
        let doctor = Running::listening(&mut tcptrace(&arguments));
        std::thread::sleep(std::time::Duration::from_secs(seconds.next()?));
        let ended = doctor.interrupt();
        (!ended.text().is_empty()).then_some(ended)
    });
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let says = format!("all is well; network namespace {}, watched for ", netns.inode());
    let rest = ended.text().strip_prefix(&says).unwrap_or_else(|| panic!("{ended:?}"));
    let watched: f64 = rest.split(' ').next().unwrap().parse().unwrap();
    assert!(watched >= 4.5, "{watched}");
    // By default only what differs is listed.
    assert!(ended.text().contains("SYSCTLS  all 20 at their defaults"), "{ended:?}");
    let all = run(tcptrace(&["doctor", "--duration", "1s", "--sysctls", "-N", &path(&netns)]));
    assert!(all.text().contains("\nnet.ipv4.tcp_retries2  "), "{all:?}");
}

#[test]
fn what_cannot_run_is_code_three() {
    for (arguments, says) in [
        (&["doctor", "--frobnicate"][..], "'--frobnicate'"),
        (&["doctor", "--duration", "0.1"], "at least 1s"),
        (&["doctor", "--time-wait-hook", "off"], "leave it out"),
        (&["doctor", "-N", "no-such-netns"], "-N no-such-netns"),
        (&["doctor", "--sysctl-file", "/no/such"], "cannot read /no/such: No such file"),
        (&["doctor", "--sysctl-file", "/"], "cannot read /: Is a directory"),
    ] {
        let ended = run(tcptrace(arguments));
        assert!(ended.refusal(3).contains(says), "{ended:?}");
    }
}

#[test]
fn a_file_is_judged_line_by_line_and_nothing_is_changed() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let pasted = "net.ipv4.tcp_tw_recycle = 1\n\n\x1b[2Jnonsense\n\
        net.ipv4.tcp_fin_timeout = 7\nnet.ipv4.tcp_timestamps=0\nnet.ipv4.tcp_tw_reuse = 99\n";
    fs::write(file.path(), pasted).unwrap();
    let read = || fs::read_to_string("/proc/sys/net/ipv4/tcp_fin_timeout").unwrap();
    let before = read();
    let path = file.path().to_str().unwrap();
    let ended = run(tcptrace(&["doctor", "--sysctl-file", path, "-o", "json"]));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(read(), before);
    assert!(!ended.text().contains('\x1b'));
    let report: Value = serde_json::from_str(ended.text()).unwrap();
    let lines = report["lines"].as_array().unwrap();
    let effects: Vec<_> =
        lines.iter().map(|line| (line["line"].as_u64(), line["effect"].as_str())).collect();
    let effects: Vec<_> = effects.iter().map(|(n, e)| (n.unwrap(), e.unwrap())).collect();
    assert_eq!(effects[..4], [(1, "nothing"), (3, "bad"), (4, "change"), (5, "harm")]);
    // Only in a namespace of its own, which takes root, is the kernel asked.
    let tried = nix::unistd::geteuid().is_root();
    assert_eq!(effects[4], (6, if tried { "refused" } else { "change" }));

    fs::write(file.path(), "# nothing\nnet.ipv4.tcp_fin_timeout = 60\n").unwrap();
    let ended = run(tcptrace(&["doctor", "--sysctl-file", path]));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.text().contains("line 2: net.ipv4.tcp_fin_timeout = 60\n  default "));
}
