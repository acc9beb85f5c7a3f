//! To Redpanda over TLS with SCRAM: what goes through, and what happens when it is refused.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use chrono::{TimeDelta, Utc};
use e2e::WITHIN;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use serde_json::json;
use stack::mqtt::Publisher;
use stack::secured::{Mechanism, Secured};
use telemetry::topic;

use crate::lone::{Lone, Options, record, with_kafka};

/// The section `[kafka]` of an agent that comes in by the guarded door.
pub fn section(kafka: &Secured, username: &str, password_file: &Path, mechanism: &str) -> String {
    format!(
        "bootstrap = \"{}\"\nsecurity = \"tls\"\nca_file = {:?}\nusername = {username:?}\npassword_file = {password_file:?}\nmechanism = {mechanism:?}",
        kafka.listener, kafka.ca_file
    )
}

async fn publish(agent: &Lone, device: &str) -> Result<()> {
    let mut publisher = Publisher::connect(agent.mqtt, device).await?;
    publisher
        .publish(&format!("tele/{device}/STATE"), r#"{"POWER":"ON"}"#)
        .await?;
    publisher.disconnect().await
}

async fn arrives(kafka: &Secured, device: &'static str) -> Result<()> {
    record(kafka, topic::PLUG, move |value| value["device_id"] == device)
        .await
        .map(|_| ())
}

#[test]
fn readings_and_commands_go_over_tls_with_what_gitops_grants_and_no_more() -> Result<()> {
    with_kafka(async |kafka| {
        let folder = stack::guardian::run()?.data("tls-credentials")?;
        std::fs::write(folder.join("kafka-password"), "correct horse\n")?;
        kafka.set_password("p0", "correct horse", Mechanism::ScramSha512)?;
        kafka.grant_as_in_production("p0")?;
        let by_file = section(kafka, "p0", Path::new("unused"), "SCRAM-SHA-512");
        // The password comes from systemd's folder of credentials.
        let by_credential: Vec<_> = by_file
            .lines()
            .filter(|line| !line.starts_with("password_file"))
            .collect();
        let agent = Lone::start(
            "tls-agent",
            Options {
                kafka: by_credential.join("\n"),
                environment: vec![("CREDENTIALS_DIRECTORY", folder.display().to_string())],
                ..Options::default()
            },
        )
        .await?;
        publish(&agent, "tls-plug").await?;
        arrives(kafka, "tls-plug").await?;
        let status = agent
            .until("an empty buffer", |status| status["buffer"]["entries"] == 0)
            .await?;
        let text = status.to_string();
        ensure!(
            text.contains("over TLS as p0") && !text.contains("correct horse"),
            "{text}"
        );

        let command = json!({"id": 1, "attempt": 1, "agent": "p0", "device_id": "tls-plug", "kind": "plug_power", "on": true,
            "issued_at": Utc::now(), "expires_at": Utc::now() + TimeDelta::minutes(5)});
        let command = (topic::COMMANDS, "tls-plug".to_owned(), command.to_string());
        kafka.kafka.produce([command].into_iter())?;
        let outcome = record(kafka, topic::EVENTS, |event| event["command_id"] == 1).await?;
        ensure!(outcome["outcome"] == "no_subscriber", "{outcome}");

        // With the agent's own login: a command of its own is refused by the broker.
        let error = write_as(kafka, "p0", "correct horse", topic::COMMANDS)?;
        ensure!(
            error == Some(RDKafkaErrorCode::TopicAuthorizationFailed),
            "{error:?}"
        );
        ensure!(write_as(kafka, "p0", "correct horse", topic::DEAD_LETTER)?.is_none());
        // The agent may read its letters; who asks it needs no password of Redpanda's.
        let letters = crate::letters::letters("tls-agent", &[]).await?;
        ensure!(letters["found"] == 0, "{letters}");
        agent.part.stop().await;
        Ok(())
    })
}

#[test]
fn a_wrong_password_is_shown_readings_are_kept_and_go_out_once_it_is_right() -> Result<()> {
    with_kafka(async |kafka| {
        kafka.set_password("p1", "right", Mechanism::ScramSha256)?;
        kafka.grant_as_in_production("p1")?;
        let file = stack::guardian::run()?.data("wrong-password")?.join("password");
        std::fs::write(&file, "wrong")?;
        let agent = Lone::start(
            "wrong-password-agent",
            Options {
                agent: Some("p1"),
                kafka: section(kafka, "p1", &file, "SCRAM-SHA-256"),
                ..Options::default()
            },
        )
        .await?;
        publish(&agent, "wrong-password-plug").await?;
        let status = agent
            .until("the refusal", |status| {
                status["forward"]["reachable"] == false
                    && status["forward"]["last_error"]
                        .as_str()
                        .is_some_and(|error| error.contains("uthentication"))
            })
            .await?;
        ensure!(status["buffer"]["entries"] == 1, "{status}");
        // No restart: the file is read again.
        std::fs::write(&file, "right")?;
        arrives(kafka, "wrong-password-plug").await?;
        agent
            .until("an empty buffer", |status| {
                status["buffer"]["entries"] == 0 && status["forward"]["reachable"] == true
            })
            .await?;
        agent.part.stop().await;
        Ok(())
    })
}

#[test]
fn a_broker_whose_certificate_nobody_vouches_for_gets_nothing() -> Result<()> {
    with_kafka(async |kafka| {
        kafka.set_password("stranger", "right", Mechanism::ScramSha256)?;
        let folder = stack::guardian::run()?.data("strange-ca")?;
        let file = folder.join("password");
        std::fs::write(&file, "right")?;
        // Without ca_file the authorities of this system count, and ours is none of them.
        let section = section(kafka, "stranger", &file, "SCRAM-SHA-256");
        let section: Vec<_> = section
            .lines()
            .filter(|line| !line.starts_with("ca_file"))
            .collect();
        let agent = Lone::start(
            "strange-ca-agent",
            Options {
                agent: Some("stranger"),
                kafka: section.join("\n"),
                ..Options::default()
            },
        )
        .await?;
        publish(&agent, "strange-ca-plug").await?;
        agent
            .until("the refusal", |status| {
                status["buffer"]["entries"] == 1
                    && status["forward"]["last_error"]
                        .as_str()
                        .is_some_and(|error| error.contains("certificate"))
            })
            .await?;
        agent.part.stop().await;
        Ok(())
    })
}

struct Outcome(std::sync::mpsc::Sender<Option<RDKafkaErrorCode>>);

impl rdkafka::ClientContext for Outcome {}

impl ProducerContext for Outcome {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let error = result.as_ref().err();
        let _ = self
            .0
            .send(error.and_then(|(error, _)| error.rdkafka_error_code()));
    }
}

/// Writes one record with somebody's login; answers why it was refused, if it was.
pub fn write_as(
    kafka: &Secured,
    user: &str,
    password: &str,
    topic: &str,
) -> Result<Option<RDKafkaErrorCode>> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let producer: ThreadedProducer<Outcome> = ClientConfig::new()
        .set("bootstrap.servers", kafka.listener.to_string())
        .set("security.protocol", "sasl_ssl")
        .set("ssl.ca.location", kafka.ca_file.display().to_string())
        .set("sasl.mechanism", "SCRAM-SHA-512")
        .set("sasl.username", user)
        .set("sasl.password", password)
        .create_with_context(Outcome(sender))?;
    producer
        .send(BaseRecord::with_opaque_to(topic, ()).key("k").payload("{}"))
        .map_err(|(error, _)| error)?;
    let outcome = receiver.recv_timeout(WITHIN).context("no delivery report")?;
    producer.flush(WITHIN)?;
    Ok(outcome)
}
