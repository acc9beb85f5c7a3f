//! The connection a session has at the moment, as the rest of the broker sees it: something to wake and to end.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::wire::DisconnectReason;
use crate::topic_filter::TopicFilter;

/// The connection a session has at the moment.
pub struct Attached {
    /// Tells connections of the same client id apart.
    pub generation: u64,
    /// Wakes the connection when there is something to send.
    pub wake: Arc<Notify>,
    /// Ends the connection; the reason is set before.
    pub kick: Kick,
    /// Largest packet the client takes.
    pub max_packet_size: Option<u32>,
    /// Topics it gets by no subscription.
    pub refused: Arc<[TopicFilter]>,
    /// Topics it gets at most, where there is a limit.
    pub allowed: Option<Arc<[TopicFilter]>>,
}

impl Attached {
    /// The client's access list keeps it from this topic, whatever it, or an earlier connection of it, subscribed to.
    pub fn may_not_have(&self, topic: &str) -> bool {
        let within = |filters: &Arc<[TopicFilter]>| filters.iter().any(|filter| filter.matches(topic));
        within(&self.refused) || self.allowed.as_ref().is_some_and(|allowed| !within(allowed))
    }
}

/// Ends a connection from outside.
#[derive(Clone, Default)]
pub struct Kick {
    token: CancellationToken,
    reason: Arc<std::sync::OnceLock<DisconnectReason>>,
}

impl Kick {
    /// Ends the connection with a reason; the first one counts. Answers whether this was it.
    pub fn kick(&self, reason: DisconnectReason) -> bool {
        let first = self.reason.set(reason).is_ok();
        self.token.cancel();
        first
    }

    /// Completes when the connection is to end.
    pub async fn kicked(&self) -> DisconnectReason {
        self.token.cancelled().await;
        *self
            .reason
            .get()
            .expect("the reason is set before the token is cancelled")
    }
}
