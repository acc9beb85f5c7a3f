//! An agent alone, with a configuration of the test's own, and the broker that the tests of this program share.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use e2e::WITHIN;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message as _;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;
use stack::part::{Part, eventually};
use stack::secured::Secured;
use stack::{binaries, guardian, port};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::runtime::Runtime;

/// A cold start on a busy machine.
pub const READY_WITHIN: Duration = Duration::from_secs(30);
/// An agent that was refused tries again after a pause of up to 30 s.
const ARRIVES_WITHIN: Duration = Duration::from_secs(90);

struct Shared {
    runtime: Runtime,
    kafka: Secured,
}

/// Runs a test with this program's broker.
///
/// # Errors
/// The test's, or that Kafka does not start.
pub fn with_kafka<T: Future<Output = Result<()>>>(test: impl FnOnce(&'static Secured) -> T) -> Result<()> {
    static SHARED: OnceLock<std::result::Result<Shared, String>> = OnceLock::new();
    let start = || -> Result<Shared> {
        let runtime = Runtime::new()?;
        let folder = guardian::run()?.data("kafka")?;
        let kafka = runtime.block_on(Secured::start(&folder))?;
        Ok(Shared { runtime, kafka })
    };
    let shared = SHARED.get_or_init(|| start().map_err(|error| format!("{error:#}")));
    let shared = shared
        .as_ref()
        .map_err(|error| anyhow!("Kafka does not start: {error}"))?;
    shared.runtime.block_on(test(&shared.kafka))
}

/// A running agent.
pub struct Lone {
    pub part: Part,
    pub mqtt: SocketAddr,
    pub admin: SocketAddr,
}

/// What an agent is given beside its addresses.
#[derive(Default)]
pub struct Options<'a> {
    /// Its name, `p0` unless said otherwise; agents of one name share the commands, so no two tests may.
    pub agent: Option<&'a str>,
    /// The section `[kafka]`.
    pub kafka: String,
    /// More of the configuration.
    pub more: &'a str,
    /// Variables.
    pub environment: Vec<(&'static str, String)>,
    /// Words before the agent's own.
    pub wrapper: Vec<String>,
}

impl Lone {
    /// Starts an agent under a name no other test uses.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn spawn(name: &str, options: Options<'_>) -> Result<Lone> {
        let program = binaries::folder().await?.join("edge-agent");
        ensure!(program.is_file(), "{} is missing: make build", program.display());
        let (mqtt, admin) = (port::free()?, port::free()?);
        let folder = guardian::run()?.data(name)?;
        let mut text = format!(
            "agent = {:?}\ndata_dir = {:?}\n",
            options.agent.unwrap_or("p0"),
            folder.join("data")
        );
        write!(
            text,
            "[mqtt]\nlisten = \"{mqtt}\"\n[admin]\nlisten = \"{admin}\"\n[kafka]\n{}\n{}\n",
            options.kafka, options.more
        )?;
        if !options.more.contains("[clock]") {
            text.push_str("[clock]\nsource = \"trusted\"\n");
        }
        let config = folder.join("edge-agent.toml");
        std::fs::write(&config, text)?;
        let mut words: Vec<std::ffi::OsString> = options.wrapper.iter().map(Into::into).collect();
        words.extend([program.into(), "run".into(), "--config".into(), config.into()]);
        let (first, rest) = words.split_first().context("a command has a word")?;
        let mut command = Command::new(first);
        command.args(rest).envs(options.environment);
        let part = Part::start(name, command).await?;
        Ok(Lone { part, mqtt, admin })
    }

    /// The same, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn start(name: &str, options: Options<'_>) -> Result<Lone> {
        let agent = Lone::spawn(name, options).await?;
        agent.ready().await?;
        Ok(agent)
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn ready(&self) -> Result<()> {
        self.part.ready_http(READY_WITHIN, self.admin, "/readyz").await
    }

    /// What a page of the admin port says.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn page(&self, path: &str) -> Result<String> {
        let answer = tokio::time::timeout(WITHIN, async {
            let mut stream = TcpStream::connect(self.admin).await?;
            stream
                .write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())
                .await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            anyhow::Ok(answer)
        });
        let answer = answer.await??;
        let (_, body) = answer.split_once("\r\n\r\n").context("no HTTP")?;
        Ok(body.to_owned())
    }

    /// What `/status` says, as soon as `wanted` takes it.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        self.until_within(what, WITHIN, wanted).await
    }

    /// The same with more patience.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn until_within(
        &self,
        what: &str,
        within: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        eventually(what, within, async || {
            let status: Value = serde_json::from_str(&self.page("/status").await?)?;
            ensure!(wanted(&status), "not yet: {status}");
            Ok(Some(status))
        })
        .await
    }
}

/// A consumer at the beginning of a topic, through the plain listener.
fn consumer(bootstrap: &str, topic: &str) -> Result<(BaseConsumer, i32)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "e2e-that-never-commits")
        .set("enable.auto.commit", "false")
        .create()?;
    let partitions = telemetry::topic::ALL.iter().find(|(name, _)| *name == topic);
    let partitions = partitions.context("a topic of ours")?.1;
    let mut all = TopicPartitionList::new();
    for partition in 0..partitions {
        all.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&all)?;
    Ok((consumer, partitions))
}

/// The first record of a topic that `wanted` takes.
///
/// # Errors
/// When there is none in time.
pub async fn record(
    kafka: &Secured,
    topic: &'static str,
    wanted: impl Fn(&Value) -> bool + Send + 'static,
) -> Result<Value> {
    let bootstrap = kafka.kafka.bootstrap().to_owned();
    // librdkafka's consumer blocks while it polls.
    tokio::task::spawn_blocking(move || {
        let (consumer, _) = consumer(&bootstrap, topic)?;
        let begin = std::time::Instant::now();
        while begin.elapsed() < ARRIVES_WITHIN {
            let Some(record) = consumer.poll(Duration::from_millis(100)) else {
                continue;
            };
            let value: Value = serde_json::from_slice(record?.payload().unwrap_or_default())?;
            if wanted(&value) {
                return Ok(value);
            }
        }
        Err(anyhow!(
            "no such record on {topic} within {} s",
            ARRIVES_WITHIN.as_secs()
        ))
    })
    .await?
}

/// Everything a topic has now, in the order of its partitions.
///
/// # Errors
/// When the broker does not give it in time.
pub async fn records(kafka: &Secured, topic: &'static str) -> Result<Vec<Value>> {
    let bootstrap = kafka.kafka.bootstrap().to_owned();
    tokio::task::spawn_blocking(move || {
        let (consumer, partitions) = consumer(&bootstrap, topic)?;
        let mut missing = HashMap::new();
        for partition in 0..partitions {
            let (first, end) = consumer.fetch_watermarks(topic, partition, ARRIVES_WITHIN)?;
            if end > first {
                missing.insert(partition, end);
            }
        }
        let mut found = Vec::new();
        let begin = std::time::Instant::now();
        while !missing.is_empty() {
            ensure!(
                begin.elapsed() < ARRIVES_WITHIN,
                "{topic}: {missing:?} are missing"
            );
            let Some(record) = consumer.poll(Duration::from_millis(100)) else {
                continue;
            };
            let record = record?;
            found.push(serde_json::from_slice(record.payload().unwrap_or_default())?);
            let end = missing.get(&record.partition());
            if end.is_some_and(|end| record.offset() + 1 >= *end) {
                missing.remove(&record.partition());
            }
        }
        Ok(found)
    })
    .await?
}
