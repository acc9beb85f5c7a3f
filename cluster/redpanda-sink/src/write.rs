//! Batches into the database and dead letters into their topic, again and again until both are done.
//!
//! Owns the one database connection. Never skips a record: a batch is answered as written only when each of its
//! records is in its table or acknowledged as a dead letter, or when the process stops.

use std::sync::Arc;
use std::time::Duration;

use service::backoff::Backoff;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::batch::{Batch, Item};
use crate::classify::{Poison, Row, Source};
use crate::copy::{self, COPY_ROWS};
use crate::dead_letter::DeadLetters;
use crate::metrics::Metrics;
use crate::salvage;
use crate::table;

/// First wait after a failure: a restarting database is often back within a second.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest wait: after hours of outage the sink is back at work within this time of the database.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long connecting may take; a host that is gone answers nothing at all.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long one attempt at a batch may take. A full batch takes tens of milliseconds; what takes this long hangs
/// on a dead link or a lock, and is tried again on a new connection.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(30);
/// An idle connection is asked this often whether it still works, so that readiness does not go stale.
const PING_EVERY: Duration = Duration::from_secs(5);
/// Dead letters are logged at most this often; each is counted.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Writes batches.
pub struct Writer {
    options: PgConnectOptions,
    connection: Option<PgConnection>,
    way: Way,
    dead_letters: DeadLetters,
    metrics: Arc<Metrics>,
    database: Episode,
    broker: Episode,
    letters_logged: Option<Instant>,
}

/// How a batch is brought into its tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Into the table itself: right as long as no row is there already.
    Straight,
    /// By way of the temporary table: taken when a row was there already, and until a batch has none such.
    Staged,
    /// From the temporary table in parts: taken when the database refused a row, and until it refuses none of a batch.
    Salvaging,
}

/// What one attempt in the database came to.
#[derive(Default)]
pub struct Written {
    /// Rows that were new.
    pub inserted: u64,
    /// Rows that were there already.
    pub duplicates: u64,
    /// Rows of both kinds that went by COPY.
    pub copied: u64,
    /// Places in the batch, with what the database said.
    refused: Vec<(usize, Poison)>,
}

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error("{0}")]
    Database(#[from] sqlx::Error),
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
}

impl Way {
    /// The way that a batch may still go when `self` ended in `error`; none when the rows are not the cause.
    fn instead(self, error: &AttemptError) -> Option<Way> {
        let AttemptError::Database(error) = error else {
            return None;
        };
        match self {
            Way::Straight if salvage::is_duplicate(error) => Some(Way::Staged),
            Way::Straight | Way::Staged if salvage::refuses_rows(error) => Some(Way::Salvaging),
            _ => None,
        }
    }

    /// The way for the next batch: what came in one often comes in the next.
    fn after(written: &Written) -> Way {
        if !written.refused.is_empty() {
            Way::Salvaging
        } else if written.duplicates > 0 {
            Way::Staged
        } else {
            Way::Straight
        }
    }
}

/// One attempt, given up when it takes too long.
async fn in_time<T>(attempt: impl Future<Output = sqlx::Result<T>>) -> Result<T, AttemptError> {
    match timeout(ATTEMPT_LIMIT, attempt).await {
        Ok(outcome) => outcome.map_err(AttemptError::from),
        Err(_) => Err(AttemptError::Late(ATTEMPT_LIMIT)),
    }
}

impl Writer {
    /// Prepares a writer; nothing is connected yet.
    pub fn new(options: PgConnectOptions, dead_letters: DeadLetters, metrics: Arc<Metrics>) -> Self {
        // Statement texts carry no values, but a line for each would be a line for each batch.
        let options = options
            .application_name("redpanda-sink")
            .options([
                // The notice that a temporary table exists would be one for each large batch.
                ("client_min_messages", "warning"),
                // What is given up here must not go on there, with its locks, in front of the next attempt.
                ("statement_timeout", &format!("{}s", ATTEMPT_LIMIT.as_secs())),
            ])
            .disable_statement_logging();
        Self {
            options,
            connection: None,
            way: Way::Straight,
            dead_letters,
            metrics,
            database: Episode::new("database"),
            broker: Episode::new("dead-letter topic"),
            letters_logged: None,
        }
    }

    /// Takes batches and hands each back when it is written. Ends when the other side is gone, or at once when
    /// `cut` comes: what is not written then is read again after the restart.
    pub async fn run(
        mut self,
        mut batches: mpsc::Receiver<Batch>,
        written: mpsc::Sender<Batch>,
        cut: CancellationToken,
    ) {
        loop {
            let batch = tokio::select! {
                batch = batches.recv() => batch,
                () = tokio::time::sleep(self.idle_wait()) => {
                    self.check().await;
                    continue;
                }
            };
            let Some(batch) = batch else { break };
            tokio::select! {
                () = self.write(&batch) => {}
                () = cut.cancelled() => break,
            }
            if written.send(batch).await.is_err() {
                break;
            }
        }
        if let Some(connection) = self.connection.take() {
            // A farewell to the database is a courtesy; a link that hangs must not delay the stop.
            let _ = timeout(Duration::from_secs(1), connection.close()).await;
        }
    }

    fn idle_wait(&self) -> Duration {
        if self.connection.is_some() {
            PING_EVERY
        } else {
            self.database.pause
        }
    }

    /// Connects or pings when there is no batch, so that the state of the database is known before one comes.
    async fn check(&mut self) {
        let outcome = match self.connection.as_mut() {
            Some(connection) => match timeout(CONNECT_LIMIT, connection.ping()).await {
                Ok(pinged) => pinged.map_err(AttemptError::from),
                Err(_) => Err(AttemptError::Late(CONNECT_LIMIT)),
            },
            None => self.connect().await.map(|_| ()),
        };
        match outcome {
            Ok(()) => self.succeeded(),
            Err(error) => _ = self.failed(&error),
        }
    }

    async fn write(&mut self, batch: &Batch) {
        let written = self.insert(batch).await;
        self.metrics.batch_written(batch.items.len(), &written);
        let mut letters: Vec<(&Item, &Poison)> = batch
            .items
            .iter()
            .filter_map(|item| Some((item, item.verdict.as_ref().err()?)))
            .collect();
        letters.extend(
            written
                .refused
                .iter()
                .map(|(at, poison)| (&batch.items[*at], poison)),
        );
        if !letters.is_empty() {
            self.send(&letters).await;
        }
    }

    /// Inserts the rows of a batch, however long the database is away.
    async fn insert(&mut self, batch: &Batch) -> Written {
        let rows = Source::ALL.map(|source| rows_of(batch, source));
        if rows.iter().all(Vec::is_empty) {
            return Written::default();
        }
        loop {
            let started = Instant::now();
            match self.attempt(&rows).await {
                Ok(written) => {
                    self.succeeded();
                    self.metrics.insert_took(started.elapsed());
                    return written;
                }
                Err(error) => {
                    let pause = self.failed(&error);
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    async fn attempt(&mut self, rows: &[Vec<(usize, &Row)>]) -> Result<Written, AttemptError> {
        let mut way = self.way;
        let connection = self.connect().await?;
        loop {
            match in_time(insert_all(connection, rows, way)).await {
                Ok(written) => {
                    self.way = Way::after(&written);
                    return Ok(written);
                }
                Err(error) => match way.instead(&error) {
                    Some(other) => way = other,
                    None => return Err(error),
                },
            }
        }
    }

    async fn connect(&mut self) -> Result<&mut PgConnection, AttemptError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => timeout(CONNECT_LIMIT, self.options.connect())
                .await
                .map_err(|_| AttemptError::Late(CONNECT_LIMIT))??,
        };
        Ok(self.connection.insert(connection))
    }

    fn succeeded(&mut self) {
        self.metrics.database_is(true);
        self.database.over();
    }

    /// Notes the failure and gives up the connection, whose state nobody knows. Answers how long to wait.
    fn failed(&mut self, error: &AttemptError) -> Duration {
        self.connection = None;
        self.metrics.database_is(false);
        self.metrics.database_failures.inc();
        self.database.failed(error)
    }

    /// Sends dead letters, however long the broker is away, and counts them once they are there.
    async fn send(&mut self, letters: &[(&Item, &Poison)]) {
        while let Err(error) = self.dead_letters.send(letters).await {
            let pause = self.broker.failed(&error);
            tokio::time::sleep(pause).await;
        }
        self.broker.over();
        for (_, poison) in letters {
            self.metrics.dead_letter(poison.reason);
        }
        if self
            .letters_logged
            .is_none_or(|logged| logged.elapsed() >= LOG_EVERY)
        {
            self.letters_logged = Some(Instant::now());
            let (item, poison) = letters[0];
            tracing::warn!(
                letters = letters.len(),
                reason = poison.reason.as_str(),
                topic = item.source.topic(),
                partition = item.partition,
                offset = item.offset,
                "records went to the dead letters; more of them are only counted for the next minute"
            );
        }
    }
}

/// The rows of one table with their places in the batch.
fn rows_of(batch: &Batch, source: Source) -> Vec<(usize, &Row)> {
    let of_source = batch
        .items
        .iter()
        .enumerate()
        .filter(|(_, item)| item.source == source);
    of_source
        .filter_map(|(at, item)| Some((at, item.verdict.as_ref().ok()?)))
        .collect()
}

/// A table after the other, all in one transaction.
async fn insert_all(
    connection: &mut PgConnection,
    tables: &[Vec<(usize, &Row)>],
    way: Way,
) -> sqlx::Result<Written> {
    let mut written = Written::default();
    let mut transaction = connection.begin().await?;
    for (source, places) in Source::ALL.into_iter().zip(tables) {
        if places.is_empty() {
            continue;
        }
        let rows: Vec<&Row> = places.iter().map(|(_, row)| *row).collect();
        let mut accepted = rows.len() as u64;
        let inserted = match way {
            Way::Salvaging => {
                let salvaged = salvage::insert(&mut transaction, source, &rows).await?;
                accepted -= salvaged.refused.len() as u64;
                let refused = salvaged.refused.into_iter();
                written
                    .refused
                    .extend(refused.map(|(row, poison)| (places[row].0, poison)));
                salvaged.inserted
            }
            _ if rows.len() < COPY_ROWS => table::insert(&mut transaction, source, &rows).await?,
            Way::Straight => {
                copy::insert(&mut transaction, source, &rows).await?;
                written.copied += accepted;
                accepted
            }
            Way::Staged => {
                written.copied += accepted;
                copy::insert_staged(&mut transaction, source, &rows).await?
            }
        };
        written.inserted += inserted;
        written.duplicates += accepted - inserted;
    }
    transaction.commit().await?;
    Ok(written)
}

/// One stretch of failures: logged when it starts and when it ends, with growing pauses in between.
struct Episode {
    what: &'static str,
    backoff: Backoff,
    pause: Duration,
    since: Option<Instant>,
}

impl Episode {
    fn new(what: &'static str) -> Self {
        let backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        Self {
            what,
            backoff,
            pause: Duration::ZERO,
            since: None,
        }
    }

    fn failed(&mut self, error: &dyn std::fmt::Display) -> Duration {
        if self.since.is_none() {
            self.since = Some(Instant::now());
            tracing::error!(
                part = self.what,
                "{} fails, trying again until it works: {error}",
                self.what
            );
        } else {
            tracing::debug!(part = self.what, "{} still fails: {error}", self.what);
        }
        self.pause = self.backoff.next_pause();
        self.pause
    }

    fn over(&mut self) {
        if let Some(since) = self.since.take() {
            let seconds = since.elapsed().as_secs_f64();
            tracing::info!(part = self.what, seconds, "{} works again", self.what);
        }
        self.backoff.reset();
        self.pause = Duration::ZERO;
    }
}
