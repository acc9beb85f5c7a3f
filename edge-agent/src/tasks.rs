//! The agent's long-running parts: the first that fails, ends by itself or panics stops all.

use std::sync::{Arc, Mutex};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::STOP_LIMIT;

/// The tasks of the agent: the first that fails stops all.
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    failure: Arc<Mutex<Option<anyhow::Error>>>,
}

impl Tasks {
    /// No parts yet; `stop` ends them all.
    pub fn new(stop: CancellationToken) -> Self {
        Self {
            tracker: TaskTracker::new(),
            stop,
            failure: Arc::default(),
        }
    }

    /// Starts a part.
    pub fn spawn(&self, name: &'static str, work: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let (stop, failure) = (self.stop.clone(), self.failure.clone());
        let work = tokio::spawn(work);
        self.tracker.spawn(async move {
            let outcome = match work.await {
                Ok(Ok(())) if stop.is_cancelled() => return,
                Ok(Ok(())) => anyhow::anyhow!("{name} ended by itself"),
                Ok(Err(error)) => error.context(name),
                Err(panic) => anyhow::anyhow!("{name} panicked: {panic}"),
            };
            if let Ok(mut first) = failure.lock() {
                first.get_or_insert(outcome);
            }
            stop.cancel();
        });
    }

    /// Waits for the stop, then for the parts in bounded time. Answers the first failure.
    pub async fn wait(self) -> anyhow::Result<()> {
        self.tracker.close();
        self.stop.cancelled().await;
        if tokio::time::timeout(STOP_LIMIT, self.tracker.wait())
            .await
            .is_err()
        {
            tracing::warn!("some parts did not stop in time");
        }
        match self.failure.lock() {
            Ok(mut failure) => failure.take().map_or(Ok(()), Err),
            Err(_) => anyhow::bail!("the record of failures is damaged by a panic"),
        }
    }
}
