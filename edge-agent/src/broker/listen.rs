//! The doors: where connections are accepted and what is spoken before MQTT.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Broker, Refusal, connection,
    net::{Stream, tls::Tls, web},
};

/// What is spoken on a port.
#[derive(Clone)]
pub enum Door {
    /// MQTT.
    Plain,
    /// MQTT in TLS.
    Tls(Arc<Tls>),
    /// MQTT in WebSocket, that in TLS or not.
    Web {
        /// The keys, for TLS.
        tls: Option<Arc<Tls>>,
        /// Pages that may connect, besides those of the agent's own host.
        allowed_origins: Arc<[String]>,
    },
}

impl Door {
    /// Shakes hands. The second value is the name that the client's certificate proves.
    async fn open(&self, stream: TcpStream) -> std::io::Result<(Stream, Option<String>)> {
        match self {
            Door::Plain => Ok((Stream::Plain(stream), None)),
            Door::Tls(tls) => {
                let (stream, name) = tls.accept(stream).await?;
                Ok((Stream::Tls(Box::new(stream)), name))
            }
            Door::Web { tls, allowed_origins } => {
                let (stream, name) = match tls {
                    None => (Stream::Plain(stream), None),
                    Some(tls) => {
                        let (stream, name) = tls.accept(stream).await?;
                        (Stream::Tls(Box::new(stream)), name)
                    }
                };
                let stream = web::accept(stream, allowed_origins).await?;
                Ok((Stream::Web(Box::new(stream)), name))
            }
        }
    }
}

/// Accepts connections on one port until `stop`.
pub async fn accept_all(
    broker: Arc<Broker>,
    listener: TcpListener,
    door: Door,
    permits: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    loop {
        // A permit before accept: above the limit clients wait in the kernel's queue instead of costing memory.
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = accept(&listener, &permits) => accepted,
        };
        let Some((stream, peer, permit)) = accepted else {
            continue;
        };
        let Some(guest) = broker.addresses.enter(peer.ip(), Instant::now()) else {
            // Nothing is said: an address that opens many is not worth a packet each.
            let refused = broker.counters.address_refusals.fetch_add(1, Ordering::Relaxed);
            broker
                .counters
                .refused_connections
                .fetch_add(1, Ordering::Relaxed);
            broker
                .visitors
                .not_let_in(peer.ip(), None, Refusal::AddressLimit, "too many connections");
            if refused == 0 {
                tracing::warn!(%peer, "an address has too many connections; further ones are only counted");
            }
            continue;
        };
        let (broker, door, stop) = (broker.clone(), door.clone(), stop.child_token());
        tasks.spawn(async move {
            if let Some((stream, name)) = open(&broker, &door, stream, peer, &stop).await {
                connection::run(broker, stream, connection::Peer { peer, name, guest }, stop).await;
            }
            drop(permit);
        });
    }
}

/// What comes before MQTT must be over in the time that a CONNECT is given.
async fn open(
    broker: &Broker,
    door: &Door,
    stream: TcpStream,
    peer: SocketAddr,
    stop: &CancellationToken,
) -> Option<(Stream, Option<String>)> {
    // A reading is one small packet: waiting to fill a segment would only delay its acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "a connection ended before it began");
        return None;
    }
    let opened = tokio::select! {
        () = stop.cancelled() => return None,
        opened = tokio::time::timeout(broker.limits.connect, door.open(stream)) => opened,
    };
    match opened {
        Ok(Ok(opened)) => return Some(opened),
        Ok(Err(error)) => {
            tracing::info!(%peer, %error, "a client did not get as far as MQTT");
            broker
                .visitors
                .not_let_in(peer.ip(), None, Refusal::Handshake, &error.to_string());
        }
        Err(_) => {
            tracing::info!(%peer, "a client did not get as far as MQTT in time");
            broker
                .visitors
                .not_let_in(peer.ip(), None, Refusal::Timeout, "no handshake in time");
        }
    }
    broker
        .counters
        .refused_connections
        .fetch_add(1, Ordering::Relaxed);
    None
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = permits.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, permit)),
        Err(error) => {
            // Out of file descriptors, most likely: waiting lets connections end.
            tracing::warn!(%error, "an MQTT connection could not be accepted");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}
