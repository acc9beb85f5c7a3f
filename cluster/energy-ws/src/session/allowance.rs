//! How much a client may say.

use tokio::time::Instant;

use crate::protocol::{BURST_MESSAGES, MESSAGES_PER_SECOND};

/// Client messages still allowed: a bucket that fills with time.
pub(super) struct Allowance {
    left: f64,
    at: Instant,
}

impl Allowance {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            left: f64::from(BURST_MESSAGES),
            at: now,
        }
    }

    pub(super) fn take(&mut self, now: Instant) -> bool {
        let refill = now.duration_since(self.at).as_secs_f64() * f64::from(MESSAGES_PER_SECOND);
        self.left = (self.left + refill).min(f64::from(BURST_MESSAGES));
        self.at = now;
        let allowed = self.left >= 1.0;
        if allowed {
            self.left -= 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn allowance_is_a_burst_and_then_a_rate() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        assert!((0..BURST_MESSAGES).all(|_| allowance.take(start)));
        assert!(!allowance.take(start));
        let later = start + Duration::from_secs(1);
        assert!((0..MESSAGES_PER_SECOND).all(|_| allowance.take(later)));
        assert!(!allowance.take(later));
    }
}
