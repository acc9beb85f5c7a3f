//! One lifecycle a process: every task hangs on it, a signal stops it in bounded time, and a task that dies takes
//! the process down visibly. Nothing runs outside it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long tasks may take to finish once asked to stop. Kubernetes kills 30 s after SIGTERM; this leaves room to
/// say which task did not stop.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(20);

/// The stop signal and the tasks of one process. Clones share the same state.
#[derive(Clone)]
pub struct Lifecycle {
    stop: CancellationToken,
    tasks: TaskTracker,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Names of the tasks that run, by a number that is never reused.
    running: BTreeMap<u64, &'static str>,
    started: u64,
    /// The first failure; it is what the process exits with.
    failure: Option<anyhow::Error>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

impl Lifecycle {
    /// A lifecycle that no signal reaches yet; tests stop it with [`Lifecycle::stop`].
    pub fn new() -> Self {
        Self {
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            state: Arc::default(),
        }
    }

    /// Cancelled when the process shall stop. Take a `child_token()` to stop a part of it earlier.
    pub fn token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Asks every task to finish.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Stops the process because of `error`; the first one is what it exits with.
    pub fn fail(&self, error: anyhow::Error) {
        let mut state = self.state();
        if state.failure.is_none() {
            state.failure = Some(error);
        } else {
            tracing::warn!("another failure while stopping: {error:#}");
        }
        drop(state);
        self.stop.cancel();
    }

    /// Runs a task that must live as long as the process. If it ends before a stop was asked for, by an error, by a
    /// panic or just so, the process stops with a failure that names it.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let number = {
            let mut state = self.state();
            state.started += 1;
            let number = state.started;
            state.running.insert(number, name);
            number
        };
        let lifecycle = self.clone();
        self.tasks.spawn(async move {
            // The inner task exists so that a panic becomes a value here; it is awaited, not detached.
            let outcome = tokio::spawn(task).await;
            lifecycle.state().running.remove(&number);
            match outcome {
                Ok(Ok(())) if lifecycle.stop.is_cancelled() => {}
                Ok(Ok(())) => lifecycle.fail(anyhow!("task {name} ended before a stop was asked for")),
                Ok(Err(error)) => lifecycle.fail(error.context(format!("task {name} failed"))),
                Err(error) => lifecycle.fail(anyhow!("task {name} panicked: {error}")),
            }
        });
    }

    /// Runs a task that may end at any time, such as one connection. The stop waits for it within the limit; a
    /// panic in it ends the task only.
    pub fn track(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// SIGTERM and SIGINT ask for a stop; a second one ends the process at once.
    pub fn listen_for_signals(&self) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        let stop = self.stop.clone();
        // Not tracked: it must be able to end a drain that hangs, and it dies with the run-time.
        tokio::spawn(async move {
            loop {
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                if stop.is_cancelled() {
                    tracing::error!("{name} while stopping, ending at once");
                    std::process::exit(1);
                }
                tracing::info!("{name}, stopping");
                stop.cancel();
            }
        });
        Ok(())
    }

    /// Waits for the stop, then for the tasks within [`DRAIN_LIMIT`]. The error is the first failure, or names the
    /// tasks that did not finish in time.
    pub async fn wait(&self) -> anyhow::Result<()> {
        self.wait_within(DRAIN_LIMIT).await
    }

    async fn wait_within(&self, limit: Duration) -> anyhow::Result<()> {
        self.stop.cancelled().await;
        self.tasks.close();
        let drained = tokio::time::timeout(limit, self.tasks.wait()).await;
        let mut state = self.state();
        if drained.is_err() {
            let names: Vec<_> = state.running.values().copied().collect();
            let late = anyhow!(
                "not stopped within {} s: {}",
                limit.as_secs_f64(),
                names.join(", ")
            );
            tracing::error!("{late}");
            state.failure.get_or_insert(late);
        }
        state.failure.take().map_or(Ok(()), Err)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn outcome(lifecycle: &Lifecycle) -> String {
        let waited = tokio::time::timeout(
            Duration::from_secs(10),
            lifecycle.wait_within(Duration::from_millis(200)),
        );
        waited
            .await
            .expect("the lifecycle ends")
            .map_or_else(|error| format!("{error:#}"), |()| "ok".into())
    }

    #[tokio::test]
    async fn a_stop_lets_tasks_finish() {
        let lifecycle = Lifecycle::new();
        let token = lifecycle.token();
        let (done, finished) = tokio::sync::oneshot::channel();
        lifecycle.spawn("worker", async move {
            token.cancelled().await;
            done.send(()).expect("the test waits");
            Ok(())
        });
        lifecycle.stop();
        assert_eq!(outcome(&lifecycle).await, "ok");
        finished.await.expect("the task finished its work");
    }

    #[tokio::test]
    async fn a_task_that_dies_stops_the_process_and_is_named() {
        let check = async |task: std::pin::Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>,
                           want: &str| {
            let lifecycle = Lifecycle::new();
            lifecycle.spawn("reader", task);
            let got = outcome(&lifecycle).await;
            assert!(got.starts_with(want), "{got}");
        };
        check(
            Box::pin(async { Ok(()) }),
            "task reader ended before a stop was asked for",
        )
        .await;
        check(
            Box::pin(async { Err(anyhow!("disk full")) }),
            "task reader failed: disk full",
        )
        .await;
        check(Box::pin(async { panic!("bug") }), "task reader panicked").await;
    }

    #[tokio::test]
    async fn a_task_that_does_not_stop_is_named() {
        let lifecycle = Lifecycle::new();
        lifecycle.spawn("stubborn", std::future::pending());
        lifecycle.stop();
        assert_eq!(outcome(&lifecycle).await, "not stopped within 0.2 s: stubborn");
    }
}
