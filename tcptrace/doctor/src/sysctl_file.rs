//! What each line of a sysctl.conf would do on this kernel.
//!
//! Lines are what people paste from the web: nothing in them is believed. Whether the kernel takes
//! a value is not guessed here: who calls has had it try, where that was possible.

use super::{
    facts::Setting,
    finding::Severity,
    sysctls::{self as ours, Spec},
};
use tcptrace_model::{
    Sysctl, Sysctls,
    sysctls::{number as parse, ports, range},
    task::escape,
};

/// Lines that are looked at.
const MAX_LINES: usize = 10_000;
/// Characters of a line, a name or a value that are shown.
const SHOWN: usize = 60;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Nothing, or a comment.
    Blank,
    /// An assignment.
    Set {
        /// Name with dots.
        key: String,
        /// Value, without blanks around it.
        value: String,
    },
    /// Nonsense: why.
    Bad(String),
}

/// Reads lines, as sysctl(8) does: `NAME = VALUE`, `#` and `;` for comments, `-` before the name to
/// go on after an error, `/` for `.` in names. Any bytes may be given. Says also whether there were
/// more lines than are looked at.
pub fn lines(text: &[u8]) -> (Vec<Line>, bool) {
    let mut lines = text.split(|&byte| byte == b'\n');
    let read = lines.by_ref().take(MAX_LINES).map(line).collect();
    (read, lines.next().is_some_and(|rest| !rest.is_empty()))
}

fn line(bytes: &[u8]) -> Line {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Line::Bad(format!("no text: '{}'", shown(bytes)));
    };
    let text = text.trim();
    if text.is_empty() || text.starts_with(['#', ';']) {
        return Line::Blank;
    }
    let Some((key, value)) = text.split_once('=') else {
        let hint = match text.split_once("sysctl ") {
            Some(_) => "a command; in a file it is NAME = VALUE",
            None => "no '='",
        };
        return Line::Bad(format!("{hint}: '{}'", shown(text.as_bytes())));
    };
    let key = key.trim().trim_start_matches('-').trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/*:@".contains(c);
    if key.is_empty() || !key.chars().all(plain) || key.contains("..") {
        return Line::Bad(format!("'{}' is no name", shown(key.as_bytes())));
    }
    // As sysctl(8): the first separator says which of the two it is. No name of ours has both.
    let key = if key.find('/') < key.find('.') && key.contains('/') || !key.contains('.') {
        key.trim_start_matches('/').trim_start_matches("proc/sys/").replace('/', ".")
    } else {
        key.to_owned()
    };
    Line::Set { key, value: value.trim().to_owned() }
}

/// The assignments among `lines` of the file of that name.
pub fn settings(file: &str, lines: &[Line]) -> Vec<Setting> {
    let file: String = escape(file.as_bytes());
    let set = |(index, line): (usize, &Line)| match line {
        Line::Set { key, value } => {
            let (key, value) = (key.clone(), value.clone());
            Some(Setting { file: file.clone(), line: index + 1, key, value })
        }
        Line::Blank | Line::Bad(_) => None,
    };
    lines.iter().enumerate().filter_map(set).collect()
}

/// `bytes` harmless on a terminal, and not too many of them.
pub fn shown(bytes: &[u8]) -> String {
    let text = escape(bytes);
    match text.char_indices().nth(SHOWN) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text,
    }
}

/// The sysctl that an assignment is for, if it is one of ours.
pub fn spec(key: &str) -> Option<&'static Spec> {
    ours::ALL.iter().find(|spec| spec.name == key)
}

/// What the kernel says to an assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// It takes it, and reads it back as this.
    Takes(String),
    /// It answered so.
    Refuses(String),
    /// It was not asked: why.
    NotAsked(String),
    /// There is no such sysctl.
    Lacks,
}

/// What an assignment comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// None: there is no such sysctl.
    Nothing,
    /// None: it is what the kernel begins with.
    Default,
    /// It changes something.
    Change,
    /// It costs more than it brings.
    Harm,
    /// The kernel does not take it.
    Refused,
    /// It is none of ours.
    Other,
    /// The line is nonsense.
    Bad,
}

impl Effect {
    /// The word for outputs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Default => "default",
            Self::Change => "change",
            Self::Harm => "harm",
            Self::Refused => "refused",
            Self::Other => "other",
            Self::Bad => "bad",
        }
    }

    /// How bad that is.
    pub const fn severity(self) -> Severity {
        match self {
            Self::Default | Self::Other => Severity::Ok,
            Self::Nothing | Self::Change => Severity::Info,
            Self::Harm | Self::Refused | Self::Bad => Severity::Warning,
        }
    }
}

/// What is said of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// From 1.
    pub line: usize,
    /// As it was read, escaped and cut.
    pub text: String,
    /// What it comes to.
    pub effect: Effect,
    /// In words.
    pub says: String,
}

/// What is said of an assignment, with what the kernel said to it, what it begins with, and what the
/// caller's namespace has now.
pub fn judge(
    setting: &Setting,
    kernel: &Kernel,
    defaults: &Result<Sysctls, String>,
    now: Option<&Sysctls>,
) -> Judged {
    let (effect, says) = match spec(&setting.key) {
        Some(spec) => judge_ours(spec, setting, kernel, defaults, now),
        None => judge_other(&setting.key, kernel),
    };
    let text = format!("{} = {}", shown(setting.key.as_bytes()), shown(setting.value.as_bytes()));
    Judged { line: setting.line, text, effect, says }
}

/// What is said of a line that is nonsense.
pub fn judge_bad(line: usize, why: &str) -> Judged {
    Judged {
        line,
        text: why.to_owned(),
        effect: Effect::Bad,
        says: "sysctl(8) cannot read this line and goes on with the next".to_owned(),
    }
}

fn judge_other(key: &str, kernel: &Kernel) -> (Effect, String) {
    match kernel {
        Kernel::Lacks => (Effect::Nothing, "this kernel has no such sysctl".to_owned()),
        _ if key.contains('*') => (Effect::Other, "a pattern: not looked at".to_owned()),
        _ if key.starts_with("net.") => {
            let says = "it is there; not one of those that doctor judges".to_owned();
            (Effect::Other, says)
        }
        _ => (Effect::Other, "not about the network".to_owned()),
    }
}

fn judge_ours(
    spec: &Spec,
    setting: &Setting,
    kernel: &Kernel,
    defaults: &Result<Sysctls, String>,
    now: Option<&Sysctls>,
) -> (Effect, String) {
    let value = match kernel {
        Kernel::Lacks => return (Effect::Nothing, format!("no such sysctl: {}", spec.absent)),
        Kernel::Refuses(answer) => {
            return (Effect::Refused, format!("the kernel refuses it: {answer}"));
        }
        Kernel::Takes(value) => value,
        Kernel::NotAsked(_) => &setting.value,
    };
    let value = words(value);
    let (default, own) = spec.default(defaults);
    let default = default.map(|default| words(&default));
    let is_default = default.as_ref() == Some(&value);
    let mut says = match (is_default, own) {
        (true, true) => "what this kernel begins with; ".to_owned(),
        (true, false) => "the default of upstream kernels; ".to_owned(),
        (false, _) => String::new(),
    };
    let harm = (!is_default).then(|| harm(spec.short(), &value, default.as_deref())).flatten();
    says += harm.unwrap_or(spec.does);
    if value != words(&setting.value) {
        says += &format!("; the kernel makes {} of it", shown(value.as_bytes()));
    }
    match (is_default, default) {
        (false, Some(default)) if !default.is_empty() => {
            let whose = if own { "this kernel's" } else { "upstream's" };
            says += &format!("; {whose} default is {}", shown(default.as_bytes()));
        }
        _ => {}
    }
    match now.map(|now| spec.value(now)) {
        Some(Sysctl::Is(now)) if words(&now) == value => says += "; it is so now",
        Some(Sysctl::Is(now)) => says += &format!("; it is '{}' now", shown(now.as_bytes())),
        _ => {}
    }
    if let Kernel::NotAsked(why) = kernel {
        says += &format!("; whether the kernel takes it was not tried: {why}");
    }
    let effect = match (is_default, harm) {
        (true, _) => Effect::Default,
        (false, Some(_)) => Effect::Harm,
        (false, None) => Effect::Change,
    };
    (effect, says)
}

/// One blank between words.
fn words(text: &str) -> String {
    text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

/// Where a value of a sysctl costs more than it brings: why.
fn harm(sysctl: &str, value: &str, default: Option<&str>) -> Option<&'static str> {
    let number = parse(value).ok();
    let below = |least: Option<i64>| Some(number? < least?);
    let below_default = || below(default.and_then(|default| parse(default).ok())).unwrap_or(false);
    let says = match sysctl {
        "tcp_tw_recycle" if number != Some(0) => {
            "drops SYNs of clients behind NAT, at random as they see it"
        }
        "tcp_max_tw_buckets" if below_default() => {
            "connections above it go without TIME_WAIT, and their peers may get RSTs; \
             the kernel's documentation says that it must not be lowered"
        }
        "tcp_syncookies" if number == Some(0) => "a flood of SYNs then shuts everybody else out",
        "tcp_timestamps" if number == Some(0) => {
            "takes the protection against old segments away, and makes tcp_tw_reuse do nothing"
        }
        "tcp_abort_on_overflow" if number != Some(0) => {
            "clients get a RST where they would have come in a moment later"
        }
        "somaxconn" | "tcp_max_syn_backlog" if below_default() => {
            "connections are dropped sooner when many come at a time"
        }
        "tcp_max_orphans" if below_default() => {
            "connections that are closed with data still to be sent are reset sooner: the data is \
             lost"
        }
        "ip_local_port_range" if range(value).is_ok_and(|ports| ports.low < 32_768) => {
            "connect() may take the port of a server that is down, unless the ports of servers \
             from there on are in ip_local_reserved_ports"
        }
        "ip_local_port_range" if range(value).is_ok_and(|p| p.high - p.low < 28_231) => {
            "fewer ports to connect from than by default"
        }
        "ip_local_reserved_ports"
            if ports(value).is_ok_and(|all| {
                all.iter().map(|ports| u32::from(ports.high - ports.low) + 1).sum::<u32>() > 20_000
            }) =>
        {
            "takes most ports from connect()"
        }
        _ => return None,
    };
    Some(says)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcptrace_model::script::fresh_sysctls;

    fn set(key: &str, value: &str) -> Line {
        Line::Set { key: key.to_owned(), value: value.to_owned() }
    }

    #[test]
    fn lines_are_read_as_sysctl_reads_them() {
        let text = b"# a comment\n; another\n\n net.ipv4.tcp_tw_reuse = 1 \n\
            -net/ipv4/tcp_fin_timeout=30\nnet.ipv4.ip_local_port_range = 1024\t65000\r\n\
            /proc/sys/net/core/somaxconn = 1\n";
        let (lines, more) = lines(text);
        assert_eq!(
            lines[3..],
            [
                set("net.ipv4.tcp_tw_reuse", "1"),
                set("net.ipv4.tcp_fin_timeout", "30"),
                set("net.ipv4.ip_local_port_range", "1024\t65000"),
                set("net.core.somaxconn", "1"),
                Line::Blank,
            ]
        );
        assert!(lines[..3].iter().all(|line| *line == Line::Blank) && !more);
        let all = settings("x\x1b", &lines);
        assert_eq!((all.len(), all[0].line, all[0].file.as_str()), (4, 4, "x\\x1b"));
    }

    #[test]
    fn nonsense_is_said_and_escaped() {
        for (line, says) in [
            (&b"sysctl -w net.ipv4.tcp_tw_reuse 1"[..], "a command"),
            (b"nonsense", "no '='"),
            (b"= 1", "'' is no name"),
            (b"net.ipv4.\x1b[31m = 1", "\\x1b[31m' is no name"),
            (b"../../etc/passwd = 1", "is no name"),
            (b"\xff\xfe = 1", "no text"),
        ] {
            let (lines, _) = lines(line);
            let Line::Bad(why) = &lines[0] else { panic!("{lines:?}") };
            assert!(why.contains(says) && !why.contains('\x1b'), "{why}");
        }
        let (lines, more) = lines(&b"x\n".repeat(MAX_LINES + 1));
        assert_eq!((lines.len(), more), (MAX_LINES, true));
        let Line::Bad(why) = line(&b"y".repeat(99_999)) else { panic!() };
        assert!(why.len() < 100, "{why}");
    }

    fn judged(key: &str, value: &str, kernel: &Kernel) -> Judged {
        let setting =
            Setting { file: "f".to_owned(), line: 1, key: key.to_owned(), value: value.to_owned() };
        judge(&setting, kernel, &Ok(fresh_sysctls()), Some(&fresh_sysctls()))
    }

    #[test]
    fn what_people_paste_is_told_from_what_helps() {
        let takes = |value: &str| Kernel::Takes(value.to_owned());
        for (key, value, kernel, effect, says) in [
            ("tcp_tw_recycle", "1", Kernel::Lacks, Effect::Nothing, "removed in Linux 4.12"),
            ("tcp_tw_recycle", "1", takes("1"), Effect::Harm, "behind NAT"),
            ("tcp_fin_timeout", "30", takes("30"), Effect::Change, "TIME_WAIT takes 60 s"),
            ("tcp_fin_timeout", "60", takes("60"), Effect::Default, "begins with"),
            ("tcp_max_tw_buckets", "5000", takes("5000"), Effect::Harm, "default is 100000"),
            ("tcp_max_tw_buckets", "200000", takes("200000"), Effect::Change, "'100000' now"),
            ("tcp_tw_reuse", "1", takes("1"), Effect::Change, "nothing for connections that"),
            ("tcp_tw_reuse", "7", Kernel::Refuses("no".into()), Effect::Refused, "refuses it: no"),
            ("tcp_timestamps", "0", takes("0"), Effect::Harm, "protection"),
            ("ip_local_port_range", "1024 65000", takes("1024\t65000"), Effect::Harm, "a server"),
            ("ip_local_port_range", "32768\t60999", takes("32768\t60999"), Effect::Default, "now"),
            ("ip_local_port_range", "60000 60999", takes("60000 60999"), Effect::Harm, "fewer"),
            ("ip_local_reserved_ports", "1-30000", takes("1-30000"), Effect::Harm, "most ports"),
            ("tcp_fin_timeout", "0x1e", takes("30"), Effect::Change, "makes 30 of it"),
            ("tcp_rfc1337", "1", Kernel::NotAsked("not root".into()), Effect::Change, "not root"),
        ] {
            let judged = judged(&format!("net.ipv4.{key}"), value, &kernel);
            assert_eq!(judged.effect, effect, "{judged:?}");
            assert!(judged.says.contains(says), "{judged:?}");
        }
    }

    #[test]
    fn others_are_left_alone() {
        let asked = Kernel::NotAsked(String::new());
        assert_eq!(judged("net.ipv4.no_such", "1", &Kernel::Lacks).effect, Effect::Nothing);
        for key in ["net.ipv4.tcp_rmem", "net.ipv4.conf.*.rp_filter", "vm.swappiness"] {
            assert_eq!(judged(key, "\x1b[2J", &asked).effect, Effect::Other);
            assert!(!judged(key, "\x1b[2J", &asked).text.contains('\x1b'));
        }
    }
}
