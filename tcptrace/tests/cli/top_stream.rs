//! `tcptrace top -r -`: a recording through a pipe on a screen, as it comes, with the keys of the
//! terminal. In a real terminal, as `super::top` has it.

use std::{fs, fs::File, io::Write as _, net::TcpStream, path::Path, process::Command};

use nix::{sys::stat::Mode, unistd::mkfifo};
use tcptrace::{
    model::{Accounts, Input, script},
    record::{Header, NewFile, Tap},
};

use crate::{
    net::Netns,
    run::{can_trace, run, tcptrace, until},
    top::{Tmux, count, listener, top},
    witness::path,
};

const V1: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recordings/v1.tcptrace");

#[track_caller]
fn tell(signal: &str, pid: &str) {
    let status = Command::new("kill").args([signal, "--", pid.trim()]).status().unwrap();
    assert!(status.success());
}

/// What is on the other side of the pipe.
struct Pipeline<'a> {
    tmux: &'a Tmux,
    writer: String,
}

impl<'a> Pipeline<'a> {
    fn start(tmux: &'a Tmux, netns: &Netns) -> Self {
        let program = env!("CARGO_BIN_EXE_tcptrace");
        let writer = tmux.file("writer");
        let _ = fs::remove_file(&writer);
        tmux.run(&format!(
            "clear; {program} record - -N {} --no-self-test 2>{writer} | {}",
            path(netns),
            top(tmux, "-r -")
        ));
        tmux.until("a stream", |screen| {
            screen.lines().next().is_some_and(|line| line.contains("  stream  "))
        });
        Self { tmux, writer }
    }

    /// Waits until both have ended, in order: gives what the writer said.
    #[track_caller]
    fn ended(&self) -> String {
        self.tmux.until_has("code 0");
        // The shell waits for both before it asks for more.
        self.tmux.until("a prompt", |screen| screen.trim_end().ends_with(['#', '$']));
        let said = fs::read_to_string(&self.writer).unwrap();
        assert!(said.contains(" inputs in ") && !said.contains("cannot"), "{said}");
        said
    }
}

#[test]
fn a_stream_is_shown_as_it_comes_and_both_ends_leave_in_order() {
    if !can_trace() {
        return;
    }
    let Some(tmux) = Tmux::new() else { return };
    let netns = Netns::new().unwrap();
    let (listener, address) = netns.run(listener);
    let (before, modes) = (tmux.stty("before"), tmux.modes());
    let pgid = || {
        let pid = fs::read_to_string(tmux.file("pid")).unwrap();
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap();
        let fields = stat.rsplit(')').next().unwrap().split_whitespace().nth(2).unwrap();
        format!("-{fields}")
    };
    // What a user types; what Ctrl-C sends where the terminal is not raw; what ends one of the two.
    let ways: [(&str, &dyn Fn()); 4] = [
        ("q", &|| tmux.text("q")),
        ("Ctrl-C", &|| tmux.key("C-c")),
        ("SIGINT to both", &|| tell("-INT", &pgid())),
        ("SIGTERM to top", &|| tell("-TERM", &fs::read_to_string(tmux.file("pid")).unwrap())),
    ];
    let mut closed = 0;
    for (way, leave) in ways {
        let pipeline = Pipeline::start(&tmux, &netns);
        netns.run(|| {
            for _ in 0..7 {
                drop(TcpStream::connect(address).unwrap());
                drop(listener.accept().unwrap());
            }
        });
        closed += 7;
        let screen = tmux.until("the counts", |screen| count(screen, "TIME_WAIT") == Some(closed));
        assert!(screen.contains("lost 0"), "{way}: {screen}");
        // Keys are those of the terminal, since stdin is the stream.
        tmux.text("3");
        tmux.until_has("PROCESS :PORT");
        tmux.text("[");
        tmux.until_has("a stream cannot be wound");
        leave();
        let said = pipeline.ended();
        assert_eq!(tmux.modes(), modes, "{way}");
        assert_eq!(tmux.stty(&format!("after {way}").replace(' ', "-")), before, "{way}");
        assert!(said.contains("listening by"), "{way}: {said}");
    }
}

#[test]
fn the_end_of_a_stream_is_said_and_where_it_is_cut_off() {
    let Some(tmux) = Tmux::new() else { return };
    let fifo = tmux.file("fifo");
    mkfifo(Path::new(&fifo), Mode::S_IRWXU).unwrap();
    let bytes = fs::read(V1).unwrap();
    for (cut, state, says) in [
        (0, "stream ended", " events seen"),
        (3, "stream cut off", "are of a block that was not written to its end"),
    ] {
        tmux.run(&format!("clear; {}", top(&tmux, &format!("-r {fifo}"))));
        let mut writer = File::options().write(true).open(&fifo).unwrap();
        writer.write_all(&bytes[..bytes.len() - cut]).unwrap();
        drop(writer);
        // The screen stays, to be looked at.
        tmux.until(state, |screen| screen.lines().next().is_some_and(|line| line.contains(state)));
        tmux.text("q");
        tmux.until_has("code 0");
        // The lines of a terminal are wrapped.
        let screen = tmux.tmux(&["capture-pane", "-p", "-J"]).stdout;
        let screen = String::from_utf8(screen).unwrap();
        assert!(screen.contains(says), "{screen}");
    }
}

/// The reader is stopped while more comes than pipe and writer have room for: what was dropped is on
/// the screen once it goes on, and nothing that was kept is missing.
#[test]
fn what_a_reader_was_too_slow_for_is_counted_on_its_screen() {
    let Some(tmux) = Tmux::new() else { return };
    let fifo = tmux.file("fifo");
    mkfifo(Path::new(&fifo), Mode::S_IRWXU).unwrap();
    tmux.run(&top(&tmux, &format!("-r {fifo}")));
    let stream = File::options().write(true).open(&fifo).unwrap();
    let header = Header { host: "web1".to_owned(), part: 1, ..Header::default() };
    let files = NewFile::stream(stream, "pipe").begin(header).unwrap();
    let mut tap = Tap::start(files).unwrap();
    let opening = "0ms begin\n0ms clock 1795330800000000000\n1ms tick\n900ms tick\n";
    script::inputs(opening).unwrap().iter().for_each(|input| tap.put(input));
    tmux.until_has("1 Overview");
    let pid = fs::read_to_string(tmux.file("pid")).unwrap();
    // The shell takes the terminal meanwhile, as after Ctrl-Z.
    tell("-STOP", &pid);
    tmux.until_has("topped");
    let mut text = String::new();
    for n in 0..20_000_u64 {
        // Cookies that zstd cannot make small.
        let cookie = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        text += &format!(
            "1000ms sk={cookie:x} CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 pid=7 comm=app netns=5\n"
        );
    }
    let inputs = script::inputs(&text).unwrap();
    let mut events = 0;
    // More than the 16 MiB that wait for a slow reader, of 15 bytes or so each.
    for input in std::iter::repeat_n(&inputs, 100).flatten() {
        tap.put(input);
        events += 1;
    }
    // The terminal is raw still: Enter is no end of a line.
    tmux.text("fg");
    tmux.key("C-j");
    // Until it is heard of: the writer has room again once the reader reads.
    let mut at_ms = 2_000_u64;
    let lost = |screen: &str| -> Option<u64> {
        let word = screen.lines().nth(1)?.split("lost ").nth(1)?.split_whitespace().next()?;
        word.parse().ok().filter(|&lost| lost > 0)
    };
    let lost = until("losses on the screen", || {
        tap.put(&Input::Tick { mono_ns: at_ms * 1_000_000 });
        at_ms += 1000;
        lost(&tmux.screen())
    });
    let accounts = Accounts {
        mono_ns: at_ms * 1_000_000,
        seen: events,
        delivered: events,
        ..Accounts::default()
    };
    tap.put(&Input::End(accounts));
    let saved = tap.finish().unwrap();
    assert_eq!(saved.gap, lost);
    tmux.until_has("stream ended");
    tmux.text("q");
    let screen = tmux.until_has(&format!("{events} events seen"));
    assert!(screen.contains(&format!("{lost} lost")), "{screen}");
}

#[test]
fn where_there_is_no_terminal_it_says_which_end_has_one() {
    let ended = run(tcptrace(&["top", "-r", "-"]));
    let line = ended.refusal(2);
    assert!(line.contains("ssh HOST tcptrace record - | tcptrace top -r -"), "{line}");
}
