//! The client's socket: what is said within the limit, what a read means, and the close.

use std::future::poll_fn;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use futures_util::{FutureExt, SinkExt};
use tokio::time::timeout;

use crate::protocol::{CLOSE_LIMIT, Close, SEND_LIMIT, ServerMessage};

/// Why a session ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The client went away.
    Gone,
    /// We close, with a reason for a person.
    Close(Close, &'static str),
}

pub(super) type Outcome<T> = Result<T, End>;

pub(super) const TOO_SLOW: End = End::Close(Close::TryAgain, "too slow, reconnect with the last cursor");

/// Sends the close and waits a moment for the answer, so that the client reads it before the connection is gone.
pub(super) async fn say_goodbye(socket: &mut WebSocket, close: Close, why: &'static str) {
    let frame = CloseFrame {
        code: close.code(),
        reason: Utf8Bytes::from_static(why),
    };
    let goodbye = async {
        if socket.send(Message::Close(Some(frame))).await.is_err() {
            return;
        }
        if close == Close::TooLarge {
            // The rest of what was too large is not read: that would be the memory the limit is there to save.
            std::future::pending::<()>().await;
        }
        while let Some(Ok(message)) = socket.recv().await {
            if matches!(message, Message::Close(_)) {
                break;
            }
        }
    };
    // A client that does not answer is dropped with the socket.
    let _ = timeout(CLOSE_LIMIT, goodbye).await;
}

/// The text of a message from the client; none for a control frame. An end or a broken limit ends the session.
pub(super) fn text_of(message: Option<Result<Message, axum::Error>>) -> Outcome<Option<Utf8Bytes>> {
    match message {
        None | Some(Ok(Message::Close(_))) => Err(End::Gone),
        Some(Ok(Message::Text(text))) => Ok(Some(text)),
        Some(Ok(Message::Binary(_))) => Err(End::Close(
            Close::Policy,
            "binary messages are not part of the protocol",
        )),
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(None),
        Some(Err(error)) => Err(end_of(&error.to_string())),
    }
}

/// What a failed read means. axum hides the kind of the error behind its text; a test holds the texts still.
pub(super) fn end_of(error: &str) -> End {
    if error.contains("Space limit exceeded") {
        End::Close(Close::TooLarge, "messages have at most 4 KiB")
    } else if error.contains("WebSocket protocol error: Connection reset") {
        End::Gone
    } else if error.contains("WebSocket protocol error") || error.contains("UTF-8") {
        End::Close(Close::Policy, "not a WebSocket message")
    } else {
        End::Gone
    }
}

/// Sends one message within the limit.
pub(super) async fn say(socket: &mut WebSocket, message: &ServerMessage<'_>) -> Outcome<()> {
    send(socket, message.to_json().into()).await
}

pub(super) async fn send(socket: &mut WebSocket, text: Utf8Bytes) -> Outcome<()> {
    within_limit(socket.send(Message::Text(text))).await
}

/// Writes a message into the socket's buffer, to be flushed with others. Nearly always there is room: only where it must be
/// waited for is there a clock to be started.
pub(super) async fn feed(socket: &mut WebSocket, text: Utf8Bytes) -> Outcome<()> {
    match poll_fn(|context| socket.poll_ready_unpin(context)).now_or_never() {
        Some(ready) => ready.map_err(|_| End::Gone)?,
        None => within_limit(poll_fn(|context| socket.poll_ready_unpin(context))).await?,
    }
    socket
        .start_send_unpin(Message::Text(text))
        .map_err(|_| End::Gone)
}

pub(super) async fn within_limit(sending: impl Future<Output = Result<(), axum::Error>>) -> Outcome<()> {
    match timeout(SEND_LIMIT, sending).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::Gone),
        Err(_) => Err(TOO_SLOW),
    }
}
