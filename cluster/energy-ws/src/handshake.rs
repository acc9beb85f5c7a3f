//! `GET /ws/energy`: what is decided before there is a WebSocket.
//!
//! A wrong token is not decided here: a browser's script cannot see the status of a refused handshake, but it sees
//! a close code. The token's place in the request is never logged.

use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use service::Problem;

use crate::protocol::{BEARER, MAX_CLIENT_BYTES, SUBPROTOCOL};
use crate::session::{self, Shared};

/// Bytes a connection reads at once. tungstenite's 128 KiB for each idle client would be most of the memory.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// Bytes gathered before they are written: some fifty records; a flush comes after each batch anyway. Only a client that has
/// had a burst holds them, and with what else it costs it stays below 40 kB.
const WRITE_BUFFER_BYTES: usize = 24 * 1024;
/// Bytes that may wait for a socket that takes none; the largest message and the buffer fit.
const MAX_WRITE_BUFFER_BYTES: usize = 64 * 1024;

/// Query of the handshake. Unknown parameters are ignored.
#[derive(Deserialize)]
pub struct Parameters {
    token: Option<String>,
}

/// What the handler needs.
#[derive(Clone)]
pub struct Door {
    /// For the sessions.
    pub shared: Arc<Shared>,
    /// Sessions run here, so that a stop waits for them.
    pub lifecycle: service::Lifecycle,
    /// Origins of pages that may connect; empty means pages of the same host only.
    pub allowed_origins: Arc<[String]>,
}

/// The handler.
pub async fn connect(
    State(door): State<Door>,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    if !origin_is_allowed(&headers, &door.allowed_origins) {
        door.shared.metrics.refused_origins.inc();
        return Problem::of(StatusCode::FORBIDDEN).into_response();
    }
    let Some(seat) = door.shared.seats.connection() else {
        return Problem::unavailable(service::http::RETRY_AFTER).into_response();
    };
    let token = token_of(&headers).or(parameters.token);
    upgrade
        .protocols([SUBPROTOCOL])
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(MAX_WRITE_BUFFER_BYTES)
        .max_message_size(MAX_CLIENT_BYTES)
        .max_frame_size(MAX_CLIENT_BYTES)
        .on_upgrade(move |socket| async move {
            door.lifecycle.track(async move {
                let clients = door.shared.metrics.clients.clone();
                clients.inc();
                // Given back even when the session panics.
                let _counted = OnDrop(move || clients.dec());
                session::serve(door.shared, socket, token, &seat).await;
            });
        })
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// The token in the list of subprotocols, which may be spread over several headers.
fn token_of(headers: &HeaderMap) -> Option<String> {
    headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|protocol| protocol.trim().strip_prefix(BEARER))
        .map(str::to_owned)
}

/// Browsers name the page's origin and let no script change it; who sends none is no browser, and then there is no
/// stranger's page that could use somebody's browser.
fn origin_is_allowed(headers: &HeaderMap, allowed: &[String]) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let Some(origin) = origins.next() else { return true };
    if origins.next().is_some() {
        return false;
    }
    let Ok(origin) = origin.to_str() else { return false };
    if !allowed.is_empty() {
        return allowed
            .iter()
            .any(|allowed| allowed.trim_end_matches('/').eq_ignore_ascii_case(origin));
    }
    let host = headers.get(header::HOST).map(HeaderValue::to_str);
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    matches!((authority, host), (Some(authority), Some(Ok(host))) if authority.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn origins_are_checked() {
        let check = |pairs: &[(&'static str, &'static str)], allowed: &[&str], want: bool| {
            let allowed: Vec<String> = allowed.iter().map(|origin| (*origin).to_owned()).collect();
            assert_eq!(
                origin_is_allowed(&headers(pairs), &allowed),
                want,
                "{pairs:?} {allowed:?}"
            );
        };
        let house = ("host", "house.example");
        check(&[house], &[], true);
        check(&[house, ("origin", "https://house.example")], &[], true);
        check(&[house, ("origin", "https://HOUSE.example")], &[], true);
        check(&[house, ("origin", "https://house.example:8443")], &[], false);
        check(&[house, ("origin", "https://evil.example")], &[], false);
        check(
            &[house, ("origin", "https://house.example.evil.example")],
            &[],
            false,
        );
        check(&[house, ("origin", "null")], &[], false);
        check(&[house, ("origin", "")], &[], false);
        check(&[("origin", "https://house.example")], &[], false);
        check(
            &[
                house,
                ("origin", "https://house.example"),
                ("origin", "https://evil.example"),
            ],
            &[],
            false,
        );
        let listed = ["https://web.example/", "http://127.0.0.1:5173"];
        check(&[house, ("origin", "https://web.example")], &listed, true);
        check(&[house, ("origin", "http://127.0.0.1:5173")], &listed, true);
        check(&[house, ("origin", "http://web.example")], &listed, false);
        check(&[house, ("origin", "https://house.example")], &listed, false);
        check(&[house], &listed, true);
    }

    #[test]
    fn tokens_are_found_among_the_subprotocols() {
        let check = |pairs: &[(&'static str, &'static str)], want: Option<&str>| {
            assert_eq!(token_of(&headers(pairs)).as_deref(), want, "{pairs:?}");
        };
        check(&[], None);
        check(&[("sec-websocket-protocol", "homelab.v1")], None);
        check(
            &[("sec-websocket-protocol", "homelab.v1, bearer.a.b.c")],
            Some("a.b.c"),
        );
        check(
            &[("sec-websocket-protocol", "bearer.a.b.c,homelab.v1")],
            Some("a.b.c"),
        );
        check(
            &[
                ("sec-websocket-protocol", "homelab.v1"),
                ("sec-websocket-protocol", "bearer.x"),
            ],
            Some("x"),
        );
    }
}
