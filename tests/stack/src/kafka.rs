//! The broker: real Apache Kafka from Maven Central (one node, KRaft), a broker that is already running, or librdkafka's
//! in-process mock.
//!
//! The mock is never chosen where durability or order is what is being shown: it keeps everything in memory and drops the
//! oldest records without a word.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use tokio::process::Command;

use crate::{
    part::{Part, eventually},
    port,
};

/// A cold JVM on a busy two-core machine has been seen to take 12 s; 2 s is usual.
const READY_WITHIN: Duration = Duration::from_secs(60);
const ADMIN_WITHIN: Duration = Duration::from_secs(30);
const PRODUCE_WITHIN: Duration = Duration::from_secs(60);

/// Reads well in `ps` and fits a Pi: the broker of the tests holds a few thousand records.
const JAVA_OPTIONS: [&str; 6] = [
    "-Xms128m",
    "-Xmx384m",
    // The process lives for minutes: compiling twice and collecting in parallel would cost more than they give.
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-Xshare:auto",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
];

/// Any 16 bytes in URL-safe base64; each run has a broker of its own.
const CLUSTER_ID: &str = "aG9tZWxhYi1rMTJuLXRlcw";

/// Which broker the stack uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The broker named by `KAFKA_BOOTSTRAP` when that is set, otherwise real Kafka, started here.
    #[default]
    Real,
    /// As `Real`, and the mock where neither Java nor Maven can be had.
    RealOrMock,
    /// librdkafka's mock broker in this process.
    Mock,
}

/// A running broker.
pub struct Kafka {
    bootstrap: String,
    /// The broker's process, when it is ours.
    part: Option<Part>,
    /// The mock lives inside a client and ends with it.
    mock: Option<BaseProducer>,
}

impl std::fmt::Debug for Kafka {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Kafka")
            .field("bootstrap", &self.bootstrap)
            .finish_non_exhaustive()
    }
}

impl Kafka {
    /// The broker that `choice` names; a real one keeps its data in `folder`.
    ///
    /// # Errors
    /// When it cannot be had; the message says what is missing and how to get it.
    pub async fn choose(choice: Choice, folder: &Path) -> Result<Kafka> {
        const MOCK: &str = "using librdkafka's mock broker: in memory, good for a look and no more";
        if choice == Choice::Mock {
            eprintln!("stack: {MOCK}");
            return Kafka::mock();
        }
        if let Some(bootstrap) = std::env::var("KAFKA_BOOTSTRAP")
            .ok()
            .filter(|value| !value.is_empty())
        {
            eprintln!("stack: using the Kafka at {bootstrap} (KAFKA_BOOTSTRAP)");
            return Ok(Kafka {
                bootstrap,
                part: None,
                mock: None,
            });
        }
        match jars().await {
            Err(missing) if choice == Choice::RealOrMock => {
                eprintln!("stack: {missing:#}; {MOCK}");
                Kafka::mock()
            }
            Err(missing) => Err(missing),
            Ok(_) => Kafka::start(folder).await,
        }
    }

    /// Starts Apache Kafka on free ports of 127.0.0.1 with its data in `folder`, and waits until it answers.
    ///
    /// # Errors
    /// When Java or the jars are missing, or it does not start.
    pub async fn start(folder: &Path) -> Result<Kafka> {
        let jars = jars().await?;
        let classpath = format!("{jars}/*");
        let (listener, controller) = (port::free()?, port::free()?);
        std::fs::create_dir_all(folder)?;
        let settings = folder.join("server.properties");
        std::fs::write(&settings, properties(folder, listener, controller))?;

        let format = Command::new("java")
            .args(JAVA_OPTIONS)
            .args([
                "-cp",
                &classpath,
                "kafka.tools.StorageTool",
                "format",
                "--ignore-formatted",
            ])
            .args(["--cluster-id", CLUSTER_ID, "--config"])
            .arg(&settings)
            .kill_on_drop(true)
            .output()
            .await
            .context("cannot run java")?;
        if !format.status.success() {
            bail!(
                "Kafka's storage could not be formatted: {}",
                String::from_utf8_lossy(&format.stderr).trim()
            );
        }

        let mut java = Command::new("java");
        java.args(JAVA_OPTIONS)
            .args(["-cp", &classpath, "kafka.Kafka"])
            .arg(&settings)
            .current_dir(folder);
        let part = Part::start("kafka", java).await?;
        let bootstrap = listener.to_string();
        // The port opens before the broker may be used; an answered metadata request is what counts.
        let admin = admin_client(&bootstrap)?;
        part.ready(READY_WITHIN, async || {
            tokio::net::TcpStream::connect(listener).await.is_ok() && has_controller(&admin)
        })
        .await?;
        Ok(Kafka {
            bootstrap,
            part: Some(part),
            mock: None,
        })
    }

    /// Starts librdkafka's mock broker in this process.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn mock() -> Result<Kafka> {
        let client: BaseProducer = ClientConfig::new().set("test.mock.num.brokers", "1").create()?;
        let cluster = client.client().mock_cluster();
        let bootstrap = cluster.map(|cluster| cluster.bootstrap_servers());
        let bootstrap = bootstrap.context("librdkafka made no mock broker")?;
        Ok(Kafka {
            bootstrap,
            part: None,
            mock: Some(client),
        })
    }

    /// Where clients connect, `host:port`.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Whether it is the mock, which loses data and cannot stamp records itself.
    pub fn is_mock(&self) -> bool {
        self.mock.is_some()
    }

    /// Whether others may be using it too: it was running before.
    pub fn is_shared(&self) -> bool {
        self.part.is_none() && self.mock.is_none()
    }

    /// The broker's process, when it is ours: to be paused, killed and restarted by a test.
    pub fn part(&self) -> Option<&Part> {
        self.part.as_ref()
    }

    /// Creates the topics, each with its partitions, stamped by the broker (DESIGN 5.1). Topics that exist are left alone.
    ///
    /// # Errors
    /// When one cannot be created.
    pub async fn create_topics(&self, topics: &[(&str, i32)]) -> Result<()> {
        if let Some(client) = &self.mock {
            let cluster = client
                .client()
                .mock_cluster()
                .context("the mock broker is gone")?;
            for (topic, partitions) in topics {
                cluster.create_topic(topic, *partitions, 1)?;
            }
            return Ok(());
        }
        let wanted: Vec<_> = topics
            .iter()
            .map(|(topic, partitions)| {
                NewTopic::new(topic, *partitions, TopicReplication::Fixed(1))
                    .set("message.timestamp.type", "LogAppendTime")
            })
            .collect();
        let options = AdminOptions::new().operation_timeout(Some(ADMIN_WITHIN));
        for outcome in admin_client(&self.bootstrap)?
            .create_topics(&wanted, &options)
            .await?
        {
            match outcome {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, error)) => return Err(anyhow!("cannot create topic {topic}: {error}")),
            }
        }
        Ok(())
    }

    /// Sets the largest batch a topic takes, and waits until the broker goes by it.
    ///
    /// # Errors
    /// When it cannot be set.
    pub async fn set_max_message_bytes(&self, topic: &str, bytes: u32) -> Result<()> {
        let admin = admin_client(&self.bootstrap)?;
        let options = AdminOptions::new().operation_timeout(Some(ADMIN_WITHIN));
        let wanted = bytes.to_string();
        // What is not named goes back to the broker's default.
        let config = AlterConfig::new(ResourceSpecifier::Topic(topic))
            .set("message.timestamp.type", "LogAppendTime")
            .set("max.message.bytes", &wanted);
        for outcome in admin.alter_configs([&config], &options).await? {
            outcome.map_err(|(_, error)| anyhow!("cannot configure topic {topic}: {error}"))?;
        }
        let specifier = ResourceSpecifier::Topic(topic);
        eventually("the topic's configuration", ADMIN_WITHIN, async || {
            let answers = admin.describe_configs([&specifier], &options).await?;
            let config = answers.into_iter().next().context("one answer")?;
            let config = config.map_err(|error| anyhow!("{error}"))?;
            let entry = config.get("max.message.bytes");
            Ok(entry
                .is_some_and(|entry| entry.value.as_deref() == Some(&wanted))
                .then_some(()))
        })
        .await
    }

    /// Deletes a topic, and waits until the broker knows nothing of it.
    ///
    /// # Errors
    /// When it cannot be deleted.
    pub async fn delete_topic(&self, topic: &str) -> Result<()> {
        let admin = admin_client(&self.bootstrap)?;
        let options = AdminOptions::new().operation_timeout(Some(ADMIN_WITHIN));
        for outcome in admin.delete_topics(&[topic], &options).await? {
            outcome.map_err(|(topic, error)| anyhow!("cannot delete topic {topic}: {error}"))?;
        }
        eventually("the end of a topic", ADMIN_WITHIN, async || {
            let known = admin.inner().fetch_metadata(None, Duration::from_secs(5))?;
            Ok((known.topics().iter().all(|known| known.name() != topic)).then_some(()))
        })
        .await
    }

    /// Produces records, each `(topic, key, value)`, and waits until the broker has them all. Blocks.
    ///
    /// # Errors
    /// When one is refused or they are not delivered in time.
    pub fn produce(&self, records: impl Iterator<Item = (&'static str, String, String)>) -> Result<u64> {
        let producer: ThreadedProducer<_> = ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .set("enable.idempotence", "true")
            .set("linger.ms", "20")
            .create()?;
        let mut count = 0;
        for (topic, key, value) in records {
            while let Err((error, _)) = producer.send(BaseRecord::to(topic).key(&key).payload(&value)) {
                // The queue is bounded; it drains while we wait.
                anyhow::ensure!(
                    error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull),
                    "{error}"
                );
                producer.flush(Duration::from_millis(50)).ok();
            }
            count += 1;
        }
        producer
            .flush(PRODUCE_WITHIN)
            .context("the broker did not take the records in time")?;
        Ok(count)
    }

    /// Stops the broker when it is ours.
    pub async fn stop(&self) {
        if let Some(part) = &self.part {
            part.stop().await;
        }
    }
}

fn admin_client(bootstrap: &str) -> Result<AdminClient<DefaultClientContext>> {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        // While the broker starts it refuses connections; that is no news.
        .set("log_level", "0")
        .set("reconnect.backoff.ms", "20")
        .set("reconnect.backoff.max.ms", "100")
        .create()
        .context("cannot make a Kafka client")
}

fn has_controller(admin: &AdminClient<DefaultClientContext>) -> bool {
    let metadata = admin.inner().fetch_metadata(None, Duration::from_millis(500));
    metadata.is_ok_and(|metadata| !metadata.brokers().is_empty())
}

/// The folder with Kafka's jars, fetched once.
async fn jars() -> Result<String> {
    let java = Command::new("java")
        .arg("-version")
        .kill_on_drop(true)
        .output()
        .await;
    if !java.is_ok_and(|java| java.status.success()) {
        bail!("java is missing (17 or newer): apt-get install default-jre-headless, or run make setup");
    }
    let fetch = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("kafka")
        .join("fetch.sh");
    let fetched = Command::new(fetch)
        .stderr(std::process::Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot run kafka/fetch.sh")?;
    if !fetched.status.success() {
        bail!("Kafka's jars cannot be had: run make setup, or name a running broker in KAFKA_BOOTSTRAP");
    }
    Ok(String::from_utf8(fetched.stdout)?.trim().to_owned())
}

fn properties(folder: &Path, listener: SocketAddr, controller: SocketAddr) -> String {
    let data = folder.join("data");
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{controller}
listeners=PLAINTEXT://{listener},CONTROLLER://{controller}
advertised.listeners=PLAINTEXT://{listener}
controller.listener.names=CONTROLLER
log.dirs={data}
# As Redpanda does in production: an acknowledged record is on disk (DESIGN P1).
log.flush.interval.messages=1
auto.create.topics.enable=false
# One node, few groups: every internal topic small, every wait short.
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# A member that was killed is given up quickly, so that its successor in a test gets the partitions soon.
group.min.session.timeout.ms=1000
num.network.threads=2
num.io.threads=2
log.cleaner.enable=false
# A broker that was killed is its own successor: it need not wait for its own lease to end.
broker.session.timeout.ms=1000
broker.heartbeat.interval.ms=250
",
        data = data.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn starts_and_creates_topics_stamped_by_the_broker() -> Result<()> {
        let folder = crate::guardian::run()?.data("kafka-alone")?;
        let kafka = Kafka::start(&folder).await?;
        kafka.create_topics(&[("readings", 3), ("events", 1)]).await?;
        kafka.create_topics(&[("readings", 3)]).await?;

        let admin = admin_client(kafka.bootstrap())?;
        let metadata = admin.inner().fetch_metadata(Some("readings"), ADMIN_WITHIN)?;
        assert_eq!(metadata.topics()[0].partitions().len(), 3);
        let specifier = rdkafka::admin::ResourceSpecifier::Topic("events");
        let configs = admin.describe_configs(&[specifier], &AdminOptions::new()).await?;
        let config = configs
            .into_iter()
            .next()
            .context("one answer")?
            .map_err(|error| anyhow!("{error}"))?;
        let stamp = config
            .get("message.timestamp.type")
            .and_then(|entry| entry.value.clone());
        assert_eq!(stamp.as_deref(), Some("LogAppendTime"));

        // What it acknowledged survives a SIGKILL and a restart on the same port.
        let part = kafka.part().context("it is ours")?;
        part.kill().await;
        part.restart().await?;
        part.ready(READY_WITHIN, async || {
            admin
                .inner()
                .fetch_metadata(Some("events"), Duration::from_secs(1))
                .is_ok_and(|metadata| {
                    metadata
                        .topics()
                        .first()
                        .is_some_and(|topic| topic.partitions().len() == 1)
                })
        })
        .await?;
        kafka.stop().await;
        Ok(())
    }

    #[test]
    fn the_mock_creates_topics() -> Result<()> {
        let kafka = Kafka::mock()?;
        assert!(kafka.is_mock() && kafka.bootstrap().contains(':'));
        Ok(())
    }
}
