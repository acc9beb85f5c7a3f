//! What energy-ws is compared with: tokio-tungstenite and a tokio broadcast channel, nothing else. No Kafka, no tokens,
//! no scopes, no filters, no cursors, no limits. The messages are as long as those of energy-ws.
//!
//! There are two of them. The plain one sends message by message, as every example does: one write to the socket each.
//! The gathering one feeds what is there and flushes once, as energy-ws does; it is the harder one to keep up with.

use anyhow::{Context, Result};
use futures_util::SinkExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use crate::{CROWD, ROUND_RECORDS, world};

/// The one byte that asks for a round; no HTTP request begins with it.
const BEGIN: u8 = 0;

/// Messages the gathering one feeds before it flushes, as many as energy-ws.
const GATHERED: usize = 256;

/// Serves on the address in `BARE_ADDRESS` until it is killed.
pub async fn serve() -> Result<()> {
    world::allow_open_files()?;
    let address = std::env::var("BARE_ADDRESS").context("BARE_ADDRESS is not set")?;
    let listener = TcpListener::bind(&address).await?;
    let gathers = std::env::var_os("BARE_GATHERS").is_some();
    let (sender, _) = broadcast::channel::<Utf8Bytes>(ROUND_RECORDS);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let sender = sender.clone();
        tokio::spawn(async move {
            if let Err(error) = connection(stream, sender, gathers).await {
                eprintln!("bare: a connection ended: {error:#}");
            }
        });
    }
}

async fn connection(
    mut stream: TcpStream,
    sender: broadcast::Sender<Utf8Bytes>,
    gathers: bool,
) -> Result<()> {
    let mut first = [BEGIN + 1];
    stream.peek(&mut first).await?;
    if first[0] == BEGIN {
        // The trigger: one byte a round.
        while stream.read_exact(&mut first).await.is_ok() {
            anyhow::ensure!(sender.receiver_count() == CROWD, "not every client is there");
            for number in 0..ROUND_RECORDS {
                let _receivers = sender.send(world::message(number).into())?;
            }
        }
        return Ok(());
    }
    let mut receiver = sender.subscribe();
    let mut socket = accept_async(stream).await?;
    loop {
        let message = receiver.recv().await.context("the channel")?;
        if !gathers {
            socket.send(Message::Text(message)).await?;
            continue;
        }
        socket.feed(Message::Text(message)).await?;
        for _ in 1..GATHERED {
            let Ok(message) = receiver.try_recv() else { break };
            socket.feed(Message::Text(message)).await?;
        }
        socket.flush().await?;
    }
}

/// Asks for a round.
pub async fn begin(trigger: &mut TcpStream) -> Result<()> {
    Ok(trigger.write_all(&[BEGIN]).await?)
}
