//! Pauses between attempts: doubling, capped, with jitter, so that services do not return all at once.

use std::time::Duration;

use rand::RngExt;

/// Pauses for one thing that is being retried. Time is the caller's: this only says how long to wait.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    next: Duration,
}

impl Backoff {
    /// The first pause is about `first`, none is longer than `cap`.
    pub const fn new(first: Duration, cap: Duration) -> Self {
        Self {
            first,
            cap,
            next: first,
        }
    }

    /// The next pause: between half and the whole of the current step, which then doubles up to the cap.
    pub fn next_pause(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.cap);
        step.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_start_over() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        for step in [100, 200, 350, 350] {
            let pause = backoff.next_pause();
            assert!(
                pause >= Duration::from_millis(step / 2) && pause <= Duration::from_millis(step),
                "{pause:?}"
            );
        }
        backoff.reset();
        assert!(backoff.next_pause() <= Duration::from_millis(100));
    }
}
