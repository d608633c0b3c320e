//! `/v1/capture`: frames as pcapng, for as long as the client listens.
//!
//! The workers' rings are emptied on a timer, and only while there is a client. One capture goes
//! on at a time. Its client may have it ended in good order by a second request; one that goes
//! away ends it at once.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::str::FromStr;
use std::time::Duration;

use hyper::StatusCode;
use hyper::body::Bytes;
use serde_json::json;
use tokio::sync::mpsc::{Sender, channel};
use tokio::time::timeout;

use super::answer::Answer;
use super::{Api, PATIENCE, query};
use crate::capture::{BUFFER, Capture, Error, Request, WHOLE};
use crate::daemon::Daemon;

/// How far a capture has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Stage {
    /// Nobody captures.
    #[default]
    Off,
    /// Frames are captured.
    On,
    /// No more are, but some wait to be sent.
    Ending,
}

impl Stage {
    /// The stage that comes next when somebody wants the end.
    pub(super) fn ending(self) -> Self {
        if self == Self::Off { Self::Off } else { Self::Ending }
    }
}

/// How often the workers' rings are looked at, when there was nothing.
const LOOK: Duration = Duration::from_millis(5);
/// Bytes that are taken and sent in one go.
const PIECE: usize = 256 << 10;
/// Pieces that wait for the client.
const WAITING: usize = 8;

/// A capture that goes on, until it is dropped.
struct Going {
    daemon: Rc<RefCell<Daemon>>,
    stage: Rc<Cell<Stage>>,
    capture: Option<Capture>,
    pieces: Sender<Bytes>,
}

impl Api {
    /// Captures what is asked for.
    pub(super) fn capture(&self, asked: Option<&str>) -> Result<Answer, Answer> {
        let request = request(asked)?;
        if self.capturing.get() != Stage::Off {
            let error = "somebody captures already, and one can at a time";
            return Err(Answer::refusal(StatusCode::CONFLICT, error));
        }
        let capture = Capture::start(self.daemon.borrow().switch(), &request)?;
        self.capturing.set(Stage::On);
        let (daemon, stage) = (Rc::clone(&self.daemon), Rc::clone(&self.capturing));
        let (pieces, client) = channel(WAITING);
        let going = Going { daemon, stage, capture: Some(capture), pieces };
        tokio::task::spawn_local(going.go_on());
        Ok(Answer::pcapng(client))
    }

    /// Ends the capture that goes on.
    pub(super) fn end_capture(&self) -> Result<Answer, Answer> {
        if self.capturing.get() == Stage::Off {
            return Err(Answer::refusal(StatusCode::NOT_FOUND, "nobody captures"));
        }
        self.capturing.set(self.capturing.get().ending());
        Ok(Answer::ok(json!({})))
    }
}

impl Going {
    async fn go_on(mut self) {
        loop {
            let ending = self.stage.get() == Stage::Ending;
            let (blocks, over) = self.look(ending);
            if !blocks.is_empty() {
                if !self.send(blocks).await {
                    return;
                }
                // There is other work on this thread.
                tokio::task::yield_now().await;
            } else if ending || over {
                break;
            } else if timeout(LOOK, self.pieces.closed()).await.is_ok() {
                return;
            }
        }
        let capture = self.stop();
        let end = capture.map(|capture| capture.finish(self.daemon.borrow().switch()));
        self.send(end.unwrap_or_default()).await;
    }

    /// The next blocks, and whether there can be no more.
    fn look(&mut self, ending: bool) -> (Vec<u8>, bool) {
        let Some(capture) = &mut self.capture else { return (Vec::new(), true) };
        let daemon = self.daemon.borrow();
        if ending {
            capture.stop(daemon.switch());
        }
        (capture.look(daemon.switch(), PIECE), capture.is_over())
    }

    /// Sends a piece. Answers whether the client takes more.
    async fn send(&self, piece: Vec<u8>) -> bool {
        // A client that takes nothing for so long is as good as gone.
        matches!(timeout(PATIENCE, self.pieces.send(piece.into())).await, Ok(Ok(())))
    }

    /// Has the workers copy nothing more, and makes place for another capture.
    fn stop(&mut self) -> Option<Capture> {
        let capture = self.capture.take()?;
        // Nobody has the daemon while a task is run or dropped.
        if let Ok(daemon) = self.daemon.try_borrow() {
            capture.stop(daemon.switch());
        }
        self.stage.set(Stage::Off);
        Some(capture)
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What the request's target asks for.
fn request(asked: Option<&str>) -> Result<Request, Answer> {
    Ok(Request {
        port: query::value(asked, "port").unwrap_or_default(),
        filter: query::value(asked, "filter").unwrap_or_default(),
        snaplen: number(asked, "snaplen")?.unwrap_or(WHOLE),
        buffer: number(asked, "buffer")?.unwrap_or(BUFFER),
        count: number(asked, "count")?,
    })
}

fn number<T: FromStr>(asked: Option<&str>, key: &str) -> Result<Option<T>, Answer> {
    let Some(text) = query::value(asked, key) else { return Ok(None) };
    let refused = |_| {
        let error = format!("{key}={text:?}: expected a number");
        Answer::refusal(StatusCode::BAD_REQUEST, error)
    };
    text.parse().map(Some).map_err(refused)
}

impl From<Error> for Answer {
    fn from(error: Error) -> Self {
        let status = match error {
            Error::Filter(_) | Error::Buffer { .. } => StatusCode::BAD_REQUEST,
            Error::Worker(_) | Error::Write(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::refusal(status, error.to_string())
    }
}
