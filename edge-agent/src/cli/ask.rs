//! Asking the agent that runs on this machine: its admin port for what anybody may see, its control socket for the rest.
//!
//! A plain HTTP/1.0 request: the answer ends with the connection, so no HTTP client is needed.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use serde_json::Value;

use crate::{config::Whereabouts, control};

/// A question to a running agent is answered at once, or not at all.
const LIMIT: Duration = Duration::from_secs(5);
/// One that makes it read a topic of Redpanda takes as long as that may, and a little.
const CONTROL_LIMIT: Duration = Duration::from_secs(control::READ_LIMIT.as_secs() + 15);
/// Longest answer: a thousand clients, two hundred letters with their payloads, and more than enough.
const ANSWER_BYTES: u64 = 128 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error(
        "no agent answers on admin.listen {address}: {source}; is it running? (systemctl status edge-agent)"
    )]
    NotRunning {
        /// Where it was asked.
        address: std::net::SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// Nobody listens on the control socket, or this user may not ask there.
    #[error(
        "the agent cannot be asked at {path}: {source}; is it running, and are you root or its user? \
         (systemctl status edge-agent)"
    )]
    NoControl {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It began to answer and did not end.
    #[error("the agent's answer could not be read: {0}")]
    Broken(#[from] std::io::Error),
    /// Something else listens there.
    #[error("what answered is not an edge agent: {0}")]
    Foreign(&'static str),
    /// It said why not.
    #[error("{0}")]
    Refused(String),
}

/// A page of the admin port.
pub fn page(place: &Whereabouts, path: &str) -> Result<Value, AskError> {
    let mut address = place.admin_listen();
    if address.ip().is_unspecified() {
        let loopback: std::net::IpAddr = match address {
            std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        address.set_ip(loopback);
    }
    let stream = TcpStream::connect_timeout(&address, LIMIT)
        .map_err(|source| AskError::NotRunning { address, source })?;
    stream.set_read_timeout(Some(LIMIT))?;
    exchange(stream, "GET", path)
}

/// A question on the control socket.
pub fn control(place: &Whereabouts, method: &str, path: &str) -> Result<Value, AskError> {
    let socket = control::socket(&place.data_dir);
    let stream =
        UnixStream::connect(&socket).map_err(|source| AskError::NoControl { path: socket, source })?;
    stream.set_read_timeout(Some(CONTROL_LIMIT))?;
    exchange(stream, method, path)
}

fn exchange(mut stream: impl Read + Write, method: &str, path: &str) -> Result<Value, AskError> {
    let request = format!("{method} {path} HTTP/1.0\r\nHost: edge-agent\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES).read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or(AskError::Foreign("no HTTP"))?;
    let code = head.split(' ').nth(1).unwrap_or_default();
    match serde_json::from_str::<Value>(body) {
        Ok(value) if code == "200" => Ok(value),
        Ok(value) => match value["error"].as_str() {
            Some(error) => Err(AskError::Refused(error.to_owned())),
            None => Err(AskError::Foreign("no answer to this question")),
        },
        Err(_) if code == "404" => Err(AskError::Foreign(
            "it does not know the question; is it of an older version?",
        )),
        Err(_) => Err(AskError::Foreign("no JSON")),
    }
}
