//! Who a client is: the token of the handshake or of the first message, verified, and a seat for its user.

use axum::extract::ws::WebSocket;
use chrono::Utc;
use service::{AuthError, Claims};
use tokio::time::timeout;

use super::Shared;
use super::socket::{End, Outcome, say, text_of};
use crate::protocol::{AUTHENTICATE_WITHIN, ClientMessage, Close, ErrorCode, ServerMessage, rfc3339};
use crate::seats::UserSeat;

/// Verifies the handshake's token, or the one the first message brings in time.
pub(super) async fn authenticate(
    shared: &Shared,
    socket: &mut WebSocket,
    token: Option<String>,
) -> Outcome<(Claims, UserSeat)> {
    const LATE: End = End::Close(Close::Unauthenticated, "not authenticated in time");
    // What the client may take; the verifier has limits of its own.
    let token = match token {
        Some(token) => token,
        None => timeout(AUTHENTICATE_WITHIN, first_token(shared, socket))
            .await
            .unwrap_or(Err(LATE))?,
    };
    let claims = verify(shared, socket, &token).await?;
    let Some(seat) = shared.seats.user(&claims.subject) else {
        let message = "too many connections of this user";
        say(
            socket,
            &ServerMessage::Error {
                code: ErrorCode::Limit,
                message,
            },
        )
        .await?;
        return Err(End::Close(Close::Policy, message));
    };
    say(
        socket,
        &ServerMessage::Authenticated {
            expires_at: rfc3339(claims.expires_at),
        },
    )
    .await?;
    Ok((claims, seat))
}

pub(super) async fn first_token(shared: &Shared, socket: &mut WebSocket) -> Outcome<String> {
    loop {
        let message = tokio::select! {
            message = socket.recv() => message,
            () = shared.stop.cancelled() => return Err(End::Close(Close::Stopping, "the server stops")),
        };
        let Some(text) = text_of(message)? else { continue };
        return match serde_json::from_str(&text) {
            Ok(ClientMessage::Authenticate { token }) => Ok(token),
            _ => {
                let message = "the first message must be authenticate";
                say(
                    socket,
                    &ServerMessage::Error {
                        code: ErrorCode::Unauthenticated,
                        message,
                    },
                )
                .await?;
                Err(End::Close(Close::Unauthenticated, message))
            }
        };
    }
}

pub(super) async fn verify(shared: &Shared, socket: &mut WebSocket, token: &str) -> Outcome<Claims> {
    let outcome = shared.verifier.verify(token).await.and_then(|claims| {
        // The verifier allows for clocks that differ; a connection does not begin after its own end.
        if claims.expires_at <= Utc::now() {
            Err(AuthError::Expired)
        } else {
            Ok(claims)
        }
    });
    match outcome {
        Ok(claims) => Ok(claims),
        Err(error) => {
            shared.metrics.refused_tokens.inc();
            let (code, close) = match error {
                AuthError::Unavailable => (ErrorCode::Unavailable, Close::TryAgain),
                _ => (ErrorCode::Unauthenticated, Close::Unauthenticated),
            };
            say(
                socket,
                &ServerMessage::Error {
                    code,
                    message: &error.to_string(),
                },
            )
            .await?;
            Err(End::Close(close, "the access token is not accepted"))
        }
    }
}
