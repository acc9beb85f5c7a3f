//! A client of energy-ws, as docs/API.md describes one.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Messages kept for a later question; a test that lets more pass has lost its way.
const BACKLOG_LIMIT: usize = 10_000;

/// An authenticated connection.
#[derive(Debug)]
pub struct Live {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    backlog: VecDeque<Value>,
}

impl Live {
    /// Connects and authenticates through the list of protocols, so that the token is in no URL.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn connect(url: &str, token: &str) -> Result<Live> {
        let mut request = url.into_client_request()?;
        request.headers_mut().insert(
            "sec-websocket-protocol",
            format!("homelab.v1, bearer.{token}").parse()?,
        );
        let (socket, answer) = connect_async(request)
            .await
            .context("energy-ws refuses the connection")?;
        let protocol = answer
            .headers()
            .get("sec-websocket-protocol")
            .map(|value| value.as_bytes());
        anyhow::ensure!(
            protocol == Some(b"homelab.v1"),
            "energy-ws selected the protocol {protocol:?}"
        );
        let mut live = Live {
            socket,
            backlog: VecDeque::new(),
        };
        live.message(ANSWER_WITHIN, |message| message["type"] == "authenticated")
            .await?;
        Ok(live)
    }

    /// Subscribes and waits until that is confirmed.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn subscribe(&mut self, streams: &[&str]) -> Result<Value> {
        self.send(&json!({"type": "subscribe", "streams": streams}))
            .await?;
        self.message(ANSWER_WITHIN, |message| message["type"] == "subscribed")
            .await
    }

    /// Sends any message.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn send(&mut self, message: &Value) -> Result<()> {
        Ok(self.socket.send(Message::text(message.to_string())).await?)
    }

    /// The `data` part of the first data message that `wanted` takes, among those not asked for before.
    ///
    /// # Errors
    /// When none comes in time.
    pub async fn data(&mut self, within: Duration, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let message = self
            .message(within, |message| {
                message["type"] == "data" && wanted(&message["data"])
            })
            .await?;
        Ok(message["data"].clone())
    }

    /// The first message that `wanted` takes, among those not asked for before; others are kept for later questions. An
    /// `error` message nobody asked for ends the wait.
    ///
    /// # Errors
    /// When none comes in time.
    pub async fn message(&mut self, within: Duration, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        if let Some(place) = self.backlog.iter().position(&wanted)
            && let Some(message) = self.backlog.remove(place)
        {
            return Ok(message);
        }
        let deadline = Instant::now() + within;
        loop {
            let next = timeout_at(deadline, self.socket.next()).await;
            let Ok(next) = next else {
                bail!("energy-ws did not send it within {} s", within.as_secs())
            };
            match next.context("energy-ws ended the connection")?? {
                Message::Text(text) => {
                    let message: Value = serde_json::from_str(&text)?;
                    if wanted(&message) {
                        return Ok(message);
                    }
                    if message["type"] == "error" {
                        bail!("energy-ws answers {message}");
                    }
                    self.backlog.push_back(message);
                    anyhow::ensure!(
                        self.backlog.len() < BACKLOG_LIMIT,
                        "too many messages that nobody asked for"
                    );
                }
                Message::Close(frame) => bail!("energy-ws closed the connection: {frame:?}"),
                _ => {}
            }
        }
    }
}
