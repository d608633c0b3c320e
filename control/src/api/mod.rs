//! The API: HTTP/1.1 and JSON on a Unix socket.
//!
//! | request | what it does |
//! |---|---|
//! | `GET /v1/ports`, `networks`, `fdb`, `drops`, `counters`, `workers` | what [`show`](crate::show) shows; `fdb` takes `?limit=N` |
//! | `POST /v1/networks`, `/v1/endpoints` | makes an object with the keys of `[[network]]` or `[[port]]` |
//! | `GET`, `PATCH`, `DELETE /v1/networks/NAME`, `/v1/endpoints/NAME` | shows, changes (RFC 7396) or removes one |
//! | `POST /v1/reload` | takes up the changed configuration file |
//! | `POST /v1/stop` | ends heddle; with `{"detach": true}` removes its devices |
//! | `GET /v1/trace?filter=WORDS&count=N` | follows packets: a line of JSON for each, with its `steps` and their `text` |
//! | `GET /v1/capture?port=NAME&filter=WORDS&count=N&snaplen=BYTES&buffer=BYTES` | captures frames of a port, or of `all`, as pcapng; one capture goes on at a time |
//! | `DELETE /v1/capture` | ends the capture that goes on: its client gets what waits, and statistics |
//!
//! What is refused is answered with a status and `{"error": TEXT, "problems": [...]}`, each
//! problem with its `kind`, `key`, `found`, `expected` and `advice`.
//!
//! Requests are answered on the control thread, between its other work: each takes what it needs
//! from the [`Daemon`] in one go. What a client does not take waits in its own task, so a slow
//! one holds up nobody but itself, and not for longer than [`PATIENCE`].

mod answer;
mod body;
mod capture;
mod peer;
pub(crate) mod query;
mod route;
mod socket;
#[cfg(test)]
mod tests;
mod trace;

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::UnixStream;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

use crate::daemon::Daemon;
use answer::Answer;

pub use peer::Group;
pub use socket::{Socket, SocketError};

/// How long a client may take for its request, and for taking an answer.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Clients that are served at a time; more wait.
const MOST_CLIENTS: usize = 128;
/// How long answers that are under way may take when heddle ends.
const FAREWELL: Duration = Duration::from_millis(500);
/// How long to wait when there is no descriptor for a client.
const BREATH: Duration = Duration::from_millis(100);

/// What requests are answered from.
pub struct Api {
    daemon: Rc<RefCell<Daemon>>,
    group: Option<Group>,
    /// Whether somebody follows packets.
    followed: Rc<Cell<bool>>,
    /// Whether somebody captures.
    capturing: Rc<Cell<capture::Stage>>,
}

impl Api {
    /// Answers from `daemon`, to root and the members of `group`.
    pub fn new(daemon: Rc<RefCell<Daemon>>, group: Option<Group>) -> Self {
        Self { daemon, group, followed: Rc::default(), capturing: Rc::default() }
    }

    /// Serves clients until `end` is told; then lets answers that are under way be taken, and
    /// removes the socket. It runs in a [`LocalSet`](tokio::task::LocalSet).
    pub async fn serve(self, socket: Socket, end: Rc<Notify>) {
        let this = Rc::new(self);
        let places = Arc::new(Semaphore::new(MOST_CLIENTS));
        let mut clients = JoinSet::new();
        loop {
            let accepted = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (socket.accept().await, place)
            };
            tokio::select! {
                () = end.notified() => break,
                Some(_) = clients.join_next() => {}
                (accepted, place) = accepted => match accepted {
                    Ok(stream) => {
                        let this = Rc::clone(&this);
                        clients.spawn_local(async move {
                            this.converse(stream).await;
                            drop(place);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a client of the API was not accepted");
                        tokio::time::sleep(BREATH).await;
                    }
                },
            }
        }
        // Its client gets the end of the file.
        this.capturing.set(this.capturing.get().ending());
        let farewell = async { while clients.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
    }

    /// One connection, which carries one request.
    async fn converse(self: Rc<Self>, stream: UnixStream) {
        let welcome = peer::admits(self.group.as_ref(), &stream);
        let streaming = Rc::new(Cell::new(false));
        let service = service_fn(|request: Request<Incoming>| {
            let (this, streaming) = (Rc::clone(&self), Rc::clone(&streaming));
            async move {
                let answer = if welcome { this.answer(request).await } else { Answer::stranger() };
                streaming.set(answer.is_stream());
                Ok::<_, Infallible>(answer.into_response())
            }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(PATIENCE).keep_alive(false);
        let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a client of the API went away");
                    }
                    return;
                }
                () = tokio::time::sleep(PATIENCE) => {
                    // A stream ends by itself when nobody takes from it.
                    if !streaming.get() {
                        return;
                    }
                }
            }
        }
    }
}
