//! What the end-to-end tests share: one running stack per test program, and ways to look at each stage of a reading's way.
//!
//! Nothing here is a mock: MQTT, Kafka, PostgreSQL, tokens and services are the real ones. Tests share the stack, so each
//! uses device names of its own and never looks at another's.

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message as _;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};
use stack::part::eventually;
use stack::{Options, Stack};
use telemetry::DeadLetter;
use tokio::runtime::Runtime;

/// A reading needs milliseconds for the whole way; a busy two-core machine that starts other tests needs more.
pub const WITHIN: Duration = Duration::from_secs(30);

/// The one device whose location the agent is told.
pub const PLACED_DEVICE: &str = "shellyhtg3-e2e000000001";
/// That location.
pub const PLACE: &str = "attic";

struct Shared {
    // Owns the tasks of the stack that run in this process; each test would end them with a runtime of its own.
    runtime: Runtime,
    stack: Stack,
}

/// Runs a test against this program's stack, which the first test starts and the guardian ends with the program.
///
/// # Errors
/// The test's, or that the stack does not start.
pub fn with_stack<T: Future<Output = Result<()>>>(test: impl FnOnce(&'static Stack) -> T) -> Result<()> {
    static SHARED: OnceLock<std::result::Result<Shared, String>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| start().map_err(|error| format!("{error:#}")));
    let shared = shared
        .as_ref()
        .map_err(|error| anyhow!("the stack does not start: {error}"))?;
    shared.runtime.block_on(test(&shared.stack))
}

fn start() -> Result<Shared> {
    let runtime = Runtime::new()?;
    let locations = [(PLACED_DEVICE.to_owned(), PLACE.to_owned())].into();
    let options = Options {
        test_issuer: true,
        locations,
        ..Options::default()
    };
    let stack = runtime.block_on(Stack::start(options))?;
    Ok(Shared { runtime, stack })
}

/// Asks a service with a token and gives the JSON of its answer.
///
/// # Errors
/// When it does not answer 200.
pub async fn get(url: &str, token: &str) -> Result<Value> {
    let answer = stack::http::client()?.get(url).bearer_auth(token).send().await?;
    let status = answer.status();
    let text = answer.text().await?;
    anyhow::ensure!(status.is_success(), "GET {url}: {status}: {text}");
    serde_json::from_str(&text).with_context(|| format!("GET {url}: not JSON: {text}"))
}

/// The item that `wanted` takes, of an answer with `items`, as soon as there is one.
///
/// # Errors
/// When there is none in time.
pub async fn item(url: &str, token: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    eventually(url, WITHIN, async || {
        let answer = get(url, token).await?;
        let items = answer["items"]
            .as_array()
            .with_context(|| format!("no items in {answer}"))?;
        Ok(items.iter().find(|item| wanted(item)).cloned())
    })
    .await
}

/// The newest row of a device, as JSON, as soon as `wanted` takes it. Read as the read API's role.
///
/// # Errors
/// When there is none in time.
pub async fn row(stack: &Stack, table: &str, device: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut database = PgConnection::connect(&stack.database_url("api", "telemetry")).await?;
    let statement = format!(
        "select to_jsonb(t) as row from {table} t where device_id = $1 order by time desc, id desc limit 1"
    );
    let begin = std::time::Instant::now();
    loop {
        let found = sqlx::query(AssertSqlSafe(statement.clone()))
            .bind(device)
            .fetch_optional(&mut database)
            .await?;
        let found = found.map(|row| row.try_get::<Value, _>("row")).transpose()?;
        match found {
            Some(row) if wanted(&row) => return Ok(row),
            other => anyhow::ensure!(
                begin.elapsed() < WITHIN,
                "{table} has no such row of {device}: {other:?}"
            ),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The first dead letter that `wanted` takes.
///
/// # Errors
/// When there is none in time.
pub async fn dead_letter(
    stack: &Stack,
    wanted: impl Fn(&DeadLetter) -> bool + Send + 'static,
) -> Result<DeadLetter> {
    let bootstrap = stack.kafka().bootstrap().to_owned();
    // librdkafka's consumer blocks while it polls.
    tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", "e2e-that-never-commits")
            .set("enable.auto.commit", "false")
            .create()?;
        let mut from_the_beginning = TopicPartitionList::new();
        from_the_beginning.add_partition_offset(telemetry::topic::DEAD_LETTER, 0, Offset::Beginning)?;
        consumer.assign(&from_the_beginning)?;
        let begin = std::time::Instant::now();
        while begin.elapsed() < WITHIN {
            let Some(record) = consumer.poll(Duration::from_millis(100)) else {
                continue;
            };
            let record = record?;
            let letter: DeadLetter = serde_json::from_slice(record.payload().unwrap_or_default())?;
            if wanted(&letter) {
                return Ok(letter);
            }
        }
        Err(anyhow!("no such dead letter within {} s", WITHIN.as_secs()))
    })
    .await?
}
