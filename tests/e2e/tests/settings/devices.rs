//! The simulated house, and an ear for everything that is sent to a device.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use devices::{Behaviour, House, Pace};
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Where heat pumps take writes.
pub(crate) const WRITE: &str = "thermiq_heatpump/write";

/// A simulated house at an agent, until it is dropped.
pub(crate) struct Simulated {
    pub(crate) pump: watch::Sender<Behaviour>,
    pub(crate) plugs: watch::Sender<Behaviour>,
    task: JoinHandle<Result<()>>,
}

impl Simulated {
    /// Devices that do what they are told.
    pub(crate) fn at(agent: SocketAddr, house: &Arc<House>) -> Simulated {
        let (pump, of_the_pump) = watch::channel(Behaviour::Applies);
        let (plugs, of_the_plugs) = watch::channel(Behaviour::Applies);
        let quick = Duration::from_millis(300);
        let options = devices::Options {
            pace: Pace {
                pump: quick,
                plug: quick,
                ..Pace::REAL
            },
            pump: of_the_pump,
            plugs: of_the_plugs,
            ..devices::Options::new(agent.to_string(), house.clone())
        };
        let task = tokio::spawn(devices::run(options, Default::default()));
        Simulated { pump, plugs, task }
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Everything that is sent on one topic of an agent, until it is dropped.
pub(crate) struct Heard {
    messages: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Heard {
    /// Listens from now on. Also makes a subscriber of itself: nothing is `no_subscriber` meanwhile.
    pub(crate) async fn on(topic: &str, agent: SocketAddr, client_id: &str) -> Result<Heard> {
        let mut options = MqttOptions::new(client_id, agent.ip().to_string(), agent.port());
        options.set_keep_alive(Duration::from_secs(30));
        let (client, mut events) = AsyncClient::new(options, 16);
        client.subscribe(topic, QoS::AtLeastOnce).await?;
        let messages = Arc::new(Mutex::new(Vec::new()));
        let (all, (subscribed, wait)) = (messages.clone(), tokio::sync::oneshot::channel());
        let task = tokio::spawn(async move {
            // The client lives as long as its connection.
            let _client = client;
            let mut subscribed = Some(subscribed);
            while let Ok(event) = events.poll().await {
                match event {
                    Event::Incoming(Packet::SubAck(_)) => {
                        if let Some(subscribed) = subscribed.take() {
                            let _ = subscribed.send(());
                        }
                    }
                    Event::Incoming(Packet::Publish(message)) => all
                        .lock()
                        .expect("no test panics while it holds this")
                        .push(String::from_utf8_lossy(&message.payload).into_owned()),
                    _ => {}
                }
            }
        });
        wait.await?;
        Ok(Heard { messages, task })
    }

    /// How many of the messages are such.
    pub(crate) fn count(&self, such: impl Fn(&str) -> bool) -> usize {
        let messages = self.messages.lock().expect("no test panics while it holds this");
        messages.iter().filter(|message| such(message)).count()
    }

    /// How often a register was written with a value.
    pub(crate) fn of(&self, register: &str, value: i64) -> usize {
        let wanted = format!("{{\"{register}\":{value}}}");
        self.count(|message| message == wanted)
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        self.task.abort();
    }
}
