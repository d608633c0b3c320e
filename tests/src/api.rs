//! heddle's API without its command line: what a request itself takes.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use serde_json::Value;

use crate::PATIENCE;

/// The API of a running heddle.
#[derive(Clone, Debug)]
pub struct Api(pub(crate) PathBuf);

impl Api {
    /// Makes an object of a body with its keys. Answers how it is in force.
    ///
    /// # Errors
    /// What heddle said instead.
    pub fn create(&self, objects: &str, body: &Value) -> Result<Value, String> {
        self.call("POST", &format!("/v1/{objects}"), &body.to_string())
    }

    /// Removes an object.
    ///
    /// # Errors
    /// What heddle said instead.
    pub fn remove(&self, objects: &str, name: &str) -> Result<(), String> {
        self.call("DELETE", &format!("/v1/{objects}/{name}"), "").map(drop)
    }

    /// One request on a connection of its own (RFC 9112).
    fn call(&self, method: &str, path: &str, body: &str) -> Result<Value, String> {
        let mut socket = UnixStream::connect(&self.0).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: heddle\r\nconnection: close\r\n\
             content-length: {length}\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).unwrap();
        socket.write_all(body.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        match head.split(' ').nth(1) {
            Some(status) if status.starts_with('2') => {
                Ok(serde_json::from_str(body).unwrap_or(Value::Null))
            }
            _ => Err(answer),
        }
    }
}
