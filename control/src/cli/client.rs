//! The other end of the API.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Failure;

/// A heddle that runs on this host, by its socket.
#[derive(Debug)]
pub(super) struct Client {
    socket: PathBuf,
    runtime: Runtime,
}

/// How long heddle may take for an answer; streams may pause for longer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often to look whether heddle has gone.
const LOOK: Duration = Duration::from_millis(20);

impl Client {
    /// Will talk to the heddle at `socket`.
    pub(super) fn new(socket: &Path) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::failed(error.to_string()))?;
        Ok(Self { socket: socket.to_owned(), runtime })
    }

    /// Asks for `path`.
    pub(super) fn fetch(&self, path: &str) -> Result<Value, Failure> {
        self.call(Method::GET, path, None)
    }

    /// Sends a request and waits for the whole answer.
    pub(super) fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let exchange = async {
            let response = self.send(method, path, body).await?;
            whole(response).await
        };
        self.runtime.block_on(async {
            let late = || Failure::failed(format!("heddle has not answered within {PATIENCE:?}"));
            tokio::time::timeout(PATIENCE, exchange).await.map_err(|_| late())?
        })
    }

    /// Asks for `path` and hands over each line of the answer, until it ends or `take` fails.
    pub(super) fn lines(
        &self,
        path: &str,
        mut take: impl FnMut(&str) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut text = Vec::new();
        self.runtime.block_on(async {
            let mut body = self.open(path).await?;
            while let Some(piece) = self.piece(&mut body).await? {
                text.extend_from_slice(&piece);
                while let Some(end) = text.iter().position(|&byte| byte == b'\n') {
                    let line: Vec<u8> = text.drain(..=end).collect();
                    take(String::from_utf8_lossy(&line).trim_end())?;
                }
            }
            Ok(())
        })
    }

    /// Asks for `path` and hands over the answer piece by piece, until it ends or `take` fails.
    /// Ctrl-C, or SIGTERM, deletes `path`, so that the answer ends in good order; the second time
    /// it ends at once.
    pub(super) fn until_interrupted(
        &self,
        path: &str,
        query: &str,
        mut take: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.runtime.block_on(async {
            let mut signals = Signals::listen()?;
            let mut body = self.open(&format!("{path}?{query}")).await?;
            let mut asked = false;
            loop {
                tokio::select! {
                    piece = self.piece(&mut body) => match piece? {
                        Some(piece) => take(&piece)?,
                        None => return Ok(()),
                    },
                    () = signals.next() => {
                        if std::mem::replace(&mut asked, true) {
                            return Ok(());
                        }
                        // If it has ended by itself meanwhile, so much the better.
                        let _ = self.send(Method::DELETE, path, None).await?;
                    }
                }
            }
        })
    }

    /// Asks for `path`; the body of the answer, which may go on for long.
    async fn open(&self, path: &str) -> Result<Incoming, Failure> {
        let response = self.send(Method::GET, path, None).await?;
        if response.status().is_success() {
            return Ok(response.into_body());
        }
        let message = format!("heddle answers {}", response.status());
        Err(whole(response).await.err().unwrap_or_else(|| Failure::failed(message)))
    }

    /// The next piece of a body, unless it has ended.
    async fn piece(&self, body: &mut Incoming) -> Result<Option<Bytes>, Failure> {
        let Some(frame) = body.frame().await else { return Ok(None) };
        let frame = frame.map_err(|error| self.broken(&error))?;
        Ok(Some(frame.into_data().unwrap_or_default()))
    }

    /// Waits until nobody listens at the socket any more.
    pub(super) fn wait_until_gone(&self) -> Result<(), Failure> {
        let gone = async {
            while UnixStream::connect(&self.socket).await.is_ok() {
                tokio::time::sleep(LOOK).await;
            }
        };
        let late = |_| Failure::failed(format!("heddle has not stopped within {PATIENCE:?}"));
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, gone).await.map_err(late) })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response<Incoming>, Failure> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| self.unreachable(&e))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.broken(&e))?;
        tokio::spawn(connection);
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = Request::builder().method(method).uri(path).header("host", "heddle");
        let request = request.body(Full::new(Bytes::from(body)));
        let request = request.map_err(|error| Failure::wrong(error.to_string()))?;
        sender.send_request(request).await.map_err(|e| self.broken(&e))
    }

    fn unreachable(&self, error: &std::io::Error) -> Failure {
        let socket = self.socket.display();
        let advice = match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
                "is heddle running? --api names its socket"
            }
            std::io::ErrorKind::PermissionDenied => "it is for root and the group heddle",
            _ => "--api names heddle's socket",
        };
        Failure::failed(format!("no heddle at {socket}: {error}; {advice}"))
    }

    fn broken(&self, error: &hyper::Error) -> Failure {
        Failure::failed(format!("{}: the conversation broke off: {error}", self.socket.display()))
    }
}

/// What ends a command.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let failed = |error| Failure::failed(format!("listening for signals: {error}"));
        let listen = |kind| signal(kind).map_err(failed);
        let interrupt = listen(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: listen(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// The contents of an answer, or the failure that it tells of.
async fn whole(response: Response<Incoming>) -> Result<Value, Failure> {
    let status = response.status();
    let body = response.into_body().collect().await;
    let bytes = body.map_err(|error| Failure::failed(error.to_string()))?.to_bytes();
    let json: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    if status.is_success() {
        return Ok(json);
    }
    let said = json.get("error").and_then(Value::as_str);
    let message = said.map_or_else(|| format!("heddle answers {status}"), str::to_owned);
    // What was asked is wrong in itself, as a command line may be.
    let wrong = status == 400 || status == 422;
    Err(if wrong { Failure::wrong(message) } else { Failure::failed(message) })
}
