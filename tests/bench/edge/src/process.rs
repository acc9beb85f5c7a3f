//! What the kernel says of a process: its time, its memory, its writes.

use std::time::Duration;

use anyhow::{Context, Result};

/// What a process has used until now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    /// User and system time.
    pub cpu: Duration,
    /// Bytes it caused to be written to disk.
    pub written: u64,
}

impl std::ops::Sub for Used {
    type Output = Used;

    fn sub(self, before: Used) -> Used {
        Used {
            cpu: self.cpu.saturating_sub(before.cpu),
            written: self.written.saturating_sub(before.written),
        }
    }
}

/// Sums what processes have used.
///
/// # Errors
/// When one is gone.
pub fn used(pids: &[u32]) -> Result<Used> {
    let mut sum = Used::default();
    for pid in pids {
        let stat = read(*pid, "stat")?;
        // The name in parentheses may hold spaces; the fields after it do not.
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let ticks = |place: usize| fields.get(place).and_then(|f| f.parse::<u64>().ok());
        let ticks = ticks(11).zip(ticks(12)).context("no times in stat")?;
        // 100 ticks a second on every Linux we build for.
        sum.cpu += Duration::from_millis((ticks.0 + ticks.1) * 10);
        sum.written += number(&read(*pid, "io")?, "write_bytes:")?;
    }
    Ok(sum)
}

/// Resident memory, megabytes.
///
/// # Errors
/// When it is gone.
pub fn rss_mb(pid: u32) -> Result<f64> {
    Ok(number(&read(pid, "status")?, "VmRSS:")? as f64 / 1024.0)
}

fn read(pid: u32, file: &str) -> Result<String> {
    std::fs::read_to_string(format!("/proc/{pid}/{file}")).with_context(|| format!("/proc/{pid}/{file}"))
}

fn number(text: &str, key: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("no {key}"))
}
