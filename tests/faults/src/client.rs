//! A device's client: it keeps what was not acknowledged across reconnects and sends it again, first and in order.

use std::{
    collections::{HashSet, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, tcp::OwnedWriteHalf},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    fleet::{Device, Kind},
    ledger::Ledger,
    packet::{self, Incoming, Packet},
};

/// Connecting, and writing one packet.
const STEP_WITHIN: Duration = Duration::from_secs(5);
/// A client that hears nothing for this long while it waits for an answer tries another connection.
const PATIENCE: Duration = Duration::from_secs(3);
/// Pause before another attempt to connect, at most.
const RETRY_MS: u64 = 60;

/// What clients are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Publish.
    Publish,
    /// Nothing new: end when everything is settled.
    Settle,
}

/// Lets the clients end: nothing new is published, and each waits until it knows what became of its messages.
///
/// # Errors
/// When they do not know within that time.
pub async fn settle<T: 'static>(
    task: &watch::Sender<Task>,
    clients: &mut JoinSet<T>,
    within: Duration,
) -> Result<()> {
    task.send_replace(Task::Settle);
    let settled = timeout(within, async { while clients.join_next().await.is_some() {} });
    let outcome = settled.await;
    outcome.with_context(|| {
        format!(
            "{} clients are not told what became of their messages",
            clients.len()
        )
    })
}

/// A message that is not settled.
struct Waiting {
    n: u64,
    pkid: u16,
    payload: Vec<u8>,
    /// PUBREC was read: only PUBREL is missing.
    received: bool,
}

/// A client that runs.
pub struct Client {
    device: Device,
    agent: SocketAddr,
    ledger: Arc<Ledger>,
    task: watch::Receiver<Task>,
    waiting: VecDeque<Waiting>,
    next: u64,
    last_pkid: u16,
}

impl Client {
    /// A client that publishes to the agent at `agent`.
    pub fn new(device: Device, agent: SocketAddr, ledger: Arc<Ledger>, task: watch::Receiver<Task>) -> Self {
        Self {
            device,
            agent,
            ledger,
            task,
            waiting: VecDeque::new(),
            next: 1,
            last_pkid: 0,
        }
    }

    /// Publishes until it is told to settle, and then until all is settled.
    pub async fn run(mut self) {
        // How a connection ends is nobody's concern: that is what is being tried.
        while self.connection().await.is_err() {
            sleep(Duration::from_millis(rand::random_range(1..=RETRY_MS))).await;
        }
    }

    fn is_done(&self) -> bool {
        *self.task.borrow() == Task::Settle && self.waiting.is_empty()
    }

    /// Ends well only when everything is settled.
    async fn connection(&mut self) -> Result<()> {
        if self.is_done() {
            return Ok(());
        }
        let stream = timeout(STEP_WITHIN, TcpStream::connect(self.agent)).await??;
        stream.set_nodelay(true)?;
        let (mut reader, mut writer) = stream.into_split();
        let mut incoming = Incoming::default();
        write(
            &mut writer,
            &packet::connect(&self.device.name, self.device.clean),
        )
        .await?;
        let first = timeout(STEP_WITHIN, incoming.next(&mut reader)).await??;
        ensure!(matches!(first, Packet::ConnAck { .. }), "CONNACK comes first");
        self.resend(&mut writer).await?;

        let mut due = Instant::now();
        let mut heard = Instant::now();
        while !self.is_done() {
            let may_publish = *self.task.borrow() == Task::Publish && self.waiting.len() < self.device.window;
            let waits = !self.waiting.is_empty();
            tokio::select! {
                packet = incoming.next(&mut reader) => {
                    heard = Instant::now();
                    self.take(packet?, &mut writer).await?;
                }
                () = sleep_until(due), if may_publish => {
                    if self.waiting.is_empty() {
                        heard = Instant::now();
                    }
                    due = Instant::now() + Duration::from_millis(rand::random_range(0..=2 * self.device.pause_ms));
                    self.publish(&mut writer).await?;
                }
                () = sleep_until(heard + PATIENCE), if waits => anyhow::bail!("no answer"),
                changed = self.task.changed() => changed.context("the run is over")?,
            }
        }
        Ok(())
    }

    async fn resend(&mut self, writer: &mut OwnedWriteHalf) -> Result<()> {
        let as_new = self.device.kind == Kind::Plug;
        if self.device.clean {
            // A session that is gone knows no PUBREL; the message is in the broker's hands.
            self.waiting.retain(|waiting| !waiting.received);
        }
        if as_new {
            for place in 0..self.waiting.len() {
                let pkid = self.free_pkid();
                self.waiting[place].pkid = pkid;
            }
        }
        let topic = self.device.topic();
        for waiting in &self.waiting {
            let bytes = if waiting.received {
                packet::pubrel(waiting.pkid)
            } else {
                packet::publish(&topic, &waiting.payload, self.device.qos, waiting.pkid, !as_new)
            };
            write(writer, &bytes).await?;
        }
        Ok(())
    }

    async fn publish(&mut self, writer: &mut OwnedWriteHalf) -> Result<()> {
        let n = self.next;
        self.next += 1;
        let pkid = self.free_pkid();
        let payload = self.device.payload(n);
        self.ledger.sending(&self.device.name, n);
        let bytes = packet::publish(&self.device.topic(), &payload, self.device.qos, pkid, false);
        self.waiting.push_back(Waiting {
            n,
            pkid,
            payload,
            received: false,
        });
        write(writer, &bytes).await
    }

    fn free_pkid(&mut self) -> u16 {
        let used: HashSet<u16> = self.waiting.iter().map(|waiting| waiting.pkid).collect();
        loop {
            self.last_pkid = self.last_pkid % self.device.pkids + 1;
            if !used.contains(&self.last_pkid) {
                return self.last_pkid;
            }
        }
    }

    async fn take(&mut self, packet: Packet, writer: &mut OwnedWriteHalf) -> Result<()> {
        let place = |pkid: u16, of: &VecDeque<Waiting>| of.iter().position(|waiting| waiting.pkid == pkid);
        match packet {
            Packet::PubAck(pkid) => {
                let place = place(pkid, &self.waiting).context("a PUBACK nobody waits for")?;
                if let Some(settled) = self.waiting.remove(place) {
                    self.ledger.acknowledged(&self.device.name, settled.n);
                }
            }
            Packet::PubRec(pkid) => {
                if let Some(place) = place(pkid, &self.waiting) {
                    self.waiting[place].received = true;
                    self.ledger.acknowledged(&self.device.name, self.waiting[place].n);
                }
                write(writer, &packet::pubrel(pkid)).await?;
            }
            Packet::PubComp(pkid) => {
                if let Some(place) = place(pkid, &self.waiting) {
                    self.waiting.remove(place);
                }
            }
            other => anyhow::bail!("a device is told what it did not ask for: {other:?}"),
        }
        Ok(())
    }
}

async fn write(writer: &mut OwnedWriteHalf, bytes: &[u8]) -> Result<()> {
    timeout(STEP_WITHIN, writer.write_all(bytes))
        .await?
        .context("writing")
}
