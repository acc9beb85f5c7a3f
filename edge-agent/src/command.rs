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
    ClientContext, Message as _,
    config::RDKafkaLogLevel,
    consumer::{CommitMode, Consumer as _, ConsumerContext, StreamConsumer},
    error::RDKafkaErrorCode,
};
use telemetry::{Command, CommandAction, CommandOutcome, EventBody, HeatpumpSettings, topic};
use tokio::{sync::Notify, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    broker::Broker,
    buffer::Buffer,
    clock::Clock,
    devices::{Devices, Family},
    kafka::Kafka,
    message::{AgentEvent, Message},
    watchdog::{Pulse, TURN},
};

/// Prefix of the durable values that remember what was done.
const KEY_PREFIX: &[u8] = b"command/";
/// What was done is remembered this long after its expiry: longer than a consumer group's offset can go back.
const REMEMBER: TimeDelta = TimeDelta::days(2);
/// How often those older are forgotten; at a start as well.
const FORGET: Duration = Duration::from_secs(6 * 3_600);
/// A command that expired longer ago than this is passed over without an answer: a new agent reads the
/// topic from its beginning, and nobody waits for those.
const STALE: TimeDelta = TimeDelta::hours(1);
/// A pause after an error of the consumer.
const RETRY: Duration = Duration::from_secs(1);
/// A pause after Redpanda refused the login: a password takes a while to be mended.
const REFUSED_RETRY: Duration = Duration::from_secs(5);
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
    /// How Redpanda is reached.
    pub kafka: Kafka,
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
    /// This stage's sign of life.
    pub pulse: Pulse,
}

struct Quiet {
    /// Notified when the login or a certificate is refused, which the same consumer would repeat for ever.
    refused: Arc<Notify>,
}

impl ClientContext for Quiet {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, message, "librdkafka");
    }

    /// Forwarding reports the same trouble once; a second voice helps nobody.
    fn error(&self, error: rdkafka::error::KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "the consumer of commands");
        if matches!(
            error.rdkafka_error_code(),
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL)
        ) {
            self.refused.notify_one();
        }
    }
}

impl ConsumerContext for Quiet {}

impl Commands {
    /// Takes commands until `stop`.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        self.forget_old().await?;
        loop {
            let refused = Arc::new(Notify::new());
            match self.consumer(refused.clone()) {
                Ok(consumer) => {
                    let ended = self.consume(&consumer, &refused, &stop).await;
                    // Leaving the group waits for the broker; that must not hold up the runtime.
                    tokio::task::spawn_blocking(move || drop(consumer))
                        .await
                        .context("closing the consumer of commands")?;
                    ended?;
                }
                // A password that is being replaced: the next try reads it again.
                Err(error) => tracing::warn!(error = format!("{error:#}"), "commands cannot be read"),
            }
            self.pulse.beat();
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = sleep(REFUSED_RETRY) => {}
            }
        }
    }

    fn consumer(&self, refused: Arc<Notify>) -> anyhow::Result<StreamConsumer<Quiet>> {
        let consumer: StreamConsumer<Quiet> = self
            .kafka
            .client(&self.agent)?
            .set("group.id", format!("edge-agent-{}", self.agent))
            .set("auto.offset.reset", "earliest")
            // A killed agent has its commands back soon after its restart, instead of after the default of 45 s.
            .set("session.timeout.ms", "6000")
            .set("enable.auto.commit", "false")
            .set("allow.auto.create.topics", "false")
            .create_with_context(Quiet { refused })
            .context("creating the consumer of commands")?;
        consumer
            .subscribe(&[topic::COMMANDS])
            .context("subscribing to commands")?;
        Ok(consumer)
    }

    /// Takes commands until `stop`, or until Redpanda refuses the agent.
    async fn consume(
        &self,
        consumer: &StreamConsumer<Quiet>,
        refused: &Notify,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let mut turn = tokio::time::interval(TURN);
        let mut forget_at = tokio::time::Instant::now() + FORGET;
        loop {
            self.pulse.beat();
            let received = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = refused.notified() => return Ok(()),
                _ = turn.tick() => {
                    if forget_at <= tokio::time::Instant::now() {
                        self.forget_old().await?;
                        forget_at += FORGET;
                    }
                    continue;
                }
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
        let (stamp, outcome) = match self.messages(&command, now) {
            Ok(messages) => {
                let done = command.expires_at.timestamp_millis().to_be_bytes().to_vec();
                self.buffer
                    .put(vec![(key, Some(done))])
                    .await
                    .context("remembering a command")?;
                #[cfg(debug_assertions)]
                die_where_a_test_wants_it();
                if Utc::now() >= command.expires_at {
                    // The disk took its time.
                    (self.clock.stamp(), CommandOutcome::Expired)
                } else {
                    // Taken before the first byte leaves: a plug answers at once and then says nothing for minutes, and that one
                    // answer must be later than this.
                    (self.clock.stamp(), self.publish(&messages))
                }
            }
            Err(outcome) => (self.clock.stamp(), outcome),
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
            .append_reserved(Message::event(stamp, &event).encode())
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

/// A test lets the agent die between the record of an attempt and its publication, as by a power cut: where the file this
/// variable names exists. It is removed first, so that it happens once. Release builds do not have this.
#[cfg(debug_assertions)]
fn die_where_a_test_wants_it() {
    let Some(file) = std::env::var_os("EDGE_AGENT_TEST_DIE_FILE") else {
        return;
    };
    if std::fs::remove_file(file).is_ok() {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
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

/// A Shelly reports only what changes, so that one that is in the wanted state already would say nothing: it is asked for
/// its state as well, and its answer on `<src>/rpc` is telemetry like any other.
fn shelly(prefix: &str, index: u32, command: &Command, on: bool) -> Vec<(String, String)> {
    let request = |method: &str, params: serde_json::Value| {
        let request = serde_json::json!({
            "id": command.id,
            "src": format!("homelab/{}", command.agent),
            "method": method,
            "params": params,
        });
        (format!("{prefix}/rpc"), request.to_string())
    };
    vec![
        request("Switch.Set", serde_json::json!({"id": index, "on": on})),
        request("Switch.GetStatus", serde_json::json!({"id": index})),
    ]
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
        let request: serde_json::Value = serde_json::from_str(&messages[1].1).unwrap();
        assert_eq!(request["method"], "Switch.GetStatus");
        assert_eq!(
            (&request["src"], &request["params"]),
            (&"homelab/p0".into(), &serde_json::json!({"id": 0}))
        );
    }
}
