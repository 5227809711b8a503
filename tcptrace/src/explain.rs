//! `tcptrace explain WORD`: what a word of the output means and what to do about it.
//!
//! The texts are in files beside this module, so that they are written as text. Nothing here
//! looks at the host: a text says what holds for Linux in general, and which kernel where it
//! matters. It must not name what this version does not have; the tests see to that.
//!
//! A file is a list of entries. Each begins with a line `# WORD, WORD`; its last line may be
//! `See also: WORD, WORD`.

use std::{collections::HashSet, fmt::Write as _};

use thiserror::Error;

use tcptrace_model::{StateSet, TcpState};

/// What kind of thing a word is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A state, or a group of them.
    State,
    /// Who closed a connection first, and how it ended.
    Verdict,
    /// Why it is not known how.
    Because,
    /// Why a minisock ended.
    EndReason,
    /// How an owner is known.
    Owner,
    /// A column, a key of the JSON objects, or a sign in one.
    Column,
    /// What `tcptrace ports` shows.
    Ports,
    /// What a stuck connection waits for.
    Stuck,
    /// What `tcptrace doctor` says.
    Doctor,
    /// What it looks for.
    Rule,
}

impl Kind {
    /// In the order in which they are listed.
    pub const ALL: [Self; 10] = [
        Self::State,
        Self::Verdict,
        Self::Because,
        Self::EndReason,
        Self::Owner,
        Self::Column,
        Self::Ports,
        Self::Stuck,
        Self::Doctor,
        Self::Rule,
    ];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Verdict => "end",
            Self::Because => "unknown because",
            Self::EndReason => "end reason",
            Self::Owner => "owner",
            Self::Column => "output",
            Self::Ports => "local ports",
            Self::Stuck => "stuck",
            Self::Doctor => "doctor",
            Self::Rule => "rule",
        }
    }

    const fn heading(self) -> &'static str {
        match self {
            Self::State => "states",
            Self::Verdict => "who closed first, and how",
            Self::Because => "why it is unknown how a connection ended",
            Self::EndReason => "end reasons (of TIME_WAIT, and of an orphan's FIN_WAIT2)",
            Self::Owner => "how an owner is known",
            Self::Column => "columns, signs and counts",
            Self::Ports => "local ports",
            Self::Stuck => "what a stuck connection waits for",
            Self::Doctor => "what doctor says",
            Self::Rule => "what doctor looks for",
        }
    }

    const fn file(self) -> &'static str {
        match self {
            Self::State => include_str!("explain/states.txt"),
            Self::Verdict => include_str!("explain/verdicts.txt"),
            Self::Because => include_str!("explain/unknown.txt"),
            Self::EndReason => include_str!("explain/reasons.txt"),
            Self::Owner => include_str!("explain/owners.txt"),
            Self::Column => include_str!("explain/columns.txt"),
            Self::Ports => include_str!("explain/ports.txt"),
            Self::Stuck => include_str!("explain/stuck.txt"),
            Self::Doctor => include_str!("explain/doctor.txt"),
            Self::Rule => include_str!("explain/rules.txt"),
        }
    }
}

/// One text and the words that lead to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is about.
    pub kind: Kind,
    words: &'static str,
    /// What there is to say, in lines of at most 80 columns.
    pub text: &'static str,
}

impl Entry {
    /// The words that lead to it; the first is its name.
    pub fn words(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.words.split(", ")
    }

    /// The first of its words.
    pub fn name(&self) -> &'static str {
        self.words().next().unwrap_or_default()
    }
}

/// A word that there is no text for.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("unknown word '{word}'{}; `tcptrace explain` lists them all", hint(closest))]
pub struct UnknownWord {
    word: String,
    /// Those most like it, the likeliest first.
    pub closest: Vec<&'static str>,
}

fn hint(closest: &[&str]) -> String {
    match closest {
        [] => String::new(),
        some => format!(", the closest: {}", some.join(", ")),
    }
}

/// All texts, by kind and in the order of their files.
pub fn entries() -> impl Iterator<Item = Entry> {
    Kind::ALL.into_iter().flat_map(|kind| {
        let file = kind.file();
        // Only the first entry has no line before it.
        file.strip_prefix("# ").unwrap_or(file).split("\n# ").map(move |entry| {
            let (words, text) = entry.split_once('\n').unwrap_or((entry, ""));
            Entry { kind, words, text: text.trim_end() }
        })
    })
}

/// The texts that `word` leads to, in any spelling: most words one, `close` a state and an owner,
/// `unknown` a verdict and an end reason.
///
/// # Errors
/// If there is none: the words most like it.
pub fn find(word: &str) -> Result<Vec<Entry>, UnknownWord> {
    let wanted = plain(word);
    let mut found: Vec<Entry> =
        entries().filter(|entry| entry.words().any(|word| plain(word) == wanted)).collect();
    if !found.iter().any(|entry| entry.kind == Kind::State)
        && let Ok(states) = word.parse::<StateSet>()
    {
        // As ss or netstat spell it: estab, unconn.
        let names = TcpState::ALL.into_iter().filter(|&state| states.contains(state));
        let spelled = names.filter_map(|state| entries().find(|e| e.name() == state.name()));
        found.splice(0..0, spelled);
    }
    if found.is_empty() {
        return Err(UnknownWord {
            word: word.escape_default().to_string(),
            closest: closest(&wanted),
        });
    }
    Ok(found)
}

/// What `tcptrace explain WORD` prints.
pub fn print(found: &[Entry]) -> String {
    let mut out = String::new();
    for (i, entry) in found.iter().enumerate() {
        let gap = if i > 0 { "\n" } else { "" };
        // Writing to memory does not fail.
        let _ = writeln!(out, "{gap}{} ({})\n\n{}", entry.words, entry.kind.name(), entry.text);
    }
    out
}

/// What `tcptrace explain` prints: the words, by kind.
pub fn list() -> String {
    const WIDTH: usize = 80;
    const INDENT: &str = "  ";
    let mut out = String::from("tcptrace explain WORD, where WORD is one of\n");
    for kind in Kind::ALL {
        let _ = writeln!(out, "\n{}:", kind.heading());
        let mut line = String::from(INDENT);
        let mut listed = HashSet::new();
        let words = entries().filter(|entry| entry.kind == kind).flat_map(|e| e.words());
        // One spelling of each: `time` stands for `TIME` too.
        for word in words.filter(|word| listed.insert(plain(word))) {
            if line.chars().count() + word.chars().count() > WIDTH {
                let _ = writeln!(out, "{}", line.trim_end());
                line = String::from(INDENT);
            }
            let _ = write!(line, "{word}  ");
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

/// A word without what spellings differ in. Signs stay as they are.
fn plain(word: &str) -> String {
    let letters: String =
        word.chars().filter(|c| c.is_alphanumeric()).map(|c| c.to_ascii_lowercase()).collect();
    if letters.is_empty() { word.to_owned() } else { letters }
}

/// The words most like `wanted`, at most three: those that begin alike or that a typing error or
/// two turn into it.
fn closest(wanted: &str) -> Vec<&'static str> {
    let far = wanted.chars().count() / 3;
    let mut near: Vec<((bool, usize), &str)> = entries()
        .flat_map(|entry| entry.words())
        .filter_map(|word| {
            let known = plain(word);
            let distance = strsim::damerau_levenshtein(&known, wanted);
            let begins = wanted.len() >= 3 && known.starts_with(wanted);
            (begins || distance <= far).then_some(((!begins, distance), word))
        })
        .collect();
    near.sort_by_key(|&(likeness, _)| likeness);
    near.dedup_by_key(|&mut (_, word)| plain(word));
    near.into_iter().map(|(_, word)| word).take(3).collect()
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use tcptrace_model::{
        EndReason, How, Initiator, OwnerFrom, UnknownBecause, filter::Filter, select::Wanted,
    };
    use tcptrace_stats::{conns::Until, stuck::Cause};
    use tcptrace_view::{
        View as _, conns,
        live::{Columns, Format, LiveView, Selection},
        ports::{self, PortsView, Shown, Which},
    };

    fn has(kind: Kind, word: &str) -> bool {
        let found = find(word).unwrap_or_default();
        found.iter().any(|entry| entry.kind == kind && !entry.text.is_empty())
    }

    fn header(format: Format) -> String {
        let selection = Selection {
            states: StateSet::all(),
            wanted: Wanted::default(),
            rate_limit: None,
            count: None,
            header: true,
        };
        let mut out = BytesMut::new();
        LiveView::new(format, selection).begin(&mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    fn conns_header(format: conns::Format) -> String {
        let selection = conns::Selection {
            wanted: Wanted::default(),
            min_life_ns: 0,
            until: Until::End,
            open: false,
            count: None,
            header: true,
        };
        let mut out = BytesMut::new();
        conns::ConnsView::new(format, selection).begin(&mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    /// The tokens of all texts that look like what `of` says, with the entry they are in.
    fn mentions(of: impl Fn(&str) -> bool) -> Vec<(&'static str, &'static str)> {
        let mut found = Vec::new();
        for entry in entries() {
            let tokens = entry
                .text
                .split(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '.')))
                .map(|token| token.trim_matches('.'));
            found.extend(tokens.filter(|token| of(token)).map(|token| (entry.name(), token)));
        }
        found
    }

    #[test]
    fn every_state_verdict_reason_cause_and_owner_has_a_text() {
        for state in TcpState::ALL {
            assert!(has(Kind::State, state.name()), "{state}");
        }
        for reason in EndReason::ALL {
            assert!(has(Kind::EndReason, reason.name()), "{reason:?}");
        }
        for word in Initiator::ALL.map(Initiator::name).into_iter().chain(How::ALL.map(How::name)) {
            assert!(has(Kind::Verdict, word), "{word}");
        }
        for cause in Cause::ALL {
            assert!(has(Kind::Stuck, cause.name()), "{cause:?}");
        }
        for because in UnknownBecause::ALL {
            assert!(has(Kind::Because, because.name()), "{because:?}");
        }
        for (rule, _) in tcptrace_doctor::rules::ALL {
            assert!(has(Kind::Rule, rule), "{rule}");
        }
        for from in [OwnerFrom::Connect, OwnerFrom::Listener, OwnerFrom::Close, OwnerFrom::Snapshot]
        {
            assert!(has(Kind::Owner, from.name()), "{from:?}");
        }
    }

    #[test]
    fn every_column_has_a_text() {
        let columns =
            Columns { wide: true, owner: true, time: true, timestamp: true, color: false };
        let headers = [header(Format::Csv), header(Format::Table(columns))];
        let narrow = conns::Columns::default();
        let wide = conns::Columns { wide: true, time: true, timestamp: true };
        let formats =
            [conns::Format::Csv, conns::Format::Table(narrow), conns::Format::Table(wide)];
        let headers: Vec<String> = headers.into_iter().chain(formats.map(conns_header)).collect();
        assert!(headers.iter().all(|header| header.split([',', ' ']).count() > 8), "{headers:?}");
        for column in headers.iter().flat_map(|header| header.split([',', ' ', '\n'])) {
            let known = has(Kind::Column, column) || has(Kind::State, column);
            assert!(column.is_empty() || known, "{column}");
        }
    }

    #[test]
    fn every_column_of_ports_has_a_text() {
        let shown = Shown {
            every: std::time::Duration::from_secs(1),
            count: None,
            top: 1,
            filter: Filter::default(),
            header: true,
            which: Which::All,
        };
        let mut out = BytesMut::new();
        PortsView::new(ports::Format::Csv, shown).begin(&mut out);
        let header = String::from_utf8(out.to_vec()).unwrap();
        assert!(header.split(',').count() > 10, "{header}");
        let table = ["LIVE", "TW", "FREE", "NEW/s", "BACK/s", "FAIL", "RUNS-OUT"];
        for column in header.trim_end().split(',').chain(table) {
            assert!(find(column).is_ok(), "{column}");
        }
    }

    #[test]
    fn every_spelling_leads_there() {
        for word in ["TIME_WAIT", "time-wait", "timewait", "Time-Wait"] {
            assert_eq!(find(word).unwrap()[0].name(), "TIME_WAIT", "{word}");
        }
        for (word, name) in [
            ("estab", "ESTABLISHED"),
            ("fin-wait-2", "FIN_WAIT2"),
            ("listening", "LISTEN"),
            ("unconn", "CLOSE"),
            ("bucket", "all"),
            ("Reused-By-Connect", "reused-by-connect"),
            ("≥", "≥"),
            (">=", "≥"),
            ("lport", "LADDR:LPORT"),
            ("-", "-"),
        ] {
            assert_eq!(find(word).unwrap()[0].name(), name, "{word}");
        }
        let kinds: Vec<Kind> = find("close").unwrap().iter().map(|entry| entry.kind).collect();
        assert_eq!(kinds, [Kind::State, Kind::Owner]);
    }

    #[test]
    fn an_unknown_word_gets_those_most_like_it() {
        let closest = |word: &str| find(word).unwrap_err().closest;
        assert_eq!(closest("TIMEWEIT")[0], "TIME_WAIT");
        assert_eq!(closest("reused")[..2], ["reused-by-syn", "reused-by-connect"]);
        assert_eq!(closest("expierd"), ["expired"]);
        assert_eq!(closest("xyzzy"), [""; 0]);
        assert_eq!(closest(""), [""; 0]);
        let error = find("\x1b[31mred").unwrap_err().to_string();
        assert!(error.starts_with("unknown word '\\u{1b}[31mred'"), "{error}");
    }

    #[test]
    fn no_line_is_wider_than_a_terminal() {
        let all: Vec<Entry> = entries().collect();
        for line in print(&all).lines().chain(list().lines()) {
            assert!(line.chars().count() <= 80, "{line}");
            assert_eq!(line, line.trim_end());
        }
        assert!(Kind::ALL.iter().all(|kind| list().contains(kind.heading())));
    }

    #[test]
    fn a_name_leads_to_one_text_of_its_kind() {
        let mut names = HashSet::new();
        for entry in entries() {
            assert!(!entry.text.is_empty(), "{}", entry.name());
            for word in entry.words() {
                // `time` and `TIME` share a text; no two texts share a word.
                let other = entries().any(|other| {
                    other.kind == entry.kind
                        && other.name() != entry.name()
                        && other.words().any(|it| plain(it) == plain(word))
                });
                assert!(!other, "{word}");
            }
            assert!(names.insert((entry.kind.name(), entry.name())), "{}", entry.name());
        }
    }

    #[test]
    fn what_a_text_refers_to_is_there() {
        let mut references = 0;
        for entry in entries() {
            for (i, line) in entry.text.lines().enumerate() {
                let Some(words) = line.strip_prefix("See also: ") else { continue };
                assert_eq!(i + 1, entry.text.lines().count(), "{}: not the last", entry.name());
                for word in words.split(", ") {
                    let found = find(word).unwrap();
                    assert!(found.iter().any(|e| e.words().any(|it| it == word)), "{word}");
                    assert!(found.iter().any(|e| *e != entry), "{word} refers to itself");
                    references += 1;
                }
            }
        }
        assert!(references > 30);
    }

    #[test]
    fn no_text_names_an_option_that_there_is_not() {
        let command = crate::cli::args::command();
        let known = |option: &str| {
            command.get_subcommands().chain([&command]).flat_map(|c| c.get_arguments()).any(|arg| {
                arg.get_long().is_some_and(|long| option == format!("--{long}"))
                    || arg.get_short().is_some_and(|short| option == format!("-{short}"))
            })
        };
        let ours = mentions(|token| token.starts_with("--") && token.len() > 2);
        assert!(ours.len() >= 3, "{ours:?}");
        for (entry, option) in ours {
            assert!(known(option), "{entry}: {option}");
        }
    }

    #[test]
    fn no_text_names_a_state_or_reason_that_there_is_not() {
        let states = mentions(|token| {
            ["_WAIT", "_WAIT1", "_WAIT2", "_ACK", "_RECV", "_SENT"]
                .iter()
                .any(|end| token.ends_with(end))
        });
        assert!(states.len() > 30, "{states:?}");
        for (entry, state) in states {
            assert!(TcpState::ALL.iter().any(|it| it.name() == state), "{entry}: {state}");
        }
        let reasons = mentions(|token| {
            ["reused-", "rst-", "netns-", "never-"].iter().any(|begin| token.starts_with(begin))
        });
        assert!(reasons.len() > 5, "{reasons:?}");
        for (entry, reason) in reasons {
            let ends = EndReason::ALL.iter().any(|it| it.name() == reason);
            assert!(ends || How::from_name(reason).is_some(), "{entry}: {reason}");
        }
    }
}
