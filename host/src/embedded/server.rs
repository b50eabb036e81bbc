//! ClickHouse's HTTP interface in front of the engine.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rand::distr::{Alphanumeric, SampleString as _};
use rustix::process::{Signal, getpid, kill_process};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::answer::{self, Answer, Title};
use super::library::{Call, Library};
use super::refusal::Refusal;
use super::request::Request;
use super::run::Job;
use super::running::Running;
use super::upload::Upload;
use crate::serve::{told_to, until_told};
use crate::sink::literal;

/// How often a statement that nobody waits for is told to end.
const CANCEL_INTERVAL: Duration = Duration::from_millis(200);
/// How long a statement may go on after it was told to end.
const STUCK: Duration = Duration::from_secs(10);
/// How long statements in work may take when the server stops.
const DRAIN: Duration = Duration::from_secs(20);

/// The user's name; there is one.
pub(super) const USER: &str = "default";

/// What all requests share.
pub(super) struct Server {
    pub(super) library: Library,
    /// Arguments of every session.
    pub(super) arguments: Arc<[String]>,
    pub(super) password: String,
    /// Statements that run at the same time; further ones wait.
    pub(super) places: Arc<Semaphore>,
    /// How many of them may be reading ones: who does not take his answer keeps his place, and the sink
    /// must find one all the same.
    pub(super) reading_places: Arc<Semaphore>,
    pub(super) abandoned: mpsc::UnboundedSender<Running>,
}

impl Server {
    /// Serves until `stop` is true, then lets statements in work come to their end.
    pub(super) async fn serve(self: Arc<Self>, listener: TcpListener, stop: watch::Receiver<bool>) {
        let mut connections = JoinSet::new();
        let mut stopped = stop.clone();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(Arc::clone(&self).connection(stream, stop.clone()));
                    }
                    Err(error) => {
                        // Out of file descriptors, mostly: others may close theirs meanwhile.
                        warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(CANCEL_INTERVAL).await;
                    }
                },
                () = told_to(&mut stopped) => break,
                Some(_) = connections.join_next() => {}
            }
        }
        let all = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, all).await.is_err() {
            warn!("statements in work were broken off");
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, mut stop: watch::Receiver<bool>) {
        // Answers are small and waited for.
        drop(stream.set_nodelay(true));
        let service = service_fn(|request| Arc::clone(&self).request(request));
        let mut server = http1::Builder::new();
        let connection =
            server.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
        if let Err(error) = until_told(connection, &mut stop).await {
            debug!(%error, "a connection broke");
        }
    }

    async fn request(
        self: Arc<Self>,
        request: hyper::Request<Incoming>,
    ) -> Result<Answer, Infallible> {
        let (head, body) = request.into_parts();
        let is_get = head.method == Method::GET || head.method == Method::HEAD;
        if is_get && matches!(head.uri.path(), "/ping" | "/replicas_status") {
            return Ok(answer::plain(StatusCode::OK, "Ok.\n"));
        }
        if head.uri.path() != "/" {
            return Ok(answer::plain(StatusCode::NOT_FOUND, "there is no such path\n"));
        }
        let request = match Request::read(&head) {
            Ok(request) => request,
            Err(refusal) => return Ok(answer::refused(&refusal, "")),
        };
        if !request.is_allowed(USER, &self.password) {
            return Ok(answer::refused(&Refusal::authentication(), ""));
        }
        if is_get && request.query.is_empty() {
            return Ok(answer::plain(StatusCode::OK, "Ok.\n"));
        }
        Ok(self.run(request, body).await)
    }

    async fn place(
        &self,
        reads: bool,
    ) -> Result<(Option<OwnedSemaphorePermit>, OwnedSemaphorePermit), AcquireError> {
        let reading = match reads {
            true => Some(Arc::clone(&self.reading_places).acquire_owned().await?),
            false => None,
        };
        Ok((reading, Arc::clone(&self.places).acquire_owned().await?))
    }

    async fn run(&self, request: Request, body: Incoming) -> Answer {
        let random = |length| Alphanumeric.sample_string(&mut rand::rng(), length);
        let query_id = request.query_id.clone().unwrap_or_else(|| random(24));
        let (tag, reads) = (format!("[tailwater {}]", random(16)), request.is_bound_to_read());
        let running = Running::new(tag, reads, self.abandoned.clone());
        let Ok(place) = self.place(reads).await else {
            return answer::refused(&Refusal::stopping(), &query_id);
        };
        let guard = running.guard();
        let (reply, answered) = oneshot::channel();
        let format = String::new();
        let job = Job {
            library: self.library,
            arguments: Arc::clone(&self.arguments),
            upload: Upload::new(body, &request, Handle::current()),
            request,
            running,
            title: Title { query_id: query_id.clone(), format, exception_tag: random(16) },
            reply,
        };
        tokio::task::spawn_blocking(move || {
            job.run();
            drop(place);
        });
        let answer = answered.await;
        // From here on the body, if there is more of it to come, has a guard of its own.
        guard.release();
        answer.unwrap_or_else(|_| answer::refused(&Refusal::stopping(), &query_id))
    }
}

/// Ends statements that nobody waits for any more.
pub(super) async fn cancel_abandoned(
    library: Library,
    arguments: Arc<[String]>,
    mut abandoned: mpsc::UnboundedReceiver<Running>,
) {
    while let Some(running) = abandoned.recv().await {
        tokio::spawn(cancel(library, Arc::clone(&arguments), running));
    }
}

/// Again and again: the statement may not have begun when it was first told to end. Nothing but the end of the
/// process ends one that is within a function whose work grows with the square of a value's length; if all it
/// does is to read, nobody loses more by that than an answer.
async fn cancel(library: Library, arguments: Arc<[String]>, running: Running) {
    let begun = Instant::now();
    while !running.has_ended() {
        if running.reads() && begun.elapsed() > STUCK {
            warn!(
                "a statement that reads cannot be stopped; the engine ends, and is started again"
            );
            // In order it would wait for the statement.
            kill_process(getpid(), Signal::KILL).expect("a process may end itself");
        }
        let mark = literal(running.mark());
        let arguments = Arc::clone(&arguments);
        let told = tokio::task::spawn_blocking(move || {
            let sql = format!("KILL QUERY WHERE endsWith(Settings['log_comment'], {mark}) ASYNC");
            let call = Call { sql: &sql, format: "Null", parameters: &[] };
            library.connect(&arguments).map(|mut session| session.query(&call).map(drop))
        });
        if let Ok(Some(Err(error))) = told.await {
            warn!(%error, "cannot cancel a statement");
        }
        tokio::time::sleep(CANCEL_INTERVAL).await;
    }
}
