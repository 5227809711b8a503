//! What is said of events that are missing, in every view the same.
//!
//! Must not hide one: what is lost, missed or in a gap of a recording is in the output itself, since
//! that is what is kept and passed on.

use std::fmt::Write as _;

use bytes::BytesMut;

use tcptrace_model::Input;

/// What people read of `input`, if it is a loss.
pub(crate) fn says(input: &Input) -> Option<String> {
    Some(match input {
        Input::Lost(lost) => format!("{} events lost", lost.count),
        Input::Missed { count, .. } if *count > 0 => {
            format!("{count} events missed: the kernel skips a program that is already running")
        }
        Input::Gap(gap) => {
            let seconds = gap.ns() as f64 / 1e9;
            format!("nothing is known for {seconds:.3} s: {}", gap.because.says())
        }
        _ => return None,
    })
}

/// A line for people, among others.
pub(crate) fn text(input: &Input, out: &mut BytesMut) {
    if let Some(says) = says(input) {
        // Writing to memory does not fail.
        let _ = writeln!(out, "... {says}");
    }
}

/// A line of JSON, among others.
pub(crate) fn json(input: &Input, out: &mut BytesMut) {
    // Writing to memory does not fail.
    let _ = match input {
        Input::Lost(lost) => writeln!(
            out,
            r#"{{"v":2,"type":"lost","hook":"{}","count":{},"mono_ns":"{}"}}"#,
            lost.hook.name(),
            lost.count,
            lost.mono_ns
        ),
        Input::Missed { count, mono_ns } if *count > 0 => {
            writeln!(out, r#"{{"v":2,"type":"missed","count":{count},"mono_ns":"{mono_ns}"}}"#)
        }
        Input::Gap(gap) => writeln!(
            out,
            r#"{{"v":2,"type":"gap","from_mono_ns":"{}","mono_ns":"{}","seconds":{:.3},"because":"{}"}}"#,
            gap.from_ns,
            gap.mono_ns,
            gap.ns() as f64 / 1e9,
            gap.because.name()
        ),
        _ => Ok(()),
    };
}

/// What a loss has in the columns `lost` and `gap_ms` of comma-separated values: how many events, if
/// they were counted, and how long nothing is known, if that is so.
pub(crate) fn fields(input: &Input) -> Option<(Option<u64>, Option<u64>)> {
    match input {
        Input::Lost(lost) => Some((Some(lost.count), None)),
        Input::Missed { count, .. } if *count > 0 => Some((Some(*count), None)),
        Input::Gap(gap) => Some((None, Some(gap.ns()))),
        _ => None,
    }
}
