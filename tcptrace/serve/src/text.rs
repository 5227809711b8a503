//! OpenMetrics text as Prometheus text 0.0.4, which differs in little: a counter is described
//! under the name of its samples, there is no unit, and no end.

use std::fmt::Write as _;

/// Two ways to write the same metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exposition {
    OpenMetrics,
    Text,
}

impl Exposition {
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// What a client wants that sent this `Accept`: text, unless it asks for OpenMetrics at least
    /// as much.
    pub(super) fn wanted(accept: &str) -> Self {
        let mut best = (Self::Text, 0.0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = match parts.next().unwrap_or_default() {
                "application/openmetrics-text" => Self::OpenMetrics,
                "text/plain" | "text/*" | "*/*" => Self::Text,
                _ => continue,
            };
            let quality = parts.find_map(|part| part.strip_prefix("q=")).unwrap_or("1");
            let quality: f64 = quality.parse().unwrap_or(0.0);
            let better = quality > best.1 || (quality == best.1 && kind == Self::OpenMetrics);
            if better && quality > 0.0 {
                best = (kind, quality);
            }
        }
        best.0
    }
}

/// `openmetrics`, as prometheus-client writes it, in the older format.
pub(super) fn prometheus(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut help: Option<&str> = None;
    for line in openmetrics.lines() {
        // The help comes first, the type, by which the name is known, second.
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map(|(_, help)| help);
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let suffix = if kind == "counter" { "_total" } else { "" };
            // Writing to memory does not fail.
            if let Some(help) = help.take() {
                let _ = writeln!(text, "# HELP {name}{suffix} {help}");
            }
            let _ = writeln!(text, "# TYPE {name}{suffix} {kind}");
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_described_by_the_name_of_its_samples() {
        let openmetrics = "# HELP a_things Some help.\n# TYPE a_things counter\n\
                           a_things_total{x=\"# y\"} 1\n\
                           # HELP b Help.\n# TYPE b gauge\n# UNIT b seconds\nb 2\n# EOF\n";
        let expected = "# HELP a_things_total Some help.\n# TYPE a_things_total counter\n\
                        a_things_total{x=\"# y\"} 1\n# HELP b Help.\n# TYPE b gauge\nb 2\n";
        assert_eq!(prometheus(openmetrics), expected);
    }

    #[test]
    fn the_format_is_what_the_client_wants_most() {
        use Exposition::*;
        for (accept, wanted) in [
            ("", Text),
            ("*/*", Text),
            ("text/html", Text),
            ("application/openmetrics-text", OpenMetrics),
            // Prometheus 2.42
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;\
                 version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                OpenMetrics,
            ),
            ("application/openmetrics-text;q=0.5, text/plain;q=0.9", Text),
            ("application/openmetrics-text;q=0", Text),
            ("application/openmetrics-text;q=much", Text),
        ] {
            assert_eq!(Exposition::wanted(accept), wanted, "{accept}");
        }
    }
}
