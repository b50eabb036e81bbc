//! Connections: how many there may be, and how long they may stand still. Who opens many and says nothing, or
//! asks and takes no answer, must not use up what the process may have open.

use std::error::Error;
use std::future::Future;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use hyper::body::{Body, Incoming};
use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
use hyper::service::HttpService;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// How long to wait when the system gives no connection: others may close theirs meanwhile.
const PAUSE: Duration = Duration::from_secs(1);

/// What connections may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// So many are open at the same time; further ones wait.
    pub(super) open: usize,
    /// Within this time a request's head is there, also the first and the next one.
    pub(super) head: Duration,
    /// Within this time some of an answer is taken.
    pub(super) answer: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { open: 512, head: Duration::from_secs(10), answer: Duration::from_secs(30) }
    }
}

/// Serves until `stop` is true, then lets open answers end.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    stop: watch::Receiver<bool>,
) {
    let (places, mut stopped) = (Arc::new(Semaphore::new(limits.open)), stop.clone());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            (place, stream) = next(&listener, &places) => {
                let (router, stop) = (router.clone(), stop.clone());
                connections.spawn(async move {
                    connection(stream, router, limits, stop).await;
                    drop(place);
                });
            }
            () = told_to(&mut stopped) => break,
            Some(_) = connections.join_next() => {}
        }
    }
    // Who comes now is refused, and does not wait for what will not be served.
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn next(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (OwnedSemaphorePermit, TcpStream) {
    let place = Arc::clone(places).acquire_owned().await.expect("nobody closes it");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (place, stream),
            Err(error) if is_of_one(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(PAUSE).await;
            }
        }
    }
}

/// The connection was gone before it was accepted.
fn is_of_one(error: &io::Error) -> bool {
    use ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn connection(
    stream: TcpStream,
    router: Router,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
) {
    // The pieces of an answer do not wait until the ones before are acknowledged.
    drop(stream.set_nodelay(true));
    let stream = TokioIo::new(Impatient::new(stream, limits.answer));
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(limits.head);
    let connection = server.serve_connection(stream, TowerToHyperService::new(router));
    if let Err(error) = until_told(connection, &mut stop).await {
        tracing::trace!(%error, "a connection broke");
    }
}

/// Serves a connection until `stop` is true, then lets the answer end that is under way.
pub(crate) async fn until_told<I, S>(
    connection: http1::Connection<I, S>,
    stop: &mut watch::Receiver<bool>,
) -> hyper::Result<()>
where
    I: Read + Write + Unpin,
    S: HttpService<Incoming>,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    S::ResBody: 'static,
    <S::ResBody as Body>::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = told_to(stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

/// Waits until `stop` is true.
pub(crate) async fn told_to(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone means the same.
    drop(stop.wait_for(|stop| *stop).await);
}

/// A stream that breaks when its peer takes nothing for some time.
#[derive(Debug)]
struct Impatient<S> {
    stream: S,
    patience: Duration,
    /// Set while a write waits.
    waits: Option<Pin<Box<Sleep>>>,
}

impl<S: Unpin> Impatient<S> {
    fn new(stream: S, patience: Duration) -> Impatient<S> {
        Impatient { stream, patience, waits: None }
    }

    fn within_time<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waits = None;
            return written;
        }
        let end = Instant::now() + self.patience;
        let waits = self.waits.get_or_insert_with(|| Box::pin(sleep_until(end)));
        ready!(waits.as_mut().poll(context));
        Poll::Ready(Err(ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.within_time(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.within_time(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const SHORT: Duration = Duration::from_millis(200);
    const LONG: Duration = Duration::from_secs(60);

    /// Serves within these limits until the sender is gone.
    async fn served(limits: Limits) -> (SocketAddr, watch::Sender<bool>) {
        let large = "x".repeat(32 << 20);
        let router = Router::new()
            .route("/", get(|| async { "here" }))
            .route("/large", get(|| async move { large }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, stop) = watch::channel(false);
        tokio::spawn(serve(listener, router, limits, stop));
        (address, sender)
    }

    async fn asked(address: SocketAddr, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    /// All that comes until the connection is closed, or broken.
    async fn answer(stream: &mut TcpStream) -> Vec<u8> {
        let mut text = Vec::new();
        let reading = stream.read_to_end(&mut text);
        drop(tokio::time::timeout(LONG, reading).await.expect("the connection ends"));
        text
    }

    #[tokio::test]
    async fn a_head_that_does_not_come_is_not_waited_for() {
        let (address, _serving) = served(Limits { head: SHORT, ..Limits::default() }).await;
        for half in ["", "GET / HTTP/1.1\r\nHost: ", "GET / HTTP/1.1\r\nHost: h\r\n\r\nGET"] {
            let mut stream = asked(address, half).await;
            let text = answer(&mut stream).await;
            assert_eq!(text.ends_with(b"here"), half.ends_with("GET"), "{half:?}");
        }
    }

    #[tokio::test]
    async fn who_comes_when_all_places_are_taken_waits_for_one() {
        let limits = Limits { open: 1, head: LONG, ..Limits::default() };
        let (address, _serving) = served(limits).await;
        let mut first = asked(address, "GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        let mut begins = [0; 12];
        first.read_exact(&mut begins).await.unwrap();
        assert_eq!(&begins, b"HTTP/1.1 200");
        let mut second = asked(address, "GET / HTTP/1.0\r\n\r\n").await;
        let early = tokio::time::timeout(SHORT, second.read_u8()).await;
        assert!(early.is_err(), "it was answered though there was no place");
        drop(first);
        assert!(answer(&mut second).await.ends_with(b"here"));
    }

    #[tokio::test]
    async fn an_answer_that_nobody_takes_ends() {
        let (mut ours, theirs) = tokio::io::duplex(4);
        let mut stream = Impatient::new(theirs, SHORT);
        stream.write_all(b"taken").await.expect_err("nobody reads");
        let error = stream.write_all(b"more").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let mut taken = [0; 4];
        ours.read_exact(&mut taken).await.unwrap();
        stream.write_all(b"more").await.expect("it is taken again");

        let limits = Limits { open: 1, answer: SHORT, ..Limits::default() };
        let (address, _serving) = served(limits).await;
        let mut idle = asked(address, "GET /large HTTP/1.0\r\n\r\n").await;
        // There is a place for it when the other one was broken off.
        let mut next = asked(address, "GET / HTTP/1.0\r\n\r\n").await;
        assert!(answer(&mut next).await.ends_with(b"here"));
        assert!(answer(&mut idle).await.len() < 32 << 20);
    }

    #[tokio::test]
    async fn open_answers_end_and_idle_connections_close_when_told_to_stop() {
        let (address, serving) = served(Limits::default()).await;
        let mut idle = asked(address, "GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        let mut begins = [0; 12];
        idle.read_exact(&mut begins).await.unwrap();
        serving.send_replace(true);
        assert!(answer(&mut idle).await.ends_with(b"here"));
        assert!(TcpStream::connect(address).await.is_err(), "it listens no more");
    }
}
