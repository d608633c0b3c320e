use std::path::PathBuf;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::LocalSet;

use super::*;
use crate::daemon::End;
use crate::daemon::tests::World;
use crate::show::Topic;

const FILE: &str = "[[network]]\nname = \"web\"\ndriver = \"bridge\"\nsubnets = [\"10.0.9.0/24\"]\n\
                    [[port]]\nnetwork = \"web\"\nname = \"web-1\"\nkind = \"memory\"\n";

/// Serves a heddle of its own while `talk` goes on.
fn serving<F: Future<Output = ()>>(talk: impl FnOnce(PathBuf, Rc<RefCell<Daemon>>) -> F) {
    let World { daemon, directory } = World::new(FILE);
    let path = directory.path().join("heddle.sock");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let (daemon, end) = (Rc::new(RefCell::new(daemon)), Rc::new(Notify::new()));
        let socket = Socket::bind(&path, None).unwrap();
        let api = Api::new(Rc::clone(&daemon), None);
        let served = tokio::task::spawn_local(api.serve(socket, Rc::clone(&end)));
        talk(path.clone(), daemon).await;
        end.notify_one();
        served.await.unwrap();
        assert!(!path.exists());
    });
}

/// Sends bytes, and gives back the status and body of the answer.
async fn send(socket: &PathBuf, bytes: &[u8]) -> (u16, Value) {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

async fn ask(socket: &PathBuf, method: &str, path: &str, body: &str) -> (u16, Value) {
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: heddle\r\ncontent-length: {length}\r\n");
    send(socket, format!("{head}\r\n{body}").as_bytes()).await
}

#[test]
fn every_topic_is_shown() {
    serving(async |socket, _| {
        for topic in Topic::ALL {
            let (status, body) = ask(&socket, "GET", &format!("/v1/{}", topic.name()), "").await;
            assert_eq!(status, 200, "{body}");
            assert!(!topic.text(body).unwrap().is_empty());
        }
        let (_, ports) = ask(&socket, "GET", "/v1/ports", "").await;
        assert_eq!(ports["ports"][0]["addresses"], json!(["10.0.9.2/24"]));
        let (_, fdb) = ask(&socket, "GET", "/v1/fdb?limit=0", "").await;
        assert_eq!((&fdb["fdb"], &fdb["omitted"]), (&json!([]), &json!(1)));
    });
}

#[test]
fn objects_come_change_and_go() {
    serving(async |socket, _| {
        let endpoint = r#"{"network": "web", "name": "x", "kind": "memory"}"#;
        let (status, made) = ask(&socket, "POST", "/v1/endpoints", endpoint).await;
        assert_eq!((status, &made["origin"]), (201, &json!("api")));
        assert_eq!(ask(&socket, "POST", "/v1/endpoints", endpoint).await.0, 409);
        let patch = r#"{"aliases": ["db"]}"#;
        let (status, changed) = ask(&socket, "PATCH", "/v1/endpoints/x", patch).await;
        assert_eq!((status, &changed["aliases"]), (200, &json!(["db"])));
        assert_eq!(ask(&socket, "GET", "/v1/endpoints/x", "").await.1, changed);
        assert_eq!(ask(&socket, "DELETE", "/v1/endpoints/x", "").await.0, 200);
        assert_eq!(ask(&socket, "GET", "/v1/endpoints/x", "").await.0, 404);
        assert_eq!(ask(&socket, "DELETE", "/v1/endpoints/web-1", "").await.0, 409);
        assert_eq!(ask(&socket, "POST", "/v1/reload", "").await.0, 200);
    });
}

#[test]
fn refusals_say_what_is_wrong() {
    serving(async |socket, _| {
        let (status, body) = ask(&socket, "POST", "/v1/networks", r#"{"nane": "db"}"#).await;
        assert_eq!(status, 422);
        let problem = &body["problems"][0];
        assert_eq!((&problem["key"], &problem["kind"]), (&json!("nane"), &json!("unknown_key")));
        assert_eq!(problem["advice"], "did you mean `name`?");
        assert_eq!(ask(&socket, "POST", "/v1/networks", "{").await.0, 400);
        assert_eq!(ask(&socket, "POST", "/v1/ports", "").await.0, 405);
        assert_eq!(ask(&socket, "GET", "/v1/nothing", "").await.0, 404);
        assert_eq!(ask(&socket, "GET", "/v1/fdb?limit=all", "").await.0, 400);
        assert_eq!(ask(&socket, "POST", "/v1/stop", r#"{"dettach": true}"#).await.0, 400);
        let long = " ".repeat(body::MOST_BYTES + 1);
        assert_eq!(ask(&socket, "POST", "/v1/networks", &long).await.0, 413);
    });
}

#[test]
fn a_slow_client_holds_up_nobody() {
    serving(async |socket, _| {
        let mut slow = Vec::new();
        for _ in 0..67 {
            let mut stream = UnixStream::connect(&socket).await.unwrap();
            let head = b"POST /v1/networks HTTP/1.1\r\nhost: heddle\r\ncontent-length: 99\r\n\r\n{";
            stream.write_all(head).await.unwrap();
            slow.push(stream);
        }
        assert_eq!(ask(&socket, "GET", "/v1/ports", "").await.0, 200);
    });
}

#[test]
fn noise_is_answered_and_forgotten() {
    serving(async |socket, _| {
        for noise in [&b"\0\xff\xfe\r\n\r\n"[..], b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"] {
            assert_eq!(send(&socket, noise).await.0, 400);
        }
        assert_eq!(ask(&socket, "GET", "/v1/workers", "").await.0, 200);
    });
}

#[test]
fn the_end_can_be_wished_for() {
    serving(async |socket, daemon| {
        let ending = daemon.borrow().ending();
        let (status, body) = ask(&socket, "POST", "/v1/stop", r#"{"detach": true}"#).await;
        assert_eq!((status, body), (202, json!({ "detach": true })));
        assert_eq!(ending.wished().await, End::Detach);
    });
}

#[test]
fn one_client_follows_packets_at_a_time() {
    serving(async |socket, _| {
        let first = async || {
            let mut stream = UnixStream::connect(&socket).await.unwrap();
            let request = b"GET /v1/trace?filter=tcp HTTP/1.1\r\nhost: heddle\r\n\r\n";
            stream.write_all(request).await.unwrap();
            let mut status = [0; 12];
            stream.read_exact(&mut status).await.unwrap();
            (stream, status.ends_with(b"200"))
        };
        let (stream, accepted) = first().await;
        assert!(accepted);
        assert_eq!(ask(&socket, "GET", "/v1/trace", "").await.0, 409);
        assert_eq!(ask(&socket, "GET", "/v1/trace?filter=nonsense", "").await.0, 400);
        assert_eq!(ask(&socket, "GET", "/v1/ports", "").await.0, 200);
        drop(stream);
        let again = async { while !first().await.1 {} };
        tokio::time::timeout(PATIENCE, again).await.expect("the place was not given free");
    });
}

/// Asks for a capture; answers the connection and the status.
async fn capture(socket: &PathBuf, query: &str) -> (UnixStream, u16) {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let request = format!("GET /v1/capture?{query} HTTP/1.1\r\nhost: heddle\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.unwrap();
    (stream, String::from_utf8_lossy(&status[9..]).parse().unwrap())
}

async fn is_capturing(socket: &PathBuf) -> bool {
    let (_, workers) = ask(socket, "GET", "/v1/workers", "").await;
    let on = |worker: &Value| worker["capturing"] == true;
    workers["workers"].as_array().unwrap().iter().all(on)
}

#[test]
fn one_client_captures_at_a_time_and_its_end_is_the_captures() {
    serving(async |socket, _| {
        assert_eq!(ask(&socket, "DELETE", "/v1/capture", "").await.0, 404);
        for (query, word) in [
            ("port=web-9", "web-9"),
            ("", "``"),
            ("port=all&filter=nonsense", "nonsense"),
            ("port=all&count=x", "count"),
            ("port=all&snaplen=-1", "snaplen"),
            ("port=all&buffer=4096", "131072"),
        ] {
            let (status, body) = ask(&socket, "GET", &format!("/v1/capture?{query}"), "").await;
            assert_eq!(status, 400, "{query}: {body}");
            assert!(body["error"].as_str().unwrap().contains(word), "{query}: {body}");
        }
        assert!(!is_capturing(&socket).await);
        let (stream, status) = capture(&socket, "port=web-1&buffer=131072").await;
        assert_eq!(status, 200);
        assert_eq!(capture(&socket, "port=all").await.1, 409);
        assert!(is_capturing(&socket).await);
        drop(stream);
        let off = async { while is_capturing(&socket).await {} };
        tokio::time::timeout(PATIENCE, off).await.expect("it goes on without a client");
        let (mut stream, status) = capture(&socket, "port=all&buffer=131072").await;
        assert_eq!(status, 200);
        assert_eq!(ask(&socket, "DELETE", "/v1/capture", "").await.0, 200);
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        let said = |text: &str| rest.windows(text.len()).any(|bytes| bytes == text.as_bytes());
        assert!(said("application/x-pcapng") && said("web-1") && said("gateway of web"));
        assert!(rest.ends_with(b"0\r\n\r\n"), "the body has an end");
        assert!(!is_capturing(&socket).await);
    });
}

#[test]
fn a_port_that_goes_ends_its_capture() {
    serving(async |socket, _| {
        let endpoint = r#"{"network": "web", "name": "x", "kind": "memory"}"#;
        assert_eq!(ask(&socket, "POST", "/v1/endpoints", endpoint).await.0, 201);
        let (mut stream, status) = capture(&socket, "port=x&buffer=131072").await;
        assert_eq!(status, 200);
        assert_eq!(ask(&socket, "DELETE", "/v1/endpoints/x", "").await.0, 200);
        assert_eq!(ask(&socket, "POST", "/v1/endpoints", endpoint).await.0, 201);
        let mut rest = Vec::new();
        let end = stream.read_to_end(&mut rest);
        tokio::time::timeout(PATIENCE, end).await.expect("it follows another port").unwrap();
    });
}

/// Values of the kinds that JSON has, under keys that mean something and keys that don't.
fn value() -> impl Strategy<Value = Value> {
    let words = ["web", "web-1", "x", "memory", "tap", "bridge", "10.0.9.0/24", "10.0.9.7", "5s"];
    let keys = ["name", "network", "kind", "driver", "subnets", "address", "mtu", "limits", "mac"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,9}".prop_map(Value::from),
        prop::sample::select(words.to_vec()).prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 67, 9, move |inner| {
        let key = prop_oneof![4 => prop::sample::select(keys.to_vec()).prop_map(str::to_owned), 1 => ".{0,9}"];
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            3 => prop::collection::hash_map(key, inner, 0..9)
                .prop_map(|members| members.into_iter().collect()),
        ]
    })
}

#[test]
fn no_body_makes_it_panic() {
    let World { daemon, directory: _directory } = World::new(FILE);
    let api = Api::new(Rc::new(RefCell::new(daemon)), None);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let methods = [Method::GET, Method::POST, Method::PATCH, Method::DELETE, Method::PUT];
    let paths = ["networks", "endpoints", "networks/x", "endpoints/x", "networks/web", "stop"];
    let requests =
        (prop::sample::select(methods.to_vec()), prop::sample::select(paths.to_vec()), value());
    let mut runner = TestRunner::new(Config::with_cases(257));
    let ran = runner.run(&requests, |(method, path, body)| {
        let request = Request::builder().method(method).uri(format!("/v1/{path}"));
        let request = request.body(Full::new(Bytes::from(body.to_string()))).unwrap();
        let response = runtime.block_on(api.answer(request)).into_response();
        prop_assert_ne!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        Ok(())
    });
    ran.unwrap();
}
