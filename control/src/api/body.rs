//! Bodies of requests: JSON, of bounded size, within bounded time.

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::StatusCode;
use hyper::body::Body;
use serde_json::Value;

use super::PATIENCE;
use super::answer::Answer;

/// A longer body is refused.
pub(super) const MOST_BYTES: usize = 1 << 20;

/// Reads a body whatever its content type says; nothing is an empty object.
pub(super) async fn json<B>(body: B) -> Result<Value, Answer>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let collected = tokio::time::timeout(PATIENCE, Limited::new(body, MOST_BYTES).collect()).await;
    let bytes = match collected {
        Err(_) => {
            let late = format!("the body was not there after {PATIENCE:?}");
            return Err(Answer::refusal(StatusCode::REQUEST_TIMEOUT, late));
        }
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let long = format!("the body has more than {MOST_BYTES} bytes");
            return Err(Answer::refusal(StatusCode::PAYLOAD_TOO_LARGE, long));
        }
        Ok(Err(error)) => return Err(Answer::refusal(StatusCode::BAD_REQUEST, error.to_string())),
        Ok(Ok(collected)) => collected.to_bytes(),
    };
    if bytes.trim_ascii().is_empty() {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    serde_json::from_slice(&bytes).map_err(|error| {
        let message = format!("the body is not JSON: {error}");
        Answer::refusal(StatusCode::BAD_REQUEST, message)
    })
}
