//! The agent's own binary as a process that is killed and started again, and the Kafka it forwards to.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use stack::{
    binaries, guardian,
    kafka::Kafka,
    part::{Part, eventually},
    port,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
    time::timeout,
};

/// A start includes sled's recovery of the file, on a machine that runs a JVM and thirty clients besides.
pub const READY_WITHIN: Duration = Duration::from_secs(30);
const STATUS_WITHIN: Duration = Duration::from_secs(5);

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    /// Its process.
    pub part: Part,
    /// Where MQTT clients connect.
    pub mqtt: SocketAddr,
    admin: SocketAddr,
}

/// What an agent is given.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of its log.
    pub name: String,
    /// Where it keeps its buffer.
    pub data: PathBuf,
    /// Where it finds Kafka.
    pub bootstrap: SocketAddr,
    /// Words before the agent's own, a tracer for instance.
    pub wrapper: Vec<String>,
}

impl Agent {
    /// Starts an agent and waits until it is ready.
    ///
    /// # Errors
    /// When the binary is missing or does not become ready.
    pub async fn start(settings: &Settings) -> Result<Agent> {
        let program = binaries::folder().await?.join("edge-agent");
        ensure!(
            program.is_file(),
            "{} is missing: cargo build --workspace --bins",
            program.display()
        );
        let (mqtt, admin) = (port::free()?, port::free()?);
        let folder = guardian::run()?.data(&settings.name)?;
        let config = folder.join("edge-agent.toml");
        std::fs::write(&config, configuration(settings, mqtt, admin))?;
        let mut words: Vec<std::ffi::OsString> = settings.wrapper.iter().map(Into::into).collect();
        words.extend([program.into(), "--config".into(), config.into(), "run".into()]);
        let (first, rest) = words.split_first().context("a command has a word")?;
        let mut command = Command::new(first);
        command.args(rest).env("LOG_LEVEL", "info");
        let part = Part::start(settings.name.as_str(), command).await?;
        let agent = Agent { part, mqtt, admin };
        agent.ready().await?;
        Ok(agent)
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// When it ends or takes too long.
    pub async fn ready(&self) -> Result<()> {
        self.part.ready_http(READY_WITHIN, self.admin, "/readyz").await
    }

    /// The exit code, when it has ended by itself, which it never may.
    pub async fn ended(&self) -> Option<i32> {
        timeout(Duration::from_millis(1), self.part.wait())
            .await
            .ok()?
            .ok()
    }

    /// What `/status` says.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn status(&self) -> Result<Value> {
        let answer = timeout(STATUS_WITHIN, async {
            let mut stream = TcpStream::connect(self.admin).await?;
            stream.write_all(b"GET /status HTTP/1.0\r\n\r\n").await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            anyhow::Ok(answer)
        });
        let answer = answer.await??;
        let (_, body) = answer.split_once("\r\n\r\n").context("no HTTP")?;
        Ok(serde_json::from_str(body)?)
    }

    /// Waits until it has forwarded everything.
    ///
    /// # Errors
    /// When something is left after that time.
    pub async fn drained(&self, within: Duration) -> Result<()> {
        eventually("an empty buffer", within, async || {
            Ok((self.backlog().await == Some(0)).then_some(()))
        })
        .await
    }

    /// Entries it has not forwarded; `None` while it does not answer.
    pub async fn backlog(&self) -> Option<u64> {
        self.status().await.ok()?["buffer"]["entries"].as_u64()
    }
}

fn configuration(settings: &Settings, mqtt: SocketAddr, admin: SocketAddr) -> String {
    format!(
        "agent = \"p0\"\ndata_dir = \"{}\"\n[mqtt]\nlisten = \"{mqtt}\"\n[admin]\nlisten = \"{admin}\"\n\
         [kafka]\nbootstrap = \"{}\"\n[clock]\nsource = \"trusted\"\n[buffer]\nmax_bytes = {}\n",
        settings.data.display(),
        settings.bootstrap,
        1_u64 << 30,
    )
}

/// Kafka with a second listener that says it is to be reached at `link`, so that what is told to the agent leads through
/// the link and what counts at the end does not.
///
/// # Errors
/// When Kafka does not start.
pub async fn kafka_behind(folder: &Path, link: SocketAddr) -> Result<(Kafka, SocketAddr)> {
    let kafka = Kafka::start(folder).await?;
    let part = kafka.part().context("this Kafka is ours")?;
    let file = folder.join("server.properties");
    let mut text = std::fs::read_to_string(&file)?;
    let value = |key: &str| -> Result<String> {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        Ok(line
            .with_context(|| format!("Kafka's settings have no {key}"))?
            .to_owned())
    };
    let behind = port::free()?;
    // The last line of a key counts.
    let more = format!(
        "listeners={},LINK://{behind}\nadvertised.listeners={},LINK://{link}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,LINK:PLAINTEXT\n\
         inter.broker.listener.name=PLAINTEXT\n",
        value("listeners")?,
        value("advertised.listeners")?
    );
    text.push_str(&more);
    std::fs::write(&file, text)?;
    part.restart().await?;
    part.ready(Duration::from_secs(60), async || {
        kafka.create_topics(&telemetry::topic::ALL).await.is_ok()
    })
    .await?;
    Ok((kafka, behind))
}
