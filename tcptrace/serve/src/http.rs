//! The HTTP side: a thread of its own, which may be kept as busy as anybody likes.
//!
//! Whoever connects has so much time for each thing, and nobody can take more than a share: the
//! number of connections, their lives and the size of what they send are bounded.

use std::{
    convert::Infallible,
    io,
    net::TcpListener,
    os::unix::net::UnixListener,
    pin::pin,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net,
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{routes::Routes, shelf::Shelf, token::Token};

/// What one client may take, and all together.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time; others wait in the queue of the listener.
    pub connections: usize,
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
            connections: 256,
            request: Duration::from_secs(10),
            life: Duration::from_secs(120),
            grace: Duration::from_secs(2),
            header_bytes: 16 << 10,
        }
    }
}

/// Headers of a request.
const HEADERS: usize = 64;

/// After an error of accept(): there may be no file descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// Where to listen; bound already, so that what is wrong with it was said before anything began.
pub struct Listeners {
    /// On an address, with TLS or without.
    pub tcp: Option<(TcpListener, Option<TlsAcceptor>)>,
    /// On a path.
    pub unix: Option<UnixListener>,
}

/// The thread.
pub struct Server {
    stop: watch::Sender<bool>,
    thread: JoinHandle<io::Result<()>>,
}

impl Server {
    /// Answers at `listeners` from now on, with what is on the shelf.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(
        listeners: Listeners,
        shelf: Arc<Shelf>,
        token: Option<Token>,
        limits: Limits,
        prepare: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let thread = thread::Builder::new().name("http".into()).spawn(move || {
            prepare();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let places = Arc::new(Semaphore::new(limits.connections));
            let hall = Hall { routes: Routes::new(shelf, token), limits, places, stopped };
            runtime.block_on(serve(listeners, hall))
        })?;
        Ok(Self { stop, thread })
    }

    /// Ends it: what is being answered gets its time.
    ///
    /// # Errors
    /// Why it had ended before.
    pub fn finish(self) -> io::Result<()> {
        // Fails only when the thread has ended.
        let _ = self.stop.send(true);
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the HTTP thread panicked")))
    }
}

/// What all connections share.
struct Hall {
    routes: Routes,
    limits: Limits,
    places: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
}

/// One of the ways in.
enum Door {
    Tcp {
        listener: net::TcpListener,
        tls: Option<TlsAcceptor>,
        /// On loopback.
        local: bool,
    },
    Unix(net::UnixListener),
}

async fn serve(listeners: Listeners, hall: Hall) -> io::Result<()> {
    let hall = Arc::new(hall);
    let mut doors = Vec::new();
    if let Some((listener, tls)) = listeners.tcp {
        let local = listener.local_addr()?.ip().is_loopback();
        listener.set_nonblocking(true)?;
        let listener = net::TcpListener::from_std(listener)?;
        doors.push(Door::Tcp { listener, tls, local });
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
    // All places are free when nobody is left.
    let all = u32::try_from(hall.limits.connections).unwrap_or(u32::MAX);
    let _ = timeout(hall.limits.grace * 2, hall.places.acquire_many(all)).await;
    Ok(())
}

/// Lets in whoever comes, for ever.
async fn admit(door: Door, hall: Arc<Hall>) {
    loop {
        match &door {
            Door::Tcp { listener, tls, local } => {
                let Ok((stream, _)) = listener.accept().await else {
                    sleep(PAUSE).await;
                    continue;
                };
                // An answer is one write: there is nothing to wait for.
                let _ = stream.set_nodelay(true);
                match tls.clone() {
                    None => seat(&hall, stream, *local).await,
                    Some(tls) => {
                        let limit = hall.limits.request;
                        let open = async move { timeout(limit, tls.accept(stream)).await };
                        seat_when(&hall, async move { open.await.ok()?.ok() }, *local).await;
                    }
                }
            }
            Door::Unix(listener) => match listener.accept().await {
                Ok((stream, _)) => seat(&hall, stream, false).await,
                Err(_) => sleep(PAUSE).await,
            },
        }
    }
}

/// Waits for a place, and has the connection served on it.
async fn seat<S>(hall: &Arc<Hall>, stream: S, local: bool)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    seat_when(hall, std::future::ready(Some(stream)), local).await;
}

/// The same with a connection that has to be opened first.
async fn seat_when<S>(
    hall: &Arc<Hall>,
    opened: impl Future<Output = Option<S>> + Send + 'static,
    local: bool,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Fails only where the semaphore was closed, which nobody does.
    let Ok(place) = Arc::clone(&hall.places).acquire_owned().await else { return };
    let hall = Arc::clone(hall);
    tokio::spawn(async move {
        if let Some(stream) = opened.await {
            hall.serve(stream, local).await;
        }
        drop(place);
    });
}

impl Hall {
    /// Answers on one connection, for as long as it may live.
    async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin, local: bool) {
        let answer = |request: Request<Incoming>| {
            let answer = self.routes.answer(&request, local);
            std::future::ready(Ok::<_, Infallible>(answer))
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
            // How it ended is the client's business.
            _ = &mut connection => return,
            () = sleep(self.limits.life) => {}
            _ = stopped.wait_for(|stop| *stop) => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = timeout(self.limits.grace, connection).await;
    }
}
