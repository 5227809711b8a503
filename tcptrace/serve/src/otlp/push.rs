//! One push: a connection, a request, an answer.
//!
//! Must not take time or memory without bounds: the caller limits the time, the size of an answer
//! is limited here.

use std::{io, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Request, Response, StatusCode, body::Incoming, client::conn::http1, header, http::HeaderValue,
};
use hyper_util::rt::TokioIo;
use jiff::{Timestamp, fmt::rfc2822};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message as _;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    pin, select,
};
use tokio_rustls::TlsConnector;

use super::{endpoint::Endpoint, headers::Headers};

/// Where to push, and how.
pub struct Push {
    /// Where.
    pub endpoint: Endpoint,
    /// How often.
    pub interval: Duration,
    /// What goes with each request.
    pub headers: Headers,
    /// The client's side of TLS, for an endpoint with https.
    pub tls: Option<TlsConnector>,
}

/// The most of an answer that is read: its headers, and what follows, bytes.
const ANSWER: usize = 64 << 10;

/// Characters of what a collector says that are passed on.
const SAID: usize = 200;

/// Why a push was not accepted.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    /// In words; may hold untrusted text.
    pub(super) why: String,
    /// There was an answer, and it said no.
    pub(super) answered: bool,
    /// How long it wants to be left alone.
    pub(super) after: Option<Duration>,
}

impl Refusal {
    /// There was no answer.
    pub(super) fn failed(why: String) -> Self {
        Self { why, answered: false, after: None }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::failed(error.to_string())
    }
}

impl From<hyper::Error> for Refusal {
    fn from(error: hyper::Error) -> Self {
        // The cause says more than what hyper was doing, where there is one.
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        Self::failed(cause.unwrap_or_else(|| error.to_string()))
    }
}

/// Pushes `body`, on a connection of its own: once in a while one is made, and none is found dead.
pub(super) async fn push(push: &Push, body: Vec<u8>) -> Result<(), Refusal> {
    let endpoint = &push.endpoint;
    let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
    stream.set_nodelay(true)?;
    let mut request = Request::post(&endpoint.path)
        .header(header::HOST, &endpoint.authority)
        .header(header::CONTENT_TYPE, "application/x-protobuf")
        .header(header::USER_AGENT, concat!("tcptrace/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| Refusal::failed(error.to_string()))?;
    for (name, value) in &push.headers.0 {
        request.headers_mut().append(name, value.clone());
    }
    match &push.tls {
        None => exchange(stream, request).await,
        Some(tls) => {
            let name = ServerName::try_from(endpoint.host.clone());
            let name = name.map_err(|error| Refusal::failed(error.to_string()))?;
            exchange(tls.connect(name, stream).await?, request).await
        }
    }
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<(), Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(ANSWER).handshake(TokioIo::new(stream)).await?;
    let answered = async move { judged(sender.send_request(request).await?).await };
    pin!(connection, answered);
    select! {
        biased;
        judged = &mut answered => judged,
        // What came before its end is in `answered`.
        _ = &mut connection => answered.await,
    }
}

async fn judged(answer: Response<Incoming>) -> Result<(), Refusal> {
    let status = answer.status();
    if status != StatusCode::OK {
        let after = answer.headers().get(header::RETRY_AFTER);
        let after = after.and_then(|after| retry_after(after, Timestamp::now()));
        let why = format!("it answered {status}{}", hint(status));
        return Err(Refusal { why, answered: true, after });
    }
    let body = Limited::new(answer.into_body(), ANSWER).collect().await;
    let body = body.map_err(|error| Refusal::failed(format!("its answer is cut off: {error}")))?;
    // Not every one that accepts says so in protobuf.
    let said = ExportMetricsServiceResponse::decode(body.to_bytes()).unwrap_or_default();
    match said.partial_success {
        Some(partial) if partial.rejected_data_points > 0 => {
            let said: String = partial.error_message.chars().take(SAID).collect();
            let why = format!("it rejects {} data points: {said}", partial.rejected_data_points);
            Err(Refusal { why, answered: true, after: None })
        }
        _ => Ok(()),
    }
}

fn hint(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            " (--otlp-headers-file has what it asks for)"
        }
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
            " (no OTLP there: has the endpoint another path?)"
        }
        _ => "",
    }
}

/// Seconds, or a date (RFC 9110, 10.2.3).
fn retry_after(value: &HeaderValue, now: Timestamp) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = rfc2822::parse(text).ok()?.timestamp();
    Some(Duration::try_from(at.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_says_when_in_seconds_or_by_a_date() {
        let now: Timestamp = "2026-11-22T08:49:00Z".parse().unwrap();
        for (text, seconds) in [
            ("120", Some(120)),
            ("0", Some(0)),
            ("Sun, 22 Nov 2026 08:49:37 GMT", Some(37)),
            ("Sun, 22 Nov 2026 08:48:37 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
        ] {
            let after = retry_after(&HeaderValue::from_str(text).unwrap(), now);
            assert_eq!(after, seconds.map(Duration::from_secs), "{text}");
        }
    }
}
