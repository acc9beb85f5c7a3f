//! `edge-agent devices` as tables: who was heard, who connected, what was refused and why, what could not be decoded.

use std::fmt::Write as _;

use serde_json::Value;

use super::{ago, table, text};

/// Four tables; one that is empty says so.
pub fn tables(answer: &Value) -> String {
    let now = answer["time"]
        .as_str()
        .and_then(|time| time.parse().ok())
        .unwrap_or_else(chrono::Utc::now);
    let list = |key: &str| answer[key].as_array().cloned().unwrap_or_default();
    let devices = list("devices").into_iter().map(|device| {
        let presence = &device["presence"];
        let there = match presence["online"].as_bool() {
            Some(true) => format!("online since {}", ago(now, &presence["since"])),
            Some(false) => format!("OFFLINE since {}", ago(now, &presence["since"])),
            None => "-".into(),
        };
        vec![
            text(&device["device_id"]),
            text(&device["family"]),
            ago(now, &device["last_seen"]),
            there,
        ]
    });
    let clients = list("clients").into_iter().map(|client| {
        let connected = match client["connected"].as_bool() {
            Some(true) => format!("since {}", ago(now, &client["connected_at"])),
            _ => "no".into(),
        };
        vec![
            text(&client["client_id"]),
            text(&client["address"]),
            text(&client["user"]),
            text(&client["version"]),
            connected,
            ago(now, &client["last_seen"]),
            refused(now, &client["refused"]),
        ]
    });
    let strangers = list("not_let_in").into_iter().map(|stranger| {
        vec![
            text(&stranger["address"]),
            text(&stranger["client_id"]),
            refused(now, &stranger["refused"]),
        ]
    });
    let undecoded = answer["not_decoded"].as_object().cloned().unwrap_or_default();
    let undecoded = undecoded.iter().map(|(topic, known)| {
        vec![
            topic.clone(),
            text(&known["count"]),
            ago(now, &known["time"]),
            text(&known["reason"]),
        ]
    });
    let mut out = String::new();
    let mut section = |title: &str, heads: &[&str], rows: Vec<Vec<String>>| {
        let table = if rows.is_empty() {
            "none since the start\n".to_owned()
        } else {
            table::render(heads, &rows)
        };
        let gap = if out.is_empty() { "" } else { "\n" };
        write!(out, "{gap}{title}\n{table}").expect("writing to a string cannot fail");
    };
    section(
        "DEVICES HEARD",
        &["device", "speaks", "last reading", "there"],
        devices.collect(),
    );
    section(
        "MQTT CLIENTS",
        &[
            "client id",
            "address",
            "user",
            "MQTT",
            "connected",
            "last packet",
            "refused to it",
        ],
        clients.collect(),
    );
    section(
        "NOT LET IN",
        &["address", "client id", "why"],
        strangers.collect(),
    );
    section(
        "NOT DECODED (edge-agent dead-letters)",
        &["topic", "times", "last", "why"],
        undecoded.collect(),
    );
    out
}

fn refused(now: chrono::DateTime<chrono::Utc>, refused: &Value) -> String {
    if refused.is_null() {
        return "-".into();
    }
    format!(
        "{} times, last {}: {} {}",
        text(&refused["count"]),
        ago(now, &refused["time"]),
        text(&refused["reason"]),
        text(&refused["detail"])
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_says_who_was_heard_who_was_refused_and_what_was_not_decoded() {
        let (now, then) = ("2026-01-01T08:00:30Z", "2026-01-01T08:00:00Z");
        let answer = json!({
            "agent": "p0", "time": now,
            "devices": [{"device_id": "plug", "family": "tasmota", "last_seen": then,
                "presence": {"online": false, "since": then}}],
            "clients": [{"client_id": "DVES_1", "address": "192.0.2.7", "user": null, "version": "3.1.1", "connected": true,
                "connections": 2, "connected_at": then, "last_seen": then,
                "refused": {"count": 3, "time": then, "reason": "publish", "detail": "cmnd/plug/POWER"}}],
            "not_let_in": [{"address": "192.0.2.9", "client_id": "guess",
                "refused": {"count": 1, "time": then, "reason": "login", "detail": "user or password is wrong"}}],
            "not_decoded": {"x/events/rpc": {"count": 4, "time": then, "reason": "not json"}},
        });
        let tables = tables(&answer);
        for want in [
            "plug    tasmota  30 s ago      OFFLINE since 30 s ago",
            "3 times, last 30 s ago: publish cmnd/plug/POWER",
            "192.0.2.9  guess      1 times, last 30 s ago: login user or password is wrong",
            "x/events/rpc  4      30 s ago  not json",
        ] {
            assert!(tables.contains(want), "{want:?} is missing in\n{tables}");
        }
        assert_eq!(
            super::tables(&json!({})).matches("none since the start").count(),
            4
        );
    }
}
