//! Figures as metrics: the names, the help and the labels, in one place.
//!
//! No label is an address, a peer's port, a process or a cookie: their number is the network's to
//! choose. prometheus-client writes OpenMetrics, which ends the name of a counter in `_total`
//! itself.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text},
    metrics::{MetricType, exemplar::Exemplar},
    registry::Registry,
};
use tcptrace_common::counters::Hook;

use super::figures::{Attached, Figures, Label};
use crate::{
    host::own::OwnUse,
    model::{How, Initiator},
    stats::{buckets::Buckets, since_start::End},
};

/// All metrics of a moment, as OpenMetrics text.
pub(super) fn openmetrics(
    figures: Arc<Figures>,
    attached: Option<Attached>,
    own: OwnUse,
) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Moment { figures, attached, own }));
    let mut text = String::with_capacity(1 << 15);
    text::encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Moment {
    figures: Arc<Figures>,
    attached: Option<Attached>,
    own: OwnUse,
}

/// One label of a sample.
type Pair<'a> = (&'static str, &'a str);

/// The samples of one name.
struct Family<'a>(MetricEncoder<'a>);

impl Family<'_> {
    fn with(
        &mut self,
        labels: &[Pair<'_>],
        write: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        if labels.is_empty() {
            return write(&mut self.0);
        }
        write(&mut self.0.encode_family(&labels)?)
    }

    fn gauge(&mut self, labels: &[Pair<'_>], value: u64) -> fmt::Result {
        // What does not fit a gauge is more than a kernel can hold.
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.with(labels, |to| to.encode_gauge(&value))
    }

    fn real(&mut self, labels: &[Pair<'_>], value: f64) -> fmt::Result {
        self.with(labels, |to| to.encode_gauge(&value))
    }

    fn counter(&mut self, labels: &[Pair<'_>], value: u64) -> fmt::Result {
        self.with(labels, |to| to.encode_counter(&value, NO_EXEMPLAR))
    }

    fn real_counter(&mut self, labels: &[Pair<'_>], value: f64) -> fmt::Result {
        self.with(labels, |to| to.encode_counter(&value, NO_EXEMPLAR))
    }

    fn histogram(&mut self, labels: &[Pair<'_>], buckets: &Buckets) -> fmt::Result {
        let edges: Vec<_> = buckets.seconds().collect();
        self.with(labels, |to| {
            to.encode_histogram::<NoLabelSet>(buckets.sum_s(), buckets.count(), &edges, None)
        })
    }
}

const NO_EXEMPLAR: Option<&Exemplar<NoLabelSet, f64>> = None;

/// What writes families.
struct To<'a>(DescriptorEncoder<'a>);

impl To<'_> {
    fn family(
        &mut self,
        kind: MetricType,
        name: &'static str,
        help: &'static str,
    ) -> Result<Family<'_>, fmt::Error> {
        Ok(Family(self.0.encode_descriptor(name, help, None, kind)?))
    }

    fn gauge(&mut self, name: &'static str, help: &'static str) -> Result<Family<'_>, fmt::Error> {
        self.family(MetricType::Gauge, name, help)
    }

    /// `_total` comes by itself.
    fn counter(
        &mut self,
        name: &'static str,
        help: &'static str,
    ) -> Result<Family<'_>, fmt::Error> {
        self.family(MetricType::Counter, name, help)
    }
}

/// `pair` and the label by which groups are told apart, if there is one.
fn labelled<'a>(pairs: &[Pair<'a>], by: Option<&'static str>, label: &'a Label) -> Vec<Pair<'a>> {
    let more = by.zip(label.as_deref());
    pairs.iter().copied().chain(more).collect()
}

impl Collector for Moment {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let to = &mut To(encoder);
        self.connections(to)?;
        self.times(to)?;
        self.ends(to)?;
        self.trouble(to)?;
        self.truth(to)?;
        self.own(to)
    }
}

impl Moment {
    fn by(&self) -> Option<&'static str> {
        self.figures.label.map(|by| by.name())
    }

    fn connections(&self, to: &mut To<'_>) -> fmt::Result {
        let name = "tcptrace_connections";
        let mut family = to.gauge(name, "TCP connections in each state, as ss counts them")?;
        for (label, state, count) in &self.figures.connections {
            family.gauge(&labelled(&[("state", state.name())], self.by(), label), *count)?;
        }
        let name = "tcptrace_transitions";
        let help = "Transitions from one state to another, those into and out of TIME_WAIT too";
        let mut family = to.counter(name, help)?;
        for (old, new, count) in self.figures.since.transitions() {
            family.counter(&[("from", old.name()), ("to", new.name())], count)?;
        }
        Ok(())
    }

    fn times(&self, to: &mut To<'_>) -> fmt::Result {
        let since = &self.figures.since;
        let name = "tcptrace_state_duration_seconds";
        let help = "Time that connections were in a state when they left it, where it is known";
        let mut family = to.family(MetricType::Histogram, name, help)?;
        for (state, buckets) in since.durations() {
            family.histogram(&[("state", state.name())], buckets)?;
        }
        let name = "tcptrace_state_durations_left_out";
        let help = "Connections that left a state whose time in it is not known, \
                    as for those from before: they are in no bucket";
        let mut family = to.counter(name, help)?;
        for (state, buckets) in since.durations() {
            family.counter(&[("state", state.name())], buckets.left_out())?;
        }
        let name = "tcptrace_time_wait_lifetime_seconds";
        let help = "How long TIME_WAITs lived, by why they ended";
        let mut family = to.family(MetricType::Histogram, name, help)?;
        for (reason, buckets) in since.time_waits() {
            family.histogram(&[("end_reason", reason.name())], buckets)?;
        }
        Ok(())
    }

    fn ends(&self, to: &mut To<'_>) -> fmt::Result {
        let name = "tcptrace_closes";
        let help = "Connections that ended, by who closed first and how";
        let mut family = to.counter(name, help)?;
        for ((label, end), count) in &self.figures.ends {
            if let End::Closed(initiator, how) = end {
                let initiator = initiator.map_or("unknown", Initiator::name);
                let pairs = [("initiator", initiator), ("how", How::name(*how))];
                family.counter(&labelled(&pairs, self.by(), label), *count)?;
            }
        }
        let name = "tcptrace_connects_failed";
        let help = "Calls of connect() that came to no connection, by why";
        let mut family = to.counter(name, help)?;
        for ((label, end), count) in &self.figures.ends {
            if let End::Failed(how) = end {
                family.counter(&labelled(&[("how", how.name())], self.by(), label), *count)?;
            }
        }
        Ok(())
    }

    fn trouble(&self, to: &mut To<'_>) -> fmt::Result {
        if let Some(count) = self.figures.time_wait_overflow {
            let name = "tcptrace_time_wait_overflow";
            let help = "TIME_WAITs that the kernel did not make for want of room \
                        (tcp_max_tw_buckets), by its own counter";
            to.counter(name, help)?.counter(&[], count)?;
        }
        if let Some(stuck) = &self.figures.stuck {
            let name = "tcptrace_stuck_sockets";
            let help = "Connections that have been too long in a state that should pass";
            let mut family = to.gauge(name, help)?;
            for (state, count) in stuck {
                family.gauge(&[("state", state.name())], *count)?;
            }
        }
        if let Some(used) = self.figures.ports_used {
            let name = "tcptrace_ephemeral_ports_used_ratio";
            let help = "Part of the ephemeral ports that are taken, to the peer where most are";
            to.gauge(name, help)?.real(&[], used)?;
        }
        Ok(())
    }

    /// How far the others are to be believed.
    fn truth(&self, to: &mut To<'_>) -> fmt::Result {
        let help = "Events that a hook saw and that a full ring had no room for";
        let mut family = to.counter("tcptrace_events_lost", help)?;
        for (hook, lost) in Hook::ALL.into_iter().zip(self.figures.lost) {
            family.counter(&[("hook", hook.name())], lost)?;
        }
        if self.attached.as_ref().is_some_and(|attached| attached.missed_counted) {
            let help = "Events that no hook saw, since the kernel skips a program that is running";
            to.counter("tcptrace_events_missed", help)?.counter(&[], self.figures.missed)?;
        }
        let counts = self.figures.counts;
        let help = "Transitions that did not follow from what was known";
        to.counter("tcptrace_anomalies", help)?.counter(&[], counts.anomalies)?;
        let help = "Connections that were otherwise in the kernel's tables than events told";
        to.counter("tcptrace_drifted", help)?.counter(&[], counts.drifted)?;
        let help = "Connections forgotten to bound memory";
        to.counter("tcptrace_evicted", help)?.counter(&[], counts.evicted)?;
        let Some(attached) = &self.attached else { return Ok(()) };
        let help = "Whether a hook is attached, and by what way";
        let mut family = to.gauge("tcptrace_hook_attached", help)?;
        for of in &attached.hooks {
            let backend = of.backend.as_deref().unwrap_or("none");
            let pairs = [("hook", of.hook.name()), ("backend", backend)];
            family.gauge(&pairs, u64::from(of.backend.is_some()))?;
        }
        Ok(())
    }

    fn own(&self, to: &mut To<'_>) -> fmt::Result {
        let kernel = self.attached.as_ref().map_or("", |attached| &attached.header.kernel);
        let help = "What is running: always 1";
        let pairs = [("version", env!("CARGO_PKG_VERSION")), ("kernel", kernel)];
        to.gauge("tcptrace_build_info", help)?.gauge(&pairs, 1)?;
        let own = &self.own;
        let help = "CPU time that tcptrace itself has used, its programs in the kernel left out";
        to.counter("process_cpu_seconds", help)?.real_counter(&[], own.cpu_s)?;
        let help = "Memory of tcptrace itself";
        to.gauge("process_resident_memory_bytes", help)?.gauge(&[], own.resident_bytes)?;
        let help = "Files that tcptrace itself has open";
        to.gauge("process_open_fds", help)?.gauge(&[], own.open_fds)?;
        let help = "When tcptrace was started, seconds since 1970";
        to.gauge("process_start_time_seconds", help)?.real(&[], own.started_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{serve::tests::figures, stats::counts::COUNTED};

    #[test]
    fn every_state_is_there_and_zeros_too() {
        let text = openmetrics(figures("0ms begin\n1ms tick\n"), None, OwnUse::default()).unwrap();
        for state in COUNTED {
            let line = format!("tcptrace_connections{{state=\"{state}\"}} 0\n");
            assert!(text.contains(&line), "{line}{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
