//! What is answered to which request.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode, Version,
    body::Body,
    header::{self, HeaderMap, HeaderValue},
    http::uri::Authority,
};

use super::{
    families::Moment,
    figures::Figures,
    metrics,
    pages::Report,
    shelf::Shelf,
    text::{self, Exposition},
    token::Token,
};
use tcptrace_host::clock;
use tcptrace_report::facts::Facts;

/// How old the last figures may be before the analysis is taken for dead: they come each second.
const STALE_NS: u64 = 30_000_000_000;

/// Said along with what is told without the socket tables.
const WITHOUT_TABLES: &str = "299 tcptrace \"the helper process is gone: SYN queues, sysctls, counters \
                              and owners are as they were\"";

const JSON: &str = "application/json";
const PLAIN: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// Who answers.
pub(super) struct Routes {
    shelf: Arc<Shelf>,
    /// What was written last, so that a thousand who ask within a second cost as much as one.
    written: Mutex<Option<Written>>,
    /// The same of the page.
    page: Mutex<Option<(Arc<Facts>, Bytes)>>,
}

/// Metrics of a moment, as far as they were asked for.
struct Written {
    figures: Arc<Figures>,
    attached: bool,
    openmetrics: Bytes,
    text: Bytes,
}

/// What an answer is made of.
pub(super) type Answer = Response<Full<Bytes>>;

fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

fn with(mut answer: Answer, name: header::HeaderName, value: &'static str) -> Answer {
    answer.headers_mut().insert(name, HeaderValue::from_static(value));
    answer
}

fn not_yet(what: &'static str) -> Answer {
    let answer = answer(StatusCode::SERVICE_UNAVAILABLE, PLAIN, what);
    with(answer, header::RETRY_AFTER, "1")
}

impl Routes {
    pub(super) fn new(shelf: Arc<Shelf>) -> Self {
        Self { shelf, written: Mutex::new(None), page: Mutex::new(None) }
    }

    /// Answers whoever has the `token`, if there is one. `local`: the listener is on loopback, where
    /// a name in `Host` is somebody's web page that makes a browser ask us.
    pub(super) fn answer<B: Body>(
        &self,
        request: &Request<B>,
        token: Option<&Token>,
        local: bool,
    ) -> Answer {
        let headers = request.headers();
        let Some(host) = host(request) else {
            let what = "one Host header is expected, with a host and nothing else\n";
            return closing(answer(StatusCode::BAD_REQUEST, PLAIN, what));
        };
        if local && !host.is_none_or(is_us) {
            return answer(
                StatusCode::MISDIRECTED_REQUEST,
                PLAIN,
                "by this name it is not reached: ask for localhost or an address\n",
            );
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let refusal = answer(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET and HEAD\n");
            return closing(with(refusal, header::ALLOW, "GET, HEAD"));
        }
        if request.body().size_hint().upper() != Some(0) {
            return closing(answer(StatusCode::PAYLOAD_TOO_LARGE, PLAIN, "no body is expected\n"));
        }
        // Who looks whether it lives need not know the secret.
        if is_probe(request) {
            let health = request.uri().path() == "/healthz";
            return if health { self.health() } else { self.ready() };
        }
        let authorization = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        if token.is_some_and(|token| !token.is_in(authorization)) {
            let refusal = answer(StatusCode::UNAUTHORIZED, PLAIN, "a bearer token is asked for\n");
            return with(refusal, header::WWW_AUTHENTICATE, "Bearer realm=\"tcptrace\"");
        }
        match request.uri().path() {
            "/" => self.page(),
            "/metrics" => self.metrics(headers),
            path => {
                let name = path.strip_prefix("/api/v1/").unwrap_or_default();
                match Report::ALL.into_iter().find(|report| report.name() == name) {
                    Some(report) => self.report(report),
                    None => answer(StatusCode::NOT_FOUND, PLAIN, "there is no such page: see /\n"),
                }
            }
        }
    }

    fn health(&self) -> Answer {
        let now = clock::monotonic_ns().unwrap_or(0);
        match self.shelf.take() {
            Some(figures) if now.saturating_sub(figures.mono_ns) > STALE_NS => {
                answer(StatusCode::SERVICE_UNAVAILABLE, PLAIN, "the analysis stands still\n")
            }
            _ => answer(StatusCode::OK, PLAIN, "ok\n"),
        }
    }

    fn ready(&self) -> Answer {
        match self.shelf.take() {
            Some(figures) if figures.whole => answer(StatusCode::OK, PLAIN, "ready\n"),
            _ if self.lacks_tables() => {
                not_yet("what was there before will not be known: the helper process is gone\n")
            }
            _ => not_yet("not yet: what was there before is being read\n"),
        }
    }

    /// Nobody reads the socket tables any more.
    fn lacks_tables(&self) -> bool {
        self.shelf.helper().is_some_and(|helper| !helper.lives())
    }

    fn report(&self, report: Report) -> Answer {
        let figures = self.shelf.take();
        let line = figures.and_then(|figures| figures.reports[report as usize].clone());
        match line {
            // The line is that of the command, which has no helper, so this goes beside it.
            Some(line) if self.lacks_tables() => {
                with(answer(StatusCode::OK, JSON, line), header::WARNING, WITHOUT_TABLES)
            }
            Some(line) => answer(StatusCode::OK, JSON, line),
            None => not_yet("not yet: the first interval is not over\n"),
        }
    }

    fn metrics(&self, headers: &HeaderMap) -> Answer {
        let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        let wanted = Exposition::wanted(accept.unwrap_or_default());
        let Some(figures) = self.shelf.take() else {
            return not_yet("not yet: the hooks are being attached\n");
        };
        match self.written(figures, wanted) {
            Some(text) => {
                let answer = answer(StatusCode::OK, wanted.content_type(), text);
                with(answer, header::VARY, "Accept")
            }
            None => answer(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, "cannot write metrics\n"),
        }
    }

    /// The page of the last minutes. It asks for itself anew, and so is told of what is new.
    fn page(&self) -> Answer {
        self.shelf.watch();
        let Some(facts) = self.shelf.take().and_then(|figures| figures.page.clone()) else {
            return not_yet("not yet: the hooks are being attached\n");
        };
        let mut last = self.page.lock().unwrap_or_else(PoisonError::into_inner);
        let html = match &*last {
            Some((of, html)) if Arc::ptr_eq(of, &facts) => html.clone(),
            _ => {
                let html = Bytes::from(tcptrace_report::page(&facts));
                *last = Some((facts, html.clone()));
                html
            }
        };
        drop(last);
        // What else is forbidden to it, it says itself.
        let page = answer(StatusCode::OK, HTML, html);
        with(page, header::CONTENT_SECURITY_POLICY, "frame-ancestors 'none'")
    }

    fn written(&self, figures: Arc<Figures>, wanted: Exposition) -> Option<Bytes> {
        let attached = self.shelf.attached();
        let mut last = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = last.take().filter(|last| {
            Arc::ptr_eq(&last.figures, &figures) && last.attached == attached.is_some()
        });
        let written = match fresh {
            Some(written) => written,
            None => {
                let moment = Moment::of(&self.shelf, Arc::clone(&figures));
                let openmetrics = metrics::openmetrics(moment).ok()?;
                let text = text::prometheus(&openmetrics).into();
                let attached = attached.is_some();
                Written { figures, attached, openmetrics: openmetrics.into(), text }
            }
        };
        let text = match wanted {
            Exposition::OpenMetrics => written.openmetrics.clone(),
            Exposition::Text => written.text.clone(),
        };
        *last = Some(written);
        Some(text)
    }
}

/// The rest of the request is not read, so nothing can follow it.
fn closing(answer: Answer) -> Answer {
    with(answer, header::CONNECTION, "close")
}

/// Whether somebody only asks whether it lives, or is ready.
pub(super) fn is_probe<B>(request: &Request<B>) -> bool {
    matches!(request.uri().path(), "/healthz" | "/readyz")
}

/// As many are being answered as may be.
pub(super) fn busy() -> Answer {
    closing(not_yet("as many are being answered as may be at a time\n"))
}

/// The answer that could not be made.
pub(super) fn panicked() -> Answer {
    let what = "tcptrace failed at this request: its stderr says how; please report it\n";
    closing(answer(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, what))
}

/// Whom a request is for: `None` where it does not say so as it must (RFC 9112, 3.2), `Some(None)`
/// where it need not: HTTP/1.0.
fn host<B>(request: &Request<B>) -> Option<Option<&str>> {
    let mut given = request.headers().get_all(header::HOST).iter();
    let (host, more) = (given.next(), given.next());
    if more.is_some() || (host.is_none() && request.version() >= Version::HTTP_11) {
        return None;
    }
    let host = match host {
        Some(host) => Some(host.to_str().ok()?),
        None => None,
    };
    // Empty where who asks has no name for us.
    let valid =
        |host: &&str| host.is_empty() || (!host.contains('@') && host.parse::<Authority>().is_ok());
    if !host.as_ref().is_none_or(valid) {
        return None;
    }
    // A target with a host in it decides (RFC 9112, 3.2.2).
    Some(request.uri().authority().map(Authority::as_str).or(host))
}

/// Whether a request to loopback is meant for it: for localhost or for an address.
fn is_us(host: &str) -> bool {
    // The port, if there is one, is behind the last colon that is in no brackets.
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use http_body_util::Empty;

    use super::*;
    use crate::tests::{begun, shelf};

    /// As HTTP/1.0 has it, which needs no Host.
    fn request(path: &str, headers: &[(&str, &str)]) -> Request<Empty<Bytes>> {
        let mut request = Request::get(path).version(Version::HTTP_10);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Empty::new()).unwrap()
    }

    fn get(routes: &Routes, path: &str, headers: &[(&str, &str)]) -> Answer {
        routes.answer(&request(path, headers), None, true)
    }

    #[test]
    fn a_page_elsewhere_cannot_make_a_browser_ask_us() {
        let routes = Routes::new(Shelf::new());
        for (host, status) in [
            ("localhost", 200),
            ("localhost:9718", 200),
            ("127.0.0.1:9718", 200),
            ("[::1]:9718", 200),
            ("[::1]", 200),
            ("10.0.0.1", 200),
            ("evil.example:9718", 421),
            ("localhost.evil.example", 421),
            ("", 421),
        ] {
            assert_eq!(get(&routes, "/healthz", &[("host", host)]).status(), status, "{host}");
        }
        assert_eq!(get(&routes, "/healthz", &[]).status(), 200);
        // A target with a host in it is for that host, whatever Host says.
        let local = [("host", "localhost")];
        assert_eq!(get(&routes, "http://evil.example/healthz", &local).status(), 421);
        assert_eq!(get(&routes, "http://127.0.0.1:9718/healthz", &local).status(), 200);
    }

    /// RFC 9112, 3.2.
    #[test]
    fn whom_a_request_is_for_is_said_once_and_from_1_1_on_always() {
        let routes = Routes::new(Shelf::new());
        let status = |version: Version, hosts: &[&str]| {
            let headers: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            let mut request = request("/healthz", &headers);
            *request.version_mut() = version;
            routes.answer(&request, None, true).status().as_u16()
        };
        for (version, hosts, expected) in [
            (Version::HTTP_10, &[][..], 200),
            (Version::HTTP_10, &["localhost"], 200),
            (Version::HTTP_10, &["localhost", "localhost"], 400),
            (Version::HTTP_11, &["localhost"], 200),
            (Version::HTTP_11, &[], 400),
            (Version::HTTP_11, &["localhost", "localhost"], 400),
            (Version::HTTP_11, &["localhost", "evil.example"], 400),
            (Version::HTTP_11, &["evil.example"], 421),
            (Version::HTTP_11, &[""], 421),
            (Version::HTTP_11, &["localhost, localhost"], 400),
            (Version::HTTP_11, &["me@localhost"], 400),
            (Version::HTTP_11, &["local host"], 400),
            (Version::HTTP_11, &["localhost/metrics"], 400),
        ] {
            assert_eq!(status(version, hosts), expected, "{version:?} {hosts:?}");
        }
    }

    #[test]
    fn nothing_is_told_without_the_token_but_that_it_lives() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        std::fs::write(&file, "0123456789abcdef\n").unwrap();
        let routes = Routes::new(shelf("0ms begin\n1ms tick\n"));
        let token = Token::read(&file).unwrap();
        let get = |routes: &Routes, path: &str, headers: &[(&str, &str)]| {
            routes.answer(&request(path, headers), Some(&token), true)
        };
        let right = [("authorization", "Bearer 0123456789abcdef")];
        let wrong = [("authorization", "Bearer 0123456789abcdeg")];
        for path in ["/", "/metrics", "/api/v1/states", "/no-such-page"] {
            for headers in [&wrong[..], &[]] {
                let refusal = get(&routes, path, headers);
                assert_eq!(refusal.status(), 401, "{path}");
                assert!(refusal.headers().contains_key("www-authenticate"));
            }
            assert_ne!(get(&routes, path, &right).status(), 401, "{path}");
        }
        assert_ne!(get(&routes, "/healthz", &[]).status(), 401);
    }

    #[test]
    fn an_analysis_that_stands_still_is_not_healthy() {
        // The script's time is long ago.
        let routes = Routes::new(shelf(begun()));
        assert_eq!(get(&routes, "/healthz", &[]).status(), 503);
        let routes = Routes::new(Shelf::new());
        assert_eq!(get(&routes, "/healthz", &[]).status(), 200, "it has not begun");
    }

    #[test]
    fn what_is_not_known_yet_is_not_there_yet() {
        let routes = Routes::new(Shelf::new());
        for path in ["/metrics", "/readyz", "/api/v1/ports"] {
            let refusal = get(&routes, path, &[]);
            assert_eq!(refusal.status(), 503, "{path}");
            assert!(refusal.headers().contains_key("retry-after"));
        }
        let routes = Routes::new(shelf("0ms begin\n1ms tick\n"));
        assert_eq!(get(&routes, "/metrics", &[]).status(), 200);
        assert_eq!(get(&routes, "/readyz", &[]).status(), 503, "no round is over");
        let routes = Routes::new(shelf(begun()));
        assert_eq!(get(&routes, "/readyz", &[]).status(), 200);
        assert_eq!(get(&routes, "/api/v1/states", &[]).status(), 200);
        assert_eq!(get(&routes, "/api/v1/doctor", &[]).status(), 503, "nothing is watched yet");
        assert_eq!(get(&routes, "/api/v1/", &[]).status(), 404);
        assert_eq!(get(&routes, "/metrics/", &[]).status(), 404);
    }

    #[test]
    fn only_reading_is_answered() {
        let routes = Routes::new(shelf(begun()));
        let post = Request::post("/metrics")
            .version(Version::HTTP_10)
            .body(Empty::<Bytes>::new())
            .unwrap();
        assert_eq!(routes.answer(&post, None, true).status(), 405);
        let body = Request::get("/metrics")
            .version(Version::HTTP_10)
            .body(Full::new(Bytes::from("x")))
            .unwrap();
        assert_eq!(routes.answer(&body, None, true).status(), 413);
    }
}
