//! `tcptrace top` in a real terminal (tmux), with real connections: keys are sent, the screen is
//! captured, and the terminal is as it was before, whichever way one leaves.

use std::{
    env, fs,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Output},
};

use tcptrace::terminal::Screen;
use tempfile::TempDir;

use crate::{
    net::Netns,
    run::{can_trace, run, tcptrace, until},
    witness::path,
};

/// Set for the child that is to panic on a screen.
const ON_A_SCREEN: &str = "TCPTRACE_TEST_ON_A_SCREEN";

/// A shell in a terminal of 80 columns and 24 lines. Gone when this is dropped.
pub struct Tmux {
    directory: TempDir,
}

impl Tmux {
    /// `None`, and a word that the test is skipped, where tmux is not installed.
    pub fn new() -> Option<Self> {
        let tmux = Self { directory: tempfile::tempdir().unwrap() };
        let arguments =
            ["-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "/bin/sh -i"];
        match tmux.command(&arguments).env("ENV", "/dev/null").output() {
            Ok(output) => assert!(output.status.success(), "{output:?}"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Not by eprintln!, which libtest keeps to itself when the test passes.
                io::stderr().write_all(b"skipped: tmux is not installed\n").unwrap();
                return None;
            }
            Err(error) => panic!("tmux: {error}"),
        }
        // Which of the two depends on who it is.
        tmux.until("a prompt", |screen| screen.trim_end().ends_with(['#', '$']));
        Some(tmux)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(self.file("socket")).args(arguments).env_remove("TMUX");
        command.env("LC_ALL", "C.UTF-8").env_remove("NO_COLOR");
        command
    }

    #[track_caller]
    pub fn tmux(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output
    }

    pub fn file(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    pub fn screen(&self) -> String {
        String::from_utf8(self.tmux(&["capture-pane", "-p"]).stdout).unwrap()
    }

    /// Waits for a screen that is as it should be.
    #[track_caller]
    pub fn until(&self, what: &str, is: impl Fn(&str) -> bool) -> String {
        until(what, || {
            let screen = self.screen();
            if is(&screen) { Some(screen) } else { None }
        })
    }

    #[track_caller]
    pub fn until_has(&self, part: &str) -> String {
        self.until(&format!("'{part}' on the screen"), |screen| screen.contains(part))
    }

    /// Types text as it is.
    pub fn text(&self, text: &str) {
        self.tmux(&["send-keys", "-l", "--", text]);
    }

    /// Presses a key by its name.
    pub fn key(&self, name: &str) {
        self.tmux(&["send-keys", name]);
    }

    /// Has the shell run a command.
    pub fn run(&self, command: &str) {
        self.text(command);
        self.key("Enter");
    }

    /// Whether the alternate screen is on, somebody wants the mouse, and the cursor is shown.
    pub fn modes(&self) -> String {
        let format = "#{alternate_on}#{mouse_any_flag}#{cursor_flag}";
        let output = self.tmux(&["display-message", "-p", format]);
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// What the shell says of its terminal.
    #[track_caller]
    pub fn stty(&self, name: &str) -> String {
        let (file, done) = (self.file(name), self.file(&format!("{name}.done")));
        self.run(&format!("stty -a > {file}; : > {done}"));
        until("stty", || Path::new(&done).exists().then_some(()));
        fs::read_to_string(file).unwrap()
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        // No error matters: there may be no server.
        let _ = self.command(&["kill-server"]).output();
    }
}

/// `tcptrace top` as a command of the shell; its process is in the file `pid`.
pub fn top(tmux: &Tmux, arguments: &str) -> String {
    let program = env!("CARGO_BIN_EXE_tcptrace");
    let pid = tmux.file("pid");
    format!("sh -c 'echo $$ > {pid}; exec {program} top --no-self-test {arguments}'; echo code $?")
}

pub fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// How many the overview has in a state.
pub fn count(screen: &str, state: &str) -> Option<u64> {
    let line = screen.lines().find(|line| line.starts_with(state))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[test]
fn keys_lead_through_what_happens() {
    if !can_trace() {
        return;
    }
    let Some(tmux) = Tmux::new() else { return };
    let netns = Netns::new().unwrap();
    let (listener, address) = netns.run(listener);
    let port = address.port();
    tmux.run(&top(&tmux, &format!("-N {}", path(&netns))));
    // The listener is known by the snapshot at the start.
    tmux.until("the listener", |screen| count(screen, "LISTEN") == Some(1));
    // Five that the client closes first, and two that only the peer closes.
    let left = netns.run(|| {
        for _ in 0..5 {
            let client = TcpStream::connect(address).unwrap();
            let (server, _) = listener.accept().unwrap();
            drop(client);
            // Nobody reads: what tells the end is the FIN.
            drop(server);
        }
        let two = || {
            drop(TcpStream::connect(address).unwrap());
            listener.accept().unwrap().0
        };
        [two(), two()]
    });
    let screen = tmux.until("the counts", |screen| {
        count(screen, "TIME_WAIT") == Some(5) && count(screen, "CLOSE_WAIT") == Some(2)
    });
    assert!(screen.contains("lost 0"), "{screen}");

    tmux.text("3");
    let client = format!("→:{port}");
    let screen = tmux.until_has(&client);
    let row = screen.lines().find(|line| line.contains(&client)).unwrap();
    assert!(row.split_whitespace().any(|word| word == "100%"), "{row}");
    // To the row of the client, whichever it is, and on to the life of its oldest connection.
    let index = screen.lines().skip(4).position(|line| line.contains(&client)).unwrap();
    for _ in 0..index {
        tmux.text("j");
    }
    tmux.key("Enter");
    tmux.until("its connections", |screen| screen.contains(&format!("{client}:")));
    tmux.key("Enter");
    let life = tmux.until_has("OF ITS LIFE");
    for part in ["SYN_SENT", "ESTABLISHED", "FIN_WAIT", "opened from here"] {
        assert!(life.contains(part), "{part}: {life}");
    }

    // Nonsense, then a filter.
    tmux.text("1/-D http");
    tmux.key("Enter");
    let screen = tmux.until_has("'http' is not a port");
    assert!(screen.contains("filter: -D http"), "{screen}");
    tmux.key("C-u");
    tmux.text(&format!("-D {port}"));
    tmux.key("Enter");
    let filter = format!("filter: -D {port}");
    let screen = tmux.until("the filter", |screen| {
        screen.lines().nth(1).is_some_and(|line| line.contains(&filter))
            && count(screen, "CLOSE_WAIT") == Some(0)
            && count(screen, "TIME_WAIT") == Some(5)
    });
    assert_eq!(count(&screen, "LISTEN"), Some(0), "its peer's port is not that one");

    tmux.tmux(&["resize-window", "-x", "160", "-y", "50"]);
    tmux.until_has("FROM, MS, TO");
    tmux.tmux(&["resize-window", "-x", "30", "-y", "8"]);
    tmux.until_has("too small a terminal");
    tmux.text("q");
    tmux.until_has("code 0");
    drop(left);
}

#[test]
fn the_terminal_is_given_back_as_it_was() {
    if !can_trace() {
        return;
    }
    let Some(tmux) = Tmux::new() else { return };
    let netns = Netns::new().unwrap();
    let before = tmux.stty("before");
    assert!(before.contains(" echo "), "{before}");
    let modes = tmux.modes();
    assert_eq!(modes, "001");
    let command = top(&tmux, &format!("-N {}", path(&netns)));
    let tell = |signal: &str| {
        let pid = fs::read_to_string(tmux.file("pid")).unwrap();
        let status = Command::new("kill").args([signal, pid.trim()]).status().unwrap();
        assert!(status.success());
    };
    let begin = || {
        tmux.run(&format!("clear; {command}"));
        tmux.until_has("1 Overview");
        assert_eq!(tmux.modes(), "110");
    };
    let ways: [(&str, &dyn Fn()); 4] = [
        ("q", &|| tmux.text("q")),
        ("Ctrl-C", &|| tmux.key("C-c")),
        ("SIGTERM", &|| tell("-TERM")),
        ("SIGHUP", &|| tell("-HUP")),
    ];
    for (n, (way, leave)) in ways.into_iter().enumerate() {
        begin();
        leave();
        tmux.until(way, |screen| screen.contains("code 0"));
        assert_eq!(tmux.modes(), modes, "{way}");
        assert_eq!(tmux.stty(&n.to_string()), before, "{way}");
    }
    // Into the background and back, by the key and by the signal.
    begin();
    for (n, stop) in [&(|| tmux.key("C-z")) as &dyn Fn(), &|| tell("-TSTP")].into_iter().enumerate()
    {
        stop();
        until("it to stop", || (tmux.modes() == modes).then_some(()));
        assert_eq!(tmux.stty(&format!("stopped{n}")), before);
        tmux.run("fg");
        tmux.until_has("1 Overview");
        assert_eq!(tmux.modes(), "110");
    }
    tmux.text("q");
    until("its end", || (tmux.modes() == modes).then_some(()));
    assert_eq!(tmux.stty("after"), before);
}

#[test]
fn it_ends_with_its_terminal() {
    if !can_trace() {
        return;
    }
    let Some(tmux) = Tmux::new() else { return };
    let netns = Netns::new().unwrap();
    tmux.run(&top(&tmux, &format!("-N {}", path(&netns))));
    tmux.until_has("1 Overview");
    let pid = fs::read_to_string(tmux.file("pid")).unwrap();
    let stat = Path::new("/proc").join(pid.trim()).join("stat");
    // A zombie has ended, whether or not somebody cares.
    let goes_on = || fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
    assert!(goes_on());
    // As a window that is closed, or a connection that breaks: SIGHUP, and nothing to read.
    tmux.tmux(&["kill-server"]);
    until("its end", || (!goes_on()).then_some(()));
}

#[test]
fn a_panic_gives_the_terminal_back() {
    let Some(tmux) = Tmux::new() else { return };
    let (before, modes) = (tmux.stty("before"), tmux.modes());
    let tests = env::current_exe().unwrap();
    tmux.run(&format!(
        "{ON_A_SCREEN}=1 {} --exact top::panics --nocapture; echo code $?",
        tests.display()
    ));
    // On the screen of before: had it been written on the other one, it would be gone.
    tmux.until_has("on purpose");
    tmux.until_has("code 0");
    assert_eq!(tmux.modes(), modes);
    assert_eq!(tmux.stty("after"), before);
}

#[test]
#[should_panic(expected = "on purpose")]
fn panics() {
    // In the terminal that the test above starts it in.
    let _screen = env::var_os(ON_A_SCREEN).map(|_| Screen::enter().unwrap());
    panic!("on purpose");
}

#[test]
fn a_recording_is_played_and_wound() {
    if !can_trace() {
        return;
    }
    let Some(tmux) = Tmux::new() else { return };
    let netns = Netns::new().unwrap();
    let (listener, address) = netns.run(listener);
    let file = tmux.file("recording");
    let arguments = ["record", &file, "-N", &path(&netns), "--no-self-test"];
    let recorder = crate::run::Running::listening(&mut tcptrace(&arguments));
    netns.run(|| {
        for _ in 0..7 {
            drop(TcpStream::connect(address).unwrap());
            drop(listener.accept().unwrap());
        }
    });
    let ended = recorder.interrupt();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    tmux.run(&top(&tmux, &format!("-r {file}")));
    let screen = tmux.until("its end", |screen| {
        let first = screen.lines().next().unwrap_or_default();
        first.contains(" end ") && count(screen, "TIME_WAIT") == Some(7)
    });
    assert!(screen.contains("lost 0"), "{screen}");
    // Held, and back to the beginning, where there was no connection; then on to the end.
    tmux.text(".@0");
    tmux.key("Enter");
    tmux.until("its beginning", |screen| {
        let first = screen.lines().next().unwrap_or_default();
        first.contains("paused  0.0 of")
            && count(screen, "TIME_WAIT").is_none_or(|count| count == 0)
    });
    tmux.text("}");
    tmux.until("its end again", |screen| count(screen, "TIME_WAIT") == Some(7));
    tmux.text("q");
    tmux.until_has("code 0");
}

#[test]
fn without_a_terminal_it_says_what_to_do_instead() {
    let ended = run(tcptrace(&["top"]));
    let line = ended.refusal(2);
    assert!(line.contains("needs a terminal") && line.contains("tcptrace states 1"), "{line}");
    let ended = run(tcptrace(&["top", "-v"]));
    assert!(ended.refusal(2).contains("tcptrace live"));
}
