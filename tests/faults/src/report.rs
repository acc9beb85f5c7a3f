//! What a run showed, as one line of JSON.

use anyhow::{Result, ensure};
use serde_json::json;

/// Counted over one or more runs. All zeros but the first three is what is promised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// SIGKILLs of the agent.
    pub kills: u64,
    /// Power cuts the agent was started after.
    pub power_cuts: u64,
    /// Messages acknowledged.
    pub acknowledged: u64,
    /// Acknowledged messages that are nowhere.
    pub missing: u64,
    /// Readings under two ids, and ids with two contents.
    pub duplicates: u64,
    /// Readings that stand behind a later one of their device.
    pub reordered: u64,
    /// What was never sent.
    pub invented: u64,
    /// Power cuts after which the buffer had to be replaced and salvaged: no violation, but worth knowing.
    pub damaged: u64,
    /// The first violations, in words.
    pub examples: Vec<String>,
}

/// Violations told in words; a thousand of one kind say no more than these.
const EXAMPLES: usize = 20;

impl Report {
    /// Notes a violation in words.
    pub fn example(&mut self, what: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(what());
        }
    }

    /// Adds another run.
    pub fn add(&mut self, other: Report) {
        self.kills += other.kills;
        self.power_cuts += other.power_cuts;
        self.acknowledged += other.acknowledged;
        self.missing += other.missing;
        self.duplicates += other.duplicates;
        self.reordered += other.reordered;
        self.invented += other.invented;
        self.damaged += other.damaged;
        self.examples.extend(other.examples);
        self.examples.truncate(EXAMPLES);
    }

    /// The line of the issue; what was invented counts as a duplicate would, and is named only when there is any.
    pub fn line(&self) -> String {
        let mut line = json!({"kills": self.kills, "power_cuts": self.power_cuts, "acknowledged": self.acknowledged,
            "missing": self.missing, "duplicates": self.duplicates, "reordered": self.reordered});
        if self.invented > 0 {
            line["invented"] = self.invented.into();
        }
        line.to_string()
    }

    /// # Errors
    /// When anything was lost, doubled, reordered or invented.
    pub fn check(&self) -> Result<()> {
        let broken = self.missing + self.duplicates + self.reordered + self.invented;
        ensure!(broken == 0, "{}\n{}", self.line(), self.examples.join("\n"));
        Ok(())
    }
}
