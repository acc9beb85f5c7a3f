//! The messages of docs/API.md, section energy-ws, and the limits a client is held to.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeZone, Utc};
use serde::{Deserialize, Serialize};
use telemetry::{Event, Record};

use crate::stream::Stream;

/// The subprotocol the server selects when it is offered.
pub const SUBPROTOCOL: &str = "homelab.v1";
/// What stands before a token in the list of subprotocols.
pub const BEARER: &str = "bearer.";

/// Largest message of a client. A token has 1 to 2 KiB; nothing else comes near.
pub const MAX_CLIENT_BYTES: usize = 4 * 1024;
/// Largest message to a client; a record that would be larger is not sent. The largest real one has 1.2 kB.
pub const MAX_DATA_BYTES: usize = 16 * 1024;
/// How long a client may take to authenticate.
pub const AUTHENTICATE_WITHIN: Duration = Duration::from_secs(5);
/// Silence after which the server pings by default: often enough that a proxy (60 s is usual) does not take the
/// connection for dead.
pub const PING_AFTER: Duration = Duration::from_secs(25);
/// Silence after which a client is gone, in those periods: the ping was not answered for two of them.
pub const IDLE_PERIODS: u32 = 3;
/// How long one message may wait for a client's socket. What it misses meanwhile waits in the hub's ring.
pub const SEND_LIMIT: Duration = Duration::from_secs(10);
/// How long the client may take to answer a close before the connection is dropped.
pub const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// Messages a client may send at once, and how many a second after that: a page subscribes a few times and then pings.
pub const BURST_MESSAGES: u32 = 100;
/// See [`BURST_MESSAGES`].
pub const MESSAGES_PER_SECOND: u32 = 10;

/// Why the server closes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Close {
    /// The server stops.
    Stopping,
    /// A limit or the protocol was broken.
    Policy,
    /// A message was larger than [`MAX_CLIENT_BYTES`].
    TooLarge,
    /// Too slow, or the server is not ready.
    TryAgain,
    /// Not authenticated in time, token invalid or expired.
    Unauthenticated,
    /// No scope for anything asked.
    Forbidden,
}

impl Close {
    /// Every reason, for the metrics.
    pub const ALL: [Close; 6] = [
        Close::Stopping,
        Close::Policy,
        Close::TooLarge,
        Close::TryAgain,
        Close::Unauthenticated,
        Close::Forbidden,
    ];

    /// The code on the wire.
    pub const fn code(self) -> u16 {
        match self {
            Close::Stopping => 1001,
            Close::Policy => 1008,
            Close::TooLarge => 1009,
            Close::TryAgain => 1013,
            Close::Unauthenticated => 4401,
            Close::Forbidden => 4403,
        }
    }
}

/// What a client says. Unknown fields are ignored.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientMessage {
    /// Who it is; again before the token expires.
    Authenticate {
        /// An access token.
        token: String,
    },
    /// Asks for streams.
    Subscribe {
        /// Their names, checked by the session so that an unknown one can be named.
        streams: Vec<String>,
        /// Only these devices; absent means all.
        #[serde(default)]
        devices: Option<HashSet<String>>,
        /// A cursor; what came after it is sent first.
        #[serde(default)]
        since: Option<String>,
    },
    /// Gives up streams.
    Unsubscribe {
        /// Their names.
        streams: Vec<String>,
    },
    /// Asks for a `pong`.
    Ping,
}

/// What the server says besides `data`.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerMessage<'a> {
    /// The token was accepted.
    Authenticated {
        /// When the connection ends unless the client authenticates again.
        expires_at: String,
    },
    /// The streams now subscribed by this request.
    Subscribed {
        /// Their names.
        streams: &'a [Stream],
        /// Where they begin.
        cursor: &'a str,
    },
    /// The streams given up.
    Unsubscribed {
        /// Their names.
        streams: &'a [Stream],
    },
    /// Records are missing before the next; homelab-api has them. After a subscription: between the cursor and what can
    /// still be sent. Later: between the record before and the next, because Kafka deleted them before they were read.
    Gap {
        /// The stream.
        stream: Stream,
        /// When the cursor was issued, or the last record before was appended.
        from: String,
        /// When the first record that follows was appended, or now.
        to: String,
        /// `window`: older than what this process or the topic keeps. `reset`: the topic begins anew.
        reason: GapReason,
    },
    /// The answer to `ping`.
    Pong,
    /// Something was refused.
    Error {
        /// A stable word.
        code: ErrorCode,
        /// For a person.
        message: &'a str,
    },
}

/// Why records are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// They are older than what this process or the topic keeps.
    Window,
    /// The cursor is ahead of the topic: it was made anew.
    Reset,
}

/// Stable words of `error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Not authenticated, or the token is not accepted.
    Unauthenticated,
    /// A scope is missing.
    Forbidden,
    /// The message is not one of the protocol.
    Malformed,
    /// No stream has this name.
    UnknownStream,
    /// `since` is not a cursor.
    InvalidCursor,
    /// Too many messages, connections or too large a message.
    Limit,
    /// The server cannot do it just now.
    Unavailable,
}

impl ServerMessage<'_> {
    /// The message as JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("messages have only text keys")
    }
}

/// A time as it stands in messages.
pub fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// A time in milliseconds since 1970, as it stands in messages; the edges of the calendar where it is beyond them.
pub fn rfc3339_ms(ms: i64) -> String {
    let time = Utc.timestamp_millis_opt(ms).single();
    rfc3339(time.unwrap_or(if ms < 0 {
        DateTime::<Utc>::MIN_UTC
    } else {
        DateTime::<Utc>::MAX_UTC
    }))
}

#[derive(Serialize)]
struct Data<'a, D> {
    r#type: &'static str,
    stream: Stream,
    timestamp: String,
    id: &'a str,
    data: D,
}

#[derive(Serialize)]
struct ReadingData<'a> {
    device_id: &'a str,
    agent: &'a str,
    location: Option<&'a str>,
    clock: telemetry::Clock,
    reading: &'a telemetry::Reading,
}

/// A `data` message without its cursor and closing brace, and the device it is about.
#[derive(Debug, PartialEq, Eq)]
pub struct Body {
    /// The record's id: the same for one that was sent twice.
    pub id: Box<str>,
    /// `{"type":"data",...` up to where the cursor follows.
    pub text: String,
    /// The device, for filters; none for an event of no device.
    pub device: Option<Box<str>>,
}

/// Why a record of a topic is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skipped {
    /// Not a record, or of another kind than its topic.
    Malformed,
    /// What the sink makes a dead letter of: an impossible value, time or id.
    Refused,
    /// Larger than [`MAX_DATA_BYTES`].
    TooLarge,
}

impl Skipped {
    /// Every reason.
    pub const ALL: [Skipped; 3] = [Skipped::Malformed, Skipped::Refused, Skipped::TooLarge];

    /// The label of the metric.
    pub const fn as_str(self) -> &'static str {
        match self {
            Skipped::Malformed => "malformed",
            Skipped::Refused => "refused",
            Skipped::TooLarge => "too_large",
        }
    }
}

/// Reads a Kafka record and writes the message, once for all clients. What the sink makes a dead letter of is not
/// shown as live either; `now` is the time of this process.
pub fn body(stream: Stream, payload: &[u8], now: DateTime<Utc>) -> Result<Body, Skipped> {
    let (id, text, device) = match stream.kind() {
        Some(kind) => {
            let record = Record::from_json(payload).map_err(|_| Skipped::Malformed)?;
            if record.reading.kind() != kind {
                return Err(Skipped::Malformed);
            }
            record.acceptable(now).map_err(|_| Skipped::Refused)?;
            let data = ReadingData {
                device_id: record.device_id.as_str(),
                agent: &record.agent,
                location: record.location.as_deref(),
                clock: record.clock,
                reading: &record.reading,
            };
            let text = open_json(&Data {
                r#type: "data",
                stream,
                timestamp: rfc3339(record.time),
                id: &record.id,
                data,
            });
            (record.id, text, Some(record.device_id.as_str().into()))
        }
        None => {
            let event: Event = serde_json::from_slice(payload).map_err(|_| Skipped::Malformed)?;
            event.acceptable(now).map_err(|_| Skipped::Refused)?;
            let text = open_json(&Data {
                r#type: "data",
                stream,
                timestamp: rfc3339(event.time),
                id: &event.id,
                data: &event,
            });
            let device = event.device_id.as_ref().map(|id| id.as_str().into());
            (event.id, text, device)
        }
    };
    if text.len() > MAX_DATA_BYTES {
        Err(Skipped::TooLarge)
    } else {
        Ok(Body {
            id: id.into(),
            text,
            device,
        })
    }
}

fn open_json(data: &impl Serialize) -> String {
    let mut text = serde_json::to_string(data).expect("records have only text keys and finite numbers");
    let brace = text.pop();
    debug_assert_eq!(brace, Some('}'));
    text
}

/// Completes a body with its cursor.
pub fn with_cursor(body: &str, cursor: &str) -> String {
    let mut text = String::with_capacity(body.len() + cursor.len() + 14);
    text.push_str(body);
    text.push_str(",\"cursor\":\"");
    text.push_str(cursor);
    text.push_str("\"}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NOW: &str = "2026-01-01T08:00:13Z";

    fn now() -> DateTime<Utc> {
        NOW.parse().unwrap()
    }

    #[test]
    fn client_messages_are_those_of_the_documentation() {
        let parse = |text: &str| serde_json::from_str::<ClientMessage>(text).ok();
        assert_eq!(
            parse(r#"{"type":"subscribe","streams":["energy"],"devices":["SE1"],"since":"abc","later":1}"#),
            Some(ClientMessage::Subscribe {
                streams: vec!["energy".into()],
                devices: Some(HashSet::from(["SE1".to_owned()])),
                since: Some("abc".into())
            })
        );
        let plain = ClientMessage::Subscribe {
            streams: vec![],
            devices: None,
            since: None,
        };
        assert_eq!(
            parse(r#"{"type":"subscribe","streams":[],"devices":null}"#),
            Some(plain)
        );
        assert_eq!(parse(r#"{"type":"ping"}"#), Some(ClientMessage::Ping));
        let token = ClientMessage::Authenticate { token: "t".into() };
        assert_eq!(parse(r#"{"type":"authenticate","token":"t"}"#), Some(token));
        for text in [
            "",
            "null",
            "[]",
            "{}",
            r#"{"type":"shout"}"#,
            r#"{"type":"subscribe"}"#,
            r#"{"type":"ping"#,
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn server_messages_are_those_of_the_documentation() {
        let check = |message: ServerMessage<'_>, want: Value| {
            assert_eq!(serde_json::from_str::<Value>(&message.to_json()).unwrap(), want);
        };
        let streams = [Stream::Energy, Stream::Temperature];
        check(
            ServerMessage::Subscribed {
                streams: &streams,
                cursor: "c",
            },
            json!({"type": "subscribed", "streams": ["energy", "temperature"], "cursor": "c"}),
        );
        check(
            ServerMessage::Unsubscribed {
                streams: &streams[..1],
            },
            json!({"type": "unsubscribed", "streams": ["energy"]}),
        );
        check(
            ServerMessage::Authenticated {
                expires_at: rfc3339_ms(1_767_258_000_000),
            },
            json!({"type": "authenticated", "expires_at": "2026-01-01T09:00:00.000000Z"}),
        );
        check(ServerMessage::Pong, json!({"type": "pong"}));
        check(
            ServerMessage::Gap {
                stream: Stream::Energy,
                from: "a".into(),
                to: "b".into(),
                reason: GapReason::Window,
            },
            json!({"type": "gap", "stream": "energy", "from": "a", "to": "b", "reason": "window"}),
        );
        check(
            ServerMessage::Error {
                code: ErrorCode::UnknownStream,
                message: "m",
            },
            json!({"type": "error", "code": "unknown_stream", "message": "m"}),
        );
    }

    #[test]
    fn data_messages_are_those_of_the_documentation() {
        let whole = |stream, payload: &[u8]| {
            let body = body(stream, payload, now()).unwrap();
            (
                serde_json::from_str::<Value>(&with_cursor(&body.text, "abc")).unwrap(),
                body.device,
            )
        };
        let record = br#"{"id":"p0/9c41f02b/12346","agent":"p0","device_id":"SE1234567","time":"2026-01-01T08:00:13.000001Z",
            "clock":"synced","kind":"energy","reading":{"power_w":3241.5,"later":1}}"#;
        let (data, device) = whole(Stream::Energy, record);
        assert_eq!(
            data,
            json!({"type": "data", "stream": "energy", "timestamp": "2026-01-01T08:00:13.000001Z",
                "id": "p0/9c41f02b/12346", "cursor": "abc",
                "data": {"device_id": "SE1234567", "agent": "p0", "location": null, "clock": "synced",
                    "reading": {"power_w": 3241.5}}})
        );
        assert_eq!(device.as_deref(), Some("SE1234567"));

        let event = br#"{"id":"p0/1/7","agent":"p0","time":"2026-01-01T08:00:00Z","type":"clock_step","step_seconds":2.5}"#;
        let (data, device) = whole(Stream::Events, event);
        assert_eq!(
            data["data"],
            json!({"id": "p0/1/7", "agent": "p0", "time": "2026-01-01T08:00:00.000000Z", "type": "clock_step",
                "step_seconds": 2.5})
        );
        assert_eq!((data["stream"].as_str(), device), (Some("events"), None));
    }

    #[test]
    fn what_the_sink_refuses_is_not_shown() {
        let sent = |stream, text: &str| body(stream, text.as_bytes(), now()).err();
        let at = |id: &str, time: &str, kind: &str, reading: &str| {
            let text = format!(
                r#"{{"id":"{id}","agent":"p0","device_id":"d","time":"{time}","clock":"synced",
                    "kind":"{kind}","reading":{reading}}}"#
            );
            sent(Stream::Energy, &text)
        };
        let record = |kind: &str, reading: &str| at("a", NOW, kind, reading);
        assert_eq!(record("energy", r#"{"power_w":40000}"#), None);
        assert_eq!(record("energy", r#"{"power_w":2e6}"#), Some(Skipped::Refused));
        assert_eq!(record("plug", "{}"), Some(Skipped::Malformed));
        assert_eq!(sent(Stream::Energy, "hello"), Some(Skipped::Malformed));
        assert_eq!(sent(Stream::Events, "{}"), Some(Skipped::Malformed));
        // An agent whose clock is ahead would make every right value of a device look old.
        assert_eq!(at("a", "2026-01-01T08:59:00Z", "energy", "{}"), None);
        assert_eq!(
            at("a", "2026-01-01T10:01:00Z", "energy", "{}"),
            Some(Skipped::Refused)
        );
        assert_eq!(at("", NOW, "energy", "{}"), Some(Skipped::Refused));
        assert_eq!(at(&"x".repeat(257), NOW, "energy", "{}"), Some(Skipped::Refused));
        let event = r#"{"id":"p0/1/7","agent":"p0","time":"2019-01-01T08:00:00Z","type":"clock_step","step_seconds":2.5}"#;
        assert_eq!(sent(Stream::Events, event), Some(Skipped::Refused));
        let large = format!(r#"{{"meter_type":"{}"}}"#, "x".repeat(MAX_DATA_BYTES));
        assert_eq!(record("energy", &large), Some(Skipped::TooLarge));
    }
}
