//! A device as far as MQTT is concerned: an ordinary client that publishes at QoS 1 and knows when it was acknowledged.
//!
//! It never resends and never reconnects: what a test wants to know is what the first attempt did.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Far longer than a group commit on a slow disk.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// The largest payload the agent takes in and discards (DESIGN 5.2) fits.
const PACKET_LIMIT_BYTES: usize = 17 << 20;

/// A connected client.
#[derive(Debug)]
pub struct Publisher {
    client: AsyncClient,
    packets: mpsc::UnboundedReceiver<Packet>,
    session: JoinHandle<Result<()>>,
}

impl Publisher {
    /// Connects to an agent.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn connect(agent: SocketAddr, client_id: &str) -> Result<Publisher> {
        let mut options = MqttOptions::new(client_id, agent.ip().to_string(), agent.port());
        options.set_max_packet_size(PACKET_LIMIT_BYTES, PACKET_LIMIT_BYTES);
        options.set_keep_alive(Duration::from_secs(30));
        let (client, mut events) = AsyncClient::new(options, 16);
        let (sender, packets) = mpsc::unbounded_channel();
        let session = tokio::spawn(async move {
            loop {
                match events.poll().await? {
                    Event::Incoming(packet) => {
                        let _nobody_waits = sender.send(packet);
                    }
                    Event::Outgoing(rumqttc::Outgoing::Disconnect) => return Ok(()),
                    Event::Outgoing(_) => {}
                }
            }
        });
        let mut publisher = Publisher {
            client,
            packets,
            session,
        };
        publisher
            .wait_for("CONNACK", |packet| matches!(packet, Packet::ConnAck(_)))
            .await?;
        Ok(publisher)
    }

    /// Publishes at QoS 1 and waits for the acknowledgement.
    ///
    /// # Errors
    /// When the connection ends before.
    pub async fn publish(&mut self, topic: &str, payload: impl Into<Vec<u8>>) -> Result<()> {
        self.client
            .publish(topic, QoS::AtLeastOnce, false, payload)
            .await?;
        self.wait_for("PUBACK", |packet| matches!(packet, Packet::PubAck(_)))
            .await
    }

    /// Says good-bye.
    ///
    /// # Errors
    /// When the connection ended otherwise.
    pub async fn disconnect(self) -> Result<()> {
        self.client.disconnect().await?;
        self.session.await?
    }

    async fn wait_for(&mut self, what: &str, wanted: impl Fn(&Packet) -> bool) -> Result<()> {
        let found = timeout(ANSWER_WITHIN, async {
            while let Some(packet) = self.packets.recv().await {
                if wanted(&packet) {
                    return Ok(());
                }
            }
            match (&mut self.session).await {
                Ok(Err(error)) => Err(error),
                Ok(Ok(())) => Err(anyhow!("disconnected")),
                Err(error) => Err(error.into()),
            }
        });
        match found.await {
            Ok(outcome) => outcome.with_context(|| format!("no {what}")),
            Err(_) => bail!("no {what} within {} s", ANSWER_WITHIN.as_secs()),
        }
    }
}
