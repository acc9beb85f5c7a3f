//! `edge-agent status` as a table.

use std::fmt::Write as _;

use serde_json::Value;

use super::{ago, bytes, span, text};

/// What an operator wants to know first, one line each.
pub fn table(status: &Value) -> String {
    let now = chrono::Utc::now();
    let (buffer, forward, mqtt) = (&status["buffer"], &status["forward"], &status["mqtt"]);
    let count = |value: &Value| value.as_u64().unwrap_or(0);
    let seconds = |value: &Value| value.as_f64().map_or_else(|| "-".into(), span);
    let rates = &status["rates"];
    let rate = |key: &str| rates[key].as_f64().unwrap_or(0.0);
    let lost: u64 = buffer["lost"]
        .as_object()
        .map_or(0, |lost| lost.values().map(count).sum());
    let failing = match status["failing"].as_array().map(Vec::as_slice) {
        None | Some([]) => "nothing".to_owned(),
        Some(parts) => parts.iter().map(text).collect::<Vec<_>>().join(", "),
    };
    let reached = match forward["reachable"].as_bool() {
        Some(true) => "reached",
        _ => "NOT reached; readings are kept",
    };
    let last_error = match forward["last_error"].as_str() {
        Some(error) => format!("{error} ({})", ago(now, &forward["last_error_at"])),
        None => "none since the start".into(),
    };
    let clock = match status["clock"]["synced"].as_bool() {
        Some(true) => "synchronised",
        _ => "NOT synchronised: readings wait for the time, then go as unsynced",
    };
    let devices = status["devices"].as_array().map_or(0, Vec::len);
    let lines = [
        (
            "agent",
            format!(
                "{} (version {}, up {})",
                text(&status["agent"]),
                text(&status["version"]),
                seconds(&status["uptime_seconds"])
            ),
        ),
        ("fails", failing),
        (
            "backlog",
            format!(
                "{} messages, oldest {}",
                count(&buffer["entries"]),
                match buffer["oldest_age_seconds"].as_f64() {
                    Some(age) => format!("{} old", span(age)),
                    None => "-".into(),
                }
            ),
        ),
        ("on disk", bytes(count(&buffer["bytes_on_disk"]))),
        ("refusing", text(&buffer["refusing"])),
        ("lost", format!("{lost} messages since the start")),
        (
            "rate in",
            format!(
                "{:.1} messages/s over {}",
                rate("in_per_second"),
                seconds(&rates["window_seconds"])
            ),
        ),
        ("rate out", format!("{:.1} messages/s", rate("out_per_second"))),
        ("Redpanda", format!("{}: {reached}", text(&forward["to"]))),
        ("blocked by", text(&forward["blocked"])),
        ("last error", last_error),
        (
            "dead letters",
            format!("{} since the start", count(&forward["dead_letters"])),
        ),
        ("clock", clock.into()),
        (
            "clients",
            format!(
                "{} connected, {} sessions",
                count(&mqtt["connected"]),
                count(&mqtt["sessions"])
            ),
        ),
        (
            "devices",
            format!("{devices} heard since the start (edge-agent devices)"),
        ),
    ];
    let mut out = String::new();
    for (name, value) in lines {
        writeln!(out, "{name:<13} {value}").expect("writing to a string cannot fail");
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_figure_of_the_issue_has_a_line_and_nothing_missing_is_a_panic() {
        let status = json!({
            "agent": "p0", "version": "0.1.0", "uptime_seconds": 90, "failing": ["buffer"],
            "buffer": {"entries": 12, "bytes_on_disk": 4_194_304, "oldest_age_seconds": 3_700.5, "refusing": "buffer is full",
                "lost": {"full": 3, "disk": 4}},
            "forward": {"to": "192.0.2.20:31092 over TLS as p0", "reachable": false, "delivered": 5, "dead_letters": 2,
                "last_error": "refused", "last_error_at": "2026-01-01T00:00:00Z"},
            "rates": {"window_seconds": 60.0, "in_per_second": 2.04, "out_per_second": 0.0},
            "mqtt": {"connected": 4, "sessions": 5}, "clock": {"synced": false}, "devices": [{}, {}],
        });
        let table = table(&status);
        for want in [
            "backlog       12 messages, oldest 1 h 1 min old",
            "on disk       4.0 MiB",
            "refusing      buffer is full",
            "fails         buffer",
            "lost          7 messages",
            "rate in       2.0 messages/s over 1 min 0 s",
            "rate out      0.0 messages/s",
            "NOT reached",
            "last error    refused (",
            "clock         NOT synchronised",
            "clients       4 connected",
            "devices       2 heard",
        ] {
            assert!(table.contains(want), "{want:?} is missing in\n{table}");
        }
        for odd in [json!({}), json!([]), json!({"buffer": 5, "devices": "x"})] {
            assert!(super::table(&odd).contains("backlog"));
        }
    }
}
