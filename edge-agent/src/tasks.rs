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
        #[cfg(debug_assertions)]
        let work = mortal(name, work);
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

/// A part that dies where a test wants it: the one that is named in the file this variable names. Release builds do not
/// have this.
#[cfg(debug_assertions)]
pub async fn mortal<T>(name: &'static str, work: impl Future<Output = T>) -> T {
    const LOOK: std::time::Duration = std::time::Duration::from_millis(100);
    let Some(file) = std::env::var_os("EDGE_AGENT_TEST_PANIC_FILE") else {
        return work.await;
    };
    let die = async {
        while !std::fs::read_to_string(&file).is_ok_and(|named| named.trim() == name) {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        outcome = work => outcome,
        () = die => panic!("the test wants {name} to die"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn outcome(work: impl Future<Output = anyhow::Result<()>> + Send + 'static) -> anyhow::Result<()> {
        let stop = CancellationToken::new();
        let tasks = Tasks::new(stop.clone());
        tasks.spawn("bystander", async move {
            stop.cancelled().await;
            Ok(())
        });
        tasks.spawn("victim", work);
        tasks.wait().await
    }

    #[tokio::test]
    async fn a_part_that_fails_ends_by_itself_or_panics_stops_all_and_is_named() {
        let failed = outcome(async { anyhow::bail!("no disk") }).await;
        assert_eq!(format!("{:#}", failed.unwrap_err()), "victim: no disk");
        let ended = outcome(async { Ok(()) }).await;
        assert_eq!(ended.unwrap_err().to_string(), "victim ended by itself");
        let panicked = outcome(async { panic!("oh") }).await.unwrap_err().to_string();
        assert!(panicked.starts_with("victim panicked"), "{panicked}");
    }
}
