//! Families as OpenMetrics text. prometheus-client writes it, which ends the name of a counter in
//! `_total` itself.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text},
    metrics::{MetricType, exemplar::Exemplar},
    registry::Registry,
};

use super::families::{Family, Kind, Moment, Value};

/// All metrics of a moment, as OpenMetrics text.
pub(super) fn openmetrics(moment: Moment) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(moment));
    let mut text = String::with_capacity(1 << 15);
    text::encode(&mut text, &registry)?;
    Ok(text)
}

impl Collector for Moment {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Family { name, help, kind, samples } in self.families() {
            let written = match kind {
                Kind::Gauge => MetricType::Gauge,
                Kind::Counter => MetricType::Counter,
                Kind::Histogram => MetricType::Histogram,
            };
            let mut family = encoder.encode_descriptor(name, help, None, written)?;
            for (labels, value) in samples {
                if labels.is_empty() {
                    encode(&mut family, kind, value)?;
                } else {
                    encode(&mut family.encode_family(&labels.as_slice())?, kind, value)?;
                }
            }
        }
        Ok(())
    }
}

const NO_EXEMPLAR: Option<&Exemplar<NoLabelSet, f64>> = None;

fn encode(to: &mut MetricEncoder<'_>, kind: Kind, value: Value<'_>) -> fmt::Result {
    match (value, kind) {
        (Value::Whole(count), Kind::Counter) => to.encode_counter(&count, NO_EXEMPLAR),
        (Value::Real(count), Kind::Counter) => to.encode_counter(&count, NO_EXEMPLAR),
        // What does not fit a gauge is more than a kernel can hold.
        (Value::Whole(now), _) => to.encode_gauge(&i64::try_from(now).unwrap_or(i64::MAX)),
        (Value::Real(now), _) => to.encode_gauge(&now),
        (Value::Buckets(buckets), _) => {
            let edges: Vec<_> = buckets.seconds().collect();
            to.encode_histogram::<NoLabelSet>(buckets.sum_s(), buckets.count(), &edges, None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{figures, moment};
    use tcptrace_stats::counts::COUNTED;

    #[test]
    fn every_state_is_there_and_zeros_too() {
        let figures = figures("0ms begin\n1ms tick\n");
        let text = openmetrics(moment(figures)).unwrap();
        for state in COUNTED {
            let line = format!("tcptrace_connections{{state=\"{}\"}} 0\n", state.label());
            assert!(text.contains(&line), "{line}{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
