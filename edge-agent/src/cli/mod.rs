//! The words an operator types: `status`, `devices`, `dead-letters`. They ask the agent that runs on this machine.
//!
//! Nothing here reads the buffer, Redpanda or a file of the agent's own, so a question never disturbs what is running. What
//! comes back is printed as a table, or with `--json` as it came.

mod ask;
mod dead_letters;
mod devices;
mod status;
mod table;

use std::fmt::Write as _;

use serde_json::Value;

pub use ask::AskError;
pub use dead_letters::Arguments as DeadLetterArguments;

use crate::config::Whereabouts;

/// What `--help` says below the options.
pub const EXIT_CODES: &str = "Exit codes: 0 done; 2 wrong use of this command; 64 the configuration cannot be used; \
                              69 no agent answers on this machine, or it cannot reach Redpanda for the answer; 70 anything else.";

/// How an answer is printed.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Form {
    /// Print JSON, as the agent gave it.
    #[arg(long)]
    pub json: bool,
}

/// `edge-agent status`.
pub fn status(place: &Whereabouts, form: Form) -> Result<String, AskError> {
    let answer = ask::page(place, "/status")?;
    Ok(print(form, &answer, status::table))
}

/// `edge-agent devices`.
pub fn devices(place: &Whereabouts, form: Form) -> Result<String, AskError> {
    let answer = ask::page(place, "/devices")?;
    Ok(print(form, &answer, devices::tables))
}

/// `edge-agent dead-letters`.
pub fn dead_letters(
    place: &Whereabouts,
    arguments: &DeadLetterArguments,
    form: Form,
) -> Result<String, AskError> {
    let answer = ask::control(place, arguments.method(), &arguments.path())?;
    Ok(print(form, &answer, dead_letters::text_of))
}

fn print(form: Form, answer: &Value, table: impl Fn(&Value) -> String) -> String {
    if !form.json {
        return table(answer);
    }
    let mut text = serde_json::to_string_pretty(answer).expect("a JSON value is written as it was read");
    text.push('\n');
    text
}

/// A time as a person says it: how long ago.
fn ago(now: chrono::DateTime<chrono::Utc>, time: &Value) -> String {
    let time = time
        .as_str()
        .and_then(|text| text.parse::<chrono::DateTime<chrono::Utc>>().ok());
    match time {
        Some(time) => format!("{} ago", span((now - time).as_seconds_f64())),
        None => "-".into(),
    }
}

/// A stretch of time in its two largest units.
fn span(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let mut text = String::new();
    let written = match (days, hours, minutes) {
        (0, 0, 0) => write!(text, "{seconds} s"),
        (0, 0, _) => write!(text, "{minutes} min {} s", seconds % 60),
        (0, ..) => write!(text, "{hours} h {minutes} min"),
        _ => write!(text, "{days} d {hours} h"),
    };
    written.expect("writing to a string cannot fail");
    text
}

/// Bytes in the unit that leaves few digits.
fn bytes(count: u64) -> String {
    match count {
        0..1_024 => format!("{count} B"),
        1_024..1_048_576 => format!("{:.1} KiB", count as f64 / 1_024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", count as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", count as f64 / 1_073_741_824.0),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_short() {
        for (seconds, want) in [
            (-5.0, "0 s"),
            (59.9, "59 s"),
            (61.0, "1 min 1 s"),
            (3_661.0, "1 h 1 min"),
            (90_000.0, "1 d 1 h"),
        ] {
            assert_eq!(span(seconds), want);
        }
        for (count, want) in [
            (0, "0 B"),
            (1_536, "1.5 KiB"),
            (3 << 20, "3.0 MiB"),
            (u64::MAX, "17179869184.0 GiB"),
        ] {
            assert_eq!(bytes(count), want);
        }
        assert_eq!(ago(chrono::Utc::now(), &Value::Null), "-");
    }
}
