//! `tcptrace top`.

mod listen;
mod play;
mod stream;

use std::{path::Path, process::ExitCode};

use anyhow::Result;
use clap::Parser as _;

use super::{
    args::{ColorChoice, FilterLine, SelectArgs, TopArgs},
    doctor, options,
    origin::{self, Origin},
    signals,
    target::Target,
    usage::{Usage, misuse},
};
use crate::terminal;
use tcptrace_doctor::collect::Setup;
use tcptrace_model::{How, filter::Filter};
use tcptrace_top::{Parse, Shown, Style, Top};

pub(super) fn run(args: &TopArgs) -> Result<ExitCode> {
    let wanted = options::wanted(&args.select)?;
    if args.probe.verbose {
        let misuse = "-v: its lines would go over the screen; give it to `tcptrace live`";
        return Err(Usage(misuse.to_owned()).into());
    }
    if !terminal::is_there() {
        return Err(Usage(no_terminal(args)).into());
    }
    let origin = Origin::new(&args.probe, &args.filter, &args.recording)?;
    let ascii = args.ascii || !is_unicode();
    let style = Style { color: Target::stdout().colored(ColorChoice::Auto), ascii };
    let is_recording = matches!(origin, Origin::Recording(_));
    let setup = if is_recording { Setup::recorded() } else { doctor::host_setup() };
    // The ends were seen to by the kernel side, or by who reads the recording.
    let shown = Shown::new(Filter::default(), wanted, selection_words(&args.select));
    let top = Top::new(setup, shown, parse(is_recording), style);
    signals::catching(async |signals| match origin {
        Origin::Host(host) => listen::run(*host, signals, top).await,
        Origin::Recording(recording) if recording.is_stream() => {
            stream::run(*recording, signals, top).await
        }
        Origin::Recording(recording) => {
            play::run(*recording, &args.recording.from, &args.filter, signals, top).await
        }
    })
}

/// Why there is no screen, and what to do instead.
fn no_terminal(args: &TopArgs) -> String {
    let is_stdin = args.recording.from.read.iter().any(|path| path == Path::new("-"));
    if is_stdin {
        // `record - | ssh HOST tcptrace top -r -`: HOST has no terminal, since ssh cannot carry one
        // beside a stream on stdin.
        return "top -r - needs a terminal on stdout, and one to read keys from (/dev/tty): run it \
                where the terminal is: ssh HOST tcptrace record - | tcptrace top -r -"
            .to_owned();
    }
    "top needs a terminal on stdout, and one to read keys from: for lines, `tcptrace states 1`"
        .to_owned()
}

/// Whether the locale's character set is UTF-8, as the first of these variables says that is set.
fn is_unicode() -> bool {
    let set = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .filter_map(std::env::var_os)
        .find(|value| !value.is_empty());
    // Without any, terminals of today.
    set.is_none_or(|value| {
        let name = value.to_string_lossy().to_ascii_lowercase();
        name.ends_with("utf-8") || name.ends_with("utf8") || name == "c" || name == "posix"
    })
}

/// The flags that select, as they would be typed in a filter line.
fn selection_words(select: &SelectArgs) -> String {
    let quoted = |text: &str| shlex::try_quote(text).map(|quoted| quoted.into_owned()).ok();
    let pids = select.pid.iter().map(|pid| format!("--pid {pid}"));
    let comms = select.comm.iter().filter_map(|comm| Some(format!("--comm {}", quoted(comm)?)));
    let uids = select.uid.iter().map(|uid| format!("--uid {uid}"));
    let cgroups =
        select.cgroup.iter().filter_map(|cgroup| Some(format!("--cgroup {}", quoted(cgroup)?)));
    let sides = select.closed_by.iter().map(|side| format!("--closed-by {}", side.name()));
    // A beginning of several stands for each of them.
    let is_asked = |how: &How| select.how.iter().any(|set| set.contains(*how));
    let hows = How::ALL
        .into_iter()
        .filter(is_asked)
        .map(|how| format!("--how {}", how.name().replace(": ", "-")));
    let words = pids.chain(comms).chain(uids).chain(cgroups).chain(sides).chain(hows);
    words.collect::<Vec<_>>().join(" ")
}

/// Reads a filter line: words as a shell has them, flags as the command has them.
fn parse(is_recording: bool) -> Parse {
    Box::new(move |text| {
        let words = shlex::split(text).ok_or("a quote is not closed")?;
        let line = FilterLine::try_parse_from(words)
            .map_err(|error| misuse(&error.render().to_string()))?;
        let read = || -> Result<Shown> {
            let filter = origin::filter_of(&line.filter, is_recording)?;
            Ok(Shown::new(filter, options::wanted(&line.select)?, text.to_owned()))
        };
        read().map_err(|error| format!("{error:#}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> FilterLine {
        FilterLine::try_parse_from(shlex::split(line).unwrap()).unwrap()
    }

    #[test]
    fn a_filter_line_is_read_as_the_flags_are() {
        let line = "-D 443 --comm 'my server' --how rst";
        let args = read(line);
        let filter = options::filter(&args.filter).unwrap();
        assert!(filter.rports.as_ref().is_some_and(|ports| ports.contains(443)));
        let wanted = options::wanted(&args.select).unwrap();
        assert_eq!(wanted.comms[0].as_bytes(), b"my server");
        assert_eq!(parse(false)(line), Ok(Shown::new(filter, wanted, line.to_owned())));
        assert_eq!(parse(false)(""), Ok(Shown::default()));
    }

    #[test]
    fn what_the_flags_select_can_be_typed() {
        let select = read("--pid 7 --comm 'my server' --uid 0 --closed-by local --how timeout,fin");
        let words = selection_words(&select.select);
        let again = options::wanted(&read(&words).select).unwrap();
        assert_eq!(again, options::wanted(&select.select).unwrap(), "{words}");
    }

    #[test]
    fn nonsense_is_an_error_of_one_line() {
        let parse = parse(true);
        for (line, says) in [
            ("-D http", "'http' is not a port"),
            ("-D", "a value is required for '--remoteport"),
            ("nginx", "unexpected argument 'nginx' found"),
            ("--comm 'x", "a quote is not closed"),
            ("-4 -6", "cannot be used with"),
            ("--how nothing", "unknown end 'nothing'"),
            ("-N web", "with -r a namespace is told by its inode number"),
            ("--help", "unexpected argument '--help'"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(says) && !error.contains('\n'), "{line}: {error}");
        }
    }
}
