//! What a guest wrote to its serial port, made into facts: libtest results, `@@vm` lines, how it
//! ended. Pure.
//!
//! The text is a mixture: firmware escapes, kernel messages that may fall into the middle of a
//! line, and a test binary's own output. Only the line with the nonce is trusted.

use std::{collections::BTreeMap, time::Duration};

/// How one test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    Failed,
    /// Marked as ignored, with the reason if it has one.
    Ignored(Option<String>),
    /// Passed, but the test itself said that this kernel lacks what it, or part of it, is about:
    /// `skipped: WHAT: REASON` on a line of its own, or `@@vm unavailable reason=…`.
    Unavailable(String),
    /// Started and never ended: the guest hung, panicked or died in it.
    Unfinished,
}

/// One libtest test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    pub name: String,
    pub outcome: Outcome,
    /// The guest's time, if libtest was asked to report it.
    pub time: Option<Duration>,
    /// The last lines between its start and its result; only of a test that did not go well.
    pub output: Vec<String>,
}

/// A line `@@vm KIND key=value …` that the binary printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fact {
    pub kind: String,
    pub values: BTreeMap<String, String>,
}

/// How the guest as a whole ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The command ended with this status, after this much of the guest's time.
    Exited { status: i32, uptime: Duration },
    /// The kernel panicked, with this message.
    Panicked(String),
    /// The output stops without the sentinel.
    Silent,
}

/// Everything found in one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transcript {
    pub end: End,
    pub tests: Vec<Test>,
    pub facts: Vec<Fact>,
    /// Kernel messages of a fault that did not kill the guest: WARNING, BUG, Oops.
    pub faults: Vec<String>,
    /// Set if libtest's own totals are not those of [`Self::tests`].
    pub mismatch: Option<String>,
}

/// One line without escape sequences and control characters.
pub fn clean(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            // CSI: parameters, then one final character. Others, as ESC c (reset), are two.
            '\x1b' => {
                if chars.next() == Some('[') {
                    while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {}
                }
            }
            '\t' => out.push(c),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

/// So much of what a failed test printed is kept; all of it is in the log.
const OUTPUT_LINES: usize = 30;

/// Reads the cleaned lines of one log.
pub fn read<'a>(lines: impl IntoIterator<Item = &'a str>, nonce: &str) -> Transcript {
    let mut reader = Reader::default();
    for line in lines {
        reader.line(line, nonce);
    }
    reader.finish()
}

/// A test that has started and not ended.
struct Running {
    name: String,
    /// What it said that this kernel lacks.
    unavailable: Vec<String>,
    output: Vec<String>,
}

impl Running {
    fn end(mut self, outcome: Outcome, time: Option<Duration>) -> Test {
        let outcome = match outcome {
            Outcome::Ok if !self.unavailable.is_empty() => {
                Outcome::Unavailable(self.unavailable.join("; "))
            }
            outcome => outcome,
        };
        let output = match outcome {
            Outcome::Failed | Outcome::Unfinished => {
                self.output.split_off(self.output.len().saturating_sub(OUTPUT_LINES))
            }
            Outcome::Ok | Outcome::Ignored(_) | Outcome::Unavailable(_) => Vec::new(),
        };
        Test { name: self.name, outcome, time, output }
    }
}

#[derive(Default)]
struct Reader {
    tests: Vec<Test>,
    facts: Vec<Fact>,
    faults: Vec<String>,
    running: Option<Running>,
    totals: Option<[usize; 3]>,
    in_dmesg: bool,
    panic: Option<String>,
    exit: Option<(i32, Duration)>,
}

impl Reader {
    fn line(&mut self, line: &str, nonce: &str) {
        if let Some((_, rest)) = line.split_once(&format!("@@vm-exit {nonce} ")) {
            let mut words = rest.split_whitespace();
            let status = words.next().and_then(|word| word.parse().ok());
            let uptime = words.next().and_then(|word| word.parse().ok()).and_then(seconds);
            self.exit = status.zip(uptime).or(self.exit);
        } else if let Some((_, message)) = line.split_once("Kernel panic - not syncing: ") {
            self.panic.get_or_insert_with(|| message.to_owned());
        } else if let Some((_, text)) = line.split_once("@@vm-dmesg ") {
            self.in_dmesg = text == "begin";
        } else if self.in_dmesg {
            self.kernel_message(line);
        } else {
            self.test_output(line);
        }
    }

    fn kernel_message(&mut self, line: &str) {
        const MARKS: &[&str] = &["BUG: ", "Oops: ", "WARNING: ", "general protection fault"];
        if MARKS.iter().any(|mark| line.contains(mark)) {
            self.faults.push(line.trim().to_owned());
        }
    }

    fn test_output(&mut self, line: &str) {
        // `test NAME ... RESULT`; with one thread and --nocapture, whatever the test prints comes
        // between the two, so the result may be on a later line.
        let mut rest = line;
        if let Some((name, after)) = line.strip_prefix("test ").and_then(|l| l.split_once(" ...")) {
            // `test result: ok. …` has no dots like these; `- should panic` belongs to the name.
            let name = name.strip_suffix(" - should panic").unwrap_or(name);
            self.abandon();
            let (name, output) = (name.to_owned(), Vec::new());
            self.running = Some(Running { name, unavailable: Vec::new(), output });
            rest = after.strip_prefix(' ').unwrap_or(after);
        }
        if let Some(fact) = rest.find("@@vm ").and_then(|at| parse_fact(&rest[at + 5..])) {
            if fact.kind == "unavailable"
                && let Some(running) = &mut self.running
            {
                running.unavailable.push(fact.values.get("reason").cloned().unwrap_or_default());
            } else {
                self.facts.push(fact);
            }
            return;
        }
        match (parse_result(rest), self.running.take()) {
            (Some((outcome, time)), Some(running)) => self.tests.push(running.end(outcome, time)),
            (None, Some(mut running)) => {
                if let Some(reason) = rest.strip_prefix("skipped: ") {
                    running.unavailable.push(reason.to_owned());
                }
                // What follows a panic is the kernel's.
                if !rest.is_empty() && self.panic.is_none() {
                    running.output.push(rest.to_owned());
                }
                self.running = Some(running);
            }
            (_, None) => {}
        }
        if let Some(totals) = line.strip_prefix("test result: ").and_then(parse_totals) {
            self.totals = Some(totals);
        }
    }

    fn abandon(&mut self) {
        if let Some(running) = self.running.take() {
            self.tests.push(running.end(Outcome::Unfinished, None));
        }
    }

    fn finish(mut self) -> Transcript {
        self.abandon();
        let end = match (self.exit, self.panic) {
            (_, Some(message)) => End::Panicked(message),
            (Some((status, uptime)), None) => End::Exited { status, uptime },
            (None, None) => End::Silent,
        };
        let mut counted = [0; 3];
        for test in &self.tests {
            match test.outcome {
                Outcome::Ok | Outcome::Unavailable(_) => counted[0] += 1,
                Outcome::Failed => counted[1] += 1,
                Outcome::Ignored(_) => counted[2] += 1,
                Outcome::Unfinished => {}
            }
        }
        let mismatch = self.totals.filter(|totals| *totals != counted).map(|totals| {
            format!(
                "libtest counts {} passed, {} failed, {} ignored; the log shows {}, {}, {}",
                totals[0], totals[1], totals[2], counted[0], counted[1], counted[2]
            )
        });
        Transcript { end, tests: self.tests, facts: self.facts, faults: self.faults, mismatch }
    }
}

/// `ok`, `FAILED`, `ignored`, `ignored, why`, each perhaps followed by ` <1.234s>`.
fn parse_result(text: &str) -> Option<(Outcome, Option<Duration>)> {
    let text = text.trim();
    let (word, time) = match text.strip_suffix("s>").and_then(|text| text.rsplit_once(" <")) {
        Some((word, time)) => (word, time.parse().ok().and_then(seconds)),
        None => (text, None),
    };
    let outcome = match word {
        "ok" => Outcome::Ok,
        "FAILED" => Outcome::Failed,
        "ignored" => Outcome::Ignored(None),
        _ => Outcome::Ignored(Some(word.strip_prefix("ignored, ")?.to_owned())),
    };
    Some((outcome, time))
}

fn seconds(value: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(value).ok()
}

/// `ok. 3 passed; 1 failed; 0 ignored; …`
fn parse_totals(text: &str) -> Option<[usize; 3]> {
    let (_, counts) = text.split_once(". ")?;
    let of = |what: &str| {
        counts.split("; ").find_map(|part| part.strip_suffix(what)?.trim().parse().ok())
    };
    Some([of("passed")?, of("failed")?, of("ignored")?])
}

/// `KIND key=value key="a value"`; `None` without a kind.
fn parse_fact(text: &str) -> Option<Fact> {
    let (kind, mut rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    if kind.is_empty() || kind.contains('=') {
        return None;
    }
    let mut fact = Fact { kind: kind.to_owned(), values: BTreeMap::new() };
    while let Some((key, after)) = rest.trim_start().split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(' ').unwrap_or((after, "")),
        };
        fact.values.insert(key.to_owned(), value.to_owned());
        rest = after;
    }
    Some(fact)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(log: &str) -> Transcript {
        let lines: Vec<_> = log.split('\n').map(|line| clean(line.as_bytes())).collect();
        read(lines.iter().map(String::as_str), "n0nce")
    }

    fn outcomes(transcript: &Transcript) -> Vec<(&str, &Outcome)> {
        transcript.tests.iter().map(|test| (test.name.as_str(), &test.outcome)).collect()
    }

    #[test]
    fn a_log_with_escapes_and_carriage_returns_is_read() {
        let log = "\x1bc\x1b[?7l\x1b[2J\x1b[0mSeaBIOS\r\n\r\nrunning 4 tests\r\n\
            test live::fentry ... ok <1.250s>\r\n\
            test live::timer ... FAILED <0.001s>\r\n\
            test slow ... ignored, takes an hour\r\n\
            test must_not - should panic ... ok\r\n\r\n\
            test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out\r\n\r\n\
            @@vm-exit n0nce 101 62.03\r\n";
        let transcript = lines(log);
        assert_eq!(
            outcomes(&transcript),
            [
                ("live::fentry", &Outcome::Ok),
                ("live::timer", &Outcome::Failed),
                ("slow", &Outcome::Ignored(Some("takes an hour".into()))),
                ("must_not", &Outcome::Ok),
            ]
        );
        assert_eq!(transcript.tests[0].time, Some(Duration::from_millis(1250)));
        assert_eq!(transcript.tests[3].time, None);
        let uptime = Duration::from_millis(62_030);
        assert_eq!(transcript.end, End::Exited { status: 101, uptime });
        assert_eq!(transcript.mismatch, None);
    }

    #[test]
    fn a_test_that_prints_is_read_with_what_it_says() {
        let transcript = lines(
            "test insns ... @@vm insns program=set_state_btf count=123\n\
             noise\n[    1.2] a kernel message\nok <0.5s>\n\
             test hooks::fexit ... refused\n@@vm unavailable reason=\"fexit: EPERM\"\nok\n\
             test noise::sctp ... skipped: V4: no SCTP\nskipped: V6: no SCTP\nok <0.0s>\n\
             test hooks::broken ... @@vm unavailable reason=x\n\
             thread panicked\nassertion failed\nFAILED\n",
        );
        assert_eq!(
            outcomes(&transcript),
            [
                ("insns", &Outcome::Ok),
                ("hooks::fexit", &Outcome::Unavailable("fexit: EPERM".into())),
                ("noise::sctp", &Outcome::Unavailable("V4: no SCTP; V6: no SCTP".into())),
                ("hooks::broken", &Outcome::Failed),
            ]
        );
        let outputs: Vec<_> = transcript.tests.iter().map(|test| test.output.len()).collect();
        assert_eq!(outputs, [0, 0, 0, 2], "only the failed one's is kept");
        assert_eq!(transcript.tests[3].output[1], "assertion failed");
        assert_eq!(transcript.facts.len(), 1);
        assert_eq!(transcript.facts[0].kind, "insns");
        assert_eq!(transcript.facts[0].values["program"], "set_state_btf");
        assert_eq!(transcript.facts[0].values["count"], "123");
    }

    #[test]
    fn only_the_nonce_ends_a_run() {
        let transcript = lines("test a ... ok\n@@vm-exit other 0 1.0\ntest b ... \nwaiting");
        assert_eq!(transcript.end, End::Silent);
        assert_eq!(transcript.tests[1].outcome, Outcome::Unfinished);
    }

    #[test]
    fn a_panic_outweighs_the_sentinel() {
        let transcript = lines(
            "test a ... \n[ 1.0] Kernel panic - not syncing: Fatal exception\n[ 1.1] Rebooting\n\
             @@vm-exit n0nce 0 1.0\n",
        );
        assert_eq!(transcript.end, End::Panicked("Fatal exception".into()));
        assert_eq!(outcomes(&transcript), [("a", &Outcome::Unfinished)]);
    }

    #[test]
    fn faults_are_taken_from_the_kernels_own_log_only() {
        let transcript = lines(
            "I print WARNING: at you\n@@vm-dmesg begin\n[ 2.0] all is well\n\
             [ 3.0] WARNING: CPU: 0 PID: 1 at net/x.c:1\n@@vm-dmesg end\n@@vm-exit n0nce 0 3.5\n",
        );
        assert_eq!(transcript.faults, ["[ 3.0] WARNING: CPU: 0 PID: 1 at net/x.c:1"]);
    }

    #[test]
    fn totals_that_do_not_fit_are_said() {
        let transcript =
            lines("test a ... ok\ntest result: ok. 2 passed; 0 failed; 0 ignored; 0 measured\n");
        assert!(transcript.mismatch.unwrap().contains("2 passed"), "");
    }

    #[test]
    fn a_fact_is_a_kind_and_pairs() {
        let fact = parse_fact("note text=\"a b = c\" n=1").unwrap();
        assert_eq!((fact.kind.as_str(), fact.values.len()), ("note", 2));
        assert_eq!(fact.values["text"], "a b = c");
        assert_eq!(parse_fact("bare").unwrap().values.len(), 0);
        assert_eq!(parse_fact("x=y"), None);
        assert_eq!(parse_fact("  "), None);
    }
}
