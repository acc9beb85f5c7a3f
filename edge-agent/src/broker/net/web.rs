//! MQTT over WebSocket (MQTT 5, section 6): binary messages whose borders mean nothing, subprotocol `mqtt`.
//!
//! A browser says which page it comes from. Only pages of the agent's own host, or those that the configuration names,
//! are let in, because a browser on the same machine would otherwise open the door that is open to loopback.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use futures_util::{Sink as _, Stream as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async_with_config,
    tungstenite::{
        self, Message,
        handshake::server::{ErrorResponse, Request, Response},
        http::{HeaderValue, StatusCode, header},
        protocol::WebSocketConfig,
    },
};

use super::Stream;

/// Largest WebSocket message: a captured payload with its head fits, and what is larger would have to be held in memory.
pub const MESSAGE_BYTES: usize = 512 * 1024;
/// Bytes read and written at a time; a thousand connections share 1 GB.
const BUFFER_BYTES: usize = 4 * 1024;
/// Bytes of answers that may wait for a client that does not read: a write is never larger.
const UNSENT_BYTES: usize = 512 * 1024;

/// The subprotocol of MQTT.
const SUBPROTOCOL: &str = "mqtt";

/// A WebSocket as a stream of bytes.
pub struct WebStream {
    socket: WebSocketStream<Stream>,
    /// What is left of the message that was read last.
    unread: Bytes,
}

/// Shakes hands. `allowed_origins` are those of pages, besides pages of the agent's own host.
pub async fn accept(stream: Stream, allowed_origins: &[String]) -> io::Result<WebStream> {
    let mut config = WebSocketConfig::default();
    config.read_buffer_size = BUFFER_BYTES;
    config.write_buffer_size = 0;
    config.max_write_buffer_size = UNSENT_BYTES;
    config.max_message_size = Some(MESSAGE_BYTES);
    config.max_frame_size = Some(MESSAGE_BYTES);
    #[expect(clippy::result_large_err, reason = "the type is the library's")]
    let check = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        if !speaks_mqtt(request) {
            return Err(refusal(StatusCode::BAD_REQUEST, "the subprotocol is mqtt"));
        }
        if !may_come(request, allowed_origins) {
            return Err(refusal(StatusCode::FORBIDDEN, "this page may not connect"));
        }
        response.headers_mut().insert(
            header::SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(SUBPROTOCOL),
        );
        Ok(response)
    };
    let socket = accept_hdr_async_with_config(stream, check, Some(config))
        .await
        .map_err(as_io)?;
    Ok(WebStream {
        socket,
        unread: Bytes::new(),
    })
}

fn refusal(status: StatusCode, why: &str) -> ErrorResponse {
    let mut response = ErrorResponse::new(Some(why.to_owned()));
    *response.status_mut() = status;
    response
}

fn speaks_mqtt(request: &Request) -> bool {
    let offered = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL);
    offered
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|name| name.trim().eq_ignore_ascii_case(SUBPROTOCOL))
}

fn may_come(request: &Request, allowed_origins: &[String]) -> bool {
    let Some(origin) = request.headers().get(header::ORIGIN) else {
        return true;
    };
    let Ok(origin) = origin.to_str() else { return false };
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let own = origin
        .split_once("://")
        .is_some_and(|(_, page)| host.is_some_and(|host| name_of(page) == name_of(host)));
    own || allowed_origins.iter().any(|allowed| allowed == origin)
}

/// A host without its port.
fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

fn as_io(error: tungstenite::Error) -> io::Error {
    match error {
        tungstenite::Error::Io(error) => error,
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
            io::ErrorKind::UnexpectedEof.into()
        }
        tungstenite::Error::Capacity(error) => io::Error::new(io::ErrorKind::FileTooLarge, error),
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

impl AsyncRead for WebStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.unread = bytes,
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Text(_))) => {
                    let why = "MQTT comes in binary messages";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
                }
                None | Some(Ok(Message::Close(_))) => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(as_io(error))),
            }
        }
        let take = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread[..take]);
        self.unread.advance(take);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WebStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(as_io)?;
        // A message of its own for each write: their borders mean nothing.
        let take = bytes.len().min(UNSENT_BYTES / 2);
        let message = Message::Binary(Bytes::copy_from_slice(&bytes[..take]));
        Pin::new(&mut self.socket).start_send(message).map_err(as_io)?;
        Poll::Ready(Ok(take))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(as_io)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx).map_err(as_io)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_the_own_host_and_of_the_list_may_come() {
        let check = |origin: Option<&str>, want: bool| {
            let mut request = Request::builder().header("host", "p0.lan:9001");
            if let Some(origin) = origin {
                request = request.header("origin", origin);
            }
            let request = request.body(()).unwrap();
            let allowed = ["https://house.example".to_owned()];
            assert_eq!(may_come(&request, &allowed), want, "{origin:?}");
        };
        check(None, true);
        check(Some("http://p0.lan"), true);
        check(Some("https://p0.lan:8443"), true);
        check(Some("https://house.example"), true);
        check(Some("https://house.example.evil.example"), false);
        check(Some("https://elsewhere.example"), false);
        check(Some("null"), false);
    }

    #[test]
    fn the_subprotocol_is_asked_for() {
        for (offered, want) in [
            ("mqtt", true),
            ("mqttv3.1, mqtt", true),
            ("MQTT", true),
            ("chat", false),
        ] {
            let request = Request::builder()
                .header("sec-websocket-protocol", offered)
                .body(())
                .unwrap();
            assert_eq!(speaks_mqtt(&request), want, "{offered}");
        }
        assert!(!speaks_mqtt(&Request::builder().body(()).unwrap()));
    }
}
