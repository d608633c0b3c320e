//! Answers: a status and JSON.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::{Either, Full};
use hyper::body::{Body, Bytes, Frame};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::mpsc::Receiver;

use crate::config::Problem;
use crate::daemon::Error;

/// What a request is answered with.
pub(super) struct Answer {
    status: StatusCode,
    contents: Contents,
}

enum Contents {
    Json(Value),
    /// What comes, and its content type.
    Stream(Stream, &'static str),
}

/// Pieces that come one after the other, until their sender is gone.
pub(super) struct Stream(pub(super) Receiver<Bytes>);

impl Answer {
    /// What was asked for.
    pub(super) fn ok(body: impl Serialize) -> Self {
        Self::with(StatusCode::OK, body)
    }

    /// What was asked for, with a status that says more.
    pub(super) fn with(status: StatusCode, body: impl Serialize) -> Self {
        match serde_json::to_value(body) {
            Ok(body) => Self { status, contents: Contents::Json(body) },
            Err(error) => {
                Self::refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("the answer: {error}"))
            }
        }
    }

    /// Lines of JSON, as they come.
    pub(super) fn lines(lines: Receiver<Bytes>) -> Self {
        let contents = Contents::Stream(Stream(lines), "application/x-ndjson");
        Self { status: StatusCode::OK, contents }
    }

    /// A capture, as it comes.
    pub(super) fn pcapng(blocks: Receiver<Bytes>) -> Self {
        let contents = Contents::Stream(Stream(blocks), "application/x-pcapng");
        Self { status: StatusCode::OK, contents }
    }

    /// Why not.
    pub(super) fn refusal(status: StatusCode, error: impl Into<String>) -> Self {
        Self::problems(status, error.into(), &[])
    }

    /// To someone who may not ask.
    pub(super) fn stranger() -> Self {
        let error = "the API is for root and members of the group heddle";
        Self::refusal(StatusCode::FORBIDDEN, error)
    }

    fn problems(status: StatusCode, error: String, problems: &[Problem]) -> Self {
        Self::with(status, json!({ "error": error, "problems": problems }))
    }

    /// Whether it goes on for as long as the client wants.
    pub(super) fn is_stream(&self) -> bool {
        matches!(self.contents, Contents::Stream(..))
    }

    /// As it is sent.
    pub(super) fn into_response(self) -> Response<Either<Full<Bytes>, Stream>> {
        let (kind, body) = match self.contents {
            Contents::Json(json) => {
                let text = format!("{json}\n");
                ("application/json", Either::Left(Full::new(Bytes::from(text))))
            }
            Contents::Stream(stream, kind) => (kind, Either::Right(stream)),
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }
}

impl From<Error> for Answer {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match &error {
            Error::Config(report) => {
                Self::problems(StatusCode::UNPROCESSABLE_ENTITY, text, &report.problems)
            }
            Error::Invalid { problems, .. } => {
                Self::problems(StatusCode::UNPROCESSABLE_ENTITY, text, problems)
            }
            Error::Clash { problem, .. } => {
                Self::problems(StatusCode::CONFLICT, text, std::slice::from_ref(&**problem))
            }
            Error::NotFound { .. } => Self::refusal(StatusCode::NOT_FOUND, text),
            Error::Exists { .. }
            | Error::OwnedByFile { .. }
            | Error::Renamed { .. }
            | Error::InUse { .. }
            | Error::Plan(_) => Self::refusal(StatusCode::CONFLICT, text),
            Error::Store(_) | Error::Switch(_) => {
                tracing::error!(error = text, "a request failed");
                Self::refusal(StatusCode::INTERNAL_SERVER_ERROR, text)
            }
        }
    }
}

impl Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}
