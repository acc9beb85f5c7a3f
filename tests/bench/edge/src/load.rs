//! Publishers: MQTT 3.1.1 at QoS 1, written out, because a client library would cost more than the broker that is measured.
//!
//! Every frame has 300 bytes and a number of its own, so it can be found again at the far end. Nothing is resent: a client
//! whose connection ends is done, and says what had been acknowledged by then.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

/// Bytes of a frame.
pub const FRAME_BYTES: usize = 300;
/// Messages a client has on their way at most.
const WINDOW: usize = 32;
/// Packet ids a client uses; more than are ever on their way.
const PACKET_IDS: u64 = 1_024;
/// A broker that says nothing for this long is not measured any further.
const PATIENCE: Duration = Duration::from_secs(30);
/// Numbers of frames have nine digits from the first on.
pub const FIRST: u64 = 100_000_000;

/// What is published.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// Clients at a time.
    pub clients: u64,
    /// Messages of each.
    pub each: u64,
    /// Messages a second of all clients together; as fast as they are acknowledged without it.
    pub rate: Option<f64>,
    /// Distinguishes the devices of one measurement from another's.
    pub name: &'a str,
}

/// What became of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// From the first publish to the last acknowledgement.
    pub took: Duration,
    /// Publish to PUBACK, sorted.
    pub latencies: Vec<Duration>,
    /// Acknowledged: the client's device and the frame's number.
    pub acknowledged: Vec<(String, u64)>,
}

impl Outcome {
    /// Milliseconds within which this share of the publishes was acknowledged.
    pub fn percentile_ms(&self, share: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let place = (last as f64 * share).round() as usize;
        self.latencies
            .get(place)
            .map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
    }
}

/// Connects every client, then publishes.
///
/// # Errors
/// When a client is not let in.
pub async fn run(broker: SocketAddr, plan: Plan<'_>) -> Result<Outcome> {
    publish(connect(broker, plan).await?, plan).await
}

/// Connects every client.
///
/// # Errors
/// When one is not let in.
pub async fn connect(broker: SocketAddr, plan: Plan<'_>) -> Result<Vec<Client>> {
    let mut connections = Vec::new();
    for n in 0..plan.clients {
        connections.push(Client::connect(broker, format!("shellypro3em-{}{n:03}", plan.name)).await?);
    }
    Ok(connections)
}

/// Publishes, each client as it is told, until all is acknowledged or its connection ends.
///
/// # Errors
/// When a client panics.
pub async fn publish(connections: Vec<Client>, plan: Plan<'_>) -> Result<Outcome> {
    let begin = Instant::now();
    let pause = plan
        .rate
        .map(|rate| Duration::from_secs_f64(plan.clients as f64 / rate));
    let tasks: Vec<_> = connections
        .into_iter()
        .enumerate()
        .map(|(n, client)| {
            // Paced clients take turns: a house does not speak all at once.
            let offset = pause.map(|pause| pause.mul_f64(n as f64 / plan.clients as f64));
            tokio::spawn(client.publish(plan.each, pause, offset.unwrap_or_default()))
        })
        .collect();
    let mut outcome = Outcome::default();
    for task in tasks {
        let (device, acknowledged, latencies) = task.await?;
        outcome.latencies.extend(latencies);
        outcome
            .acknowledged
            .extend(acknowledged.into_iter().map(|n| (device.clone(), n)));
    }
    outcome.took = begin.elapsed();
    outcome.latencies.sort_unstable();
    Ok(outcome)
}

/// A connected client.
pub struct Client {
    device: String,
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
}

impl Client {
    async fn connect(broker: SocketAddr, device: String) -> Result<Client> {
        let stream = TcpStream::connect(broker).await?;
        stream.set_nodelay(true)?;
        let (mut reader, mut writer) = stream.into_split();
        let mut packet = vec![0x10, 0, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0];
        text(&mut packet, &device);
        packet[1] = u8::try_from(packet.len() - 2).context("a short name")?;
        writer.write_all(&packet).await?;
        let mut answer = [0; 4];
        timeout(PATIENCE, reader.read_exact(&mut answer)).await??;
        ensure!(answer == [0x20, 2, 0, 0], "CONNECT was refused: {answer:?}");
        Ok(Client {
            device,
            reader,
            writer,
        })
    }

    async fn publish(
        mut self,
        count: u64,
        pause: Option<Duration>,
        offset: Duration,
    ) -> (String, Vec<u64>, Vec<Duration>) {
        let mut acknowledged = Vec::with_capacity(count as usize);
        let mut latencies = Vec::new();
        // How it ends does not matter: what was acknowledged counts.
        let _ = self
            .exchange(count, pause, offset, &mut acknowledged, &mut latencies)
            .await;
        (self.device, acknowledged, latencies)
    }

    async fn exchange(
        &mut self,
        count: u64,
        pause: Option<Duration>,
        offset: Duration,
        acknowledged: &mut Vec<u64>,
        latencies: &mut Vec<Duration>,
    ) -> Result<()> {
        let mut packet = Packet::new(&self.device);
        let mut sent_at = vec![Instant::now(); PACKET_IDS as usize];
        let (mut sent, mut settled) = (0, 0);
        let mut due = tokio::time::Instant::now() + offset;
        let mut bytes = Vec::with_capacity(WINDOW * (FRAME_BYTES + 64));
        let mut input = [0_u8; 1024];
        let mut kept = 0;
        while settled < count {
            bytes.clear();
            while sent < count
                && sent - settled < WINDOW as u64
                && (pause.is_none() || due <= tokio::time::Instant::now())
            {
                sent_at[(sent % PACKET_IDS) as usize] = Instant::now();
                bytes.extend_from_slice(packet.numbered(sent));
                sent += 1;
                due += pause.unwrap_or_default();
            }
            if !bytes.is_empty() {
                self.writer.write_all(&bytes).await?;
            }
            let waits = pause.is_some() && sent < count;
            tokio::select! {
                read = self.reader.read(&mut input[kept..]) => {
                    let read = read?;
                    ensure!(read > 0, "the connection ended");
                    let filled = kept + read;
                    let whole = filled - filled % 4;
                    for answer in input[..whole].chunks_exact(4) {
                        ensure!(answer[0] == 0x40, "an answer that is no PUBACK");
                        let pkid = u64::from(u16::from_be_bytes([answer[2], answer[3]])) - 1;
                        // The latest number with that packet id.
                        let n = (sent - 1) - ((sent - 1) + PACKET_IDS - pkid) % PACKET_IDS;
                        acknowledged.push(FIRST + n);
                        latencies.push(sent_at[pkid as usize].elapsed());
                        settled += 1;
                    }
                    input.copy_within(whole..filled, 0);
                    kept = filled - whole;
                }
                () = tokio::time::sleep_until(due), if waits => {}
                () = tokio::time::sleep(PATIENCE), if !waits => anyhow::bail!("no answer"),
            }
        }
        Ok(())
    }
}

/// A PUBLISH whose number and packet id are written over for each message.
struct Packet {
    bytes: Vec<u8>,
    pkid_at: usize,
    number_at: usize,
}

impl Packet {
    fn new(device: &str) -> Packet {
        let frame = frame(device);
        let topic = format!("{device}/events/rpc");
        let length = 2 + topic.len() + 2 + frame.len();
        let mut bytes = vec![0x32, (length % 128) as u8 | 0x80, (length / 128) as u8];
        text(&mut bytes, &topic);
        let pkid_at = bytes.len();
        bytes.extend_from_slice(&[0, 0]);
        let digits = frame.find(&FIRST.to_string()).expect("the frame has a number");
        let number_at = bytes.len() + digits;
        bytes.extend_from_slice(frame.as_bytes());
        Packet {
            bytes,
            pkid_at,
            number_at,
        }
    }

    fn numbered(&mut self, n: u64) -> &[u8] {
        let pkid = u16::try_from(n % PACKET_IDS + 1).expect("packet ids are few");
        self.bytes[self.pkid_at..self.pkid_at + 2].copy_from_slice(&pkid.to_be_bytes());
        let mut rest = FIRST + n;
        for digit in self.bytes[self.number_at..self.number_at + 9].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        &self.bytes
    }
}

/// Counters of a three-phase meter, filled up to the size of a usual frame.
fn frame(device: &str) -> String {
    let mut frame = format!(
        "{{\"src\":\"{device}\",\"dst\":\"{device}/events\",\"method\":\"NotifyStatus\",\"params\":{{\"ts\":1767254460.00,\
         \"emdata:0\":{{\"id\":0,\"a_total_act_energy\":1201.5,\"b_total_act_energy\":8812.2,\"total_act\":{FIRST},\"total_act_ret\":33.4,\"x\":\""
    );
    while frame.len() < FRAME_BYTES - 4 {
        frame.push('.');
    }
    frame.push_str("\"}}}");
    frame
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(&u16::try_from(text.len()).expect("names are short").to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_its_size_and_its_number() {
        let frame = frame("shellypro3em-rate007");
        assert_eq!(frame.len(), FRAME_BYTES);
        let mut packet = Packet::new("shellypro3em-rate007");
        let text = String::from_utf8_lossy(packet.numbered(41)).into_owned();
        assert!(text.contains("\"total_act\":100000041,"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&frame).unwrap();
        assert_eq!(json["params"]["emdata:0"]["total_act"], FIRST);
    }
}
