//! One MQTT connection of one device. It reconnects for ever; what is sent while it is away is lost, as with
//! the real devices, which keep nothing.

use std::time::Duration;

use anyhow::Context;
use rumqttc::{AsyncClient, Event, EventLoop, LastWill, MqttOptions, Outgoing, Packet, QoS};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::Credentials;

/// Messages waiting between a device and its connection; a device sends a handful at a time.
const QUEUE: usize = 64;

/// How long a broken connection waits before it is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How long a device waits for its DISCONNECT to leave.
const CLOSE: Duration = Duration::from_secs(2);

/// Where the broker is and who the devices are.
#[derive(Clone)]
pub struct Broker {
    host: String,
    port: u16,
    credentials: Option<Credentials>,
}

impl Broker {
    /// Reads `host:port`.
    pub fn new(address: &str, credentials: Option<Credentials>) -> anyhow::Result<Self> {
        let (host, port) = address
            .rsplit_once(':')
            .with_context(|| format!("{address:?} is not host:port"))?;
        let port = port.parse().with_context(|| format!("port of {address:?}"))?;
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            credentials,
        })
    }
}

/// What a connection reports.
#[derive(Debug)]
pub enum Input {
    /// The broker accepted the connection: subscribe and say hello.
    Connected,
    /// A QoS 1 publish was acknowledged.
    Acknowledged,
    /// A message came.
    Message {
        /// Its topic.
        topic: String,
        /// Its payload.
        payload: Vec<u8>,
    },
}

/// A connection. Dropping it breaks the connection, so that the broker sends the last will.
pub struct Link {
    client: AsyncClient,
    inputs: mpsc::Receiver<Input>,
    connected: bool,
    poller: JoinSet<()>,
}

/// The last will: a retained message.
pub struct Will<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its payload.
    pub payload: &'a str,
}

impl Link {
    /// Starts to connect.
    pub fn open(broker: &Broker, client_id: &str, will: Option<Will<'_>>) -> Self {
        let mut options = MqttOptions::new(client_id, &broker.host, broker.port);
        options.set_keep_alive(Duration::from_secs(30));
        if let Some(Credentials { user, password }) = &broker.credentials {
            options.set_credentials(user, password);
        }
        if let Some(Will { topic, payload }) = will {
            options.set_last_will(LastWill::new(topic, payload, QoS::AtLeastOnce, true));
        }
        let (client, eventloop) = AsyncClient::new(options, QUEUE);
        let (events, inputs) = mpsc::channel(QUEUE);
        let mut poller = JoinSet::new();
        poller.spawn(poll(eventloop, events, client_id.to_owned()));
        Self {
            client,
            inputs,
            connected: false,
            poller,
        }
    }

    /// The next thing the connection reports. Waits for ever while the broker is away.
    pub async fn next(&mut self) -> Input {
        match self.inputs.recv().await {
            Some(input) => {
                self.connected |= matches!(input, Input::Connected);
                input
            }
            // The poller ends only after our own DISCONNECT.
            None => std::future::pending().await,
        }
    }

    /// Subscribes at QoS 1.
    pub fn subscribe(&self, topic: &str) {
        if let Err(error) = self.client.try_subscribe(topic, QoS::AtLeastOnce) {
            warn!(topic, %error, "subscription was not sent");
        }
    }

    /// Publishes at QoS 1; lost while the broker has never been reached or the queue is full.
    pub fn publish(&self, topic: &str, payload: impl Into<Vec<u8>>) {
        self.send(topic, payload.into(), false);
    }

    /// Publishes a retained message at QoS 1.
    pub fn publish_retained(&self, topic: &str, payload: impl Into<Vec<u8>>) {
        self.send(topic, payload.into(), true);
    }

    fn send(&self, topic: &str, payload: Vec<u8>, retain: bool) {
        if !self.connected {
            debug!(topic, "not connected, message is lost");
        } else if let Err(error) = self.client.try_publish(topic, QoS::AtLeastOnce, retain, payload) {
            debug!(topic, %error, "message is lost");
        }
    }

    /// Disconnects in order: the broker sends no last will.
    pub async fn close(mut self) {
        if self.client.try_disconnect().is_ok() {
            // Nothing is lost by giving up: the connection is dropped either way.
            let _ = timeout(CLOSE, async {
                while self.inputs.recv().await.is_some() {}
                self.poller.join_next().await
            })
            .await;
        }
    }
}

async fn poll(mut eventloop: EventLoop, inputs: mpsc::Sender<Input>, client_id: String) {
    let mut reported = false;
    loop {
        let input = match eventloop.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                reported = false;
                Input::Connected
            }
            Ok(Event::Incoming(Packet::PubAck(_))) => Input::Acknowledged,
            Ok(Event::Incoming(Packet::Publish(message))) => Input::Message {
                topic: message.topic,
                payload: message.payload.to_vec(),
            },
            Ok(Event::Outgoing(Outgoing::Disconnect)) => return,
            Ok(_) => continue,
            Err(error) => {
                // Once per episode: a broker that is away is away for every device, every second.
                if !reported {
                    warn!(client_id, %error, "no connection to the broker, trying again");
                    reported = true;
                }
                sleep(RETRY).await;
                continue;
            }
        };
        if inputs.send(input).await.is_err() {
            return;
        }
    }
}
