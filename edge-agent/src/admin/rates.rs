//! How many messages came in and went out lately.
//!
//! A sample of the parts' own counters every few seconds; the rate is what lies between the oldest and the newest of them.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

/// How often a sample is taken.
const TURN: Duration = Duration::from_secs(5);
/// Samples kept: a minute.
const SAMPLES: usize = 13;

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    came: u64,
    went: u64,
}

/// Rates over the last minute, or since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Current {
    /// Over how long.
    pub window_seconds: f64,
    /// Messages committed to disk.
    pub in_per_second: f64,
    /// Messages confirmed by Redpanda.
    pub out_per_second: f64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Rates {
    samples: Mutex<VecDeque<Sample>>,
}

impl Rates {
    /// Takes samples of what `read` gives, messages that came and that went, until `stop`.
    pub async fn keep(&self, read: impl Fn() -> (u64, u64), stop: CancellationToken) {
        let mut turn = tokio::time::interval(TURN);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = turn.tick() => {}
            }
            let (came, went) = read();
            self.note(Sample {
                at: Instant::now(),
                came,
                went,
            });
        }
    }

    fn note(&self, sample: Sample) {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.push_back(sample);
        if samples.len() > SAMPLES {
            samples.pop_front();
        }
    }

    /// As of the last sample.
    pub fn current(&self) -> Current {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(first), Some(last)) = (samples.front(), samples.back()) else {
            return Current::default();
        };
        let seconds = last.at.duration_since(first.at).as_secs_f64();
        if seconds <= 0.0 {
            return Current::default();
        }
        let rate = |from: u64, to: u64| to.saturating_sub(from) as f64 / seconds;
        Current {
            window_seconds: seconds,
            in_per_second: rate(first.came, last.came),
            out_per_second: rate(first.went, last.went),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_minute() {
        let rates = Rates::default();
        assert_eq!(rates.current(), Current::default());
        let begin = Instant::now();
        // 100 a second in the first minute, 10 and 20 a second afterwards.
        for n in 0..=24_u32 {
            let (early, late) = (u64::from(n.min(12)), u64::from(n.saturating_sub(12)));
            rates.note(Sample {
                at: begin + TURN * n,
                came: early * 500 + late * 50,
                went: early * 500 + late * 100,
            });
        }
        let current = rates.current();
        assert_eq!(current.window_seconds, 60.0);
        assert_eq!((current.in_per_second, current.out_per_second), (10.0, 20.0));
    }
}
