//! A TCP link that can be cut, slowed and left half open.

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    time::sleep,
};

/// The state of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Everything passes.
    Open,
    /// Nothing connects, and what was connected is reset.
    Cut,
    /// Some kilobytes a second pass.
    Slow,
    /// Connections stand and nothing passes; what was sent is delivered when the link is open again.
    HalfOpen,
}

/// Passed at a time on a slow link, followed by `SLOW_PAUSE`: 40 KiB a second.
const SLOW_BYTES: usize = 2048;
const SLOW_PAUSE: Duration = Duration::from_millis(50);

/// A link that listens and passes on.
#[derive(Debug)]
pub struct Link {
    state: watch::Sender<State>,
}

impl Link {
    /// A link from `listen` to `target`. It lives as long as the runtime.
    ///
    /// # Errors
    /// When `listen` cannot be bound.
    pub async fn start(listen: SocketAddr, target: SocketAddr) -> Result<Link> {
        let listener = TcpListener::bind(listen).await?;
        let (state, watch) = watch::channel(State::Open);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let watch = watch.clone();
                tokio::spawn(async move {
                    // A connection that ends has ended; both sides see it.
                    let _ended = pass(stream, target, watch).await;
                });
            }
        });
        Ok(Link { state })
    }

    /// Changes the state, of what is connected as well.
    pub fn set(&self, state: State) {
        self.state.send_replace(state);
    }
}

async fn pass(near: TcpStream, target: SocketAddr, state: watch::Receiver<State>) -> Result<()> {
    if *state.borrow() == State::Cut {
        return Ok(());
    }
    let far = TcpStream::connect(target).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (near_reader, near_writer) = near.into_split();
    let (far_reader, far_writer) = far.into_split();
    let mut cut = state.clone();
    tokio::select! {
        _ = copy(near_reader, far_writer, state.clone()) => {}
        _ = copy(far_reader, near_writer, state) => {}
        _ = cut.wait_for(|state| *state == State::Cut) => {}
    }
    Ok(())
}

async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
) -> Result<()> {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let most = if *state.borrow() == State::Slow {
            SLOW_BYTES
        } else {
            bytes.len()
        };
        let read = from.read(&mut bytes[..most]).await?;
        if read == 0 {
            return Ok(());
        }
        state.wait_for(|state| *state != State::HalfOpen).await?;
        if *state.borrow() == State::Slow {
            sleep(SLOW_PAUSE).await;
        }
        to.write_all(&bytes[..read]).await?;
    }
}
