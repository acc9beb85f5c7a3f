//! Commands from `homelab.commands` to devices.
//!
//! At most once: a command's (id, attempt) is on disk before it is published, so a kill between the two loses the
//! attempt and never doubles it; the settings API tries again with a new attempt of an absolute value. A command is
//! published to sessions that are connected at that moment and to nobody else, and never after its time.
//!
//! The agent answers with a `command_outcome` event, which goes the way of readings. It does not know whether the
//! device obeyed: telemetry says so, elsewhere.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};
use rdkafka::{
    ClientConfig, ClientContext, Message as _,
    config::RDKafkaLogLevel,
    consumer::{CommitMode, Consumer as _, ConsumerContext, StreamConsumer},
};
use telemetry::{Command, CommandAction, CommandOutcome, EventBody, HeatpumpSettings, topic};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    broker::Broker,
    buffer::Buffer,
    clock::Clock,
    devices::{Devices, Family},
    message::{AgentEvent, Message},
};

/// Prefix of the durable values that remember what was done.
const KEY_PREFIX: &[u8] = b"command/";
/// What was done is remembered this long after its expiry: longer than a consumer group's offset can go back.
const REMEMBER: TimeDelta = TimeDelta::days(2);
/// A command that expired longer ago than this is passed over without an answer: a new agent reads the
/// topic from its beginning, and nobody waits for those.
const STALE: TimeDelta = TimeDelta::hours(1);
/// A pause after an error of the consumer.
const RETRY: Duration = Duration::from_secs(1);
/// Where ThermIQ takes registers.
const THERMIQ_WRITE: &str = "thermiq_heatpump/write";

/// Counted since start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Commands published to a device.
    pub published: AtomicU64,
    /// Commands answered with another outcome.
    pub not_published: AtomicU64,
    /// Records on the topic that are no commands.
    pub malformed: AtomicU64,
}

/// What commands need.
pub struct Commands {
    /// Name of this agent.
    pub agent: String,
    /// Bootstrap servers.
    pub bootstrap: String,
    /// Where devices listen.
    pub broker: Arc<Broker>,
    /// Remembers what was done.
    pub buffer: Buffer,
    /// Knows whether the time can be trusted.
    pub clock: Arc<Clock>,
    /// Knows which device speaks what.
    pub devices: Arc<Devices>,
    /// Counted since start.
    pub counters: Arc<Counters>,
}

struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, message, "librdkafka");
    }

    /// Forwarding reports the same trouble once; a second voice helps nobody.
    fn error(&self, error: rdkafka::error::KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "the consumer of commands");
    }
}

impl ConsumerContext for Quiet {}

impl Commands {
    /// Takes commands until `stop`.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        self.forget_old().await?;
        let consumer: StreamConsumer<Quiet> = ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .set("client.id", format!("edge-agent/{}", self.agent))
            .set("group.id", format!("edge-agent-{}", self.agent))
            .set("auto.offset.reset", "earliest")
            // A killed agent has its commands back soon after its restart, instead of after the default of 45 s.
            .set("session.timeout.ms", "6000")
            .set("enable.auto.commit", "false")
            .set("allow.auto.create.topics", "false")
            .set("reconnect.backoff.max.ms", "5000")
            .create_with_context(Quiet)
            .context("creating the consumer of commands")?;
        consumer
            .subscribe(&[topic::COMMANDS])
            .context("subscribing to commands")?;
        loop {
            let received = tokio::select! {
                () = stop.cancelled() => break,
                received = consumer.recv() => received,
            };
            match received {
                Ok(record) => {
                    self.take(record.payload().unwrap_or_default()).await?;
                    if let Err(error) = consumer.commit_message(&record, CommitMode::Async) {
                        tracing::debug!(%error, "an offset of a command was not committed; the command is known if it comes again");
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "commands cannot be read");
                    sleep(RETRY).await;
                }
            }
        }
        // Leaving the group waits for the broker; that must not hold up the runtime.
        tokio::task::spawn_blocking(move || drop(consumer))
            .await
            .context("closing the consumer of commands")
    }

    async fn take(&self, payload: &[u8]) -> anyhow::Result<()> {
        let command: Command = match serde_json::from_slice(payload) {
            Ok(command) => command,
            Err(error) => {
                self.counters.malformed.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%error, "a record on {} is no command", topic::COMMANDS);
                return Ok(());
            }
        };
        if command.agent != self.agent {
            return Ok(());
        }
        let now = Utc::now();
        if self.clock.is_synced() && now - command.expires_at > STALE {
            return Ok(());
        }
        let key = key(&command);
        if self.buffer.value(&key).context("looking a command up")?.is_some() {
            tracing::info!(
                id = command.id,
                attempt = command.attempt,
                "a command came again and is not repeated"
            );
            return Ok(());
        }
        let outcome = match self.messages(&command, now) {
            Ok(messages) => {
                let done = command.expires_at.timestamp_millis().to_be_bytes().to_vec();
                self.buffer
                    .put(vec![(key, Some(done))])
                    .await
                    .context("remembering a command")?;
                self.publish(&messages)
            }
            Err(outcome) => outcome,
        };
        let counter = match outcome {
            CommandOutcome::Published => &self.counters.published,
            _ => &self.counters.not_published,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        tracing::info!(id = command.id, attempt = command.attempt, device = %command.device_id, ?outcome, "command");
        let body = EventBody::CommandOutcome {
            command_id: command.id,
            attempt: command.attempt,
            outcome,
        };
        let event = AgentEvent {
            device_id: Some(command.device_id),
            body,
        };
        self.buffer
            .append(Message::event(self.clock.stamp(), &event).encode())
            .await
            .map(|_| ())
            .context("keeping the outcome of a command")
    }

    /// The messages of a command, or why there are none.
    fn messages(
        &self,
        command: &Command,
        now: DateTime<Utc>,
    ) -> Result<Vec<(String, String)>, CommandOutcome> {
        if !self.clock.is_synced() {
            return Err(CommandOutcome::Refused);
        }
        if now >= command.expires_at {
            return Err(CommandOutcome::Expired);
        }
        let Some(seen) = self.devices.find(&command.device_id) else {
            return Err(CommandOutcome::Refused);
        };
        let messages = match (&command.action, seen.family) {
            (CommandAction::HeatpumpSettings { settings }, Family::Thermiq) => registers(settings)
                .into_iter()
                .map(|(register, value)| (THERMIQ_WRITE.to_owned(), format!("{{\"{register}\":{value}}}")))
                .collect(),
            (CommandAction::PlugPower { on }, Family::Tasmota) => tasmota(&seen.prefix, seen.index, *on),
            (CommandAction::PlugPower { on }, Family::Shelly) => {
                shelly(&seen.prefix, seen.index, command, *on)
            }
            _ => Vec::new(),
        };
        if messages.is_empty() {
            Err(CommandOutcome::Refused)
        } else {
            Ok(messages)
        }
    }

    fn publish(&self, messages: &[(String, String)]) -> CommandOutcome {
        let mut reached = true;
        for (topic, payload) in messages {
            reached &= self.broker.publish_now(topic, payload.clone().into()) > 0;
        }
        if reached {
            CommandOutcome::Published
        } else {
            CommandOutcome::NoSubscriber
        }
    }

    async fn forget_old(&self) -> anyhow::Result<()> {
        let before = (Utc::now() - REMEMBER).timestamp_millis();
        let old = |value: &[u8]| <[u8; 8]>::try_from(value).is_ok_and(|v| i64::from_be_bytes(v) < before);
        let values = self
            .buffer
            .values(KEY_PREFIX)
            .context("reading the commands done")?;
        let removals: Vec<_> = values
            .into_iter()
            .filter(|(_, value)| self.clock.is_synced() && old(value))
            .map(|(name, _)| ([KEY_PREFIX, &name].concat(), None))
            .collect();
        if removals.is_empty() {
            return Ok(());
        }
        self.buffer.put(removals).await.context("forgetting old commands")
    }
}

fn key(command: &Command) -> Vec<u8> {
    [
        KEY_PREFIX,
        &command.id.to_be_bytes(),
        &command.attempt.to_be_bytes(),
    ]
    .concat()
}

/// ThermIQ's registers for the settings that are present; one register a message (docs/DEVICES.md).
fn registers(settings: &HeatpumpSettings) -> Vec<(&'static str, i64)> {
    let all = [
        ("d50", settings.indoor_target_c),
        ("d51", settings.mode),
        ("d52", settings.curve),
        ("d53", settings.curve_min),
        ("d54", settings.curve_max),
        ("d55", settings.curve_plus_5),
        ("d56", settings.curve_zero),
        ("d57", settings.curve_minus_5),
        ("d58", settings.heat_stop_c),
        ("d73", settings.integral),
    ];
    all.into_iter()
        .filter_map(|(register, value)| Some((register, value?)))
        .collect()
}

/// Channels are counted from 1 where a plug has several.
fn tasmota(prefix: &str, index: u32, on: bool) -> Vec<(String, String)> {
    let channel = if index == 0 {
        String::new()
    } else {
        (index + 1).to_string()
    };
    vec![(
        format!("cmnd/{prefix}/POWER{channel}"),
        if on { "ON" } else { "OFF" }.to_owned(),
    )]
}

/// The device answers on `<src>/rpc`; nobody listens there, because telemetry is what counts.
fn shelly(prefix: &str, index: u32, command: &Command, on: bool) -> Vec<(String, String)> {
    let request = serde_json::json!({
        "id": command.id,
        "src": format!("homelab/{}", command.agent),
        "method": "Switch.Set",
        "params": {"id": index, "on": on},
    });
    vec![(format!("{prefix}/rpc"), request.to_string())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_become_one_register_a_message() {
        let settings = HeatpumpSettings {
            indoor_target_c: Some(22),
            curve_minus_5: Some(-1),
            ..HeatpumpSettings::default()
        };
        assert_eq!(registers(&settings), [("d50", 22), ("d57", -1)]);
        assert!(registers(&HeatpumpSettings::default()).is_empty());
    }

    #[test]
    fn plugs_are_switched_in_their_own_words() {
        assert_eq!(
            tasmota("plug", 0, true),
            [("cmnd/plug/POWER".into(), "ON".into())]
        );
        assert_eq!(
            tasmota("plug", 1, false),
            [("cmnd/plug/POWER2".into(), "OFF".into())]
        );
        let command = Command {
            id: 42,
            attempt: 1,
            agent: "p0".into(),
            device_id: telemetry::DeviceId::parse("shellyplugsg3-d0cf13c0ffee").unwrap(),
            issued_at: Utc::now(),
            expires_at: Utc::now(),
            action: CommandAction::PlugPower { on: true },
        };
        let messages = shelly("kitchen-plug", 0, &command, true);
        assert_eq!(messages[0].0, "kitchen-plug/rpc");
        let request: serde_json::Value = serde_json::from_str(&messages[0].1).unwrap();
        assert_eq!(request["method"], "Switch.Set");
        assert_eq!(request["params"], serde_json::json!({"id": 0, "on": true}));
    }
}
