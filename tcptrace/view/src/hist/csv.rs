//! Histograms as comma-separated values: the numbers of each group, without the buckets.

use std::fmt::Write as _;

use bytes::{BufMut as _, BytesMut};

use super::subject::{Stretch, Subject, groups};
use crate::{
    csv::quoted,
    number::{put_ms, put_u64},
};
use tcptrace_stats::{durations::Span, measure::Measure};
use tcptrace_track::Tracker;

/// The header. For `--steps`, `state` is the state left and `key` the one entered.
pub(super) const HEADER: &str = "from_s,to_s,state,key,count,mean_ms,p50_ms,p90_ms,p99_ms,max_ms,\
    at_least_count,at_least_max_ms,unknown\n";

/// Writes all that was measured in `stretch`.
pub(super) fn print(subject: &Subject, stretch: Stretch, tracker: &Tracker, out: &mut BytesMut) {
    match subject {
        Subject::Durations(durations) => {
            for span in Span::ALL {
                for (group, measure) in groups(durations, span, tracker) {
                    row(stretch, span.name(), &group.label().unwrap_or_default(), &measure, out);
                }
            }
        }
        Subject::Steps(steps) => {
            for (step, measure) in steps.taken() {
                row(stretch, step.from.name(), step.to.name(), measure, out);
            }
        }
    }
}

fn row(stretch: Stretch, state: &str, key: &str, measure: &Measure, out: &mut BytesMut) {
    let (from, to) = stretch.seconds();
    // Writing to memory does not fail.
    let _ = write!(out, "{from:.3},{to:.3},{state},{},{}", quoted(key), measure.count());
    let (at_least, at_least_max_ns) = measure.at_least();
    ms(out, measure.mean_ns());
    ms(out, measure.quantile_ns(0.5));
    ms(out, measure.quantile_ns(0.9));
    ms(out, measure.quantile_ns(0.99));
    ms(out, measure.max_ns());
    out.put_u8(b',');
    put_u64(out, at_least);
    ms(out, (at_least > 0).then_some(at_least_max_ns));
    out.put_u8(b',');
    put_u64(out, measure.unknown());
    out.put_u8(b'\n');
}

fn ms(out: &mut BytesMut, ns: Option<u64>) {
    out.put_u8(b',');
    if let Some(ns) = ns {
        put_ms(out, ns);
    }
}
