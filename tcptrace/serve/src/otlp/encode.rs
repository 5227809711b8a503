//! Families as an OTLP request.
//!
//! Names are those of OpenMetrics' families, as the specification has it for what comes from there:
//! a counter has no `_total`, and the unit, which is also given as such, stays the last part of the
//! name. What makes Prometheus' names of OTLP's adds the one and does not repeat the other, so that
//! the names behind a collector are those of `/metrics`.

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    metrics::v1::{
        AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
        ResourceMetrics, ScopeMetrics, Sum, metric::Data, number_data_point,
    },
    resource::v1::Resource,
};
use prost::Message as _;

use super::super::families::{Family, Kind, Moment, Pair, Value};
use tcptrace_host::{kernel, own::OwnUse};
use tcptrace_stats::buckets::Buckets;

const NAME: &str = "tcptrace";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Units by the last part of a name, as UCUM writes them.
const UNITS: [(&str, &str); 3] = [("_seconds", "s"), ("_bytes", "By"), ("_ratio", "1")];

/// Whose metrics they are, which does not change while it runs.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    /// Name of the host.
    host: String,
    /// When counting began: nanoseconds since 1970.
    start_ns: u64,
}

impl Origin {
    /// This process. Read once: were the clock set later, another start would mean another run.
    pub(super) fn read() -> Self {
        let host = kernel::host_name().unwrap_or_default();
        Self { host, start_ns: (OwnUse::read().started_s * 1e9) as u64 }
    }
}

/// Metrics of `moment`, which was at `time_ns` since 1970, as the body of a request.
pub(super) fn request(moment: &Moment, origin: &Origin, time_ns: u64) -> Vec<u8> {
    let at = At { start_ns: origin.start_ns, time_ns: time_ns.max(origin.start_ns) };
    // A metric of nothing is none.
    let families = moment.families().into_iter().filter(|family| !family.samples.is_empty());
    let metrics = families.map(|family| at.metric(family)).collect();
    let scope = InstrumentationScope {
        name: NAME.to_owned(),
        version: VERSION.to_owned(),
        ..InstrumentationScope::default()
    };
    // Of one host there is one.
    let attributes = attributes(&[
        ("service.name", NAME),
        ("service.version", VERSION),
        ("service.instance.id", &origin.host),
        ("host.name", &origin.host),
    ]);
    let resource_metrics = vec![ResourceMetrics {
        resource: Some(Resource { attributes, ..Resource::default() }),
        scope_metrics: vec![ScopeMetrics {
            scope: Some(scope),
            metrics,
            ..ScopeMetrics::default()
        }],
        ..ResourceMetrics::default()
    }];
    ExportMetricsServiceRequest { resource_metrics }.encode_to_vec()
}

fn attributes(pairs: &[Pair<'_>]) -> Vec<KeyValue> {
    let text = |text: &str| AnyValue { value: Some(any_value::Value::StringValue(text.into())) };
    let pair = |(key, value): &Pair<'_>| KeyValue {
        key: (*key).to_owned(),
        value: Some(text(value)),
        ..KeyValue::default()
    };
    pairs.iter().map(pair).collect()
}

fn unit(name: &str) -> &'static str {
    UNITS.iter().find(|(suffix, _)| name.ends_with(suffix)).map_or("", |(_, unit)| unit)
}

/// When counting began, and when it was read.
#[derive(Clone, Copy)]
struct At {
    start_ns: u64,
    time_ns: u64,
}

impl At {
    fn metric(self, Family { name, help, kind, samples }: Family<'_>) -> Metric {
        let temporality = AggregationTemporality::Cumulative.into();
        let data = match kind {
            Kind::Gauge => {
                // What is now has not begun at any time.
                let at = Self { start_ns: 0, ..self };
                Data::Gauge(Gauge { data_points: at.numbers(&samples) })
            }
            Kind::Counter => Data::Sum(Sum {
                data_points: self.numbers(&samples),
                aggregation_temporality: temporality,
                is_monotonic: true,
            }),
            Kind::Histogram => Data::Histogram(Histogram {
                data_points: self.histograms(&samples),
                aggregation_temporality: temporality,
            }),
        };
        Metric {
            name: name.to_owned(),
            description: help.to_owned(),
            unit: unit(name).to_owned(),
            data: Some(data),
            ..Metric::default()
        }
    }

    fn numbers(self, samples: &[(Vec<Pair<'_>>, Value<'_>)]) -> Vec<NumberDataPoint> {
        let point = |(labels, value): &(Vec<Pair<'_>>, Value<'_>)| {
            let value = match value {
                Value::Whole(count) => {
                    number_data_point::Value::AsInt(i64::try_from(*count).unwrap_or(i64::MAX))
                }
                Value::Real(value) => number_data_point::Value::AsDouble(*value),
                Value::Buckets(_) => return None,
            };
            Some(NumberDataPoint {
                attributes: attributes(labels),
                start_time_unix_nano: self.start_ns,
                time_unix_nano: self.time_ns,
                value: Some(value),
                ..NumberDataPoint::default()
            })
        };
        samples.iter().filter_map(point).collect()
    }

    fn histograms(self, samples: &[(Vec<Pair<'_>>, Value<'_>)]) -> Vec<HistogramDataPoint> {
        let point = |(labels, value): &(Vec<Pair<'_>>, Value<'_>)| match value {
            Value::Buckets(buckets) => Some(self.histogram(labels, buckets)),
            Value::Whole(_) | Value::Real(_) => None,
        };
        samples.iter().filter_map(point).collect()
    }

    fn histogram(self, labels: &[Pair<'_>], buckets: &Buckets) -> HistogramDataPoint {
        let (edges, bucket_counts): (Vec<f64>, Vec<u64>) = buckets.seconds().unzip();
        HistogramDataPoint {
            attributes: attributes(labels),
            start_time_unix_nano: self.start_ns,
            time_unix_nano: self.time_ns,
            count: buckets.count(),
            sum: Some(buckets.sum_s()),
            bucket_counts,
            // The last bucket has no edge above it.
            explicit_bounds: edges.into_iter().filter(|edge| edge.is_finite()).collect(),
            ..HistogramDataPoint::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{figures, moment};

    fn decoded(script: &str, time_ns: u64) -> Vec<Metric> {
        let moment = moment(figures(script));
        let origin = Origin { host: "web1".to_owned(), start_ns: 1000 };
        let bytes = request(&moment, &origin, time_ns);
        let request = ExportMetricsServiceRequest::decode(bytes.as_slice()).unwrap();
        request.resource_metrics[0].scope_metrics[0].metrics.clone()
    }

    fn data(metrics: &[Metric], name: &str) -> Data {
        metrics.iter().find(|metric| metric.name == name).unwrap().data.clone().unwrap()
    }

    const SCRIPT: &str = "0ms begin\n\
        1ms sk=1 CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443\n\
        2ms sk=1 SYN_SENT>ESTABLISHED 10.0.0.1:7 10.0.0.2:443\n\
        9ms sk=1 ESTABLISHED>CLOSE 10.0.0.1:7 10.0.0.2:443\n1001ms tick\n";

    #[test]
    fn a_counter_is_a_monotonic_sum_from_the_start() {
        let Data::Sum(sum) = data(&decoded(SCRIPT, 5000), "tcptrace_transitions") else { panic!() };
        assert!(sum.is_monotonic);
        assert_eq!(sum.aggregation_temporality(), AggregationTemporality::Cumulative);
        let total = sum.data_points.iter().map(|point| match point.value {
            Some(number_data_point::Value::AsInt(count)) => count,
            _ => panic!("{point:?}"),
        });
        let total = total.sum::<i64>();
        assert_eq!(total, 3);
        let all = |want: fn(&NumberDataPoint) -> bool| sum.data_points.iter().all(want);
        assert!(all(|point| (point.start_time_unix_nano, point.time_unix_nano) == (1000, 5000)));
    }

    #[test]
    fn what_is_now_has_no_start_and_time_does_not_run_backwards() {
        let Data::Gauge(gauge) = data(&decoded(SCRIPT, 3), "tcptrace_connections") else {
            panic!()
        };
        let points = &gauge.data_points;
        assert!(points.iter().all(|point| point.start_time_unix_nano == 0));
        assert!(points.iter().all(|point| point.time_unix_nano == 1000), "before the start");
    }

    #[test]
    fn a_histogram_has_one_bucket_more_than_edges() {
        let metrics = decoded(SCRIPT, 5000);
        let name = "tcptrace_state_duration_seconds";
        let Data::Histogram(histogram) = data(&metrics, name) else { panic!() };
        let state = |point: &&HistogramDataPoint| {
            point.attributes == attributes(&[("state", "established")])
        };
        let point = histogram.data_points.iter().find(state).unwrap();
        assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
        assert_eq!((point.count, point.sum), (1, Some(0.007)));
        let at = point.explicit_bounds.iter().position(|edge| *edge == 0.01).unwrap();
        assert_eq!(point.bucket_counts[at], 1, "from 5 to 10 ms, not cumulative");
        assert_eq!(point.bucket_counts.iter().sum::<u64>(), 1);
        assert_eq!(metrics.iter().find(|metric| metric.name == name).unwrap().unit, "s");
    }
}
