//! The process itself: exit codes, what it says of wrong settings, and how signals end it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A start, or a stop with a drain of 15 s, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(40);

/// Nobody listens on port 1: a service starts without its database and its issuer.
const SETTINGS: [(&str, &str); 4] = [
    ("DATABASE_URL", "postgres://api:hush@127.0.0.1:1/telemetry"),
    ("OIDC_ISSUERS", "http://127.0.0.1:1"),
    ("OIDC_AUDIENCES", "homelab"),
    ("METRICS_ADDRESS", "127.0.0.1:0"),
];

fn command(variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_homelab-api"));
    command
        .env_clear()
        .envs(variables.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Exit code and log of a process that ends by itself.
fn ends(variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = command(variables).output().unwrap();
    assert!(output.stdout.is_empty(), "nothing is written but the log");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn wrong_settings_end_with_64_and_name_the_variable() {
    for (variables, want) in [
        (vec![], "DATABASE_URL is not set"),
        (vec![("LISTEN_ADDRESS", "here")], "LISTEN_ADDRESS is invalid"),
        (
            vec![("LOG_FORMAT", "xml")],
            "LOG_FORMAT is invalid: must be json or pretty",
        ),
        (vec![("LOG_LEVEL", "a=b=c")], "LOG_LEVEL is invalid"),
        (
            [&SETTINGS[..], &[("DATABASE_URL_FILE", "/nowhere")]].concat(),
            "DATABASE_URL and DATABASE_URL_FILE are both set",
        ),
        (
            [&SETTINGS[1..], &[("DATABASE_URL_FILE", "/nowhere")]].concat(),
            "DATABASE_URL_FILE names /nowhere",
        ),
        (
            [&SETTINGS[1..], &[("DATABASE_URL", "api:hush@h/d")]].concat(),
            "DATABASE_URL is invalid: not a postgres address",
        ),
        (
            [&SETTINGS[..], &[("OIDC_ISSUERS", "issuer")]].concat(),
            "OIDC_ISSUERS is invalid",
        ),
        (SETTINGS[..2].to_vec(), "OIDC_AUDIENCES is not set"),
    ] {
        let (code, log) = ends(&variables);
        assert_eq!(code, Some(64), "{variables:?}: {log}");
        assert!(log.contains(want), "{want} is missing in {log}");
        assert!(!log.contains("hush"), "the password is in {log}");
        let line: serde_json::Value = serde_json::from_str(log.trim()).unwrap();
        assert_eq!(line["level"], "ERROR", "one JSON line: {log}");
    }
}

#[test]
fn a_port_that_is_taken_ends_with_1_and_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, log) = ends(&[&SETTINGS[..], &[("LISTEN_ADDRESS", &address)]].concat());
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains(&format!("cannot listen on {address}")), "{log}");
}

/// A running process on a free port; it is killed when the test fails.
struct Running {
    child: Child,
    address: SocketAddr,
}

impl Running {
    fn start() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let listen = address.to_string();
        let mut child = command(&[&SETTINGS[..], &[("LISTEN_ADDRESS", &listen)]].concat());
        let child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let running = Self { child, address };
        let begin = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(begin.elapsed() < DEADLINE, "it does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        running
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([name, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    fn ended(&mut self) -> (Option<i32>, Duration) {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.code(), begin.elapsed());
            }
            assert!(begin.elapsed() < DEADLINE, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already where the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The whole answer of `/readyz`.
fn ready(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn it_starts_without_database_and_issuer_and_says_so() {
    let mut running = Running::start();
    let answer = ready(running.address);
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(
        answer.ends_with(r#"{"status":"unavailable","failing":["issuer","database"]}"#),
        "{answer}"
    );
    running.signal("-TERM");
    let (code, _) = running.ended();
    assert_eq!(code, Some(0));
}

#[test]
fn a_second_signal_ends_a_drain_at_once() {
    let mut running = Running::start();
    // Half a request's head keeps a connection busy, and with it the drain.
    let mut stream = TcpStream::connect(running.address).unwrap();
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: ").unwrap();
    // Connections are served in their order: an answer to a later one says that the half head was read.
    ready(running.address);
    running.signal("-INT");
    let begin = Instant::now();
    while TcpStream::connect(running.address).is_ok() {
        assert!(begin.elapsed() < DEADLINE, "it does not stop");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(running.child.try_wait().unwrap().is_none(), "it drains");
    running.signal("-INT");
    let (code, elapsed) = running.ended();
    assert_eq!(code, Some(1));
    assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
}
