//! Kafka, an issuer, energy-ws, and the records: those of the house, from the samples of the contract.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use serde_json::Value;
use stack::issuer::{AUDIENCE, TestIssuer, TokenSpec};
use stack::kafka::{Choice, Kafka};
use stack::part::Part;
use stack::{guardian, port};
use telemetry::topic;
use tokio::process::Command;

use crate::client::Client;

/// A broker and a service that take longer to start have failed.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// The four kinds of reading as real devices send them, in turns.
const SAMPLES: [(&str, &str); 4] = [
    (
        topic::ENERGY,
        include_str!("../../../cluster/telemetry/samples/energy.json"),
    ),
    (
        topic::TEMPERATURE,
        include_str!("../../../cluster/telemetry/samples/temperature.json"),
    ),
    (
        topic::HEATPUMP,
        include_str!("../../../cluster/telemetry/samples/heatpump.json"),
    ),
    (
        topic::PLUG,
        include_str!("../../../cluster/telemetry/samples/plug.json"),
    ),
];

/// What the measurements share.
pub struct World {
    /// The broker.
    pub kafka: Kafka,
    /// Gives tokens.
    pub issuer: TestIssuer,
    producer: ThreadedProducer<rdkafka::producer::DefaultProducerContext>,
    binaries: PathBuf,
}

impl World {
    /// Starts Kafka and the issuer.
    pub async fn start() -> Result<World> {
        let program = std::env::current_exe()?;
        let binaries = program.parent().context("a program is in a folder")?.to_owned();
        let kafka = Kafka::choose(Choice::Real, &guardian::run()?.data("kafka")?).await?;
        kafka.create_topics(&topic::ALL).await?;
        let producer = ClientConfig::new()
            .set("bootstrap.servers", kafka.bootstrap())
            .set("acks", "all")
            .set("linger.ms", "0")
            .create()?;
        Ok(World {
            kafka,
            issuer: TestIssuer::start().await?,
            producer,
            binaries,
        })
    }

    /// A service's program, built with the same profile as this one.
    pub fn binary(&self, name: &str) -> Result<PathBuf> {
        let program = self.binaries.join(name);
        ensure!(
            program.exists(),
            "build {name} with the same profile first: make bench-ws does"
        );
        Ok(program)
    }

    /// A process of energy-ws, ready.
    pub async fn service(&self) -> Result<Service> {
        let (public, admin) = (port::free()?, port::free()?);
        let mut command = Command::new(self.binary("energy-ws")?);
        command
            .env("KAFKA_BOOTSTRAP", self.kafka.bootstrap())
            .env("OIDC_ISSUERS", self.issuer.url())
            .env("OIDC_AUDIENCES", AUDIENCE)
            // The clients that only count frames do not answer pings; on a busy machine a run lasts minutes.
            .env("PING_SECONDS", "300")
            .env("LISTEN_ADDRESS", public.to_string())
            .env("METRICS_ADDRESS", admin.to_string());
        let part = Part::start("energy-ws", command).await?;
        part.ready_http(READY_WITHIN, admin, "/readyz").await?;
        let token = self.issuer.token(TokenSpec {
            expires_in: Some(3_600),
            ..TokenSpec::default()
        });
        Ok(Service { part, public, token })
    }

    /// A bare broadcast, in a process of its own as the service is.
    pub async fn bare(&self, gathers: bool) -> Result<(Part, SocketAddr)> {
        let address = port::free()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("bare").env("BARE_ADDRESS", address.to_string());
        if gathers {
            command.env("BARE_GATHERS", "1");
        }
        let part = Part::start(if gathers { "bare-gathering" } else { "bare" }, command).await?;
        let open = async || tokio::net::TcpStream::connect(address).await.is_ok();
        part.ready(READY_WITHIN, open).await?;
        Ok((part, address))
    }

    /// Hands one record to the producer.
    pub fn produce(&self, number: usize, name: &str) -> Result<()> {
        let (topic, sample) = SAMPLES[number % SAMPLES.len()];
        let mut record: Value = serde_json::from_str(sample)?;
        record["id"] = format!("p0/bench/{name}").into();
        let payload = record.to_string();
        let key = record["device_id"].as_str().context("a device")?;
        let record = BaseRecord::to(topic).key(key).payload(&payload);
        self.producer.send(record).map_err(|(error, _)| error.into())
    }

    /// Waits until every record is in Kafka.
    pub async fn flush(&self) -> Result<()> {
        Ok(tokio::task::block_in_place(|| self.producer.flush(READY_WITHIN))?)
    }

    /// Ends what was started.
    pub async fn stop(self) {
        drop(self.producer);
        guardian::run().map(|run| run.end()).unwrap_or_default();
    }
}

/// A process of energy-ws.
pub struct Service {
    /// The process.
    pub part: Part,
    public: SocketAddr,
    token: String,
}

impl Service {
    /// A client, subscribed to all streams.
    pub async fn client(&self) -> Result<Client> {
        Client::connect(self.public, &self.token).await
    }

    /// Resident memory in kB.
    pub async fn resident_kb(&self) -> Result<u64> {
        let pid = self.part.pid().await.context("it runs")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        Ok(line
            .context("a resident size")?
            .trim()
            .trim_end_matches(" kB")
            .parse()?)
    }
}

/// A message as energy-ws writes it, for the bare broadcast.
pub fn message(number: usize) -> String {
    // Seventy letters are the cursor of thirteen partitions.
    let cursor = "A".repeat(70);
    let (topic, sample) = SAMPLES[number % SAMPLES.len()];
    let record: Value = serde_json::from_str(sample).expect("a sample is JSON");
    format!(
        r#"{{"type":"data","stream":"{}","timestamp":{},"id":"p0/bench/s0.{number}","data":{{"device_id":{},"agent":{},"location":{},"clock":{},"reading":{}}},"cursor":"{cursor}"}}"#,
        topic.trim_start_matches("homelab."),
        record["time"],
        record["device_id"],
        record["agent"],
        record["location"],
        record["clock"],
        record["reading"]
    )
}

/// A shell's usual limit of 1,024 open files is below the number of clients.
pub fn allow_open_files() -> Result<()> {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    Ok(rustix::process::setrlimit(
        rustix::process::Resource::Nofile,
        limit,
    )?)
}

/// The figures go to standard output, alone.
pub fn print(figures: &Value) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{figures}")?)
}
