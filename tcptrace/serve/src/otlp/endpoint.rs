//! Where metrics are pushed to, as a URL.

use std::{fmt, str::FromStr};

use hyper::{Uri, http::uri::Scheme};

/// The path of metrics below that of a collector (OTLP, "OTLP/HTTP Request").
const METRICS: &str = "/v1/metrics";

/// Where OTLP is spoken over HTTP, unless the URL says otherwise.
const PORT: u16 = 4318;

/// Where it is spoken over gRPC, which this is not.
const GRPC: u16 = 4317;

/// A collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub(super) tls: bool,
    /// A name or an address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// What goes into `Host`.
    pub(super) authority: String,
    pub(super) path: String,
}

impl Endpoint {
    /// Whether it is reached by TLS.
    pub fn is_https(&self) -> bool {
        self.tls
    }

    /// What may be the matter, where something came back (`answered`) or nothing did.
    pub(super) fn hint(&self, answered: bool) -> &'static str {
        if self.port == GRPC && !answered {
            " (4317 is for gRPC as a rule: OTLP over HTTP is at 4318)"
        } else {
            ""
        }
    }
}

/// The base of all signals, as `OTEL_EXPORTER_OTLP_ENDPOINT` has it, or the whole URL of metrics.
impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |why: &str| format!("{why}: give a URL like http://127.0.0.1:{PORT}");
        let uri: Uri = text.parse().map_err(|error| bad(&format!("not a URL ({error})")))?;
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(_) => return Err(bad("neither http nor https")),
            None => return Err(bad("no http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(|| bad("no host"))?;
        if authority.as_str().contains('@') {
            let why = "a password here is there for all to see: --otlp-headers-file has a header \
                       Authorization";
            return Err(why.to_owned());
        }
        if uri.query().is_some() || text.contains('#') {
            return Err(bad("nothing is to follow the path"));
        }
        let host = authority.host();
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if bare.is_empty() {
            return Err(bad("no host"));
        }
        let port = match (authority.port(), tls) {
            (Some(port), _) if port.as_u16() == 0 => return Err(bad("port 0")),
            (Some(port), _) => port.as_u16(),
            // A colon with something else behind it, which is no number of a port.
            (None, _) if authority.as_str() != host => return Err(bad("no such port")),
            (None, true) => 443,
            (None, false) => 80,
        };
        let path = uri.path().trim_end_matches('/');
        let path = match path.strip_suffix(METRICS) {
            Some(_) => path.to_owned(),
            None => format!("{path}{METRICS}"),
        };
        let (host, authority) = (bare.to_owned(), authority.to_string());
        Ok(Self { tls, host, port, authority, path })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_metrics_is_below_what_is_given() {
        for (text, url, host, port) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/metrics", "127.0.0.1", 4318),
            ("http://[::1]:4318/", "http://[::1]:4318/v1/metrics", "::1", 4318),
            ("https://c.example", "https://c.example/v1/metrics", "c.example", 443),
            ("http://c.example", "http://c.example/v1/metrics", "c.example", 80),
            ("https://g.example/otlp", "https://g.example/otlp/v1/metrics", "g.example", 443),
            ("http://c:1/v1/metrics", "http://c:1/v1/metrics", "c", 1),
            ("http://p:9090/api/v1/otlp", "http://p:9090/api/v1/otlp/v1/metrics", "p", 9090),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), url);
            assert_eq!((endpoint.host.as_str(), endpoint.port), (host, port), "{text}");
            assert_eq!(endpoint.tls, text.starts_with("https"));
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        for text in [
            "",
            "127.0.0.1:4318",
            "localhost:4318",
            "grpc://c:4317",
            "http://",
            "http://:4318",
            "http://c:0",
            "http://c:99999",
            "http://c:x",
            "http://me:secret@c:4318",
            "http://c:4318/?x=y",
            "http://c:4318/#x",
            "http://c d:4318",
        ] {
            let refused = text.parse::<Endpoint>();
            assert!(refused.is_err(), "{text}: {refused:?}");
        }
    }
}
