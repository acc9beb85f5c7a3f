//! The answer of a series: JSON or CSV as the caller accepts, with an entity tag, and for how long it may be kept.
//!
//! It never makes a shared cache keep anything: what a house measured is `private`.

use std::convert::Infallible;
use std::hash::{DefaultHasher, Hasher};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use service::Problem;

use crate::range::Range;

/// Age from which a range is taken for past: an agent that was away for a week has delivered by then.
const PAST_AFTER: TimeDelta = TimeDelta::days(8);
/// How long a past range may be used unasked. Data that comes later still is seen after this.
const PAST_CACHE: HeaderValue = HeaderValue::from_static("private, max-age=3600");
/// Any other range may be kept, and is asked about before it is used again.
const FRESH_CACHE: HeaderValue = HeaderValue::from_static("private, no-cache");
const CSV: HeaderValue = HeaderValue::from_static("text/csv; charset=utf-8; header=present");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The names of an item's fields, in the order in which it is serialised.
pub(crate) trait Columns: Serialize {
    /// As in its JSON.
    const COLUMNS: &'static [&'static str];
}

impl<T: Columns> Columns for &T {
    const COLUMNS: &'static [&'static str] = T::COLUMNS;
}

/// What the caller's headers ask for.
pub(crate) struct Wish {
    csv: bool,
    known: Vec<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Wish {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self {
            csv: prefers_csv(&parts.headers),
            known: words(&parts.headers, header::IF_NONE_MATCH)
                .map(|tag| tag.trim_start_matches("W/").to_owned())
                .collect(),
        })
    }
}

impl Wish {
    /// The answer for `range`: `series` as JSON, or its items as CSV.
    pub(crate) fn answer<T: Columns>(
        self,
        range: Range,
        now: DateTime<Utc>,
        series: &impl Serialize,
        items: &[T],
    ) -> Result<Response, Problem> {
        self.answer_written(range, now, || serde_json::to_vec(series), items.iter())
    }

    /// The same for a series that writes its own JSON.
    pub(crate) fn answer_written<T: Columns>(
        self,
        range: Range,
        now: DateTime<Utc>,
        json: impl FnOnce() -> serde_json::Result<Vec<u8>>,
        items: impl Iterator<Item = T>,
    ) -> Result<Response, Problem> {
        let body = if self.csv {
            csv(items)
        } else {
            json().map_err(|error| error.to_string())
        };
        let body = body.map_err(|error| {
            tracing::error!("an answer cannot be written: {error}");
            Problem::internal()
        })?;
        let tag = tag(&body);
        let known = self.known.iter().any(|known| *known == tag || known == "*");
        // Weak, because compression gives the same answer other bytes.
        let weak = HeaderValue::try_from(format!("W/{tag}")).expect("a tag is hexadecimal digits in quotes");
        let headers = [
            (header::ETAG, weak),
            (
                header::CACHE_CONTROL,
                if range.to < now - PAST_AFTER {
                    PAST_CACHE
                } else {
                    FRESH_CACHE
                },
            ),
            (header::VARY, HeaderValue::from_static("accept, authorization")),
        ];
        if known {
            return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
        }
        let form = [(header::CONTENT_TYPE, if self.csv { CSV } else { JSON })];
        Ok((headers, form, body).into_response())
    }
}

/// A header's parts between commas.
fn words(headers: &HeaderMap, name: header::HeaderName) -> impl Iterator<Item = &str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .map(str::trim)
}

/// Whether `Accept` names CSV with a higher quality than JSON. Whoever accepts neither gets JSON: it is more use than 406.
fn prefers_csv(headers: &HeaderMap) -> bool {
    let quality = |wanted: &[&str]| {
        words(headers, header::ACCEPT)
            .filter_map(|word| {
                let mut parts = word.split(';').map(str::trim);
                let form = parts.next()?.to_ascii_lowercase();
                let quality = parts.find_map(|part| part.strip_prefix("q="));
                let quality = quality.map_or(Some(1.0), |text| text.parse::<f32>().ok())?;
                wanted.contains(&form.as_str()).then_some(quality)
            })
            .fold(0.0, f32::max)
    };
    quality(&["text/csv"]) > quality(&["application/json", "application/*"])
}

/// A hash of the bytes, in quotes. Not a secret and not stable over releases: a tag that no longer matches costs one answer.
fn tag(body: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    hasher.write(body);
    format!("\"{:016x}\"", hasher.finish())
}

/// RFC 4180: a line of names, then a line an item; what was not reported is empty.
fn csv<T: Columns>(items: impl Iterator<Item = T>) -> Result<Vec<u8>, String> {
    let mut writer = csv::WriterBuilder::new()
        .has_headers(false)
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::new());
    writer
        .write_record(T::COLUMNS)
        .map_err(|error| error.to_string())?;
    for item in items {
        writer.serialize(item).map_err(|error| error.to_string())?;
    }
    writer.into_inner().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_is_answered_to_those_who_prefer_it() {
        for (accept, want) in [
            (&[][..], false),
            (&["*/*"], false),
            (&["text/csv"], true),
            (&["Text/CSV; charset=utf-8"], true),
            (&["application/json, text/csv"], false),
            (&["application/json;q=0.5, text/csv;q=0.9"], true),
            (&["text/csv;q=0"], false),
            (&["text/csv;q=NaN"], false),
            (&["text/csv;q=x"], false),
            (&["text/html", "text/csv"], true),
            (&["\u{e5}"], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in accept {
                headers.append(
                    header::ACCEPT,
                    HeaderValue::from_bytes(value.as_bytes()).expect("a header"),
                );
            }
            assert_eq!(prefers_csv(&headers), want, "{accept:?}");
        }
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        #[derive(Serialize)]
        struct Item {
            device_id: &'static str,
            power_w: Option<f64>,
        }
        impl Columns for Item {
            const COLUMNS: &[&str] = &["device_id", "power_w"];
        }
        let text = csv([
            Item {
                device_id: "a,\"b\"\n\u{e5}",
                power_w: Some(1.5),
            },
            Item {
                device_id: "c",
                power_w: None,
            },
        ]
        .into_iter());
        assert_eq!(
            String::from_utf8(text.expect("it can be written")).expect("UTF-8"),
            "device_id,power_w\r\n\"a,\"\"b\"\"\n\u{e5}\",1.5\r\nc,\r\n"
        );
        assert_eq!(
            csv(std::iter::empty::<Item>()),
            Ok(b"device_id,power_w\r\n".to_vec())
        );
    }
}
