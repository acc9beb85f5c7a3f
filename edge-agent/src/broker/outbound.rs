//! Bytes for a client: messages that wait, topic aliases, last words.

use std::time::{Duration, Instant};

use super::{
    connection::{Connection, End, ended, store_closed},
    net::Stream,
    wire::{self, DisconnectReason, Outgoing, Publish},
};
use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
    time::timeout,
};

/// Topic aliases we set towards a version 5 client, if it takes as many: a dashboard sees some tens of topics.
pub const OUR_ALIASES: u16 = 64;
/// What an alias can add to a packet: itself, and a byte for each of two lengths.
const ALIAS_BYTES: usize = 5;
/// Bytes of messages written in one go.
const WRITE_BATCH_BYTES: usize = 64 * 1024;
/// A client that is sent away is given this long to hear why.
const FAREWELL_LIMIT: Duration = Duration::from_secs(2);

/// Packets that go out once the store of sessions is written up to `after`: they show the client packet ids of QoS 2 messages
/// of a session that outlives the agent. Meanwhile the connection goes on with everything else.
pub struct Held {
    after: u64,
    packets: Vec<Outgoing>,
    store: watch::Receiver<u64>,
}

/// Waits until what is held may go. Cancelled without loss; waits for ever while nothing is held.
pub async fn held_ready(held: &mut Option<Held>) -> Result<(), End> {
    let Some(held) = held else {
        return std::future::pending().await;
    };
    let after = held.after;
    match held.store.wait_for(|written| *written >= after).await {
        Ok(_) => Ok(()),
        Err(_) => Err(store_closed()),
    }
}

impl Connection {
    /// Sends what waits, in its order: behind packets that are held it waits with them.
    pub(super) fn send_waiting(&mut self) -> Result<(), End> {
        if self.held.is_some() {
            return Ok(());
        }
        let (packets, stored) = self.broker.state().next_outgoing(
            &self.client,
            self.generation,
            WRITE_BATCH_BYTES,
            Instant::now(),
        );
        match stored {
            Some(after) if *self.store.borrow() < after => {
                let store = self.store.clone();
                self.held = Some(Held {
                    after,
                    packets,
                    store,
                });
                Ok(())
            }
            _ => packets.into_iter().try_for_each(|packet| self.send(packet)),
        }
    }

    /// Sends what was held, and what has come to wait behind it.
    pub(super) fn send_held(&mut self) -> Result<(), End> {
        let held = self.held.take().map_or_else(Vec::new, |held| held.packets);
        held.into_iter().try_for_each(|packet| self.send(packet))?;
        self.send_waiting()
    }

    pub(super) fn send(&mut self, mut packet: Outgoing) -> Result<(), End> {
        if let Outgoing::Publish(publish) = &mut packet {
            self.set_alias(publish);
        }
        wire::encode(self.version, packet, &mut self.out).map_err(|error| {
            tracing::error!(client = %self.client, %error, "a packet of ours could not be written");
            End::Ours(DisconnectReason::ProtocolError, error.to_string())
        })
    }

    /// The first topics get an alias each, and go by it afterwards, as long as the packet stays one the client takes.
    fn set_alias(&mut self, publish: &mut Publish) {
        if self.our_aliases_max == 0
            || wire::publish_len(self.version, publish) + ALIAS_BYTES > self.max_packet_bytes
        {
            return;
        }
        let used = u16::try_from(self.our_aliases.len()).unwrap_or(u16::MAX);
        let alias = match self.our_aliases.get(&publish.topic) {
            Some(alias) => {
                publish.topic = "".into();
                *alias
            }
            None if used < self.our_aliases_max => {
                self.our_aliases.insert(publish.topic.clone(), used + 1);
                used + 1
            }
            None => return,
        };
        publish.properties.get_or_insert_with(Box::default).topic_alias = Some(alias);
    }

    /// Writes what there is. A client that takes nothing can still be ended.
    pub(super) async fn flush(&mut self) -> Result<(), End> {
        if self.out.is_empty() {
            return Ok(());
        }
        let stream = &mut self.reader.stream;
        let limit = self.broker.limits.write;
        let mut rest = &self.out[..];
        let write = async {
            while !rest.is_empty() {
                match timeout(limit, stream.write(rest)).await?? {
                    0 => return Err(std::io::ErrorKind::WriteZero.into()),
                    written => rest = &rest[written..],
                }
            }
            timeout(limit, stream.flush()).await?
        };
        let written = tokio::select! {
            // What the socket takes at once is sent: a CONNACK whose client is being taken over at that moment included.
            biased;
            written = write => written,
            // A packet may be half written: there is no way to say why.
            end = ended(&self.kick, &self.stop) => {
                self.out.clear();
                return Err(match end {
                    End::Ours(DisconnectReason::ServerShuttingDown, _) => end,
                    _ => End::Lost(std::io::ErrorKind::ConnectionAborted.into()),
                });
            }
        };
        match written {
            Ok(()) => {
                // Room for a large message is not kept.
                if self.out.capacity() > 2 * WRITE_BATCH_BYTES {
                    self.out = BytesMut::new();
                }
                self.out.clear();
                Ok(())
            }
            Err(error) => Err(End::Lost(error)),
        }
    }
}

/// Sends last words. Bytes of the client's that are still on their way are taken off the socket: closing it over
/// them would reset the connection, and the words would be lost.
pub async fn farewell(stream: &mut Stream, words: &[u8]) {
    let said = async {
        stream.write_all(words).await?;
        stream.flush().await?;
        stream.shutdown().await?;
        let mut unread = [0; 4096];
        while stream.read(&mut unread).await? > 0 {}
        std::io::Result::Ok(())
    };
    // The client is being sent away; whether it hears why is its own affair.
    let _ = timeout(FAREWELL_LIMIT, said).await;
}
