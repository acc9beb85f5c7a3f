//! The HTTP server on real sockets: limits of a request's head, and a stop that lets running requests finish.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use service::Lifecycle;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Far longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(20);

async fn start(lifecycle: &Lifecycle, router: Router) -> SocketAddr {
    let listener = service::server::bind("127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    lifecycle.spawn(
        "http",
        service::server::serve(listener, router, lifecycle.token()),
    );
    address
}

async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may answer and close before all of a hostile request is sent.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer))
        .await
        .expect("an answer in time");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn odd_requests_cost_their_sender_only() {
    let lifecycle = Lifecycle::new();
    let address = start(&lifecycle, Router::new().route("/", get(|| async { "fine" }))).await;
    let good = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    for (request, want) in [
        (good.to_owned(), "HTTP/1.1 200"),
        (
            good.replace(
                "host: x",
                &format!("host: x\r\nauthorization: Bearer {}", "x".repeat(1 << 20)),
            ),
            "HTTP/1.1 431",
        ),
        ("NONSENSE\r\n\r\n".to_owned(), "HTTP/1.1 400"),
        ("\u{16}\u{3}\u{1}\r\n\r\n".to_owned(), "HTTP/1.1 400"),
    ] {
        let answer = exchange(address, &request).await;
        // A reset may swallow the answer to a head of a megabyte; what matters is that the server goes on.
        assert!(
            answer.starts_with(want) || (want.ends_with("431") && answer.is_empty()),
            "{want}: {answer}"
        );
        assert!(exchange(address, good).await.starts_with("HTTP/1.1 200"));
    }
    lifecycle.stop();
    lifecycle.wait().await.unwrap();
}

#[tokio::test]
async fn a_stop_lets_a_running_request_finish_and_closes_the_door() {
    let lifecycle = Lifecycle::new();
    let (entered, mut started) = tokio::sync::mpsc::channel(1);
    let (finish, gate) = tokio::sync::watch::channel(false);
    let slow = async move || {
        entered.send(()).await.unwrap();
        let mut gate = gate.clone();
        gate.wait_for(|open| *open).await.unwrap();
        "finished"
    };
    let address = start(&lifecycle, Router::new().route("/slow", get(slow))).await;
    let idle = TcpStream::connect(address).await.unwrap();
    let running =
        tokio::spawn(async move { exchange(address, "GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await });
    started.recv().await.unwrap();
    lifecycle.stop();
    let closed = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, closed)
        .await
        .expect("the door closes");
    finish.send(true).unwrap();
    let answer = running.await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("finished"),
        "{answer}"
    );
    lifecycle.wait().await.unwrap();
    drop(idle);
}
