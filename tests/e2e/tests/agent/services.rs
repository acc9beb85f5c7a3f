//! The services of the cluster at the same broker: each logs in as itself and has what `gitops/` grants it, and no more.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use chrono::Utc;
use e2e::WITHIN;
use rdkafka::types::RDKafkaErrorCode;
use serde_json::json;
use stack::issuer::{AUDIENCE, TestIssuer};
use stack::part::{Part, eventually};
use stack::postgres::Postgres;
use stack::secured::{Mechanism, Secured};
use stack::{binaries, guardian, port};
use telemetry::topic;
use tokio::process::Command;

use crate::lone::{record, with_kafka};
use crate::secured::write_as;

const PLUG: &str = "services-plug";
const PASSWORD: &str = "a word of the services";
/// A group's first member waits some seconds for others; three cold starts at a time on a busy machine take more.
const SETTLED_WITHIN: std::time::Duration = std::time::Duration::from_secs(90);

struct World {
    kafka: &'static Secured,
    postgres: Postgres,
    issuer: TestIssuer,
    password_file: PathBuf,
}

struct Service {
    part: Part,
    url: String,
    admin: std::net::SocketAddr,
}

impl World {
    /// A service with its own login, and what gitops grants to that.
    async fn start(&self, name: &str, mechanism: &str, database: Option<(&str, &str)>) -> Result<Service> {
        let scram = match mechanism {
            "SCRAM-SHA-512" => Mechanism::ScramSha512,
            _ => Mechanism::ScramSha256,
        };
        self.kafka.set_password(name, PASSWORD, scram)?;
        self.kafka.grant_as_in_production(name)?;
        let (public, admin) = (port::free()?, port::free()?);
        let mut command = Command::new(binaries::folder().await?.join(name));
        command
            .env("LISTEN_ADDRESS", public.to_string())
            .env("METRICS_ADDRESS", admin.to_string())
            .env("OIDC_ISSUERS", self.issuer.url())
            .env("OIDC_AUDIENCES", AUDIENCE)
            .env("KAFKA_BOOTSTRAP", self.kafka.listener.to_string())
            .env("KAFKA_SECURITY", "tls")
            .env("KAFKA_CA_FILE", &self.kafka.ca_file)
            .env("KAFKA_USERNAME", name)
            .env("KAFKA_PASSWORD_FILE", &self.password_file)
            .env("KAFKA_MECHANISM", mechanism);
        if let Some((role, database)) = database {
            command.env("DATABASE_URL", self.postgres.url(role, database));
        }
        Ok(Service {
            part: Part::start(format!("guarded-{name}"), command).await?,
            url: format!("http://{public}"),
            admin,
        })
    }
}

#[test]
fn each_service_logs_in_as_itself_with_what_gitops_grants_and_no_more() -> Result<()> {
    with_kafka(async |kafka| {
        let run = guardian::run()?;
        let password_file = run.data("services-password")?.join("password");
        std::fs::write(&password_file, format!("{PASSWORD}\n"))?;
        let world = World {
            kafka,
            postgres: Postgres::start(&run.data("services-postgres")?).await?,
            issuer: TestIssuer::start().await?,
            password_file,
        };
        let sink = world
            .start("redpanda-sink", "SCRAM-SHA-512", Some(("sink", "telemetry")))
            .await?;
        let settings_database = Some(("settings", "homelab_settings"));
        let settings = world
            .start("homelab-settings-api", "SCRAM-SHA-256", settings_database)
            .await?;
        let live = world.start("energy-ws", "SCRAM-SHA-512", None).await?;
        for service in [&sink, &settings, &live] {
            service
                .part
                .ready_http(SETTLED_WITHIN, service.admin, "/readyz")
                .await?;
        }

        let reading = json!({"id": "p0/5e7f1ce5/1", "agent": "p0", "device_id": PLUG, "time": Utc::now(), "clock": "synced",
            "kind": "plug", "reading": {"on": false, "power_w": 1.5}});
        let records = [reading.to_string(), "no record".to_owned()];
        let records = records
            .into_iter()
            .map(|text| (topic::PLUG, PLUG.to_owned(), text));
        kafka.kafka.produce(records)?;

        // The sink reads, inserts, and writes dead letters.
        let rows = format!("select count(*) from plug_status where device_id = '{PLUG}'");
        eventually("a row of the plug", SETTLED_WITHIN, async || {
            let count = world.postgres.psql("telemetry", &rows).await?;
            Ok((count.trim() == "1").then_some(()))
        })
        .await?;
        record(kafka, topic::DEAD_LETTER, |letter| {
            letter["stage"] == "insert" && letter["origin"].to_string().contains(topic::PLUG)
        })
        .await?;

        // The settings API reads what the plug says, and writes commands and events.
        let url = format!("{}/api/v1/plugs/{PLUG}", settings.url);
        let token = world.issuer.good("read:plugs write:plugs");
        eventually("the plug", SETTLED_WITHIN, async || {
            Ok(e2e::get(&url, &token).await.ok())
        })
        .await?;
        let wanted = stack::http::client()?
            .patch(&url)
            .bearer_auth(&token)
            .json(&json!({"on": true}))
            .send()
            .await?;
        ensure!(wanted.status() == 202, "{}", wanted.status());
        record(kafka, topic::COMMANDS, |command| command["device_id"] == PLUG).await?;
        record(kafka, topic::EVENTS, |event| {
            event["device_id"] == PLUG && event["type"] == "outbox_changed"
        })
        .await?;

        // energy-ws reads without a group.
        let metrics = format!("http://{}/metrics", live.admin);
        eventually("a record in the window", SETTLED_WITHIN, async || {
            let text = stack::http::client()?.get(&metrics).send().await?.text().await?;
            let line = text
                .lines()
                .find(|line| line.starts_with("energy_ws_records_total{stream=\"plug\"}"));
            let count = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
            Ok(count.filter(|&count| count >= 1.0))
        })
        .await?;

        for (user, refused) in [
            ("redpanda-sink", topic::COMMANDS),
            ("energy-ws", topic::EVENTS),
            ("energy-ws", topic::ENERGY),
        ] {
            let error = write_as(kafka, user, PASSWORD, refused)?;
            ensure!(
                error == Some(RDKafkaErrorCode::TopicAuthorizationFailed),
                "{user} {refused}: {error:?}"
            );
        }
        for service in [sink, settings, live] {
            let log = std::fs::read_to_string(service.part.log()).context("a log")?;
            ensure!(
                !log.contains(PASSWORD),
                "{} shows the password",
                service.part.name()
            );
            service.part.stop().await;
        }
        Ok(())
    })
}

#[test]
fn a_service_with_a_wrong_password_is_not_ready() -> Result<()> {
    with_kafka(async |kafka| {
        kafka.set_password("energy-ws-stranger", "right", Mechanism::ScramSha256)?;
        let issuer = TestIssuer::start().await?;
        let (public, admin) = (port::free()?, port::free()?);
        let mut command = Command::new(binaries::folder().await?.join("energy-ws"));
        command
            .env("LISTEN_ADDRESS", public.to_string())
            .env("METRICS_ADDRESS", admin.to_string())
            .env("OIDC_ISSUERS", issuer.url())
            .env("OIDC_AUDIENCES", AUDIENCE)
            .env("KAFKA_BOOTSTRAP", kafka.listener.to_string())
            .env("KAFKA_SECURITY", "tls")
            .env("KAFKA_CA_FILE", &kafka.ca_file)
            .env("KAFKA_USERNAME", "energy-ws-stranger")
            .env("KAFKA_PASSWORD", "wrong");
        let part = Part::start("wrong-password-energy-ws", command).await?;
        let readiness = format!("http://{admin}/readyz");
        eventually("that only the broker is missing", WITHIN, async || {
            let answer = stack::http::client()?.get(&readiness).send().await?;
            let status = answer.status();
            let text = answer.text().await?;
            Ok((status == 503 && text.contains("broker") && !text.contains("issuer")).then_some(()))
        })
        .await?;
        eventually("the reason in the log", WITHIN, async || {
            let log = std::fs::read_to_string(part.log())?;
            Ok(log.contains("uthentication").then_some(()))
        })
        .await?;
        part.stop().await;
        Ok(())
    })
}
