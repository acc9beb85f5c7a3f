//! `edge-agent dead-letters`: what could not be decoded, and the same into the buffer again.

use std::fmt::Write as _;

use serde_json::Value;

use super::{ago, table, text};
use crate::dead_letters::{DEFAULT_LIMIT, MAX_LIMIT};

/// What is asked of the letters.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Arguments {
    /// Put letters that can be decoded now into the buffer again, under their old id and time. Letters stay in the topic, and
    /// one that was sent again twice is one row, so nothing is lost or doubled however often this is run.
    #[arg(long)]
    replay: bool,
    /// The newest that many letters.
    #[arg(long, default_value_t = DEFAULT_LIMIT, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_LIMIT)))]
    limit: u32,
}

impl Arguments {
    /// Reading is a GET, changing is not.
    pub fn method(&self) -> &'static str {
        if self.replay { "POST" } else { "GET" }
    }

    /// Path and query.
    pub fn path(&self) -> String {
        let what = if self.replay {
            "/dead-letters/replay"
        } else {
            "/dead-letters"
        };
        format!("{what}?limit={}", self.limit)
    }
}

/// The answer for a person.
pub fn text_of(answer: &Value) -> String {
    let now = chrono::Utc::now();
    let letters = answer["letters"].as_array().cloned().unwrap_or_default();
    let rows: Vec<_> = letters
        .iter()
        .map(|letter| {
            vec![
                ago(now, &letter["time"]),
                text(&letter["topic"]),
                text(&letter["bytes"]),
                text(&letter["verdict"]),
                text(&letter["reason"]),
            ]
        })
        .collect();
    let mut out = String::new();
    if !rows.is_empty() {
        out.push_str(&table::render(
            &["received", "topic", "bytes", "now", "why"],
            &rows,
        ));
    }
    let count = |key: &str| answer[key].as_u64().unwrap_or(0);
    let mut line = format!("{} letters of this agent", count("found"));
    if count("found") > rows.len() as u64 {
        write!(line, ", the newest {} shown", rows.len()).expect("writing to a string cannot fail");
    }
    if let Some(replayed) = answer["replayed"].as_u64() {
        write!(line, "; {replayed} put into the buffer again").expect("writing to a string cannot fail");
    }
    if let Some(error) = answer["stopped"].as_str() {
        write!(line, "; stopped: {error}").expect("writing to a string cannot fail");
    }
    out.push_str(&line);
    out.push('\n');
    out
}
