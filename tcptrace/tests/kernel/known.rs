//! Starting a tracer with what is known of the running kernel, which is asked once for all tests.
//!
//! Reading the kernel's BTF and symbols is most of what a start takes: on an emulated CPU seconds,
//! and there are hundreds of starts. What commands do is tried by the tests of the program.

use std::sync::{Mutex, PoisonError};

use tcptrace::{
    probe::{AcceptChoice, Known, Options, Probe, ProbeError, RuledOut, TimeWaitChoice},
    source::live::Live,
};

/// By what of the options it depends on.
static KNOWN: Mutex<Vec<(TimeWaitChoice, AcceptChoice, Known)>> = Mutex::new(Vec::new());

/// [`Probe::start`], but faster.
///
/// # Errors
/// Nothing attaches.
pub fn probe(options: &Options) -> Result<Probe, ProbeError> {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let asked = |(time_wait, accept, _): &(TimeWaitChoice, AcceptChoice, Known)| {
        (*time_wait, *accept) == (options.time_wait, options.accept)
    };
    let at = known.iter().position(asked).unwrap_or_else(|| {
        known.push((options.time_wait, options.accept, Known::ask(options)));
        known.len() - 1
    });
    Probe::start_with(&mut known[at].2, options, &RuledOut::default())
}

/// [`Live::start`], but faster.
///
/// # Errors
/// Nothing attaches.
pub fn live(options: &Options) -> Result<Live, ProbeError> {
    Live::of(probe(options)?)
}
