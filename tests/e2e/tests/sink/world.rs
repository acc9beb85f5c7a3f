//! The broker, the database and the sinks of these tests, and what they produce and look at.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::future_producer::Delivery;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use serde_json::{Value, json};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Row};
use stack::kafka::{Choice, Kafka};
use stack::part::Part;
use stack::postgres::Postgres;
use stack::{binaries, guardian, http, port};
use telemetry::{DeadLetter, topic};
use tokio::process::Command;
use tokio::runtime::Runtime;

/// A sink that was killed gets its partitions back after the group's 6 s; a busy two-core machine needs more for the rest.
pub const WITHIN: Duration = Duration::from_secs(90);

pub const TABLES: [(&str, &str); 4] = [
    (topic::ENERGY, "energy_consumption"),
    (topic::TEMPERATURE, "temperature_sensors"),
    (topic::HEATPUMP, "heatpump_status"),
    (topic::PLUG, "plug_status"),
];

pub struct World {
    runtime: Runtime,
    pub kafka: Kafka,
    pub postgres: Postgres,
    pub binary: std::path::PathBuf,
}

/// Runs a test against this program's broker and database, which the first test starts.
pub fn with_world<T: Future<Output = Result<()>>>(test: impl FnOnce(&'static World) -> T) -> Result<()> {
    static WORLD: OnceLock<std::result::Result<World, String>> = OnceLock::new();
    let world = WORLD.get_or_init(|| World::start("shared").map_err(|error| format!("{error:#}")));
    let world = world
        .as_ref()
        .map_err(|error| anyhow!("the world does not start: {error}"))?;
    world.runtime.block_on(test(world))
}

/// Runs a test against a broker and a database of its own, which it may stop and kill.
pub fn with_own_world(name: &str, test: impl AsyncFnOnce(&World) -> Result<()>) -> Result<()> {
    let world = World::start(name)?;
    world.runtime.block_on(test(&world))
}

impl World {
    /// A broker and a server of its own; `name` is that of their folders.
    pub fn start(name: &str) -> Result<World> {
        let runtime = Runtime::new()?;
        let run = guardian::run()?;
        let (kafka, postgres, binary) = runtime.block_on(async {
            let binary = binaries::folder().await?.join("redpanda-sink");
            let kafka = Kafka::choose(Choice::Real, &run.data(&format!("kafka-{name}"))?).await?;
            kafka.create_topics(&topic::ALL).await?;
            let postgres = Postgres::start(&run.data(&format!("postgres-{name}"))?).await?;
            anyhow::Ok((kafka, postgres, binary))
        })?;
        Ok(World {
            runtime,
            kafka,
            postgres,
            binary,
        })
    }

    /// A database of its own for one test, with the tables of `telemetry`.
    pub async fn database(&self, name: &'static str) -> Result<Database> {
        let statement = format!("create database {name} template telemetry");
        self.postgres.psql("postgres", &statement).await?;
        Ok(Database {
            sink_url: self.postgres.url("sink", name),
            api_url: self.postgres.url("api", name),
        })
    }

    pub async fn sink(&self, group: &str, database_url: &str) -> Result<Sink> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let admin = port::free()?;
        let mut command = Command::new(&self.binary);
        command
            .env("KAFKA_BOOTSTRAP", self.kafka.bootstrap())
            .env("KAFKA_GROUP", group)
            .env("DATABASE_URL", database_url)
            .env("METRICS_ADDRESS", admin.to_string());
        let name = format!("sink-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        Ok(Sink {
            part: Part::start(name, command).await?,
            admin,
        })
    }

    /// Sends records and waits until the broker has them; answers where each went.
    pub async fn produce<K: AsRef<str>>(&self, records: &[(&str, K, Vec<u8>)]) -> Result<Vec<Delivery>> {
        let producer: FutureProducer = ClientConfig::new()
            .set("bootstrap.servers", self.kafka.bootstrap())
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            .create()?;
        let mut under_way: FuturesUnordered<_> = records
            .iter()
            .enumerate()
            .map(|(number, (topic, key, value))| {
                let producer = &producer;
                async move {
                    let record = FutureRecord::to(topic).key(key.as_ref()).payload(value);
                    (number, producer.send(record, Timeout::Never).await)
                }
            })
            .collect();
        let mut deliveries = BTreeMap::new();
        while let Some((number, outcome)) = under_way.next().await {
            deliveries.insert(number, outcome.map_err(|(error, _)| error)?);
        }
        Ok(deliveries.into_values().collect())
    }

    /// Waits until the group has committed everything that is in the topics now.
    pub async fn caught_up(&self, group: &str) -> Result<()> {
        let (bootstrap, group) = (self.kafka.bootstrap().to_owned(), group.to_owned());
        // These questions block.
        tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = ClientConfig::new()
                .set("bootstrap.servers", bootstrap)
                .set("group.id", &group)
                .create()?;
            let ask = Duration::from_secs(10);
            let mut wanted = BTreeMap::new();
            for (name, partitions) in topic::ALL {
                if topic::READINGS.contains(&name) || name == topic::EVENTS {
                    for partition in 0..partitions {
                        let (_, high) = consumer.fetch_watermarks(name, partition, ask)?;
                        if high > 0 {
                            wanted.insert((name, partition), high);
                        }
                    }
                }
            }
            let begin = Instant::now();
            loop {
                let mut partitions = TopicPartitionList::new();
                for (name, partition) in wanted.keys() {
                    partitions.add_partition(name, *partition);
                }
                let committed = match consumer.committed_offsets(partitions, ask) {
                    Ok(committed) => committed,
                    // A broker that has only just started is not the group's coordinator yet, and says so.
                    Err(error) if begin.elapsed() < WITHIN => {
                        eprintln!("asking for the offsets of {group} again: {error}");
                        std::thread::sleep(Duration::from_millis(200));
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                };
                let behind: Vec<_> = committed
                    .elements()
                    .iter()
                    .filter(|element| match element.offset() {
                        Offset::Offset(offset) => {
                            let name = topic::ALL.iter().find(|(name, _)| *name == element.topic());
                            let high = name.and_then(|(name, _)| wanted.get(&(*name, element.partition())));
                            high.is_some_and(|high| offset < *high)
                        }
                        _ => true,
                    })
                    .map(|element| {
                        format!(
                            "{} {}: {:?}",
                            element.topic(),
                            element.partition(),
                            element.offset()
                        )
                    })
                    .collect();
                if behind.is_empty() {
                    return Ok(());
                }
                ensure!(
                    begin.elapsed() < WITHIN,
                    "group {group} has not committed all of {wanted:?}: {behind:?}"
                );
                std::thread::sleep(Duration::from_millis(50));
            }
        })
        .await?
    }

    /// The offsets a group has committed in a topic of readings.
    pub async fn committed(&self, group: &str, name: &'static str) -> Result<Vec<i64>> {
        let all = self.all_committed(group).await?;
        let of_topic = all.into_iter().filter(|((topic, _), _)| topic == name);
        Ok(of_topic.map(|(_, offset)| offset).collect())
    }

    /// The offsets a group has committed, by topic and partition.
    pub async fn all_committed(&self, group: &str) -> Result<BTreeMap<(String, i32), i64>> {
        let (bootstrap, group) = (self.kafka.bootstrap().to_owned(), group.to_owned());
        tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = ClientConfig::new()
                .set("bootstrap.servers", bootstrap)
                .set("group.id", &group)
                .create()?;
            let mut partitions = TopicPartitionList::new();
            for name in topic::READINGS {
                partitions.add_partition_range(name, 0, topic::READING_PARTITIONS - 1);
            }
            let committed = consumer.committed_offsets(partitions, Duration::from_secs(10))?;
            let offsets = committed.elements().into_iter().filter_map(|element| {
                let Offset::Offset(offset) = element.offset() else {
                    return None;
                };
                Some(((element.topic().to_owned(), element.partition()), offset))
            });
            Ok(offsets.collect())
        })
        .await?
    }

    /// Every dead letter with its key.
    pub async fn letters(&self) -> Result<Vec<(Option<Vec<u8>>, DeadLetter)>> {
        let bootstrap = self.kafka.bootstrap().to_owned();
        tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = ClientConfig::new()
                .set("bootstrap.servers", bootstrap)
                .set("group.id", "e2e-that-never-commits")
                .set("enable.auto.commit", "false")
                .create()?;
            let (_, high) = consumer.fetch_watermarks(topic::DEAD_LETTER, 0, Duration::from_secs(10))?;
            let mut all = TopicPartitionList::new();
            all.add_partition_offset(topic::DEAD_LETTER, 0, Offset::Beginning)?;
            consumer.assign(&all)?;
            let mut letters = Vec::new();
            let begin = Instant::now();
            while letters.len() < usize::try_from(high)? {
                ensure!(begin.elapsed() < WITHIN, "the dead letters cannot be read");
                let Some(record) = consumer.poll(Duration::from_millis(100)) else {
                    continue;
                };
                let record = record?;
                let letter = serde_json::from_slice(record.payload().unwrap_or_default())?;
                letters.push((record.key().map(<[u8]>::to_vec), letter));
            }
            Ok(letters)
        })
        .await?
    }
}

pub struct Sink {
    pub part: Part,
    pub admin: SocketAddr,
}

impl Sink {
    /// Status and body of `/readyz`.
    pub async fn readiness(&self) -> Result<(u16, String)> {
        let answer = http::client()?
            .get(format!("http://{}/readyz", self.admin))
            .send()
            .await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    pub async fn metric(&self, line: &str) -> Result<f64> {
        let url = format!("http://{}/metrics", self.admin);
        let text = http::client()?.get(url).send().await?.text().await?;
        let found = text
            .lines()
            .find_map(|candidate| candidate.strip_prefix(line)?.strip_prefix(' '));
        Ok(found.with_context(|| format!("no {line} in\n{text}"))?.parse()?)
    }
}

/// Now, with the microseconds that the wire carries.
pub fn start_of_data() -> DateTime<Utc> {
    let now = Utc::now();
    now - TimeDelta::nanoseconds(i64::from(now.timestamp_subsec_nanos() % 1_000)) - TimeDelta::hours(6)
}

/// One good record of a kind; the value that tells it apart is in a field of each table.
pub fn record(topic_name: &str, device: &str, id: &str, time: DateTime<Utc>, value: f64) -> Vec<u8> {
    let (kind, reading) = match topic_name {
        topic::ENERGY => (
            "energy",
            json!({"power_w": value, "energy_wh": value, "meter_id": "m\u{e9}"}),
        ),
        topic::TEMPERATURE => (
            "temperature",
            json!({"uptime_seconds": value, "external_power": true}),
        ),
        topic::HEATPUMP => (
            "heatpump",
            json!({"compressor_hours": value, "settings": {"curve": 38}}),
        ),
        _ => ("plug", json!({"on": true, "energy_wh": value})),
    };
    let time = time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    json!({"id": id, "agent": "p0", "device_id": device, "time": time, "clock": "synced", "location": "cellar",
        "kind": kind, "reading": reading})
    .to_string()
    .into_bytes()
}

/// Topic, key and value.
pub type Sent = (&'static str, String, Vec<u8>);
/// The ids that belong into the table of each topic.
pub type Ids = BTreeMap<&'static str, BTreeSet<String>>;

/// `count` records over all kinds and three devices each, every tenth sent twice.
pub fn load(prefix: &str, count: usize) -> (Vec<Sent>, Ids) {
    let start = start_of_data();
    let mut records = Vec::new();
    let mut ids = Ids::new();
    for number in 0..count {
        let (name, _) = TABLES[number % TABLES.len()];
        let device = format!("{prefix}-{}", number % 3);
        let id = format!("p0/{prefix}/{number}");
        let time = start + TimeDelta::milliseconds(i64::try_from(number).expect("a small count"));
        let value = record(name, &device, &id, time, number as f64);
        for _ in 0..1 + usize::from(number % 10 == 0) {
            records.push((name, device.clone(), value.clone()));
        }
        ids.entry(name).or_default().insert(id);
    }
    (records, ids)
}

/// One test's database.
pub struct Database {
    pub sink_url: String,
    pub api_url: String,
}

impl Database {
    /// The rows of a table whose device begins with `prefix`, as JSON by id. That an id is there twice is an error.
    pub async fn rows(&self, table: &str, prefix: &str) -> Result<BTreeMap<String, Value>> {
        let statement =
            format!("select id, to_jsonb(t) as row from {table} t where device_id like $1 || '%'");
        let mut connection = PgConnection::connect(&self.api_url).await?;
        let found = sqlx::query(AssertSqlSafe(statement))
            .bind(prefix)
            .fetch_all(&mut connection)
            .await?;
        let mut rows = BTreeMap::new();
        for row in &found {
            let id: String = row.try_get("id")?;
            ensure!(
                rows.insert(id.clone(), row.try_get("row")?).is_none(),
                "{table} has {id} twice"
            );
        }
        Ok(rows)
    }

    /// Rows of each table equal the distinct input.
    pub async fn holds_exactly(&self, prefix: &str, ids: &Ids) -> Result<()> {
        for (name, table) in TABLES {
            let rows = self.rows(table, prefix).await?;
            let found: BTreeSet<String> = rows.keys().cloned().collect();
            let missing = ids[name].difference(&found).count();
            let strange = found.difference(&ids[name]).count();
            ensure!(
                missing == 0 && strange == 0,
                "{table}: {missing} missing, {strange} that nobody sent"
            );
            for (id, row) in &rows {
                let number: f64 = id.rsplit('/').next().context("ids end in a number")?.parse()?;
                let field = match name {
                    topic::ENERGY => "power_w",
                    topic::TEMPERATURE => "uptime_seconds",
                    topic::HEATPUMP => "compressor_hours",
                    _ => "energy_wh",
                };
                ensure!(row[field].as_f64() == Some(number), "{table}: {row}");
                ensure!(
                    row["agent"] == "p0" && row["clock"] == "synced" && row["location"] == "cellar",
                    "{row}"
                );
            }
        }
        Ok(())
    }
}
