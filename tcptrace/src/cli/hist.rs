//! `tcptrace hist`.

use std::process::ExitCode;

use anyhow::Result;

use super::{
    args::{HistArgs, OutputFormat},
    by, duration,
    listen::{self, Snapshots},
    origin::Origin,
    target::Target,
    usage::Usage,
};
use tcptrace_model::{StateSet, TcpState};
use tcptrace_stats::{
    durations::{DEFAULT_LIMIT, Durations, Span, Spans},
    steps::Steps,
};
use tcptrace_view::hist::{Format, HistView, Intervals, Subject};

pub(super) fn run(args: &HistArgs) -> Result<ExitCode> {
    let words = Words::parse(&args.words)?;
    let subject = match (args.steps, words.spans) {
        (true, Some(_)) => {
            return Err(Usage("--steps has its own states: leave them out".to_owned()).into());
        }
        (true, None) => Subject::Steps(Steps::default()),
        (false, spans) => {
            let spans = spans.unwrap_or_else(Spans::lingering);
            Subject::Durations(Durations::new(spans, args.by, DEFAULT_LIMIT))
        }
    };
    by::ended(args.by)?;
    let format = match args.output {
        OutputFormat::Table => Format::Table,
        OutputFormat::Json => Format::Json,
        OutputFormat::Csv => Format::Csv,
    };
    let origin = Origin::new(&args.probe, &args.filter, &args.recording)?;
    let target = Target::open(args.out.as_deref(), args.recording.force)?;
    let view = HistView::new(subject, format, words.intervals, !args.no_header);
    let snapshots = Snapshots { every: Snapshots::SELDOM, owners: by::needs_holders(args.by) };
    listen::run(origin, snapshots, target, args.duration, view, |_| {})
}

/// `[STATE…] [INTERVAL [COUNT]]`
#[derive(Debug, PartialEq)]
struct Words {
    /// `None` if no state was named.
    spans: Option<Spans>,
    intervals: Option<Intervals>,
}

impl Words {
    fn parse(words: &[String]) -> Result<Self, Usage> {
        let mut spans: Option<Spans> = None;
        let mut intervals: Option<Intervals> = None;
        for word in words {
            if !word.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+')) {
                let all = spans.get_or_insert(Spans { states: StateSet::EMPTY, life: false });
                *all = join(*all, word)?;
                continue;
            }
            match &mut intervals {
                None => {
                    let length = duration::parse(word)
                        .map_err(|error| Usage(format!("interval {}: {error}", shown(word))))?;
                    intervals = Some(Intervals { length, count: None });
                }
                Some(Intervals { count: count @ None, .. }) => {
                    *count = word.parse().ok().filter(|&count| count > 0);
                    if count.is_none() {
                        let text = format!("count {}: give a number of at least 1", shown(word));
                        return Err(Usage(text));
                    }
                }
                Some(_) => {
                    let text =
                        format!("{}: an interval and a count are there already", shown(word));
                    return Err(Usage(text));
                }
            }
        }
        Ok(Self { spans, intervals })
    }
}

/// `spans` and what `word` names.
fn join(spans: Spans, word: &str) -> Result<Spans, Usage> {
    if word == "life" {
        return Ok(Spans { life: true, ..spans });
    }
    let states: StateSet =
        word.parse().map_err(|error| Usage(format!("{error}; or life, the whole of it")))?;
    let timed = |state: &TcpState| Span::ALL.contains(&Span::In(*state));
    if !TcpState::ALL.iter().any(|state| states.contains(*state) && timed(state)) {
        let text = format!("the time in {} is not observable: no hook tells of it", shown(word));
        return Err(Usage(text));
    }
    Ok(Spans { states: spans.states.union(states), ..spans })
}

fn shown(word: &str) -> String {
    word.escape_default().to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn parse(words: &str) -> Result<Words, String> {
        let words: Vec<_> = words.split_whitespace().map(str::to_owned).collect();
        Words::parse(&words).map_err(|error| error.to_string())
    }

    #[test]
    fn numbers_are_the_interval_and_the_count() {
        let every = |ms, count| Some(Intervals { length: Duration::from_millis(ms), count });
        assert_eq!(parse(""), Ok(Words { spans: None, intervals: None }));
        assert_eq!(parse("2 3"), Ok(Words { spans: None, intervals: every(2000, Some(3)) }));
        assert_eq!(parse("500ms"), Ok(Words { spans: None, intervals: every(500, None) }));
        let words = parse("time-wait FIN_WAIT2 life .5 7").unwrap();
        assert_eq!(words.intervals, every(500, Some(7)));
        let spans = words.spans.unwrap();
        let named: Vec<_> =
            Span::ALL.into_iter().filter(|&span| spans.contains(span)).map(Span::name).collect();
        assert_eq!(named, ["FIN_WAIT2", "TIME_WAIT", "life"]);
    }

    #[test]
    fn misuse_says_what_would_be_right() {
        for (words, says) in [
            ("time-weight", "unknown state 'time-weight': ESTABLISHED, "),
            ("0", "interval 0: a duration must be more than 0"),
            ("-1", "interval -1: '-1' is not a duration: give seconds, or "),
            ("2 0", "count 0: give a number of at least 1"),
            ("2 1.5", "count 1.5: give a number of at least 1"),
            ("2 3 4", "4: an interval and a count are there already"),
            ("close", "the time in close is not observable"),
        ] {
            let error = parse(words).unwrap_err();
            assert!(error.starts_with(says), "{words}: {error}");
        }
        assert!(parse("time-weight").unwrap_err().ends_with("life, the whole of it"));
    }
}
