//! The ranking for people: a line of numbers for each group, and how its connections ended below,
//! in 80 columns.

use std::fmt::Write as _;

use bytes::{BufMut as _, BytesMut};

use super::ranking::{Ranking, neither_end, ratio, seconds};
use tcptrace_model::Initiator;
use tcptrace_stats::{
    closers::{Fate, Tally},
    group::{By, Key},
    named::Group,
};

/// Characters of a line.
const WIDTH: usize = 80;

/// Characters of the name of a group in its line.
const LABEL: usize = 25;

/// What is before each further line about a group.
const INDENT: &str = "  ";

/// Says what the columns are.
pub(super) fn begin(out: &mut BytesMut) {
    out.put_slice(
        b"... closed first: LOCAL this end, REMOTE the peer, ELSE both, none or unknown\n\
          ... TW NOW: TIME_WAITs alive; TW SEC: their time in the interval, all added up\n\
          ... PROCESS: whose FIN or RST left first from here; where none did, the owner\n",
    );
}

/// Writes a ranking, with its head if it is to have one.
pub(super) fn print(
    ranking: &Ranking,
    by: Option<By>,
    time: &str,
    header: bool,
    out: &mut BytesMut,
) {
    let mut text = String::new();
    let (closed, failed) = (ranking.all.closed(), ranking.all.failed());
    // Writing to memory does not fail.
    let _ = writeln!(
        text,
        "{time}  {:.1} s: {closed} closed, {failed} failed to connect",
        ranking.seconds()
    );
    if header {
        let by = by.map_or("PROCESS :PORT".to_owned(), |by| by.name().to_uppercase());
        let _ = writeln!(
            text,
            "{by:LABEL$}{:>8}{:>8}{:>6}{:>6}{:>7}{:>5}{:>7}{:>8}",
            "CLOSED", "/S", "SHARE", "LOCAL", "REMOTE", "ELSE", "TW NOW", "TW SEC"
        );
    }
    for (named, tally) in &ranking.groups {
        group(ranking, &label(named, LABEL - 1), tally, &mut text);
    }
    if let Some((count, tally)) = &ranking.others {
        group(ranking, &format!("({count} others)"), tally, &mut text);
    }
    out.put_slice(text.as_bytes());
}

fn group(ranking: &Ranking, label: &str, tally: &Tally, text: &mut String) {
    let closed = tally.closed();
    let percent = |count: u64| percent(ratio(count as f64, closed as f64));
    let columns = [
        (whole(closed, 8), 8),
        (tenths(ranking.per_second(closed), 8), 8),
        (self::percent(ranking.share(tally)), 6),
        (percent(tally.by(Some(Initiator::Local))), 6),
        (percent(tally.by(Some(Initiator::Remote))), 7),
        (percent(neither_end(tally)), 5),
        (whole(tally.alive(), 7), 7),
        (time_wait(tally, 8), 8),
    ];
    // Writing to memory does not fail.
    let _ = write!(text, "{label:LABEL$}");
    for (number, width) in columns {
        let _ = write!(text, "{number:>width$}");
    }
    text.push('\n');
    ends(tally, text);
}

/// How the connections of a group ended, a line for each who closed first.
pub fn ends(tally: &Tally, text: &mut String) {
    let initiators = Initiator::ALL.into_iter().map(Some).chain([None]);
    for initiator in initiators {
        let endings = tally.endings().filter(|(ending, _)| ending.initiator == initiator);
        let words = endings.map(|(ending, count)| {
            let then = match ending.fate {
                Fate::TimeWait => " to TIME_WAIT",
                Fate::NeverCreated => " (TIME_WAIT never-created)",
                Fate::Over => "",
            };
            format!("{count} {}{then}", ending.how.name())
        });
        let name = initiator.map_or("unknown", Initiator::name);
        wrapped(name, tally.by(initiator), words, text);
    }
    let words = tally.failures().map(|(how, count)| format!("{count} {}", how.name()));
    wrapped("failed to connect", tally.failed(), words, text);
}

/// Seconds of TIME_WAIT, in less than `width` characters.
fn time_wait(tally: &Tally, width: usize) -> String {
    let seconds = seconds(tally.time_wait_ns());
    if tally.at_least() {
        format!("≥{}", tenths(seconds, width - 1))
    } else {
        tenths(seconds, width)
    }
}

/// `  NAME COUNT: WORDS, WORDS` in as many lines as it takes; nothing of nothing.
fn wrapped(name: &str, count: u64, words: impl Iterator<Item = String>, text: &mut String) {
    if count == 0 {
        return;
    }
    let mut line = format!("{INDENT}{name} {count}:");
    let mut words = words.peekable();
    while let Some(word) = words.next() {
        let comma = if words.peek().is_some() { "," } else { "" };
        if line.chars().count() + 1 + word.chars().count() + comma.len() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            line = format!("{INDENT}{INDENT}");
        } else {
            line.push(' ');
        }
        line.push_str(&word);
        line.push_str(comma);
    }
    text.push_str(&line);
    text.push('\n');
}

/// The name of a group in at most `width` characters; the port of a service is never cut off.
pub fn label(group: &Group, width: usize) -> String {
    let (name, port) = match group.key() {
        Key::Service(name, port) => (
            name.map_or_else(|| "-".to_owned(), |name| name.to_string()),
            port.map_or_else(|| " :-".to_owned(), |port| format!(" {port}")),
        ),
        _ => (group.to_string(), String::new()),
    };
    let room = width.saturating_sub(port.chars().count());
    if name.chars().count() <= room {
        return name + &port;
    }
    let cut = name.chars().take(room.saturating_sub(1)).chain(['…']);
    cut.chain(port.chars()).collect()
}

/// A share; a dot is none, and 100% are all.
pub fn percent(share: f64) -> String {
    match share * 100.0 {
        none if none <= 0.0 => ".".to_owned(),
        little if little < 1.0 => "<1%".to_owned(),
        most if most > 99.0 && most < 100.0 => ">99%".to_owned(),
        percent => format!("{percent:.0}%"),
    }
}

/// A count in less than `width` characters; a dot is none.
pub fn whole(count: u64, width: usize) -> String {
    let text = count.to_string();
    if count > 0 && text.len() < width { text } else { tenths(count as f64, width) }
}

/// A number in less than `width` characters, with one decimal; a dot is none.
pub fn tenths(number: f64, width: usize) -> String {
    if number <= 0.0 {
        return ".".to_owned();
    }
    let units = [(1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "G"), (1e12, "T")];
    let texts = units.map(|(divisor, unit)| format!("{:.1}{unit}", number / divisor));
    texts.into_iter().find(|text| text.len() < width).unwrap_or_else(|| format!("{number:.0e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_apart_and_shares_are_never_rounded_to_nothing_or_all() {
        assert_eq!((whole(0, 7), tenths(0.0, 7)), (".".to_owned(), ".".to_owned()));
        assert_eq!((whole(17, 7), tenths(17.0, 7)), ("17".to_owned(), "17.0".to_owned()));
        assert_eq!(whole(999_999, 7), "999999");
        assert_eq!(whole(1_234_567, 7), "1.2M");
        assert_eq!(tenths(123_456.78, 8), "123.5k");
        assert_eq!(tenths(1e30, 7), "1e30");
        assert_eq!(percent(0.0), ".");
        assert_eq!(percent(0.00999), "<1%");
        assert_eq!(percent(0.99001), ">99%");
        assert_eq!(percent(1.0), "100%");
    }
}
