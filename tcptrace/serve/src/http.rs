//! The HTTP side: a thread of its own, which may be kept as busy as anybody likes.
//!
//! Whoever connects has so much time for each thing, and nobody can take more than a share: the
//! number of connections, their lives and the size of what they send are bounded. A panic while a
//! request is answered is that request's, and a 500.

use std::{
    convert::Infallible,
    io,
    net::TcpListener,
    os::unix::net::UnixListener,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Arc, PoisonError, RwLock},
    thread::{self, JoinHandle},
    time::Duration,
};

use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net,
    sync::{Notify, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{
    routes::{self, Answer, Routes},
    seats::{Seat, Seated, Seats},
    secrets::Secrets,
    shelf::Shelf,
};

/// What one client may take, and all together.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections that may be answered at a time.
    pub connections: usize,
    /// Connections besides, so that probes are answered whatever the others do.
    pub probes: usize,
    /// From the connection, or the last answer, to the end of a request's headers; and for the
    /// handshake of TLS.
    pub request: Duration,
    /// The whole life of a connection: after that it gets its answer and no other.
    pub life: Duration,
    /// How long what is being answered may take when it ends.
    pub grace: Duration,
    /// Bytes of the headers of a request.
    pub header_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            probes: 32,
            request: Duration::from_secs(10),
            life: Duration::from_secs(120),
            grace: Duration::from_secs(2),
            header_bytes: 16 << 10,
        }
    }
}

impl Limits {
    /// The same where so many files may be open: half of them are for connections at most.
    #[must_use]
    pub fn with_files(self, files: u64) -> Self {
        let half = usize::try_from(files / 2).unwrap_or(usize::MAX);
        Self { connections: self.connections.min(half.saturating_sub(self.probes)).max(1), ..self }
    }
}

/// Headers of a request.
const HEADERS: usize = 64;

/// After an error of accept(): there may be no file descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// Where to listen; bound already, so that what is wrong with it was said before anything began.
pub struct Listeners {
    /// On an address, with TLS where there is a certificate.
    pub tcp: Option<TcpListener>,
    /// On a path.
    pub unix: Option<UnixListener>,
}

/// The thread.
pub struct Server {
    stop: watch::Sender<bool>,
    reload: Arc<Notify>,
    thread: JoinHandle<io::Result<()>>,
}

impl Server {
    /// Answers at `listeners` from now on, with what is on the shelf, to whom `secrets` let in.
    /// `tell` is told what becomes of [`Server::reload`].
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(
        listeners: Listeners,
        shelf: Arc<Shelf>,
        secrets: Secrets,
        limits: Limits,
        prepare: impl FnOnce() + Send + 'static,
        tell: fn(&str),
    ) -> io::Result<Self> {
        let routes = Routes::new(shelf);
        let answer = move |request: &Request<Incoming>, secrets: &Secrets, local: bool| {
            routes.answer(request, secrets.token.as_ref(), local)
        };
        Self::with(listeners, answer, secrets, limits, prepare, tell)
    }

    fn with(
        listeners: Listeners,
        answer: impl Answering,
        secrets: Secrets,
        limits: Limits,
        prepare: impl FnOnce() + Send + 'static,
        tell: fn(&str),
    ) -> io::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let reload = Arc::new(Notify::new());
        let asked = Arc::clone(&reload);
        let thread = thread::Builder::new().name("http".into()).spawn(move || {
            prepare();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let seats = Seats::new(limits.connections, limits.probes);
            let secrets = RwLock::new(secrets);
            let hall = Arc::new(Hall { answer, secrets, limits, seats, stopped });
            let reload = read_again(Arc::clone(&hall), asked, tell);
            runtime.spawn(reload);
            runtime.block_on(serve(listeners, hall))
        })?;
        Ok(Self { stop, reload, thread })
    }

    /// What has the files with the token and the certificate read again. Takes no time: the thread
    /// that answers reads them.
    pub fn reload(&self) -> impl Fn() + 'static {
        let reload = Arc::clone(&self.reload);
        move || reload.notify_one()
    }

    /// Has it end: what is being answered gets its time.
    pub fn stop(&self) {
        // Fails only when the thread has ended.
        let _ = self.stop.send(true);
    }

    /// Waits for its end, which [`Server::stop`] begins.
    ///
    /// # Errors
    /// Why it had ended before.
    pub fn finish(self) -> io::Result<()> {
        self.stop();
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the HTTP thread panicked")))
    }
}

/// What makes an answer, to whom the secrets let in; told whether the listener is on loopback.
trait Answering: Fn(&Request<Incoming>, &Secrets, bool) -> Answer + Send + Sync + 'static {}

impl<F> Answering for F where
    F: Fn(&Request<Incoming>, &Secrets, bool) -> Answer + Send + Sync + 'static
{
}

/// What all connections share.
struct Hall<A> {
    answer: A,
    secrets: RwLock<Secrets>,
    limits: Limits,
    seats: Arc<Seats>,
    stopped: watch::Receiver<bool>,
}

/// One of the ways in.
enum Door {
    Tcp {
        listener: net::TcpListener,
        /// On loopback.
        local: bool,
    },
    Unix(net::UnixListener),
}

async fn serve<A: Answering>(listeners: Listeners, hall: Arc<Hall<A>>) -> io::Result<()> {
    let mut doors = Vec::new();
    if let Some(listener) = listeners.tcp {
        let local = listener.local_addr()?.ip().is_loopback();
        listener.set_nonblocking(true)?;
        doors.push(Door::Tcp { listener: net::TcpListener::from_std(listener)?, local });
    }
    if let Some(listener) = listeners.unix {
        listener.set_nonblocking(true)?;
        doors.push(Door::Unix(net::UnixListener::from_std(listener)?));
    }
    let mut admitting = JoinSet::new();
    for door in doors {
        admitting.spawn(admit(door, Arc::clone(&hall)));
    }
    // Fails when nobody can say stop any more: a reason to.
    let _ = hall.stopped.clone().wait_for(|stop| *stop).await;
    admitting.shutdown().await;
    let _ = timeout(hall.limits.grace, hall.seats.empty()).await;
    Ok(())
}

/// Reads the secrets again whenever that is asked for, for ever.
async fn read_again<A: Answering>(hall: Arc<Hall<A>>, asked: Arc<Notify>, tell: fn(&str)) {
    loop {
        asked.notified().await;
        let said = hall.secrets.write().unwrap_or_else(PoisonError::into_inner).read_again();
        said.iter().for_each(|line| tell(line));
    }
}

/// Lets in whoever comes, for ever.
async fn admit<A: Answering>(door: Door, hall: Arc<Hall<A>>) {
    loop {
        match &door {
            Door::Tcp { listener, local } => {
                let Ok((stream, _)) = listener.accept().await else {
                    sleep(PAUSE).await;
                    continue;
                };
                // An answer is one write: there is nothing to wait for.
                let _ = stream.set_nodelay(true);
                let seat = hall.seats.take().await;
                match hall.tls() {
                    None => hall.seat(seat, async { Some(stream) }, *local),
                    Some(tls) => {
                        let limit = hall.limits.request;
                        let open = async move { timeout(limit, tls.accept(stream)).await };
                        hall.seat(seat, async move { open.await.ok()?.ok() }, *local);
                    }
                }
            }
            Door::Unix(listener) => match listener.accept().await {
                Ok((stream, _)) => {
                    let seat = hall.seats.take().await;
                    hall.seat(seat, async { Some(stream) }, false);
                }
                Err(_) => sleep(PAUSE).await,
            },
        }
    }
}

impl<A: Answering> Hall<A> {
    /// As it is now, for a new connection.
    fn tls(&self) -> Option<TlsAcceptor> {
        self.secrets.read().unwrap_or_else(PoisonError::into_inner).tls.clone()
    }

    /// Has the connection served, once it is opened.
    fn seat<S>(
        self: &Arc<Self>,
        seat: Arc<Seat>,
        opened: impl Future<Output = Option<S>> + Send + 'static,
        local: bool,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let hall = Arc::clone(self);
        tokio::spawn(async move {
            let mut stopped = hall.stopped.clone();
            let stream = tokio::select! {
                biased;
                stream = opened => stream,
                () = seat.leave() => None,
                _ = stopped.wait_for(|stop| *stop) => None,
            };
            if let Some(stream) = stream {
                hall.serve(Seated { stream, seat: Arc::clone(&seat) }, &seat, local).await;
            }
        });
    }

    /// What is answered to a request.
    fn answer(&self, request: &Request<Incoming>, seat: &Seat, local: bool) -> Answer {
        if !seat.begin(routes::is_probe(request)) {
            return routes::busy();
        }
        let secrets = self.secrets.read().unwrap_or_else(PoisonError::into_inner);
        // What an answer keeps between requests it keeps under locks that forgive a panic.
        let answer = AssertUnwindSafe(|| (self.answer)(request, &secrets, local));
        // The hook that std has installed has said what it was on stderr.
        catch_unwind(answer).unwrap_or_else(|_| routes::panicked())
    }

    /// Answers on one connection, for as long as it may live.
    async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin, seat: &Seat, local: bool) {
        let answer = |request: Request<Incoming>| {
            std::future::ready(Ok::<_, Infallible>(self.answer(&request, seat, local)))
        };
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(self.limits.request)
                .max_headers(HEADERS)
                .max_buf_size(self.limits.header_bytes)
                .serve_connection(TokioIo::new(stream), service_fn(answer))
        );
        let mut stopped = self.stopped.clone();
        tokio::select! {
            // What has come is read before it is decided whether anything has.
            biased;
            // How it ended is the client's business.
            _ = &mut connection => return,
            () = seat.leave() => return,
            () = sleep(self.limits.life) => {}
            _ = stopped.wait_for(|stop| *stop) => {}
        }
        // Who has not asked is owed nothing.
        if seat.is_answered() {
            connection.as_mut().graceful_shutdown();
            let _ = timeout(self.limits.grace, connection).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{Ipv4Addr, SocketAddr, TcpStream},
    };

    use super::*;
    use crate::secrets::SecretFiles;

    /// One that panics at `/panic`, and the address of it.
    fn server(limits: Limits) -> (Server, SocketAddr) {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = tcp.local_addr().unwrap();
        let routes = Routes::new(Shelf::new());
        let answer = move |request: &Request<Incoming>, _: &Secrets, local: bool| {
            assert_ne!(request.uri().path(), "/panic", "as a defect would");
            routes.answer(request, None, local)
        };
        let secrets = Secrets::read(SecretFiles::default()).unwrap();
        let listeners = Listeners { tcp: Some(tcp), unix: None };
        (Server::with(listeners, answer, secrets, limits, || {}, |_| {}).unwrap(), address)
    }

    fn connect(address: SocketAddr) -> TcpStream {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    /// What is answered until the connection is closed.
    fn rest(mut stream: TcpStream) -> String {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = connect(address);
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .unwrap();
        rest(stream)
    }

    #[test]
    fn a_panic_is_a_500_and_the_end_of_nothing_else() {
        let (server, address) = server(Limits::default());
        for _ in 0..3 {
            let answer = get(address, "/panic");
            assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
            assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
            assert!(get(address, "/healthz").starts_with("HTTP/1.1 200 "));
        }
        server.finish().unwrap();
    }

    #[test]
    fn who_sends_half_a_request_keeps_nobody_out() {
        let (server, address) = server(Limits { connections: 2, probes: 1, ..Limits::default() });
        let half: Vec<_> = (0..20)
            .map(|_| {
                let mut stream = connect(address);
                stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: local").unwrap();
                stream
            })
            .collect();
        assert!(get(address, "/healthz").starts_with("HTTP/1.1 200 "));
        assert!(get(address, "/").starts_with("HTTP/1.1 503 "), "nothing is known yet");
        // Those that made room were closed without a word.
        let closed = half.into_iter().take(17).filter(|stream| {
            let read = stream.try_clone().unwrap().read(&mut [0; 16]);
            read.is_ok_and(|read| read == 0)
        });
        assert_eq!(closed.count(), 17);
        server.finish().unwrap();
    }

    #[test]
    fn who_has_not_asked_yet_is_not_waited_for_at_the_end() {
        // Longer than the test may take, so that to wait for it would be noticed.
        let grace = Duration::from_secs(3600);
        let (server, address) = server(Limits { grace, ..Limits::default() });
        let silent = connect(address);
        let mut half = connect(address);
        half.write_all(b"GET / HTTP/1.1\r\n").unwrap();
        let mut idle = connect(address);
        idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = [0; 12];
        idle.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        server.finish().unwrap();
        assert_eq!((rest(silent), rest(half)), (String::new(), String::new()));
        assert!(rest(idle).ends_with("ok\n"));
    }

    #[test]
    fn half_of_the_files_are_left_to_others() {
        for (files, connections) in [(1024, 480), (4096, 1024), (1 << 20, 1024), (10, 1)] {
            assert_eq!(Limits::default().with_files(files).connections, connections);
        }
    }
}
