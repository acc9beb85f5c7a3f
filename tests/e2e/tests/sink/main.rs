//! redpanda-sink against real Kafka and real PostgreSQL: every record once, whatever is killed, cut or poisoned.
//!
//! The tests share the broker, so every sink also meets the records of the other tests and must not mind. Each test has
//! a database of its own: what one sink loses, no other may write in its place.

mod faults;
mod replay;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::future_producer::Delivery;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use serde_json::{Value, json};
use sha2::Digest;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Row};
use stack::kafka::{Choice, Kafka};
use stack::part::{Part, eventually, get_is_ok};
use stack::postgres::Postgres;
use stack::{binaries, guardian, http, port};
use telemetry::{DeadLetter, Origin, Stage, topic};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A sink that was killed gets its partitions back after the group's 6 s; a busy two-core machine needs more for the rest.
const WITHIN: Duration = Duration::from_secs(90);

const TABLES: [(&str, &str); 4] = [
    (topic::ENERGY, "energy_consumption"),
    (topic::TEMPERATURE, "temperature_sensors"),
    (topic::HEATPUMP, "heatpump_status"),
    (topic::PLUG, "plug_status"),
];

struct World {
    runtime: Runtime,
    kafka: Kafka,
    postgres: Postgres,
    binary: std::path::PathBuf,
}

/// Runs a test against this program's broker and database, which the first test starts.
fn with_world<T: Future<Output = Result<()>>>(test: impl FnOnce(&'static World) -> T) -> Result<()> {
    static WORLD: OnceLock<std::result::Result<World, String>> = OnceLock::new();
    let world = WORLD.get_or_init(|| World::start().map_err(|error| format!("{error:#}")));
    let world = world
        .as_ref()
        .map_err(|error| anyhow!("the world does not start: {error}"))?;
    world.runtime.block_on(test(world))
}

impl World {
    fn start() -> Result<World> {
        let runtime = Runtime::new()?;
        let run = guardian::run()?;
        let (kafka, postgres, binary) = runtime.block_on(async {
            let binary = binaries::folder().await?.join("redpanda-sink");
            let kafka = Kafka::choose(Choice::Real, &run.data("kafka")?).await?;
            kafka.create_topics(&topic::ALL).await?;
            let postgres = Postgres::start(&run.data("postgres")?).await?;
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
    async fn database(&self, name: &'static str) -> Result<Database> {
        let statement = format!("create database {name} template telemetry");
        self.postgres.psql("postgres", &statement).await?;
        Ok(Database {
            sink_url: self.postgres.url("sink", name),
            api_url: self.postgres.url("api", name),
        })
    }

    async fn sink(&self, group: &str, database_url: &str) -> Result<Sink> {
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
    async fn produce<K: AsRef<str>>(&self, records: &[(&str, K, Vec<u8>)]) -> Result<Vec<Delivery>> {
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
    async fn caught_up(&self, group: &str) -> Result<()> {
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
                let committed = consumer.committed_offsets(partitions, ask)?;
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
    async fn committed(&self, group: &str, name: &'static str) -> Result<Vec<i64>> {
        let (bootstrap, group) = (self.kafka.bootstrap().to_owned(), group.to_owned());
        tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = ClientConfig::new()
                .set("bootstrap.servers", bootstrap)
                .set("group.id", &group)
                .create()?;
            let mut partitions = TopicPartitionList::new();
            partitions.add_partition_range(name, 0, topic::READING_PARTITIONS - 1);
            let committed = consumer.committed_offsets(partitions, Duration::from_secs(10))?;
            let offsets = committed
                .elements()
                .iter()
                .filter_map(|element| match element.offset() {
                    Offset::Offset(offset) => Some(offset),
                    _ => None,
                })
                .collect();
            Ok(offsets)
        })
        .await?
    }

    /// Every dead letter with its key.
    async fn letters(&self) -> Result<Vec<(Option<Vec<u8>>, DeadLetter)>> {
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

struct Sink {
    part: Part,
    admin: SocketAddr,
}

impl Sink {
    /// Status and body of `/readyz`.
    async fn readiness(&self) -> Result<(u16, String)> {
        let answer = http::client()?
            .get(format!("http://{}/readyz", self.admin))
            .send()
            .await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    async fn metric(&self, line: &str) -> Result<f64> {
        let url = format!("http://{}/metrics", self.admin);
        let text = http::client()?.get(url).send().await?.text().await?;
        let found = text
            .lines()
            .find_map(|candidate| candidate.strip_prefix(line)?.strip_prefix(' '));
        Ok(found.with_context(|| format!("no {line} in\n{text}"))?.parse()?)
    }
}

/// Now, with the microseconds that the wire carries.
fn start_of_data() -> DateTime<Utc> {
    let now = Utc::now();
    now - TimeDelta::nanoseconds(i64::from(now.timestamp_subsec_nanos() % 1_000)) - TimeDelta::hours(6)
}

/// One good record of a kind; the value that tells it apart is in a field of each table.
fn record(topic_name: &str, device: &str, id: &str, time: DateTime<Utc>, value: f64) -> Vec<u8> {
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
type Sent = (&'static str, String, Vec<u8>);
/// The ids that belong into the table of each topic.
type Ids = BTreeMap<&'static str, BTreeSet<String>>;

/// `count` records over all kinds and three devices each, every tenth sent twice.
fn load(prefix: &str, count: usize) -> (Vec<Sent>, Ids) {
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
struct Database {
    sink_url: String,
    api_url: String,
}

impl Database {
    /// The rows of a table whose device begins with `prefix`, as JSON by id. That an id is there twice is an error.
    async fn rows(&self, table: &str, prefix: &str) -> Result<BTreeMap<String, Value>> {
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
    async fn holds_exactly(&self, prefix: &str, ids: &Ids) -> Result<()> {
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

#[test]
fn the_same_topic_consumed_twice_gives_the_same_rows() -> Result<()> {
    with_world(async |world: &'static World| {
        let prefix = "twice";
        let database = world.database("sink_twice").await?;
        let (records, ids) = load(prefix, 2_000);
        world.produce(&records).await?;
        let event = json!({"id": "p0/twice/e1", "agent": "p0", "device_id": "twice-0", "time": start_of_data(),
            "type": "buffer_loss", "from": start_of_data(), "to": start_of_data(), "count": 3, "reason": "full"});
        let event = event.to_string().into_bytes();
        world
            .produce(&[(topic::EVENTS, "p0", event.clone()), (topic::EVENTS, "p0", event)])
            .await?;

        let snapshot = async || {
            let mut rows = Vec::new();
            for (_, table) in TABLES {
                rows.push(database.rows(table, prefix).await?);
            }
            rows.push(database.rows("events", prefix).await?);
            anyhow::Ok(rows)
        };
        let first = world.sink("twice-first", &database.sink_url).await?;
        world.caught_up("twice-first").await?;
        database.holds_exactly(prefix, &ids).await?;
        let before = snapshot().await?;
        ensure!(before[4].len() == 1, "{:?}", before[4]);
        let stored = before[4].values().next().context("one event")?;
        ensure!(
            stored["type"] == "buffer_loss" && stored["details"]["count"] == 3,
            "{stored}"
        );
        ensure!(
            before[2].values().all(|row| row["settings_curve"] == 38),
            "settings have columns of their own"
        );
        first.part.stop().await;

        let second = world.sink("twice-second", &database.sink_url).await?;
        world.caught_up("twice-second").await?;
        ensure!(snapshot().await? == before, "the second time changed the rows");
        let ignored = second.metric("redpanda_sink_rows_ignored_total").await?;
        ensure!(ignored >= 2_201.0, "the second sink ignored {ignored} rows");
        ensure!(second.metric("redpanda_sink_database_up").await? == 1.0);
        eventually("lag zero", WITHIN, async || {
            let lag = second
                .metric("redpanda_sink_lag_records{topic=\"homelab.energy\"}")
                .await?;
            Ok((lag == 0.0).then_some(()))
        })
        .await?;
        second.part.stop().await;
        Ok(())
    })
}

#[test]
fn a_kill_while_the_database_holds_the_batch_loses_nothing() -> Result<()> {
    with_world(async |world: &'static World| {
        let (prefix, group) = ("held", "held");
        let database = world.database("sink_held").await?;
        let (records, ids) = load(prefix, 400);
        // The table is held by another session, so that the batch stays in the middle of its transaction.
        let mut holder = PgConnection::connect(&world.postgres.url("postgres", "sink_held")).await?;
        sqlx::query("begin").execute(&mut holder).await?;
        sqlx::query("lock table plug_status in access exclusive mode")
            .execute(&mut holder)
            .await?;
        world.produce(&records).await?;
        let sink = world.sink(group, &database.sink_url).await?;
        let waiting = "select 1 from pg_locks where not granted and relation = 'plug_status'::regclass";
        eventually("the batch to be held", WITHIN, async || {
            Ok((!world.postgres.psql("sink_held", waiting).await?.is_empty()).then_some(()))
        })
        .await?;
        // Offsets go to the broker every second: those of the held batch must not be among them.
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(3) {
            let committed = world.committed(group, topic::PLUG).await?;
            ensure!(
                committed.is_empty(),
                "committed before the rows were: {committed:?}"
            );
        }
        sink.part.kill().await;
        sqlx::query("rollback").execute(&mut holder).await?;
        sink.part.restart().await?;
        world.caught_up(group).await?;
        database.holds_exactly(prefix, &ids).await?;
        sink.part.stop().await;
        Ok(())
    })
}

#[test]
fn kills_and_rebalances_lose_nothing_and_double_nothing() -> Result<()> {
    with_world(async |world: &'static World| {
        let (prefix, group) = ("kill", "kill");
        let database = world.database("sink_kill").await?;
        let (records, ids) = load(prefix, 20_000);
        let (early, late) = records.split_at(records.len() / 2);
        world.produce(early).await?;
        let sink = world.sink(group, &database.sink_url).await?;
        let count = async || {
            let mut connection = PgConnection::connect(&database.api_url).await?;
            let row =
                sqlx::query("select count(*) as n from energy_consumption where device_id like 'kill-%'")
                    .fetch_one(&mut connection)
                    .await?;
            Ok::<i64, anyhow::Error>(row.try_get("n")?)
        };
        // Each kill comes in the middle of the work: rows have come, and more are to come.
        for at_least in [1, 600, 1_500] {
            eventually("rows before a kill", WITHIN, async || {
                Ok((count().await? >= at_least).then_some(()))
            })
            .await?;
            sink.part.kill().await;
            sink.part.restart().await?;
        }
        // A second replica takes a share, and the first leaves while there is work.
        let second = world.sink(group, &database.sink_url).await?;
        world.produce(late).await?;
        let rebalances = "redpanda_sink_rebalances_total";
        eventually("a share for the second replica", WITHIN, async || {
            Ok((second.metric(rebalances).await? > 0.0).then_some(()))
        })
        .await?;
        sink.part.stop().await;
        world.caught_up(group).await?;
        database.holds_exactly(prefix, &ids).await?;
        second.part.stop().await;
        Ok(())
    })
}

#[test]
fn a_backlog_goes_by_copy_with_the_same_rows() -> Result<()> {
    with_world(async |world: &'static World| {
        let prefix = "backlog";
        let database = world.database("sink_backlog").await?;
        let start = start_of_data();
        let mut records = Vec::new();
        let mut wanted = BTreeSet::new();
        let bad: String = (0..200_u32)
            .map(|number| format!("{:x}", sha2::Sha256::digest(number.to_be_bytes())))
            .collect();
        for number in 0..30_000_u32 {
            let id = format!("p0/backlog/{number}");
            let time = start + TimeDelta::milliseconds(number.into());
            let value = record(topic::ENERGY, "backlog-0", &id, time, f64::from(number));
            for _ in 0..1 + u32::from(number % 10 == 0) {
                records.push((topic::ENERGY, "backlog-0", value.clone()));
            }
            wanted.insert(id);
            // Refused by the database alone, so that a batch that came by COPY is halved.
            if number % 9_000 == 4_500 {
                let id = format!("{bad}{number}");
                records.push((
                    topic::ENERGY,
                    "backlog-0",
                    record(topic::ENERGY, "backlog-0", &id, time, 1.0),
                ));
            }
        }
        world.produce(&records).await?;
        let sink = world.sink("backlog", &database.sink_url).await?;
        world.caught_up("backlog").await?;
        let rows = database.rows("energy_consumption", prefix).await?;
        ensure!(rows.keys().cloned().collect::<BTreeSet<_>>() == wanted);
        for (id, row) in &rows {
            let number: i64 = id.rsplit('/').next().context("a number")?.parse()?;
            let time: DateTime<Utc> = row["time"].as_str().context("a time")?.parse()?;
            ensure!(
                row["power_w"].as_f64() == Some(number as f64)
                    && row["meter_id"] == "m\u{e9}"
                    && row["power_l1_w"].is_null()
                    && time == start + TimeDelta::milliseconds(number),
                "{row}"
            );
        }
        ensure!(sink.metric("redpanda_sink_copied_rows_total").await? >= 2_000.0);
        let refused = "redpanda_sink_dead_letters_total{reason=\"refused_by_database\"}";
        ensure!(sink.metric(refused).await? >= 3.0);
        sink.part.stop().await;
        Ok(())
    })
}

#[test]
fn poison_becomes_dead_letters_and_the_rest_is_written() -> Result<()> {
    with_world(async |world: &'static World| {
        let prefix = "poison";
        let database = world.database("sink_poison").await?;
        let start = start_of_data();
        let good = |name: &str, id: &str| record(name, "poison-0", id, start, 1.0);
        let with = |pointer: &str, value: Value| {
            let mut record: Value =
                serde_json::from_slice(&good(topic::ENERGY, "p0/poison/bad")).expect("JSON");
            let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
            record.pointer_mut(parent).expect("a parent")[key] = value;
            record.to_string().into_bytes()
        };
        // Random text: the index would squeeze a long run of one letter into its limit.
        let long_id: String = (0..200_u32)
            .map(|number| format!("{:x}", sha2::Sha256::digest(number.to_le_bytes())))
            .collect();
        let large = vec![b'x'; 600 * 1024];
        let event = |change: Value| {
            let mut event = json!({"id": "p0/poison/e", "agent": "p0", "time": start, "type": "device_online",
                "online": true});
            event
                .as_object_mut()
                .expect("an object")
                .extend(change.as_object().expect("an object").clone());
            event.to_string().into_bytes()
        };
        let poison: Vec<(&str, &str, Vec<u8>)> = vec![
            ("malformed", topic::ENERGY, b"hello".to_vec()),
            ("malformed", topic::ENERGY, Vec::new()),
            ("malformed", topic::TEMPERATURE, b"\xff\xfe\x00".to_vec()),
            ("malformed", topic::HEATPUMP, b"{\"id\":".to_vec()),
            ("malformed", topic::PLUG, large),
            (
                "malformed",
                topic::ENERGY,
                with("/reading/power_w", json!("many")),
            ),
            ("malformed", topic::ENERGY, with("/kind", json!("water"))),
            ("malformed", topic::ENERGY, with("/device_id", json!("a\u{0}b"))),
            ("wrong_kind", topic::PLUG, good(topic::ENERGY, "p0/poison/bad")),
            (
                "out_of_range",
                topic::ENERGY,
                with("/reading/power_w", json!(5e9)),
            ),
            (
                "nul_character",
                topic::ENERGY,
                with("/location", json!("cel\u{0}lar")),
            ),
            (
                "nul_character",
                topic::ENERGY,
                with("/reading/meter_id", json!("\u{0}")),
            ),
            (
                "time_out_of_range",
                topic::ENERGY,
                with("/time", json!(Utc::now() + TimeDelta::minutes(90))),
            ),
            (
                "time_out_of_range",
                topic::ENERGY,
                with("/time", json!("2019-12-31T23:59:59Z")),
            ),
            ("refused_by_database", topic::ENERGY, with("/id", json!(long_id))),
            ("malformed", topic::EVENTS, event(json!({"type": "unheard_of"}))),
            ("nul_character", topic::EVENTS, event(json!({"agent": "p\u{0}"}))),
            (
                "time_out_of_range",
                topic::EVENTS,
                event(json!({"time": "1970-01-01T00:00:00Z"})),
            ),
        ];
        // Good records stand before, between and after, with one key, so that they share batches and partitions.
        let mut records = Vec::new();
        let mut wanted = Ids::new();
        let mut at = Vec::new();
        for (number, (_, topic_name, value)) in poison.iter().enumerate() {
            for (name, _) in TABLES {
                let id = format!("p0/poison/{number}-{name}");
                records.push((name, "poison-0", record(name, "poison-0", &id, start, 1.0)));
                wanted.entry(name).or_default().insert(id);
            }
            at.push(records.len());
            records.push((topic_name, "poison-0", value.clone()));
        }
        records.push((topic::EVENTS, "p0", event(json!({"device_id": "poison-0"}))));
        let deliveries = world.produce(&records).await?;

        let sink = world.sink("poison", &database.sink_url).await?;
        world.caught_up("poison").await?;
        for (name, table) in TABLES {
            let rows: BTreeSet<String> = database.rows(table, prefix).await?.into_keys().collect();
            ensure!(rows == wanted[name], "{table}: {rows:?}");
        }
        ensure!(database.rows("events", prefix).await?.len() == 1);

        let letters = world.letters().await?;
        for ((reason, topic_name, value), at) in poison.iter().zip(at) {
            let delivery = &deliveries[at];
            let origin = Origin::Kafka {
                topic: (*topic_name).to_owned(),
                partition: delivery.partition,
                offset: delivery.offset,
            };
            let found = letters.iter().find(|(_, letter)| letter.origin == origin);
            let (key, letter) =
                found.with_context(|| format!("no dead letter of {reason} from {origin:?}"))?;
            ensure!(
                letter.reason.starts_with(&format!("{reason}: ")),
                "{origin:?}: {}",
                letter.reason
            );
            ensure!(letter.reason.len() < 600, "{}", letter.reason.len());
            ensure!(letter.stage == Stage::Insert);
            ensure!(key.as_deref() == Some(b"poison-0".as_slice()), "{key:?}");
            let bytes = BASE64_STANDARD.decode(&letter.payload_base64)?;
            if letter.truncated {
                ensure!(
                    value.len() > 512 * 1024 && bytes == value[..4_096],
                    "only what is too large is cut"
                );
                ensure!(letter.payload_bytes == Some(value.len() as u64));
                let hash: String = sha2::Sha256::digest(value)
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                ensure!(letter.payload_sha256.as_deref() == Some(hash.as_str()));
            } else {
                ensure!(bytes == *value, "the whole original is kept");
            }
        }
        for (reason, at_least) in [
            ("malformed", 9.0),
            ("nul_character", 3.0),
            ("refused_by_database", 1.0),
        ] {
            let line = format!("redpanda_sink_dead_letters_total{{reason=\"{reason}\"}}");
            let counted = sink.metric(&line).await?;
            ensure!(counted >= at_least, "{line} {counted}");
        }
        sink.part.stop().await;
        Ok(())
    })
}

/// A link to the database that can be cut.
struct Proxy {
    address: SocketAddr,
    open: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Proxy {
    async fn start(target: SocketAddr) -> Result<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (open, is_open) = watch::channel(true);
        let task = tokio::spawn(async move {
            while let Ok((mut inner, _)) = listener.accept().await {
                let mut is_open = is_open.clone();
                // Ends with its connections, at the latest with the test program.
                tokio::spawn(async move {
                    if !*is_open.borrow_and_update() {
                        return;
                    }
                    let Ok(mut outer) = TcpStream::connect(target).await else {
                        return;
                    };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut inner, &mut outer) => {}
                        _ = is_open.wait_for(|open| !open) => {}
                    }
                });
            }
        });
        Ok(Proxy { address, open, task })
    }

    fn cut(&self) {
        self.open.send_replace(false);
    }

    fn mend(&self) {
        self.open.send_replace(true);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[test]
fn the_database_may_go_and_come_back() -> Result<()> {
    with_world(async |world: &'static World| {
        let (prefix, group) = ("away", "away");
        let database = world.database("sink_away").await?;
        let direct = database.sink_url.clone();
        let target = world.postgres.address();
        let proxy = Proxy::start(target).await?;
        let url = direct.replace(&target.to_string(), &proxy.address.to_string());
        ensure!(url != direct, "the URL does not hold the address");

        let sink = world.sink(group, &url).await?;
        sink.part.ready_http(WITHIN, sink.admin, "/readyz").await?;
        let (records, ids) = load(prefix, 20_000);

        // Away for longer than the sink waits before it pauses its partitions, with more than two batches to do.
        proxy.cut();
        let (first, rest) = records.split_at(6_000);
        world.produce(first).await?;
        eventually("readiness to name the database", WITHIN, async || {
            let (status, body) = sink.readiness().await?;
            Ok((status == 503 && body.contains("\"database\"")).then_some(()))
        })
        .await?;
        ensure!(
            get_is_ok(sink.admin, "/livez").await,
            "a database that is away is no reason to be restarted"
        );
        eventually("the pause", WITHIN, async || {
            let log = tokio::fs::read_to_string(sink.part.log()).await?;
            Ok(log.contains("reading is paused").then_some(()))
        })
        .await?;
        ensure!(
            database.rows("energy_consumption", prefix).await?.is_empty(),
            "nothing can have been written"
        );
        ensure!(sink.metric("redpanda_sink_behind_seconds").await? >= 1.0);
        proxy.mend();
        sink.part.ready_http(WITHIN, sink.admin, "/readyz").await?;

        // Cut again and again in the middle of transactions and commits.
        let cutting = async {
            for pause in [40, 90, 15, 130, 60, 25, 110, 75] {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                proxy.cut();
                tokio::time::sleep(Duration::from_millis(20)).await;
                proxy.mend();
            }
            Ok(())
        };
        tokio::try_join!(async { world.produce(rest).await.map(|_| ()) }, cutting)?;
        world.caught_up(group).await?;
        database.holds_exactly(prefix, &ids).await?;
        ensure!(sink.metric("redpanda_sink_database_failures_total").await? >= 1.0);

        // SIGTERM ends it in bounded time, with the database away as well.
        proxy.cut();
        world.produce(&load("away-late", 10).0).await?;
        let begin = Instant::now();
        sink.part.stop().await;
        ensure!(
            begin.elapsed() < Duration::from_secs(10),
            "the stop took {:?}",
            begin.elapsed()
        );
        Ok(())
    })
}

#[test]
fn wrong_settings_end_it_with_64_and_name_the_variable() -> Result<()> {
    with_world(async |world: &'static World| {
        let check = async |pairs: &[(&str, &str)], wanted: &str| {
            let output = Command::new(&world.binary)
                .env_clear()
                .envs(pairs.iter().copied())
                .output()
                .await?;
            let log = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(output.status.code() == Some(64), "{pairs:?}: {:?}", output.status);
            ensure!(
                log.contains(wanted) && !log.contains("hidden"),
                "{pairs:?}: {log}"
            );
            Ok(())
        };
        let kafka = ("KAFKA_BOOTSTRAP", "127.0.0.1:1");
        let database = ("DATABASE_URL", "postgres://sink:hidden@127.0.0.1:1/telemetry");
        check(&[database], "KAFKA_BOOTSTRAP is not set").await?;
        check(&[kafka], "DATABASE_URL is not set").await?;
        check(&[kafka, ("DATABASE_URL", "hidden")], "DATABASE_URL is invalid").await?;
        check(&[kafka, database, ("DATABASE_URL_FILE", "/x")], "both set").await?;
        check(
            &[kafka, database, ("METRICS_ADDRESS", "9090")],
            "METRICS_ADDRESS is invalid",
        )
        .await
    })
}
