//! Headers that make a change safe to send: `Idempotency-Key`, `If-Match` and the `ETag` it goes with.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use service::Problem;
use sha2::{Digest, Sha256};

/// Names one wish of a caller: sent again with the same key, it is not a second one.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Longest key: a UUID has 36 characters, and the key stands in an index.
const MOST_KEY_BYTES: usize = 128;
/// Bytes of the hash that make a tag: enough that two states of one device never share one.
const TAG_BYTES: usize = 12;

/// The tag of a state: the same values give the same tag, at whatever time they were reported.
pub(crate) fn tag(state: &impl Serialize) -> HeaderValue {
    let text = serde_json::to_vec(state).expect("a state is plain JSON");
    let hash = Sha256::digest(&text);
    let hex: String = hash[..TAG_BYTES]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    HeaderValue::from_str(&format!("\"{hex}\"")).expect("hex digits are a header's text")
}

/// The key of a request, if it has one.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(&IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let fault = |fault: &str| Err(Problem::field("Idempotency-Key", fault));
    if values.next().is_some() {
        return fault("is given twice");
    }
    match value.to_str().map(str::trim) {
        Ok("") => fault("is empty"),
        Ok(key) if key.len() > MOST_KEY_BYTES => fault(&format!("is longer than {MOST_KEY_BYTES} bytes")),
        Ok(key) => Ok(Some(key.to_owned())),
        Err(_) => fault("is not plain ASCII"),
    }
}

/// 412 unless the request has no `If-Match` or one that names `tag`. Weak tags never match (RFC 9110, 13.1.1).
pub(crate) fn if_match(headers: &HeaderMap, tag: &HeaderValue) -> Result<(), Problem> {
    let mut values = headers.get_all(header::IF_MATCH).iter().peekable();
    if values.peek().is_none() {
        return Ok(());
    }
    let tag = tag.as_bytes();
    // Our tags hold no comma, so a split cannot cut one.
    let matches = values
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .any(|given| given == b"*" || given == tag);
    if matches {
        Ok(())
    } else {
        Err(Problem::new(
            StatusCode::PRECONDITION_FAILED,
            "the state has changed since it was read; read it again",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name.clone(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn keys_are_read() {
        let check = |values: &[&str], want: Result<Option<&str>, ()>| {
            let got = idempotency_key(&headers(IDEMPOTENCY_KEY, values)).map_err(|_| ());
            assert_eq!(got, want.map(|key| key.map(str::to_owned)), "{values:?}");
        };
        check(&[], Ok(None));
        check(&["a"], Ok(Some("a")));
        check(&[&"k".repeat(128)], Ok(Some(&"k".repeat(128))));
        check(&[&"k".repeat(129)], Err(()));
        check(&[""], Err(()));
        check(&["a", "a"], Err(()));
        check(&["k\u{e5}"], Err(()));
    }

    #[test]
    fn tags_are_compared() {
        let now = tag(&("pump", 1));
        let text = now.to_str().unwrap();
        let check = |values: &[&str], want: bool| {
            let got = if_match(&headers(header::IF_MATCH, values), &now);
            assert_eq!(got.is_ok(), want, "{values:?}");
            assert!(got.is_ok() || got.is_err_and(|problem| problem.status() == 412));
        };
        check(&[], true);
        check(&["*"], true);
        check(&[text], true);
        check(&[&format!("\"x\", {text}")], true);
        check(&["\"x\"", text], true);
        check(&[&format!("W/{text}")], false);
        check(&["\"x\""], false);
        check(&[""], false);
        assert_ne!(tag(&("pump", 2)), now);
    }
}
