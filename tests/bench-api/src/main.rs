//! `make bench-api`: what homelab-api makes of the database's speed. The same statements are asked by 8 connections, in turns,
//! through the service and by pgbench, against the same PostgreSQL in the same run; the result is one JSON line.
//!
//! It measures a ratio on this machine, never the speed of another one. The load is made by plain blocking sockets, one thread a
//! connection, so that the client costs little of what it measures.

use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use homelab_api::statements::{ENERGY_HISTORY, TEMPERATURE_HISTORY};
use serde_json::json;
use stack::issuer::{ALL_SCOPES, AUDIENCE, TestIssuer};
use stack::part::get_is_ok;
use stack::postgres::Postgres;
use stack::{guardian, port};
use tokio::process::Command;

/// As many as the service has connections to the database.
const CONNECTIONS: usize = 8;
/// Turns of each side, one after the other, so that a disturbance of the machine meets both.
const TURNS: usize = 3;
/// Length of a turn.
const TURN: Duration = Duration::from_secs(8);
/// A service that has not started by then does not.
const START_LIMIT: Duration = Duration::from_secs(30);

/// One answer and its statement.
struct Case {
    name: &'static str,
    path: String,
    /// With the values in place of the parameters, except the times.
    statement: String,
    from: String,
    to: String,
}

/// What one side did in all its turns.
#[derive(Default)]
struct Side {
    latencies_us: Vec<u64>,
    elapsed: Duration,
}

impl Side {
    fn add(&mut self, latencies_us: Vec<u64>, elapsed: Duration) {
        self.latencies_us.extend(latencies_us);
        self.elapsed += elapsed;
    }

    fn per_second(&self) -> f64 {
        self.latencies_us.len() as f64 / self.elapsed.as_secs_f64()
    }

    fn p99_ms(&mut self) -> f64 {
        self.latencies_us.sort_unstable();
        let index = (self.latencies_us.len() * 99).div_ceil(100).saturating_sub(1);
        self.latencies_us.get(index).copied().unwrap_or_default() as f64 / 1_000.0
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let run = guardian::run()?;
    let folder = run.data("bench-api")?;
    let postgres = Postgres::start(&run.data("postgres")?).await?;
    let now = Utc::now();
    fill(&postgres).await?;
    let issuer = TestIssuer::start().await?;
    let (public, admin) = (port::free()?, port::free()?);
    let binary = stack::binaries::root().join("target/release/homelab-api");
    let mut service = Command::new(&binary)
        .env_clear()
        .envs([
            ("DATABASE_URL", postgres.url("api", "telemetry")),
            ("OIDC_ISSUERS", issuer.url().to_owned()),
            ("OIDC_AUDIENCES", AUDIENCE.to_owned()),
            ("LISTEN_ADDRESS", public.to_string()),
            ("METRICS_ADDRESS", admin.to_string()),
            ("LOG_LEVEL", "warn".to_owned()),
        ])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| {
            format!(
                "cannot run {}: cargo build --release -p homelab-api",
                binary.display()
            )
        })?;
    let begin = Instant::now();
    while !get_is_ok(admin, "/readyz").await {
        ensure!(begin.elapsed() < START_LIMIT, "homelab-api is not ready");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let head = |path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nhost: {public}\r\nauthorization: Bearer {}\r\n\r\n",
            issuer.good(ALL_SCOPES)
        )
    };

    let mut results = Vec::new();
    for case in cases(now) {
        let (mut pgbench, mut api) = (Side::default(), Side::default());
        let mut answer_bytes = 0;
        for _ in 0..TURNS {
            let latencies = run_pgbench(&postgres, &folder, &case).await?;
            pgbench.add(latencies, TURN);
            let request = head(&case.path);
            let address = public.to_string();
            let (latencies, elapsed, bytes) =
                tokio::task::spawn_blocking(move || load(&address, &request)).await??;
            api.add(latencies, elapsed);
            answer_bytes = bytes;
        }
        let (ratio, p99) = (
            api.per_second() / pgbench.per_second(),
            api.p99_ms() / pgbench.p99_ms(),
        );
        let detail = json!({
            "pgbench_per_second": rounded(pgbench.per_second()), "api_per_second": rounded(api.per_second()),
            "pgbench_p99_ms": rounded(pgbench.p99_ms()), "api_p99_ms": rounded(api.p99_ms()),
            "pgbench_ratio": rounded(ratio), "p99_ratio": rounded(p99), "answer_bytes": answer_bytes,
        });
        results.push((case.name, ratio, p99, detail));
    }
    let pid = service.id().context("homelab-api has ended under load")?;
    let rss_mb = peak_rss_mb(pid)?;
    service.kill().await?;
    let [temperature, energy] = results.try_into().ok().context("two cases")?;
    let line = json!({
        "pgbench_ratio": rounded(temperature.1.min(energy.1)),
        "p99_ratio": rounded(temperature.2.max(energy.2)),
        "api_rss_mb": rounded(rss_mb),
        (temperature.0): temperature.3,
        (energy.0): energy.3,
        "connections": CONNECTIONS,
        "cores": std::thread::available_parallelism()?.get(),
    });
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

/// A sensor that reports every minute for two days, and a meter every 10 seconds for 30 days.
async fn fill(postgres: &Postgres) -> Result<()> {
    for statement in [
        "insert into temperature_sensors (device_id, time, id, agent, clock, location, temperature_c, humidity_percent)
         select d, now() - n * interval '1 minute', d || n, 'p0', 'synced', d, 20 + n % 7 * 0.3, 40 + n % 5
         from unnest(array['room-1', 'room-2', 'room-3', 'room-4']) as d, generate_series(0, 2880) as n",
        "insert into energy_consumption (device_id, time, id, agent, clock, power_w, power_l1_w, power_l2_w, power_l3_w, energy_wh)
         select 'meter', now() - n * interval '10 seconds', 'm' || n, 'p0', 'synced', 900 + n % 300, 300, 300, 300, 1e6 - n * 2.5
         from generate_series(0, 259200) as n",
        "vacuum analyze",
    ] {
        postgres.psql("telemetry", statement).await?;
    }
    Ok(())
}

fn cases(now: DateTime<Utc>) -> [Case; 2] {
    let text = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
    let (day, week, to) = (
        text(now - TimeDelta::hours(24)),
        text(now - TimeDelta::days(7)),
        text(now),
    );
    [
        Case {
            name: "temperature_24h",
            path: format!("/api/v1/temperature/history?device_id=room-1&from={day}&to={to}"),
            statement: TEMPERATURE_HISTORY
                .replace("$1", "'room-1'")
                .replace("$2", "null")
                .replace("$3", ":from")
                .replace("$4", ":to")
                .replace("$5", "2001"),
            from: day,
            to: to.clone(),
        },
        Case {
            name: "energy_7d",
            path: format!("/api/v1/energy/history?device_id=meter&from={week}&to={to}"),
            statement: ENERGY_HISTORY
                .replace("$1", "'{meter}'::text[]")
                .replace("$2", ":from")
                .replace("$3", ":to"),
            from: week,
            to,
        },
    ]
}

/// Latencies of one turn of pgbench, with prepared statements as the service has them.
async fn run_pgbench(postgres: &Postgres, folder: &Path, case: &Case) -> Result<Vec<u64>> {
    let script = folder.join("statement.sql");
    // pgbench ends a statement at a semicolon and takes line ends as blanks.
    std::fs::write(&script, format!("{};\n", case.statement))?;
    let prefix = folder.join("latencies");
    for old in std::fs::read_dir(folder)?.flatten() {
        if old.file_name().to_string_lossy().starts_with("latencies") {
            std::fs::remove_file(old.path())?;
        }
    }
    let connections = CONNECTIONS.to_string();
    let output = Command::new("pgbench")
        .args(["--no-vacuum", "--protocol", "prepared", "--log", "--jobs", "2"])
        .args(["--client", &connections, "--time", &TURN.as_secs().to_string()])
        .arg("--log-prefix")
        .arg(&prefix)
        .arg("--file")
        .arg(&script)
        .args(["--define", &format!("from={}", case.from)])
        .args(["--define", &format!("to={}", case.to)])
        .arg(postgres.url("api", "telemetry"))
        .output()
        .await
        .context("cannot run pgbench")?;
    ensure!(
        output.status.success(),
        "pgbench failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut latencies = Vec::new();
    for file in std::fs::read_dir(folder)?.flatten() {
        if file.file_name().to_string_lossy().starts_with("latencies") {
            // client, transaction, latency in microseconds, ...
            let text = std::fs::read_to_string(file.path())?;
            latencies.extend(
                text.lines()
                    .filter_map(|line| line.split(' ').nth(2)?.parse::<u64>().ok()),
            );
        }
    }
    ensure!(!latencies.is_empty(), "pgbench logged nothing");
    Ok(latencies)
}

/// One turn through the service: latencies, the time it took, bytes of an answer.
fn load(address: &str, request: &str) -> Result<(Vec<u64>, Duration, usize)> {
    let begin = Instant::now();
    let threads = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..CONNECTIONS)
            .map(|_| scope.spawn(|| ask_until(address, request, begin + TURN)))
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("a worker does not panic"))
            .collect::<Result<Vec<_>>>()
    })?;
    let elapsed = begin.elapsed();
    let bytes = threads.first().map_or(0, |thread| thread.1);
    Ok((
        threads.into_iter().flat_map(|thread| thread.0).collect(),
        elapsed,
        bytes,
    ))
}

fn ask_until(address: &str, request: &str, end: Instant) -> Result<(Vec<u64>, usize)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let (mut latencies, mut length) = (Vec::new(), 0);
    let mut answer = Vec::new();
    let mut chunk = vec![0; 256 * 1024];
    while Instant::now() < end {
        let asked = Instant::now();
        stream.write_all(request.as_bytes())?;
        answer.clear();
        let mut wanted = usize::MAX;
        while answer.len() < wanted {
            let read = stream.read(&mut chunk)?;
            ensure!(read > 0, "homelab-api closed the connection");
            answer.extend_from_slice(&chunk[..read]);
            if wanted == usize::MAX
                && let Some(head) = head_length(&answer)?
            {
                wanted = head;
            }
        }
        latencies.push(asked.elapsed().as_micros() as u64);
        length = answer.len();
    }
    Ok((latencies, length))
}

/// Length of head and body, once the whole head is there.
fn head_length(answer: &[u8]) -> Result<Option<usize>> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&answer[..end])?.to_ascii_lowercase();
    ensure!(head.starts_with("http/1.1 200"), "{head}");
    let body: usize = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .context("an answer without a length")?
        .parse()?;
    Ok(Some(end + 4 + body))
}

fn peak_rss_mb(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kilobytes: f64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.split_whitespace().next())
        .context("no VmHWM")?
        .parse()?;
    Ok(kilobytes / 1024.0)
}

fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}
