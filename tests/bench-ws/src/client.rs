//! Clients: connected and subscribed by tokio-tungstenite; then either every frame's delay, or a bare count of frames
//! that costs as little as it can, so that the server's share of the processors is what is compared.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::{SinkExt, StreamExt};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

/// What a client reads at once.
const READ_BYTES: usize = 64 * 1024;
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
const ALL_STREAMS: &str =
    r#"{"type":"subscribe","streams":["energy","temperature","heatpump","plug","events"]}"#;
/// What stands before a record's name in its message.
const ID: &str = "\"id\":\"p0/bench/";

/// A client of energy-ws.
pub struct Client(WebSocketStream<TcpStream>);

impl Client {
    /// Connects, authenticates and subscribes to all streams.
    pub async fn connect(address: SocketAddr, token: &str) -> Result<Client> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut request = format!("ws://{address}/ws/energy").into_client_request()?;
        let protocols = format!("homelab.v1, bearer.{token}").parse()?;
        request.headers_mut().insert("sec-websocket-protocol", protocols);
        let (mut socket, _) = client_async(request, stream).await?;
        expect(&mut socket, "authenticated").await?;
        socket.send(Message::text(ALL_STREAMS)).await?;
        expect(&mut socket, "subscribed").await?;
        Ok(Client(socket))
    }

    /// Reads `count` records and says how old each was, in microseconds; `epoch` is what their ids count from.
    pub async fn delays(mut self, epoch: Instant, count: usize) -> Result<Vec<u64>> {
        let mut delays = Vec::with_capacity(count);
        while delays.len() < count {
            let message = self.0.next().await.context("the connection ended")??;
            let Message::Text(text) = message else { continue };
            let now_us = u64::try_from(epoch.elapsed().as_micros())?;
            let (_, rest) = text.split_once(ID).context("a record of ours")?;
            let (sent_us, _) = rest.split_once('"').context("a whole id")?;
            delays.push(now_us - sent_us.parse::<u64>()?);
        }
        Ok(delays)
    }

    /// The connection without tungstenite; nothing must be under way.
    pub fn into_frames(self) -> Frames {
        Frames::new(self.0.into_inner())
    }
}

async fn expect(socket: &mut WebSocketStream<TcpStream>, kind: &str) -> Result<()> {
    let answer = tokio::time::timeout(ANSWER_WITHIN, socket.next()).await;
    let message = answer.context("no answer")?.context("the connection ended")??;
    ensure!(
        message.to_text()?.starts_with(&format!("{{\"type\":\"{kind}\"")),
        "{message}"
    );
    Ok(())
}

/// A client of the bare broadcast.
pub async fn bare(address: SocketAddr) -> Result<Frames> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (socket, _) = client_async(format!("ws://{address}/"), stream).await?;
    Ok(Frames::new(socket.into_inner()))
}

/// Counts a server's frames.
pub struct Frames {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Bytes of the present frame that have not come yet.
    left: usize,
    /// The beginning of a frame's head.
    head: Vec<u8>,
}

impl Frames {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            buffer: vec![0; READ_BYTES],
            left: 0,
            head: Vec::new(),
        }
    }

    /// Reads `count` text frames; the first of any client sets `first`.
    pub async fn read(&mut self, count: usize, first: &OnceLock<Instant>) -> Result<()> {
        let mut seen = 0;
        while seen < count || self.left > 0 {
            let got = self.stream.read(&mut self.buffer).await?;
            ensure!(got > 0, "the connection ended after {seen} frames");
            first.get_or_init(Instant::now);
            seen += self.parse(got);
        }
        ensure!(seen == count, "{seen} frames instead of {count}");
        Ok(())
    }

    fn parse(&mut self, got: usize) -> usize {
        let (mut at, mut texts) = (0, 0);
        while at < got {
            let skip = self.left.min(got - at);
            self.left -= skip;
            at += skip;
            if at == got {
                break;
            }
            self.head.push(self.buffer[at]);
            at += 1;
            if let Some((opcode, length)) = head_of(&self.head) {
                self.head.clear();
                self.left = length;
                texts += usize::from(opcode == 1);
            }
        }
        texts
    }
}

/// Opcode and length, once the head is whole. Servers do not mask.
fn head_of(head: &[u8]) -> Option<(u8, usize)> {
    let [first, second, length @ ..] = head else {
        return None;
    };
    let length = match second {
        126 => usize::from(u16::from_be_bytes(length.try_into().ok()?)),
        127 => usize::try_from(u64::from_be_bytes(length.try_into().ok()?)).ok()?,
        short => usize::from(*short),
    };
    Some((first & 0x0f, length))
}
