//! Serving HTTP/1.1 with limits: connections are accepted only while there is room, slow heads are cut off, and
//! a stop lets running requests finish in bounded time.
//!
//! The listener is the caller's, bound before: a test binds port 0 and knows the port. TLS is not done here; in the
//! cluster the proxy in front does it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// Connections open at once, for each listener. Each costs a few kilobytes and a descriptor; a household's browsers
/// and one proxy need a few dozen.
pub const CONNECTIONS: usize = 1024;
/// Time a connection may be idle, or take to send a request's head. Longer than the 90 s a proxy (Traefik) keeps an
/// idle connection, so that it is the proxy that closes and no request meets a closed door.
pub const HEAD_LIMIT: Duration = Duration::from_secs(100);
/// Bytes buffered of a request's head; a longer one is answered 431. Tokens have 1 to 4 KiB.
pub const HEAD_BYTES: usize = 32 * 1024;
/// Time running requests have after a stop; below the lifecycle's own limit, so that it is this that cuts.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(15);
/// Pause after an accept failed for want of descriptors or memory: trying at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Binds an address; the error names it.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))
}

/// The sockets of a service with a public port, bound before anything starts.
#[derive(Debug)]
pub struct Listeners {
    /// The public port.
    pub public: TcpListener,
    /// The admin port: liveness, readiness, metrics.
    pub admin: TcpListener,
}

impl Listeners {
    /// Binds both.
    pub async fn bind(public: SocketAddr, admin: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self {
            public: bind(public).await?,
            admin: bind(admin).await?,
        })
    }
}

/// Serves `router` on `listener` until `stop`, then lets running requests finish within [`DRAIN_LIMIT`].
///
/// A connection that was upgraded (WebSocket) leaves this count and this drain; its task is the service's own.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) -> anyhow::Result<()> {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = TaskTracker::new();
    let cut = CancellationToken::new();
    loop {
        // The permit comes first: without room the kernel's queue holds the caller, not our memory.
        let permit = tokio::select! {
            () = stop.cancelled() => break,
            permit = room.clone().acquire_owned() => permit.expect("the semaphore is never closed"),
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = connection(stream, peer, router.clone(), stop.clone());
                let cut = cut.clone();
                connections.spawn(async move {
                    let _permit = permit;
                    tokio::select! {
                        () = cut.cancelled() => {}
                        () = connection => {}
                    }
                });
            }
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(DRAIN_LIMIT, connections.wait())
        .await
        .is_err()
    {
        tracing::warn!("{} connections were still busy and are cut", connections.len());
        cut.cancel();
        connections.wait().await;
    }
    Ok(())
}

async fn connection(stream: TcpStream, peer: SocketAddr, router: Router, stop: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("cannot set TCP_NODELAY: {error}");
    }
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let router = router.clone();
        async move {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            let response: Result<_, Infallible> = router.oneshot(request).await;
            response
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.as_mut().await
        }
    };
    if let Err(error) = outcome {
        // A caller that vanishes or writes nonsense is its own affair.
        tracing::debug!("a connection ended: {error}");
    }
}
