//! Which request does what.

use hyper::body::Body;
use hyper::{Method, Request, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::Answer;
use super::{Api, body, query};
use crate::daemon::{Daemon, End, Kind};
use crate::show::{self, Topic};

/// What a path stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target<'a> {
    Topic(Topic),
    /// All objects of a kind.
    Objects(Kind),
    Object(Kind, &'a str),
    Reload,
    Stop,
    Trace,
    Capture,
}

/// The body of `/v1/stop`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Stop {
    detach: bool,
}

impl Api {
    /// Does what a request asks for.
    pub(super) async fn answer<B>(&self, request: Request<B>) -> Answer
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        let Some(target) = Target::of(path) else {
            let status = StatusCode::NOT_FOUND;
            return Answer::refusal(status, format!("there is nothing at `{path}`"));
        };
        // Read first, so that the daemon is taken and given back in one go.
        let body = match body::json(body).await {
            Ok(body) => body,
            Err(refusal) => return refusal,
        };
        let done = self.act(&head.method, target, head.uri.query(), body);
        done.unwrap_or_else(|refusal| refusal)
    }

    fn act(
        &self,
        method: &Method,
        target: Target<'_>,
        asked: Option<&str>,
        body: Value,
    ) -> Result<Answer, Answer> {
        // What goes on for longer takes the daemon by itself.
        match (method, &target) {
            (&Method::GET, Target::Trace) => return self.trace(asked),
            (&Method::GET, Target::Capture) => return self.capture(asked),
            (&Method::DELETE, Target::Capture) => return self.end_capture(),
            _ => {}
        }
        let daemon = &mut *self.daemon.borrow_mut();
        match (method, target) {
            (&Method::GET, Target::Topic(topic)) => show(daemon, topic, asked),
            (&Method::GET, Target::Objects(Kind::Network)) => show(daemon, Topic::Networks, asked),
            (&Method::GET, Target::Object(kind, name)) => {
                daemon.inspect(kind, name).map(Answer::ok).map_err(Answer::from)
            }
            (&Method::POST, Target::Objects(kind)) => create(daemon, kind, body),
            (&Method::PATCH, Target::Object(kind, name)) => update(daemon, kind, name, body),
            (&Method::DELETE, Target::Object(kind, name)) => {
                daemon.remove(kind, name).map(|()| Answer::ok(json!({}))).map_err(Answer::from)
            }
            (&Method::POST, Target::Reload) => {
                crate::run::reload(daemon).map(Answer::ok).map_err(Answer::from)
            }
            (&Method::POST, Target::Stop) => stop(daemon, body),
            (method, _) => {
                let error = format!("this path does not take {method}");
                Err(Answer::refusal(StatusCode::METHOD_NOT_ALLOWED, error))
            }
        }
    }
}

impl<'a> Target<'a> {
    fn of(path: &'a str) -> Option<Self> {
        let mut parts = path.strip_prefix("/v1/")?.splitn(2, '/');
        let (first, name) = (parts.next()?, parts.next());
        let kind = match first {
            "networks" => Some(Kind::Network),
            "endpoints" => Some(Kind::Endpoint),
            _ => None,
        };
        match (first, kind, name) {
            (_, Some(kind), None) => Some(Self::Objects(kind)),
            (_, Some(kind), Some(name)) => Some(Self::Object(kind, name)),
            ("reload", None, None) => Some(Self::Reload),
            ("stop", None, None) => Some(Self::Stop),
            ("trace", None, None) => Some(Self::Trace),
            ("capture", None, None) => Some(Self::Capture),
            (topic, None, None) => Topic::named(topic).map(Self::Topic),
            (_, None, Some(_)) => None,
        }
    }
}

fn show(daemon: &Daemon, topic: Topic, asked: Option<&str>) -> Result<Answer, Answer> {
    let switch = daemon.switch();
    Ok(match topic {
        Topic::Ports => Answer::ok(show::ports::View::of(switch)),
        Topic::Networks => Answer::ok(show::networks::View::of(switch)),
        Topic::Fdb => Answer::ok(show::fdb::View::of(switch, limit(asked)?)),
        Topic::Drops => Answer::ok(show::drops::View::of(switch)),
        Topic::Counters => Answer::ok(show::counters::View::of(switch)),
        Topic::Workers => match show::workers::View::of(switch) {
            Ok(view) => Answer::ok(view),
            Err(error) => {
                return Err(Answer::refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()));
            }
        },
    })
}

fn limit(asked: Option<&str>) -> Result<usize, Answer> {
    let Some(text) = query::value(asked, "limit") else { return Ok(show::fdb::LIMIT) };
    text.parse().map_err(|_| {
        Answer::refusal(StatusCode::BAD_REQUEST, format!("limit={text:?}: expected a number"))
    })
}

fn create(daemon: &mut Daemon, kind: Kind, body: Value) -> Result<Answer, Answer> {
    let name = daemon.create(kind, body)?;
    Ok(Answer::with(StatusCode::CREATED, daemon.inspect(kind, &name)?))
}

fn update(daemon: &mut Daemon, kind: Kind, name: &str, patch: Value) -> Result<Answer, Answer> {
    daemon.update(kind, name, patch)?;
    Ok(Answer::ok(daemon.inspect(kind, name)?))
}

fn stop(daemon: &Daemon, body: Value) -> Result<Answer, Answer> {
    let Stop { detach } = serde_json::from_value(body)
        .map_err(|error| Answer::refusal(StatusCode::BAD_REQUEST, error.to_string()))?;
    daemon.ending().wish(if detach { End::Detach } else { End::Leave });
    Ok(Answer::with(StatusCode::ACCEPTED, json!({ "detach": detach })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_targets() {
        assert_eq!(Target::of("/v1/ports"), Some(Target::Topic(Topic::Ports)));
        assert_eq!(Target::of("/v1/networks"), Some(Target::Objects(Kind::Network)));
        let object = Target::Object(Kind::Endpoint, "web-1");
        assert_eq!(Target::of("/v1/endpoints/web-1"), Some(object));
        assert_eq!(Target::of("/v1/reload"), Some(Target::Reload));
        for nothing in ["/", "/v1", "/v1/", "/v2/ports", "/v1/ports/web-1", "/v1/stop/now"] {
            assert_eq!(Target::of(nothing), None);
        }
    }
}
