//! What the buffer costs the disk and how fast it is, without broker and Kafka: one line of JSON.
//!
//! `cargo run --release --example buffer-disk [folder]`. Bytes written are `write_bytes` of this process, removals included.
//! Frames are those of a three-phase meter, about 300 bytes, as the intake would keep them.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use edge_agent::{
    buffer::{Append, Buffer, Limits, Sequence},
    clock::{SegmentId, Stamp},
    message::{Body, Message},
    redelivery::{Attempt, Redeliveries, Verdict},
};

/// Publishers of the load, each with its own topic.
const CLIENTS: u64 = 50;
const RATE: u64 = 5_000;
const RATE_SECONDS: u64 = 20;
const ALONE: u64 = 50;
const BACKLOG: u64 = 1_000_000;
const LISTENS: &str = "whoever appends waits for the answer";

struct Load {
    known: Redeliveries,
    sent: u64,
    payload_bytes: u64,
}

impl Load {
    fn next(&mut self, done: impl FnOnce(Sequence) + Send + 'static) -> Append {
        self.sent += 1;
        let n = self.sent;
        let client = n % CLIENTS;
        let noise = |k: u64| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (8 + k)) % 10_000;
        let payload = format!(
            "{{\"src\":\"shellypro3em-34987a45dc{client:02}\",\"dst\":\"shellypro3em-34987a45dc{client:02}/events\",\
             \"method\":\"NotifyStatus\",\"params\":{{\"ts\":{}.{:02},\"em:0\":{{\"id\":0,\"a_current\":{}.{:03},\
             \"a_voltage\":231.{},\"a_act_power\":{}.{},\"a_aprt_power\":{}.1,\"a_pf\":0.84,\"a_freq\":50.0,\
             \"b_current\":4.{:03},\"b_voltage\":230.{},\"b_act_power\":{}.5,\"total_act_power\":{}.{}}}}}}}",
            1_767_254_412 + n / 100,
            n % 100,
            noise(1) % 9,
            noise(2) % 1000,
            noise(3) % 10,
            noise(4),
            noise(5) % 10,
            noise(6),
            noise(7) % 1000,
            noise(8) % 10,
            noise(9),
            noise(10),
            noise(11) % 100
        );
        self.payload_bytes += payload.len() as u64;
        let topic = format!("shellypro3em-34987a45dc{client:02}/events/rpc");
        let name = format!("shellypro3em-34987a45dc{client:02}");
        let attempt = Attempt {
            client: &name,
            pkid: (n / CLIENTS % 60_000) as u16 + 1,
            dup: false,
        };
        let Verdict::New { side, fate } =
            self.known
                .judge(Some(attempt), &topic, payload.as_bytes(), Some(n as i64))
        else {
            unreachable!("every frame is another one")
        };
        let message = Message {
            identity: None,
            stamp: Stamp {
                segment: SegmentId(1),
                monotonic_us: n * 200,
                synced: true,
            },
            topic,
            body: Body::Payload(payload.into()),
        };
        Append {
            bytes: message.encode(),
            side,
            line: None,
            reserved: false,
            done: Box::new(move |outcome| {
                let sequence = outcome.expect("the disk takes it");
                fate.settle(true);
                done(sequence);
            }),
        }
    }
}

fn main() -> Result<()> {
    let folder = std::env::args()
        .nth(1)
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = folder.join(format!("buffer-disk-{}", std::process::id()));
    let mut load = Load {
        known: Redeliveries::load(Vec::new()),
        sent: 0,
        payload_bytes: 0,
    };

    let buffer = Buffer::open(&dir, limits())?;
    let alone_kib = alone(&buffer, &mut load)?;
    let (amplification, p50, p99) = steady(&buffer, &mut load)?;
    let fill = Instant::now();
    backlog(&buffer, &mut load)?;
    let fill_per_s = BACKLOG as f64 / fill.elapsed().as_secs_f64();
    let disk_mib = buffer.stats().bytes_on_disk >> 20;
    buffer.close();
    drop(buffer);
    let open = Instant::now();
    let buffer = Buffer::open(&dir, limits())?;
    let open_s = open.elapsed().as_secs_f64();
    let before = written()?;
    let drain = Instant::now();
    let drained = drain_all(&buffer)?;
    let drain_per_s = drained as f64 / drain.elapsed().as_secs_f64();
    let drain_mib = (written()? - before) >> 20;
    let peak_mib = peak_rss()? >> 10;
    buffer.close();
    let line = serde_json::json!({
        "alone_kib": alone_kib, "write_amplification": amplification, "commit_p50_ms": p50, "commit_p99_ms": p99,
        "fill_per_s": fill_per_s, "backlog_disk_mib": disk_mib, "open_s": open_s, "drained": drained,
        "drain_per_s": drain_per_s, "drain_written_mib": drain_mib, "peak_rss_mib": peak_mib,
    });
    writeln!(std::io::stdout(), "{line}")?;
    std::fs::remove_dir_all(&dir).context("removing the bench's buffer")
}

fn limits() -> Limits {
    Limits {
        max_bytes: 4 << 30,
        commit_interval: Duration::from_millis(2),
        commit_bytes: 32 * 1024,
        when_full: Default::default(),
    }
}

/// A house at night: a message, its delivery, and time enough for everything that follows.
fn alone(buffer: &Buffer, load: &mut Load) -> Result<f64> {
    let before = written()?;
    for _ in 0..ALONE {
        let (sender, receiver) = mpsc::channel();
        append(
            buffer,
            load.next(move |sequence| sender.send(sequence).expect(LISTENS)),
        );
        let sequence = receiver.recv()?;
        buffer.remove_before(sequence.next());
        std::thread::sleep(Duration::from_millis(200));
    }
    std::thread::sleep(Duration::from_secs(3));
    Ok((written()? - before) as f64 / 1024.0 / ALONE as f64)
}

/// 5,000 messages a second, each removed soon after it was committed.
fn steady(buffer: &Buffer, load: &mut Load) -> Result<(f64, f64, f64)> {
    let (before, payload_before) = (written()?, load.payload_bytes);
    let (sender, receiver) = mpsc::channel::<(Sequence, Duration)>();
    let begin = Instant::now();
    let mut waits = Vec::new();
    for tick in 0..RATE_SECONDS * 1_000 {
        for _ in 0..RATE / 1_000 {
            let (sender, at) = (sender.clone(), Instant::now());
            append(
                buffer,
                load.next(move |sequence| sender.send((sequence, at.elapsed())).expect(LISTENS)),
            );
        }
        let mut last = None;
        while let Ok((sequence, wait)) = receiver.try_recv() {
            waits.push(wait);
            last = Some(sequence);
        }
        if let Some(last) = last {
            buffer.remove_before(last.next());
        }
        std::thread::sleep(
            (begin + Duration::from_millis(tick + 1)).saturating_duration_since(Instant::now()),
        );
    }
    std::thread::sleep(Duration::from_secs(2));
    waits.sort_unstable();
    let at = |share: f64| waits[(waits.len() as f64 * share) as usize].as_secs_f64() * 1e3;
    let amplification = (written()? - before) as f64 / (load.payload_bytes - payload_before) as f64;
    Ok((amplification, at(0.5), at(0.99)))
}

fn backlog(buffer: &Buffer, load: &mut Load) -> Result<()> {
    let (sender, receiver) = mpsc::channel();
    for _ in 0..BACKLOG {
        let sender = sender.clone();
        append(
            buffer,
            load.next(move |sequence| sender.send(sequence).expect(LISTENS)),
        );
    }
    drop(sender);
    anyhow::ensure!(
        receiver.iter().count() as u64 == BACKLOG,
        "not everything was committed"
    );
    Ok(())
}

fn drain_all(buffer: &Buffer) -> Result<u64> {
    let mut next = buffer.head();
    let mut drained = 0;
    loop {
        let batch = buffer.read(next, 256 * 1024)?;
        drained += batch.entries.len() as u64;
        match batch.next {
            Some(after) if after > next => next = after,
            _ => return Ok(drained),
        }
        buffer.remove_before(next);
    }
}

fn append(buffer: &Buffer, mut append: Append) {
    while let Err(back) = buffer.try_append(append) {
        append = back;
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn written() -> Result<u64> {
    field(Path::new("/proc/self/io"), "write_bytes:")
}

fn peak_rss() -> Result<u64> {
    field(Path::new("/proc/self/status"), "VmHWM:")
}

fn field(file: &Path, name: &str) -> Result<u64> {
    let text = std::fs::read_to_string(file)?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .context("a line of /proc")?;
    Ok(line.trim().split(' ').next().context("a number")?.parse()?)
}
